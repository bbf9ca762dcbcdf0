package txntest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/txn"
)

type thing = event.Of[storetest.Thing]

// as runs fn in a transaction that has the listeners.
func as(t *testing.T, s txn.Runner, l *txn.Listeners, fn func(ctx context.Context, tx *txn.Tx) error) error {
	t.Helper()
	return s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind(storetest.Producer, l)
		return fn(ctx, tx)
	})
}

func listenersInside(t *testing.T, h Harness) {
	s := h.Open(t)
	var l txn.Listeners
	txn.Within(&l, storetest.Happened(), func(ctx context.Context, tx *txn.Tx, e thing) error {
		if e.Data.N < 3 {
			if err := storetest.AddIn(ctx, tx, e.Data.N+1, e.Data.Key); err != nil {
				return err
			}
		}
		return h.Add(ctx, tx, e.Data.Key, 1)
	})
	err := as(t, s, &l, func(ctx context.Context, tx *txn.Tx) error { return storetest.AddIn(ctx, tx, 1, "a") })
	if err != nil {
		t.Fatalf("transaction: %v", err)
	}
	h.wantCount(t, s, "a listener inside must commit with the event, and may add further ones", "a", 3)
	err = as(t, s, &l, func(ctx context.Context, tx *txn.Tx) error {
		if err := storetest.AddIn(ctx, tx, 3, "b"); err != nil {
			return err
		}
		return storetest.ErrRollback
	})
	wantErr(t, "the transaction's own error", err, storetest.ErrRollback)
	h.wantCount(t, s, "what a listener inside did must roll back with the transaction", "b", 0)
}

func listenerInsideFails(t *testing.T, h Harness) {
	s := h.Open(t)
	refused := errors.New("refused by a listener")
	var l txn.Listeners
	txn.Within(&l, storetest.Happened(), func(context.Context, *txn.Tx, thing) error { return refused })
	err := as(t, s, &l, func(ctx context.Context, tx *txn.Tx) error {
		if err := h.Add(ctx, tx, "a", 1); err != nil {
			return err
		}
		return storetest.AddIn(ctx, tx, 1, "a")
	})
	wantErr(t, "a listener inside that fails must fail the transaction", err, refused)
	h.wantCount(t, s, "a listener inside that fails must roll back", "a", 0)
}

// served starts the after-commit listeners, and ends them with the test.
func served(t *testing.T, l *txn.Listeners) {
	t.Helper()
	l.Logger = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("listeners: %v", err)
		}
	})
}

// heard is what a listener got, for goroutines.
type heard struct {
	mu   sync.Mutex
	list []string
}

func (h *heard) add(e thing) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, fmt.Sprintf("%s/%d", e.Data.Key, e.Data.N))
}

func (h *heard) get() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.list...)
}

func listenersAfterCommit(t *testing.T, h Harness) {
	s := h.Open(t)
	var l txn.Listeners
	var got heard
	txn.After(&l, "suite", storetest.Happened(), func(_ context.Context, e thing) error {
		if n := h.Committed(t, s, "a"); n < e.Data.N {
			t.Errorf("an after-commit listener must run after the commit: event %d, %d committed", e.Data.N, n)
		}
		got.add(e)
		return nil
	})
	served(t, &l)
	var want []string
	for n := 1; n <= 20; n++ {
		err := as(t, s, &l, func(ctx context.Context, tx *txn.Tx) error {
			if err := h.Add(ctx, tx, "a", 1); err != nil {
				return err
			}
			return storetest.AddIn(ctx, tx, n, "a")
		})
		if err != nil {
			t.Fatalf("transaction: %v", err)
		}
		err = as(t, s, &l, func(ctx context.Context, tx *txn.Tx) error {
			if err := storetest.AddIn(ctx, tx, n, "rolled-back"); err != nil {
				return err
			}
			return storetest.ErrRollback
		})
		wantErr(t, "the transaction's own error", err, storetest.ErrRollback)
		want = append(want, fmt.Sprintf("a/%d", n))
	}
	storetest.Eventually(t, "the listener hears of every commit", func() bool { return len(got.get()) >= len(want) })
	storetest.Equal(t, "an after-commit listener must hear of commits, in order, and of nothing else", got.get(), want)
}

// listenersAreIndependent has one listener that fails, one that panics and one that hangs, before and
// behind one that works.
func listenersAreIndependent(t *testing.T, h Harness) {
	s := h.Open(t)
	var l txn.Listeners
	var first, last, failing, panicking heard
	hang := make(chan struct{})
	good := func(name string, got *heard) {
		txn.After(&l, name, storetest.Happened(), func(_ context.Context, e thing) error { got.add(e); return nil })
	}
	good("first", &first)
	txn.After(&l, "fails", storetest.Happened(), func(_ context.Context, e thing) error {
		failing.add(e)
		return errors.New("the suite's")
	})
	txn.After(&l, "panics", storetest.Happened(), func(_ context.Context, e thing) error {
		panicking.add(e)
		panic("the suite's")
	})
	txn.After(&l, "hangs", storetest.Happened(), func(context.Context, thing) error { <-hang; return nil })
	good("last", &last)
	served(t, &l)
	t.Cleanup(func() { close(hang) }) // Before the listeners are waited for.
	// More than the hanging listener's queue holds.
	const transactions, each = 5, 300
	keys := make([]string, each)
	for i := range keys {
		keys[i] = "a"
	}
	for n := range transactions {
		err := as(t, s, &l, func(ctx context.Context, tx *txn.Tx) error {
			if err := h.Add(ctx, tx, "a", 1); err != nil {
				return err
			}
			return storetest.AddIn(ctx, tx, n*each, keys...)
		})
		if err != nil {
			t.Fatalf("a listener after commit must not hurt the transaction: %v", err)
		}
		// They keep up, so that the queue that overflows is that of the one that hangs.
		for name, got := range map[string]*heard{"first": &first, "last": &last, "fails": &failing, "panics": &panicking} {
			storetest.Eventually(t, "listener "+name+" is not held up by its neighbours", func() bool { return len(got.get()) == (n+1)*each })
		}
	}
	h.wantCount(t, s, "listeners after commit must not hurt the core", "a", transactions)
}
