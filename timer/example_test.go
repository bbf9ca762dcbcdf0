package timer_test

import (
	"context"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

type Deadline struct {
	OrderID string `json:"orderId"`
}

var paymentDeadline = event.Define("PaymentDeadline", 1, event.Spec[Deadline]{
	Topic: "order-events", Aggregate: "order", Key: func(d Deadline) string { return d.OrderID },
})

// A timer belongs to the transaction that sets it, and to the one that cancels it.
func Example() {
	ctx, store := context.Background(), memory.New()
	as := func(fn func(context.Context, *txn.Tx) error) error {
		return store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
			tx.Bind("order", nil) // A settle.Service does it.
			return fn(ctx, tx)
		})
	}
	err := as(func(ctx context.Context, tx *txn.Tx) error {
		return timer.Set(ctx, tx, "order-42/payment", tx.Now().Add(2*time.Minute), paymentDeadline.New(Deadline{"order-42"}))
	})
	waiting, _ := store.Timers().Count(ctx)
	fmt.Println(waiting, "waits,", err)

	// The payment has arrived: whoever deletes the row wins, the timer or we.
	for range 2 {
		err = as(func(ctx context.Context, tx *txn.Tx) error {
			cancelled, err := timer.Cancel(ctx, tx, "order-42/payment")
			fmt.Println("cancelled:", cancelled)
			return err
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// 1 waits, <nil>
	// cancelled: true
	// cancelled: false
}
