// Package txntest is the conformance suite of txn.Runner, and of the promise that everything a hop does
// through any contract commits together or not at all. Every store runs it.
package txntest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/txn"
)

// Harness is one store under test.
type Harness struct {
	// Open returns an empty store and closes it when the test ends. Required. What else the store is (the
	// Providers of relay, inbox, timer, ...) is tested too.
	Open func(t *testing.T) txn.Runner
	// Add adds n to a counter that is business state, in the transaction; a new one starts at 0. Required.
	Add func(ctx context.Context, tx *txn.Tx, name string, n int) error
	// Committed returns a counter as a reader beside the transactions sees it. Required.
	Committed func(t *testing.T, s txn.Runner, name string) int
	// Reopen gives up a store as a crash does and opens its data again.
	Reopen func(t *testing.T, s txn.Runner) txn.Runner
	// Around runs each test, for stores that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
	// Lacks names what the store cannot do, which is then skipped and printed: Reopen, Outbox, Inbox,
	// Positions, Letters, Timers, Calls, Answers, Feed.
	Lacks []string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	storetest.Run(t, h, h.Around, []storetest.Case[Harness]{
		{Name: "Commits", Test: commits},
		{Name: "ErrorRollsBack", Test: errorRollsBack},
		{Name: "PanicRollsBack", Test: panicRollsBack},
		{Name: "OpenIsNotSeen", Test: openIsNotSeen},
		{Name: "SerialUpdates", Test: serialUpdates},
		{Name: "NeighboursAreUnharmed", Test: neighboursAreUnharmed},
		{Name: "CancelledBeforeItsTurn", Test: cancelledBeforeItsTurn},
		{Name: "CancelledBeforeTheStart", Test: cancelledBeforeTheStart},
		{Name: "CancelledInside", Test: cancelledInside},
		{Name: "OverIsOver", Test: overIsOver},
		{Name: "Time", Test: transactionTime},
		{Name: "AfterCommit", Test: afterCommit},
		{Name: "AfterCommitPanics", Test: afterCommitPanics},
		{Name: "TooManyEvents", Test: tooManyEvents},
		{Name: "AllOrNothing", Test: allOrNothing},
		{Name: "AllSurviveACrash", Test: allSurviveACrash},
		{Name: "ListenersInside", Test: listenersInside},
		{Name: "ListenerInsideFails", Test: listenerInsideFails},
		{Name: "ListenersAfterCommit", Test: listenersAfterCommit},
		{Name: "ListenersAfterCommitAreIndependent", Test: listenersAreIndependent},
	})
}

func wantErr(t *testing.T, guarantee string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got error %v, want %v", guarantee, got, want)
	}
}

func (h Harness) wantCount(t *testing.T, s txn.Runner, guarantee, name string, want int) {
	t.Helper()
	if got := h.Committed(t, s, name); got != want {
		t.Fatalf("%s: %s is %d, want %d", guarantee, name, got, want)
	}
}

func commits(t *testing.T, h Harness) {
	s := h.Open(t)
	for range 3 {
		storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
			if err := h.Add(ctx, tx, "a", 1); err != nil {
				return err
			}
			return h.Add(ctx, tx, "a", 10)
		})
	}
	h.wantCount(t, s, "what is committed must be there", "a", 33)
}

func errorRollsBack(t *testing.T, h Harness) {
	s := h.Open(t)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return h.Add(ctx, tx, "a", 1) })
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error {
		if err := h.Add(ctx, tx, "new", 1); err != nil {
			return err
		}
		return h.Add(ctx, tx, "a", 10)
	})
	h.wantCount(t, s, "an error must roll back changes", "a", 1)
	h.wantCount(t, s, "an error must roll back what is new", "new", 0)
}

func panicRollsBack(t *testing.T, h Harness) {
	s := h.Open(t)
	cause := errors.New("a mistake")
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := h.Add(ctx, tx, "a", 1); err != nil {
			return err
		}
		panic(cause)
	})
	wantErr(t, "a panic must be returned as an error that unwraps to its value", err, cause)
	if p, ok := errors.AsType[*txn.PanicError](err); !ok || len(p.Stack) == 0 {
		t.Fatalf("a panic must be returned as a *txn.PanicError with its stack: %T %v", err, err)
	}
	h.wantCount(t, s, "a panic must roll back", "a", 0)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return h.Add(ctx, tx, "a", 2) })
	h.wantCount(t, s, "the store must go on after a panic", "a", 2)
}

