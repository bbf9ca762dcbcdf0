package locktest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/txn"
)

func oneHolder(t *testing.T, h Harness) {
	s := h.Open(t)
	acquire(t, s, "a", "one", ttl)
	for _, owner := range []string{"two", "one"} {
		_, err := h.Peer(t, s).Leases().Acquire(t.Context(), "a", owner, ttl)
		wantErr(t, "a name that is held must be given to nobody, its owner included", err, lock.ErrHeld)
	}
}

func heldTells(t *testing.T, h Harness) {
	s := h.Open(t)
	l := acquire(t, s, "a", "one", ttl)
	_, err := s.Leases().Acquire(t.Context(), "a", "two", ttl)
	held, ok := errors.AsType[*lock.HeldError](err)
	if !ok || held.Name != "a" || held.Owner != "one" {
		t.Fatalf("a refusal must tell who holds what: got %v", err)
	}
	storetest.SameTime(t, "until when a name is held", held.Until, l.Expires)
}

func namesAreExact(t *testing.T, h Harness) {
	s := h.Open(t)
	for _, name := range alike() {
		if l := acquire(t, s, name, "one", ttl); l.Fence != 1 {
			t.Fatalf("names must be compared byte by byte: %q had been taken before", name)
		}
	}
}

func fenceRises(t *testing.T, h Harness) {
	s := h.Open(t)
	var last int64
	for range 5 {
		l := acquire(t, s, "a", "one", ttl)
		if l.Fence != last+1 {
			t.Fatalf("the fence must rise by one with each holder: %d after %d", l.Fence, last)
		}
		last = l.Fence
		_, err := s.Leases().Acquire(t.Context(), "a", "two", ttl)
		wantErr(t, "a held name", err, lock.ErrHeld)
		must(t, "release", s.Leases().Release(t.Context(), l))
	}
}

func renewKeepsFence(t *testing.T, h Harness) {
	s := h.Open(t)
	l := acquire(t, s, "a", "one", time.Minute)
	again, err := h.Peer(t, s).Leases().Renew(t.Context(), l, ttl)
	must(t, "renew", err)
	if again.Fence != l.Fence || again.Name != l.Name || again.Owner != l.Owner {
		t.Fatalf("a renewal must keep all but the end: %+v became %+v", l, again)
	}
	if longer := again.Expires.Sub(l.Expires); longer < ttl-time.Minute || longer > ttl {
		t.Fatalf("a renewed lease must run %s from now: its end moved by %s", ttl, longer)
	}
	must(t, "check with the lease as it was before", check(t, s, l))
	for range 5 {
		brief := acquireEventually(t, s, "b", "one", short)
		_, err = s.Leases().Renew(t.Context(), brief, ttl)
		if errors.Is(err, lock.ErrLost) {
			continue // This machine was too slow.
		}
		must(t, "renew", err)
		lapse(t, s, brief)
		_, err = s.Leases().Acquire(t.Context(), "b", "two", ttl)
		wantErr(t, "a renewed lease must outlive its first end", err, lock.ErrHeld)
		return
	}
	t.Fatalf("a lease of %s could not be renewed in time, five times in a row", short)
}

func runsOut(t *testing.T, h Harness) {
	s, began := h.Open(t), time.Now()
	old := acquire(t, s, "a", "one", short)
	taken := acquireEventually(t, h.Peer(t, s), "a", "two", ttl)
	if took := time.Since(began); took < short-time.Millisecond {
		t.Fatalf("a lease of %s was given away after %s", short, took)
	}
	if taken.Fence != old.Fence+1 {
		t.Fatalf("the fence must rise by one with each holder: %d after %d", taken.Fence, old.Fence)
	}
	_, err := s.Leases().Acquire(t.Context(), "a", "one", ttl)
	wantErr(t, "the old holder must not get the name back while the new one has it", err, lock.ErrHeld)
}

func renewAfterItsEnd(t *testing.T, h Harness) {
	s := h.Open(t)
	renew := func(l lock.Lease) error {
		_, err := s.Leases().Renew(t.Context(), l, ttl)
		return err
	}
	old := acquire(t, s, "a", "one", short)
	lapse(t, s, old)
	wantErr(t, "a lease that ran out must not be renewed", renew(old), lock.ErrLost)
	taken := acquire(t, s, "a", "two", ttl)
	wantErr(t, "a lease that another took must not be renewed", renew(old), lock.ErrFenced)
	must(t, "renew the new holder's", renew(taken))
	must(t, "release", s.Leases().Release(t.Context(), taken))
	wantErr(t, "a released lease must not be renewed", renew(taken), lock.ErrLost)
	wantErr(t, "a released lease of a holder before must not be renewed", renew(old), lock.ErrFenced)
	wantErr(t, "a lease that never was must not be renewed", renew(lock.Lease{Name: "b", Owner: "one", Fence: 1}), lock.ErrLost)
	_, err := s.Leases().Acquire(t.Context(), "a", "three", ttl)
	must(t, "a refused renewal must hold nothing", err)
}

