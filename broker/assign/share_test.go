package assign_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/memory"
)

// process is one process's members of a group, with what it holds.
type process struct {
	table assign.Table
	share *assign.Share

	mu   sync.Mutex
	held map[string]*assign.Held
}

func join(t *testing.T, leases lock.Leases, partitions int) *process {
	t.Helper()
	names := make([]string, partitions)
	for i := range names {
		names[i] = fmt.Sprint("p", i)
	}
	p := &process{held: map[string]*assign.Held{}}
	p.share = assign.NewShare(p.table.Join("g", names), assign.ShareConfig{Leases: leases, Group: "g", TTL: 10 * time.Second})
	go func() {
		for {
			h, err := p.share.Next(context.Background())
			if err != nil {
				return
			}
			p.mu.Lock()
			p.held[h.Name] = h
			p.mu.Unlock()
		}
	}()
	return p
}

// live are the partitions that a process may read.
func (p *process) live() (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, h := range p.held {
		if h.Live() {
			names = append(names, name)
		}
	}
	return names
}

// TestShareAmongProcesses lets processes come and go: every partition is read by one of them, and each has
// its share.
func TestShareAmongProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions = 8
		leases := memory.New().Leases()
		shares := func(what string, want int, processes ...*process) {
			t.Helper()
			time.Sleep(2 * time.Minute) // of the bubble's time
			synctest.Wait()
			all := map[string]int{}
			for _, p := range processes {
				names := p.live()
				if len(names) > want {
					t.Errorf("%s: a process has %d partitions, its share is %d", what, len(names), want)
				}
				for _, name := range names {
					all[name]++
				}
			}
			for name, n := range all {
				if n != 1 {
					t.Errorf("%s: %s is read by %d processes", what, name, n)
				}
			}
			if len(all) != partitions {
				t.Errorf("%s: %d of %d partitions are read", what, len(all), partitions)
			}
		}
		first := join(t, leases, partitions)
		shares("alone", 8, first)
		second := join(t, leases, partitions)
		shares("two", 4, first, second)
		third := join(t, leases, partitions)
		shares("three", 3, first, second, third)
		first.share.Close()
		if got := first.live(); len(got) != 0 {
			t.Errorf("a process that has left reads %v", got)
		}
		shares("one has left", 4, second, third)
		second.share.Close()
		third.share.Close()
	})
}

// takes waits until a process has a partition. Until then it is no standby: nobody reads what will be its own.
func (p *process) takes(t *testing.T) {
	t.Helper()
	for began := time.Now(); len(p.live()) == 0; time.Sleep(100 * time.Millisecond) {
		if p.share.Standby() {
			t.Fatalf("a standby after %s, and is to have a partition", time.Since(began))
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("no partition is taken")
		}
		synctest.Wait()
	}
}

// TestStandby wants a process without a partition to say that it is a standby when others that are alive have
// all, and not before: leases of one that died look as theirs until they have run out.
func TestStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := memory.New().Leases()
		settle := func() {
			time.Sleep(time.Minute) // of the bubble's time
			synctest.Wait()
		}
		standbys := func(what string, want int, processes ...*process) {
			t.Helper()
			got := 0
			for _, p := range processes {
				if p.share.Standby() {
					if got++; len(p.live()) > 0 {
						t.Errorf("%s: a standby reads %v", what, p.live())
					}
				}
			}
			if got != want {
				t.Errorf("%s: %d standbys, want %d", what, got, want)
			}
		}
		first := join(t, leases, 2)
		standbys("at first", 0, first)
		settle()
		standbys("alone", 0, first)
		second := join(t, leases, 2)
		second.takes(t) // What the first one gives up when it has counted.
		settle()
		standbys("one each", 0, first, second)
		third, fourth, fifth := join(t, leases, 2), join(t, leases, 2), join(t, leases, 2)
		standbys("just joined", 0, first, second, third, fourth, fifth)
		settle()
		standbys("more than can be counted", 3, first, second, third, fourth, fifth)
		for _, p := range []*process{fourth, fifth, first} {
			p.share.Close()
			standbys("one that has left", 0, p)
		}
		settle()
		standbys("one each", 0, second, third)
		second.share.Close()
		third.share.Close()
	})
}

// TestStandbyOfTheDead wants no standby beside a process that died: nobody reads what it held.
func TestStandbyOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := memory.New().Leases()
		for _, name := range []string{"member/g/0", "partition/g/p0"} {
			if _, err := leases.Acquire(t.Context(), name, "the dead", 15*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		p := join(t, leases, 1)
		defer p.share.Close()
		p.takes(t)
	})
}

// TestStandbyWithinAnUnevenShare has fewer processes than partitions, and still one for which none is left over.
func TestStandbyWithinAnUnevenShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := memory.New().Leases()
		var all []*process
		for range 3 {
			all = append(all, join(t, leases, 4))
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		read := 0
		for _, p := range all {
			n := len(p.live())
			if read += n; (n == 0) != p.share.Standby() {
				t.Errorf("a process with %d partitions: standby is %t", n, p.share.Standby())
			}
			p.share.Close()
		}
		if read != 4 {
			t.Errorf("%d of 4 partitions are read", read)
		}
	})
}

// TestNoStandbyBesideTooMuch has a process that holds more than its part, and is late to give it up: the other one
// waits, but not as a standby.
func TestNoStandbyBesideTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 10 * time.Second
		leases := memory.New().Leases()
		var held []lock.Lease
		for _, name := range []string{"member/g/0", "partition/g/p0", "partition/g/p1"} {
			l, err := leases.Acquire(t.Context(), name, "late", ttl)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, l)
		}
		p := join(t, leases, 2)
		defer p.share.Close()
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(ttl / 10) {
			synctest.Wait()
			if p.share.Standby() {
				t.Fatalf("a standby after %s beside one that has both partitions", time.Since(began))
			}
			for i, l := range held {
				var err error
				if held[i], err = leases.Renew(t.Context(), l, ttl); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := leases.Release(t.Context(), held[2]); err != nil {
			t.Fatal(err)
		}
		p.takes(t)
	})
}