func openIsNotSeen(t *testing.T, h Harness) {
	s := h.Open(t)
	in, seen := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
			err := h.Add(ctx, tx, "a", 1)
			close(in)
			<-seen
			return err
		})
	}()
	<-in
	got := h.Committed(t, s, "a")
	close(seen)
	if err := <-done; err != nil {
		t.Fatalf("transaction: %v", err)
	}
	if got != 0 {
		t.Fatalf("a reader must not see what is not committed: a is %d", got)
	}
	h.wantCount(t, s, "a reader must see what is committed", "a", 1)
}

func serialUpdates(t *testing.T, h Harness) {
	s := h.Open(t)
	const writers, each = 8, 25
	errs := make(chan error, writers)
	for range writers {
		go func() {
			var err error
			for n := 0; n < each && err == nil; n++ {
				err = storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error { return h.Add(ctx, tx, "a", 1) })
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatalf("transaction: %v", err)
		}
	}
	h.wantCount(t, s, "no update may be lost", "a", writers*each)
}

// neighboursAreUnharmed runs good and bad transactions at the same time, as a group commit holds them.
func neighboursAreUnharmed(t *testing.T, h Harness) {
	s := h.Open(t)
	const rounds, each = 10, 4
	type result struct {
		kind string
		err  error
	}
	results := make(chan result, rounds*each)
	start := make(chan struct{})
	for range rounds {
		for _, kind := range []string{"good", "fails", "panics", "cancelled"} {
			go func() {
				<-start
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				err := storetest.Try(ctx, s, func(ctx context.Context, tx *txn.Tx) error {
					if err := h.Add(ctx, tx, kind, 1); err != nil {
						return err
					}
					switch kind {
					case "fails":
						return storetest.ErrRollback
					case "panics":
						panic(storetest.ErrRollback)
					case "cancelled":
						cancel()
					}
					return nil
				})
				results <- result{kind, err}
			}()
		}
	}
	close(start)
	for range rounds * each {
		r := <-results
		bad := r.kind == "fails" || r.kind == "panics"
		if bad != errors.Is(r.err, storetest.ErrRollback) || !bad && r.err != nil {
			t.Errorf("a transaction must get its own answer and nobody else's: one that is %s got %v", r.kind, r.err)
		}
	}
	h.wantCount(t, s, "a transaction beside others that fail must commit", "good", rounds)
	h.wantCount(t, s, "a transaction that was cancelled inside must run to its end", "cancelled", rounds)
	h.wantCount(t, s, "a transaction that failed must leave nothing", "fails", 0)
	h.wantCount(t, s, "a transaction that panicked must leave nothing", "panics", 0)
}

func cancelledBeforeItsTurn(t *testing.T, h Harness) {
	s := h.Open(t)
	in, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
			close(in)
			<-release
			return h.Add(ctx, tx, "a", 1)
		})
	}()
	<-in
	ctx, cancel := context.WithCancel(t.Context())
	var ran atomic.Bool
	second := make(chan error, 1)
	go func() {
		second <- storetest.Try(ctx, s, func(ctx context.Context, tx *txn.Tx) error {
			ran.Store(true)
			return h.Add(ctx, tx, "a", 10)
		})
	}()
	cancel()
	// A store with room for several may have run it before it was cancelled. What counts is that the answer
	// tells the truth.
	var err error
	select {
	case err = <-second:
		close(release)
	case <-time.After(storetest.Timeout):
		close(release)
		t.Fatal("a transaction that waits for its turn must stop waiting when it is cancelled")
	}
	if err := <-first; err != nil {
		t.Fatalf("the transaction that had the turn: %v", err)
	}
	want := 1
	if err == nil {
		want = 11
	} else {
		wantErr(t, "a transaction that was cancelled before its turn must say so", err, context.Canceled)
		if ran.Load() {
			t.Fatal("a transaction that was refused must not have run: its answer would be in doubt")
		}
	}
	h.wantCount(t, s, "the answer must be the truth", "a", want)
}

func cancelledBeforeTheStart(t *testing.T, h Harness) {
	s := h.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := storetest.Try(ctx, s, func(ctx context.Context, tx *txn.Tx) error { return h.Add(ctx, tx, "a", 1) })
	wantErr(t, "a transaction of a cancelled request must not begin", err, context.Canceled)
	h.wantCount(t, s, "a transaction of a cancelled request must not begin", "a", 0)
}

