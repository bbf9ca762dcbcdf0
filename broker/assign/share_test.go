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
