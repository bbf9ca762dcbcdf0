package locktest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/txn"
)

// serializeOrders reads, decides and writes in many transactions at once: none may miss another's write.
func serializeOrders(t *testing.T, h Harness) {
	const goroutines, rounds = 8, 10
	s := h.Open(t)
	var all sync.WaitGroup
	for range goroutines {
		p := h.Peer(t, s)
		all.Go(func() {
			for range rounds {
				err := storetest.Try(t.Context(), p, func(ctx context.Context, tx *txn.Tx) error {
					if err := lock.Serialize(ctx, tx, "n"); err != nil {
						return err
					}
					n, err := h.Get(ctx, tx, number)
					if err != nil {
						return err
					}
					return h.Put(ctx, tx, number, n+1)
				})
				if err != nil {
					t.Errorf("transaction: %v", err)
				}
			}
		})
	}
	all.Wait()
	h.wantNumber(t, s, "serialised transactions must see one another's writes", goroutines*rounds)
}

func serializeAgain(t *testing.T, h Harness) {
	s := h.Open(t)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		for _, name := range slices.Concat(alike(), alike()) {
			if err := lock.Serialize(ctx, tx, name); err != nil {
				return err
			}
		}
		return nil
	})
}

func serializeEnds(t *testing.T, h Harness) {
	s := h.Open(t)
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error { return lock.Serialize(ctx, tx, "a") })
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := lock.Serialize(ctx, tx, "a"); err != nil {
			return err
		}
		panic("on purpose")
	})
	if _, ok := errors.AsType[*txn.PanicError](err); !ok {
		t.Fatalf("a panic must be the transaction's error: got %v", err)
	}
	storetest.Do(t, h.Peer(t, s), func(ctx context.Context, tx *txn.Tx) error { return lock.Serialize(ctx, tx, "a") })
}

// serializeOtherNames runs a transaction of one name inside the time of another's.
func serializeOtherNames(t *testing.T, h Harness) {
	if slices.Contains(h.Lacks, "Parallel") {
		t.Skip("skipped: the harness says that the store lacks Parallel")
	}
	s := h.Open(t)
	p := h.Peer(t, s)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		if err := lock.Serialize(ctx, tx, "a"); err != nil {
			return err
		}
		return storetest.Try(ctx, p, func(ctx context.Context, tx *txn.Tx) error { return lock.Serialize(ctx, tx, "b") })
	})
}