func cancelledInside(t *testing.T, h Harness) {
	s := h.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := storetest.Try(ctx, s, func(ctx context.Context, tx *txn.Tx) error {
		if err := h.Add(ctx, tx, "a", 1); err != nil {
			return err
		}
		cancel()
		if ctx.Err() != nil {
			return errors.New("the context inside must not end: a statement cut off may end the whole transaction")
		}
		return h.Add(ctx, tx, "a", 10)
	})
	if err != nil {
		t.Fatalf("a transaction that has begun must run to its end when it is cancelled: %v", err)
	}
	h.wantCount(t, s, "a transaction that was cancelled inside must be whole", "a", 11)
}

func overIsOver(t *testing.T, h Harness) {
	s := h.Open(t)
	var committed, failed *txn.Tx
	storetest.Do(t, s, func(_ context.Context, tx *txn.Tx) error { committed = tx; return nil })
	storetest.RollBack(t, s, func(_ context.Context, tx *txn.Tx) error { failed = tx; return nil })
	for what, tx := range map[string]*txn.Tx{"a commit": committed, "a rollback": failed} {
		_, err := tx.Exec(t.Context(), "SELECT 1")
		wantErr(t, "a statement after "+what+" must be refused", err, txn.ErrClosed)
		_, err = tx.Query(t.Context(), "SELECT 1")
		wantErr(t, "a query after "+what+" must be refused", err, txn.ErrClosed)
		wantErr(t, "an event after "+what+" must be refused", tx.Append(t.Context(), storetest.Envelope(t, "a", 1)), txn.ErrClosed)
	}
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return h.Add(ctx, tx, "a", 1) })
	h.wantCount(t, s, "the store must go on", "a", 1)
}

func transactionTime(t *testing.T, h Harness) {
	s := h.Open(t)
	before := time.Now()
	var first, second time.Time
	storetest.Do(t, s, func(_ context.Context, tx *txn.Tx) error {
		first = tx.Now()
		tick := time.NewTimer(2 * time.Millisecond)
		<-tick.C
		second = tx.Now()
		return nil
	})
	if !first.Equal(second) {
		t.Fatalf("a transaction must have one time: %s, then %s", first, second)
	}
	if d := first.Sub(before); d < -time.Second || d > storetest.Timeout {
		t.Fatalf("a transaction's time must be the present: it is %s off", d)
	}
}

func afterCommit(t *testing.T, h Harness) {
	s := h.Open(t)
	var hooks []string
	seen := 0
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		hooks = nil // The function may run again after a conflict.
		tx.AfterCommit(func() { hooks = append(hooks, "first"); seen = h.Committed(t, s, "a") })
		tx.AfterCommit(func() { hooks = append(hooks, "second") })
		err := h.Add(ctx, tx, "a", 1)
		if len(hooks) != 0 {
			t.Error("an after-commit hook must not run before the commit")
		}
		return err
	})
	storetest.Equal(t, "after-commit hooks must have run, in order, when the transaction returns", hooks, []string{"first", "second"})
	if seen != 1 {
		t.Fatalf("an after-commit hook must see what is committed: %d", seen)
	}
	storetest.RollBack(t, s, func(_ context.Context, tx *txn.Tx) error {
		tx.AfterCommit(func() { t.Error("an after-commit hook must not run after a rollback") })
		return nil
	})
}

func afterCommitPanics(t *testing.T, h Harness) {
	s := h.Open(t)
	ran := false
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		tx.AfterCommit(func() { panic("after-commit hook of the suite") })
		tx.AfterCommit(func() { ran = true })
		return h.Add(ctx, tx, "a", 1)
	})
	if !ran {
		t.Fatal("a hook that panics must not keep its neighbours from running")
	}
	h.wantCount(t, s, "a hook that panics must not hurt the transaction", "a", 1)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return h.Add(ctx, tx, "a", 1) })
	h.wantCount(t, s, "a hook that panics must not hurt the store", "a", 2)
}

func tooManyEvents(t *testing.T, h Harness) {
	s := h.Open(t)
	fill := func(n int) error {
		events := make([]event.Envelope, n)
		for i := range events {
			events[i] = storetest.Envelope(t, fmt.Sprint(i), i)
		}
		return storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
			if err := h.Add(ctx, tx, "a", 1); err != nil {
				return err
			}
			return tx.Append(ctx, events...)
		})
	}
	if err := fill(txn.EventsPerTxMax); err != nil {
		t.Fatalf("a transaction may add %d events: %v", txn.EventsPerTxMax, err)
	}
	wantErr(t, "a transaction must not add more events than the limit", fill(txn.EventsPerTxMax+1), txn.ErrTooManyEvents)
	h.wantCount(t, s, "a transaction with too many events must leave nothing", "a", 1)
}
