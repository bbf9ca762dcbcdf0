package locktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/txn"
)

// stalled is Leases as a process has them that stops at its first renewal, until it is resumed. Like one, it
// notices nothing meanwhile, its context's end included.
type stalled struct {
	lock.Leases
	resume chan struct{}
}

func (s stalled) Renew(ctx context.Context, l lock.Lease, ttl time.Duration) (lock.Lease, error) {
	<-s.resume
	return s.Leases.Renew(ctx, l, ttl)
}

// pausedHolder stops a holder between its decision and its write until the lease has run out and another
// one has written.
func pausedHolder(t *testing.T, h Harness) {
	s := h.Open(t)
	leases := stalled{s.Leases(), make(chan struct{})}
	asleep, ended := make(chan struct{}), make(chan error, 1)
	cfg := lock.Config{Owner: "one", TTL: holding, Logger: slog.New(slog.DiscardHandler)}
	go func() {
		ended <- lock.Hold(t.Context(), leases, "a", cfg, func(ctx context.Context, l lock.Lease) error {
			close(asleep)
			<-leases.resume
			return h.write(context.WithoutCancel(ctx), s, l, 1)
		})
	}()
	select {
	case <-asleep:
	case err := <-ended:
		t.Fatalf("hold: %v", err)
	}
	taken := acquireEventually(t, h.Peer(t, s), "a", "two", ttl)
	must(t, "write of the new holder", h.write(t.Context(), s, taken, 2))
	close(leases.resume)
	wantErr(t, "the write of a holder that was paused past its lease must be refused", <-ended, lock.ErrFenced)
	h.wantNumber(t, s, "the new holder's write must stand", 2)
	must(t, "the paused one's release must spare the new holder", check(t, s, taken))
}

// contenders take turns. None crashes, so a name is never held by two, whatever the fences say.
func contenders(t *testing.T, h Harness) {
	const goroutines, rounds = 8, 5
	s := h.Open(t)
	var (
		inside atomic.Int32
		mu     sync.Mutex
		fences = map[int64]bool{}
		all    sync.WaitGroup
	)
	for g := range goroutines {
		p := h.Peer(t, s)
		all.Go(func() {
			for range rounds {
				l, ok := contend(t, p, fmt.Sprintf("contender %d", g), ttl)
				if !ok {
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the name at once", n)
				}
				if err := h.increment(t, p, l); err != nil {
					t.Errorf("guarded write: %v", err)
				}
				mu.Lock()
				fences[l.Fence] = true
				mu.Unlock()
				inside.Add(-1)
				if err := p.Leases().Release(t.Context(), l); err != nil {
					t.Errorf("release: %v", err)
				}
			}
		})
	}
	all.Wait()
	h.wantNumber(t, s, "no update may be lost among holders", goroutines*rounds)
	if n := len(fences); n != goroutines*rounds || !fences[1] || !fences[int64(n)] {
		t.Fatalf("each holder must have its own fence, one after the other: %d holders have %d", goroutines*rounds, n)
	}
}

// contendersCrashAndPause judges by fences: who is late is refused, and what was written stands in the
// order of the fences.
func contendersCrashAndPause(t *testing.T, h Harness) {
	const goroutines, rounds = 6, 4
	s := h.Open(t)
	var written, refused atomic.Int32
	var all sync.WaitGroup
	for g := range goroutines {
		p := h.Peer(t, s)
		all.Go(func() {
			for round := range rounds {
				l, ok := contend(t, p, fmt.Sprintf("contender %d", g), short)
				if !ok {
					return
				}
				fate := (g + round) % 3
				if fate == 1 {
					pause(2 * short)
				}
				err := h.increment(t, p, l)
				switch {
				case err == nil:
					written.Add(1)
				case errors.Is(err, lock.ErrFenced):
					refused.Add(1)
				default:
					t.Errorf("guarded write: %v", err)
				}
				if fate != 2 { // 2 crashes: the lease is left to run out.
					_ = p.Leases().Release(t.Context(), l)
				}
			}
		})
	}
	all.Wait()
	h.wantNumber(t, s, "what was written must be what was not refused", int(written.Load()))
	if n := written.Load() + refused.Load(); n != goroutines*rounds || refused.Load() == 0 {
		t.Fatalf("%d writes stand and %d were refused, of %d with late ones among them", written.Load(), refused.Load(), goroutines*rounds)
	}
}

// contend acquires a name that many want.
func contend(t *testing.T, s Store, owner string, ttl time.Duration) (lock.Lease, bool) {
	limit := time.Now().Add(storetest.Timeout)
	for time.Now().Before(limit) {
		l, err := s.Leases().Acquire(t.Context(), "a", owner, ttl)
		if err == nil {
			return l, true
		}
		if !errors.Is(err, lock.ErrHeld) {
			t.Errorf("%s acquires: got error %v, want ErrHeld", owner, err)
			return l, false
		}
		pause(time.Millisecond)
	}
	t.Errorf("%s waited for %s", owner, storetest.Timeout)
	return lock.Lease{}, false
}

// increment is a guarded read and write, which also sees that fences never fall.
func (h Harness) increment(t *testing.T, s Store, l lock.Lease) error {
	return storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := lock.Check(ctx, tx, l); err != nil {
			return err
		}
		last, err := h.Get(ctx, tx, "fence")
		if err != nil {
			return err
		}
		if int64(last) > l.Fence {
			return fmt.Errorf("fence %d writes after fence %d", l.Fence, last)
		}
		n, err := h.Get(ctx, tx, number)
		if err != nil {
			return err
		}
		return errors.Join(h.Put(ctx, tx, number, n+1), h.Put(ctx, tx, "fence", int(l.Fence)))
	})
}

// holdRenews holds a name for longer than its lease.
func holdRenews(t *testing.T, h Harness) {
	s := h.Open(t)
	p := h.Peer(t, s)
	cfg := lock.Config{Owner: "one", TTL: holding}
	err := lock.Hold(t.Context(), s.Leases(), "a", cfg, func(ctx context.Context, l lock.Lease) error {
		for range 5 {
			pause(holding / 2)
			if err := ctx.Err(); err != nil {
				return err
			}
			_, err := p.Leases().Acquire(ctx, "a", "two", ttl)
			wantErr(t, "a name that is held must be given to nobody", err, lock.ErrHeld)
		}
		return h.write(ctx, s, l, 1)
	})
	must(t, "hold", err)
	if next := acquire(t, s, "a", "two", ttl); next.Fence != 2 {
		t.Fatalf("renewing must keep the fence, and the end of a hold must release: the next fence is %d", next.Fence)
	}
}

// holdStopsInTime cuts a holder off from its store: it must have stopped when another one gets in.
func holdStopsInTime(t *testing.T, h Harness) {
	s := h.Open(t)
	leases := stalled{s.Leases(), make(chan struct{})}
	p := h.Peer(t, s)
	cfg := lock.Config{Owner: "one", TTL: 5 * holding, Margin: 5 * holding / 2} // Time to look before the lease ends.
	err := lock.Hold(t.Context(), leases, "a", cfg, func(ctx context.Context, _ lock.Lease) error {
		defer close(leases.resume)
		<-ctx.Done()
		_, err := p.Leases().Acquire(t.Context(), "a", "two", ttl)
		wantErr(t, "a holder that cannot renew must stop before another one gets in", err, lock.ErrHeld)
		return nil
	})
	wantErr(t, "a hold that could not renew must say so", err, lock.ErrLost)
	acquire(t, s, "a", "two", ttl) // Released, though it was lost.
}
