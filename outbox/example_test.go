package outbox_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

type StockReserved struct {
	OrderID string `json:"orderId"`
	Product string `json:"product"`
}

var stockReserved = event.Define("StockReserved", 1, event.Spec[StockReserved]{
	Topic: "inventory-events", Aggregate: "order",
	Key: func(s StockReserved) string { return s.OrderID },
})

// Rows and events commit together, or not at all.
func Example() {
	ctx := context.Background()
	store, stock := memory.New(), memory.NewTable[string, int]()
	_ = store.Run(ctx, func(_ context.Context, tx *txn.Tx) error {
		stock.Put(tx, "beans", 1)
		return nil
	})
	reserve := func(order string) error {
		return store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
			tx.Bind("inventory", nil) // A settle.Service does it.
			if err := outbox.Add(ctx, tx, stockReserved.New(StockReserved{order, "beans"})); err != nil {
				return err
			}
			free, _ := stock.Get(tx, "beans")
			if free == 0 {
				return errors.New("out of stock")
			}
			stock.Put(tx, "beans", free-1)
			return nil
		})
	}
	fmt.Println("order-1:", reserve("order-1"))
	fmt.Println("order-2:", reserve("order-2"))
	records, err := store.Outbox().Next(ctx, relay.Lease{}, outbox.Position{}, 10)
	for _, r := range records {
		fmt.Println(r.Position, r.Event.Type, r.Event.AggregateID)
	}
	fmt.Println(len(records), "event,", err)
	// Output:
	// order-1: <nil>
	// order-2: out of stock
	// 0.0.1 StockReserved order-1
	// 1 event, <nil>
}