func releaseThenAcquire(t *testing.T, h Harness) {
	s := h.Open(t)
	first := acquire(t, s, "a", "one", ttl)
	for range 2 {
		must(t, "release, and again", s.Leases().Release(t.Context(), first))
	}
	if next := acquire(t, h.Peer(t, s), "a", "two", ttl); next.Fence != first.Fence+1 {
		t.Fatalf("the fence must rise by one with each holder: %d after %d", next.Fence, first.Fence)
	}
}

func releaseSparesAnothers(t *testing.T, h Harness) {
	s := h.Open(t)
	old := acquire(t, s, "a", "one", short)
	taken := acquireEventually(t, s, "a", "one", ttl) // By the same owner: the fence is what counts.
	must(t, "release of a lease that another took", s.Leases().Release(t.Context(), old))
	must(t, "release of a lease that never was", s.Leases().Release(t.Context(), lock.Lease{Name: "b", Owner: "one", Fence: 1}))
	_, err := s.Leases().Acquire(t.Context(), "a", "two", ttl)
	wantErr(t, "releasing one's own late lease must spare another's", err, lock.ErrHeld)
	must(t, "check", check(t, s, taken))
}

func checkTheNewest(t *testing.T, h Harness) {
	s := h.Open(t)
	l := acquire(t, s, "a", "one", ttl)
	must(t, "check", check(t, s, l))
	must(t, "a guarded write", h.write(t.Context(), h.Peer(t, s), l, 7))
	h.wantNumber(t, s, "a guarded write must be there", 7)
	must(t, "check twice in one transaction", storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		return errors.Join(lock.Check(ctx, tx, l), lock.Check(ctx, tx, l))
	}))
}

func checkAfterItsEnd(t *testing.T, h Harness) {
	s := h.Open(t)
	old := acquire(t, s, "a", "one", short)
	lapse(t, s, old)
	must(t, "a lease that ran out and that nobody took must pass: nobody was in between", check(t, s, old))
	taken := acquire(t, s, "a", "one", ttl)
	wantErr(t, "a lease that another took must not pass", check(t, s, old), lock.ErrFenced)
	must(t, "check the new holder's", check(t, s, taken))
	wantErr(t, "a fence that was never given must not pass",
		check(t, s, lock.Lease{Name: "a", Owner: "one", Fence: taken.Fence + 1, Expires: taken.Expires}), lock.ErrLost)
	must(t, "release", s.Leases().Release(t.Context(), taken))
	wantErr(t, "a released lease must not pass", check(t, s, taken), lock.ErrLost)
	wantErr(t, "a released name must not let an older holder in", check(t, s, old), lock.ErrFenced)
	wantErr(t, "a lease that never was must not pass", check(t, s, lock.Lease{Name: "b", Owner: "one", Fence: 1}), lock.ErrLost)
	wantErr(t, "an empty lease must not pass", check(t, s, lock.Lease{}), lock.ErrLost)
}

func checkRollsBack(t *testing.T, h Harness) {
	s := h.Open(t)
	old := acquire(t, s, "a", "one", short)
	taken := acquireEventually(t, s, "a", "two", ttl)
	must(t, "write of the new holder", h.write(t.Context(), s, taken, 2))
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := h.Put(ctx, tx, number, 1); err != nil {
			return err
		}
		return lock.Check(ctx, tx, old)
	})
	wantErr(t, "a late write must be refused", err, lock.ErrFenced)
	h.wantNumber(t, s, "a refused transaction must leave nothing", 2)
}

