package lock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

// A role that one process has at a time: whoever gets it works until it is stopped or loses it.
func ExampleHold() {
	store := memory.New()
	reports := memory.NewTable[string, int]()
	err := lock.Hold(context.Background(), store.Leases(), "nightly-report", lock.Config{}, func(ctx context.Context, l lock.Lease) error {
		return store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
			if err := lock.Check(ctx, tx, l); err != nil {
				return err // Someone else has the role by now.
			}
			reports.Put(tx, "2030-01-01", 42)
			return nil
		})
	})
	fmt.Println(reports.Committed(), err)
	// Output: map[2030-01-01:42] <nil>
}

// A holder that was paused past its lease is refused, though it does not know that it is late.
func ExampleCheck() {
	ctx, store := context.Background(), memory.New()
	late, _ := store.Leases().Acquire(ctx, "nightly-report", "one", lock.TTLShortest)
	time.Sleep(lock.TTLShortest) // The process was paused, or the machine was.
	newer, _ := store.Leases().Acquire(ctx, "nightly-report", "two", time.Minute)

	err := store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error { return lock.Check(ctx, tx, late) })
	fmt.Println("fence", late.Fence, errors.Is(err, lock.ErrFenced))
	err = store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error { return lock.Check(ctx, tx, newer) })
	fmt.Println("fence", newer.Fence, err)
	// Output:
	// fence 1 true
	// fence 2 <nil>
}

// Transactions that must read before they can decide, one after the other.
func ExampleSerialize() {
	store := memory.New()
	numbers := memory.NewTable[string, int]()
	next := func(ctx context.Context, tx *txn.Tx) error {
		if err := lock.Serialize(ctx, tx, "invoice-number"); err != nil {
			return err
		}
		last, _ := numbers.Get(tx, "invoice")
		numbers.Put(tx, "invoice", last+1)
		return nil
	}
	for range 3 {
		if err := store.Run(context.Background(), next); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(numbers.Committed())
	// Output: map[invoice:3]
}

// A cache that many would fill at once. Filling it twice is a waste and no fault.
func ExampleHints() {
	ctx := context.Background()
	var hints lock.Hints = memory.NewHints() // Or those of a Redis.
	for range 2 {
		hint, ok, err := hints.TryOnce(ctx, "fill catalogue", time.Minute)
		if err == nil && !ok {
			fmt.Println("somebody is on it")
			continue
		}
		fmt.Println("fill it")
		defer func() { _ = hints.Drop(ctx, hint) }()
	}
	// Output:
	// fill it
	// somebody is on it
}
