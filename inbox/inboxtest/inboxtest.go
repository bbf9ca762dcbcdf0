// Package inboxtest is the conformance suite of inbox.Store. Every store runs it.
package inboxtest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	inbox.Provider
}

// Harness is one store under test.
type Harness struct {
	// Open returns an empty store and closes it when the test ends. Required.
	Open func(t *testing.T) Store
	// Reopen gives up a store as a crash does and opens its data again.
	Reopen func(t *testing.T, s Store) Store
	// Around runs each test, for stores that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
	// Lacks names what the store cannot do, which is then skipped and printed: Reopen.
	Lacks []string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	storetest.Run(t, h, h.Around, []storetest.Case[Harness]{
		{Name: "FreshOnce", Test: freshOnce},
		{Name: "TwiceInOneCall", Test: twiceInOneCall},
		{Name: "TwiceInOneTransaction", Test: twiceInOneTransaction},
		{Name: "GroupsAreIndependent", Test: groupsAreIndependent},
		{Name: "RollbackForgets", Test: rollbackForgets},
		{Name: "FailedTransactionForgets", Test: failedTransactionForgets},
		{Name: "DerivedIdentities", Test: derivedIdentities},
		{Name: "Many", Test: many},
		{Name: "ConcurrentDeliveries", Test: concurrentDeliveries},
		{Name: "ForgetsTheOldOnly", Test: forgetsTheOldOnly},
		{Name: "Reopened", Test: reopened},
	})
}

func ids(n int) []event.ID {
	out := make([]event.ID, n)
	for i := range out {
		out[i] = event.NewID(time.Now())
	}
	return out
}

// remember is one delivery in one committed transaction.
func remember(t *testing.T, s Store, group string, ids ...event.ID) []bool {
	t.Helper()
	var fresh []bool
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
		fresh, err = s.Inbox().Remember(ctx, tx, group, ids)
		return err
	})
	return fresh
}

func freshOnce(t *testing.T, h Harness) {
	s := h.Open(t)
	id := ids(3)
	storetest.Equal(t, "a new event must be fresh", remember(t, s, "g", id[0], id[1]), []bool{true, true})
	storetest.Equal(t, "a delivery again must not be fresh", remember(t, s, "g", id[1], id[2], id[0]), []bool{false, true, false})
}

func twiceInOneCall(t *testing.T, h Harness) {
	s := h.Open(t)
	id := ids(2)
	got := remember(t, s, "g", id[0], id[1], id[0], id[0])
	storetest.Equal(t, "an event that stands twice in one batch must be fresh once", got, []bool{true, true, false, false})
}

func twiceInOneTransaction(t *testing.T, h Harness) {
	s := h.Open(t)
	id := ids(1)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		for _, want := range []bool{true, false} {
			fresh, err := inbox.Remember(ctx, tx, "g", id...)
			if err != nil {
				return err
			}
			if fresh[0] != want {
				t.Errorf("an event must be fresh once within its transaction: %t, want %t", fresh[0], want)
			}
		}
		return nil
	})
}

func groupsAreIndependent(t *testing.T, h Harness) {
	s := h.Open(t)
	id := ids(1)
	remember(t, s, "one", id...)
	storetest.Equal(t, "each group must handle an event for itself", remember(t, s, "two", id...), []bool{true})
}

func rollbackForgets(t *testing.T, h Harness) {
	s := h.Open(t)
	id := ids(2)
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error {
		_, err := s.Inbox().Remember(ctx, tx, "new-group", id)
		return err
	})
	storetest.Equal(t, "an event whose effect was rolled back must be fresh again, or it is lost",
		remember(t, s, "new-group", id...), []bool{true, true})
}

func failedTransactionForgets(t *testing.T, h Harness) {
	s := h.Open(t)
	id := ids(1)
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if _, err := s.Inbox().Remember(ctx, tx, "g", id); err != nil {
			return err
		}
		panic("handler")
	})
	if err == nil {
		t.Fatal("a transaction that panics must not succeed")
	}
	storetest.Equal(t, "an event whose handler panicked must be fresh again", remember(t, s, "g", id...), []bool{true})
}

func derivedIdentities(t *testing.T, h Harness) {
	s := h.Open(t)
	id := event.DerivedID(event.ID{1}, "name")
	storetest.Equal(t, "an identity derived from a key must be fresh once", remember(t, s, "g", id, id), []bool{true, false})
	storetest.Equal(t, "an identity derived from a key must be remembered", remember(t, s, "g", id), []bool{false})
}

func many(t *testing.T, h Harness) {
	s := h.Open(t)
	id := ids(inbox.RememberMax)
	if fresh := remember(t, s, "g", id...); slices.Contains(fresh, false) {
		t.Fatal("all events of a large batch must be fresh")
	}
	slices.Reverse(id)
	if fresh := remember(t, s, "g", id...); slices.Contains(fresh, true) {
		t.Fatal("all events of a large batch must be remembered, in whatever order they come again")
	}
}

func concurrentDeliveries(t *testing.T, h Harness) {
	s := h.Open(t)
	id := ids(20)
	const members = 6
	type result struct {
		fresh []bool
		err   error
	}
	results := make(chan result, members)
	for range members {
		go func() {
			var r result
			r.err = storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) (err error) {
				r.fresh, err = s.Inbox().Remember(ctx, tx, "g", id)
				return err
			})
			results <- r
		}()
	}
	count := make([]int, len(id))
	for range members {
		r := <-results
		if r.err != nil {
			t.Fatalf("remember: %v", r.err)
		}
		for i, fresh := range r.fresh {
			if fresh {
				count[i]++
			}
		}
	}
	for i, n := range count {
		if n != 1 {
			t.Fatalf("an event that members handle at the same time must be fresh to one of them: number %d was to %d", i, n)
		}
	}
}

func forgetsTheOldOnly(t *testing.T, h Harness) {
	s := h.Open(t)
	id := append(ids(4), event.DerivedID(event.ID{1}, "name"))
	remember(t, s, "g", id...)
	n, err := s.Inbox().Forget(t.Context(), time.Now().Add(-time.Hour), 100)
	if err != nil || n != 0 {
		t.Fatalf("an event within retention must not be forgotten: %d forgotten, %v", n, err)
	}
	storetest.Equal(t, "an event within retention must not be fresh", remember(t, s, "g", id...), make([]bool, 5))
	n, err = s.Inbox().Forget(t.Context(), time.Now().Add(time.Hour), 2)
	if err != nil || n != 2 {
		t.Fatalf("forget must keep its limit of 2: %d, %v", n, err)
	}
	total := n
	for n > 0 {
		if n, err = s.Inbox().Forget(t.Context(), time.Now().Add(time.Hour), 2); err != nil {
			t.Fatalf("forget: %v", err)
		}
		total += n
	}
	if total != len(id) {
		t.Fatalf("everything older than the retention must go, 5 events: %d", total)
	}
	storetest.Equal(t, "what is forgotten is fresh", remember(t, s, "g", id...), []bool{true, true, true, true, true})
}

func reopened(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s := h.Open(t)
	id := ids(2)
	remember(t, s, "g", id[0])
	s = h.Reopen(t, s)
	storetest.Equal(t, "what a group has handled must survive a crash", remember(t, s, "g", id...), []bool{false, true})
}