// checkKeepsOthersOut opens a transaction that has checked its lease, and lets the lease run out: whoever
// acquires the name must find that transaction over.
func checkKeepsOthersOut(t *testing.T, h Harness) {
	s := h.Open(t)
	peer := h.Peer(t, s)
	old := acquire(t, s, "a", "one", short)
	began := make(chan struct{}, 10) // A conflict may call the function again.
	acquired := make(chan error, 1)
	go func() {
		<-began
		pause(2 * short)
		for {
			_, err := peer.Leases().Acquire(t.Context(), "a", "two", ttl)
			if errors.Is(err, lock.ErrHeld) {
				pause(time.Millisecond)
				continue
			}
			acquired <- err
			return
		}
	}()
	in := false
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := lock.Check(ctx, tx, old); err != nil {
			return err
		}
		began <- struct{}{}
		pause(5 * short)
		select {
		case err := <-acquired:
			acquired <- err
			in = err == nil
		default:
			in = false
		}
		return h.Put(ctx, tx, number, 1)
	})
	must(t, "the other holder acquires", <-acquired)
	if in && err == nil {
		t.Fatal("nobody must get in between a check and the end of its transaction")
	}
	if err != nil {
		wantErr(t, "a transaction that had to give way", err, lock.ErrFenced)
	}
	wantErr(t, "the old holder afterwards", h.write(t.Context(), s, old, 2), lock.ErrFenced)
}

// pause waits in a transaction or beside it.
func pause(d time.Duration) { <-time.After(d) }

func checkWantsItsTransaction(t *testing.T, h Harness) {
	s := h.Open(t)
	l := acquire(t, s, "a", "one", ttl)
	var kept *txn.Tx
	storetest.Do(t, s, func(_ context.Context, tx *txn.Tx) error { kept = tx; return nil })
	if err := lock.Check(t.Context(), kept, l); err == nil {
		t.Fatal("a check in a transaction that is over must fail: it would guard nothing")
	}
	if err := lock.Serialize(t.Context(), kept, "a"); err == nil {
		t.Fatal("serialising a transaction that is over must fail: it would guard nothing")
	}
}

func crash(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s := h.Open(t)
	held, lapsed := acquire(t, s, "held", "one", ttl), acquire(t, s, "lapsed", "one", short)
	released := acquire(t, s, "released", "one", ttl)
	must(t, "release", s.Leases().Release(t.Context(), released))
	s = h.Reopen(t, s)
	_, err := s.Leases().Acquire(t.Context(), "held", "two", ttl)
	wantErr(t, "a lease must outlive a crash: its holder may be another process", err, lock.ErrHeld)
	must(t, "check after a crash", check(t, s, held))
	if next := acquireEventually(t, s, "lapsed", "two", ttl); next.Fence != lapsed.Fence+1 {
		t.Fatalf("the fence must rise by one over a crash: %d after %d", next.Fence, lapsed.Fence)
	}
	if next := acquire(t, s, "released", "two", ttl); next.Fence != released.Fence+1 {
		t.Fatalf("a released name's fence must rise by one over a crash: %d after %d", next.Fence, released.Fence)
	}
}

func limits(t *testing.T, h Harness) {
	s := h.Open(t)
	for _, b := range outOfBounds() {
		_, err := s.Leases().Acquire(t.Context(), b.name, b.owner, b.ttl)
		wantErr(t, "acquire: "+b.what, err, lock.ErrLimit)
	}
	l := acquire(t, s, strings.Repeat("n", lock.NameBytesMax), strings.Repeat("o", lock.OwnerBytesMax), lock.TTLLongest)
	for _, ttl := range []time.Duration{-1, 0, lock.TTLShortest - 1, lock.TTLLongest + 1} {
		_, err := s.Leases().Renew(t.Context(), l, ttl)
		wantErr(t, "renew for "+ttl.String(), err, lock.ErrLimit)
	}
	_, err := s.Leases().Renew(t.Context(), l, lock.TTLShortest)
	must(t, "renew for the shortest time", err)
	for _, name := range []string{"", "a\x00b", strings.Repeat("n", lock.NameBytesMax+1)} {
		err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error { return lock.Serialize(ctx, tx, name) })
		wantErr(t, "serialise a bad name", err, lock.ErrLimit)
	}
}

func cancelledBefore(t *testing.T, h Harness) {
	s, ctx := h.Open(t), cancelled(t)
	if _, err := s.Leases().Acquire(ctx, "a", "one", ttl); err == nil {
		t.Fatal("a cancelled attempt must fail")
	}
	l := acquire(t, s, "a", "two", ttl)
	if l.Fence != 1 {
		t.Fatalf("an attempt that was cancelled before its start must change nothing: fence is %d", l.Fence)
	}
	if _, err := s.Leases().Renew(ctx, l, ttl); err == nil {
		t.Fatal("a cancelled renewal must fail")
	}
	if err := s.Leases().Release(ctx, l); err == nil {
		t.Fatal("a cancelled release must fail")
	}
	must(t, "check", check(t, s, l))
}
