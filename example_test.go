package settle_test

import (
	"context"
	"fmt"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/txn"
)

type order struct {
	ID      string `json:"id"`
	Product string `json:"product"`
	Qty     int    `json:"qty"`
}

func define(name string) event.Type[order] {
	return event.Define(name, 1, event.Spec[order]{
		Topic: "orders", Aggregate: "order", Key: func(o order) string { return o.ID },
	})
}

var (
	OrderPlaced   = define("OrderPlaced")
	StockReserved = define("StockReserved")
	StockMissing  = define("StockMissing")
)

// A whole service: it hears of orders, takes stock and says so, in one transaction.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()

	store, broker := memory.New(), memory.NewBroker(memory.BrokerConfig{})
	stock := memory.NewTable[string, int]()
	svc := settle.NewService("stock", store, broker, settle.Config{})
	settle.On(svc, OrderPlaced, func(ctx context.Context, tx *txn.Tx, e event.Of[order]) error {
		free, _ := stock.Get(tx, e.Data.Product)
		if free < e.Data.Qty {
			return outbox.Add(ctx, tx, StockMissing.New(e.Data))
		}
		stock.Put(tx, e.Data.Product, free-e.Data.Qty)
		return outbox.Add(ctx, tx, StockReserved.New(e.Data))
	})
	settle.After(svc, "print", StockReserved, func(_ context.Context, e event.Of[order]) error {
		fmt.Println("reserved", e.Data.Qty, e.Data.Product, "for", e.Data.ID)
		stop()
		return nil
	})
	place := svc.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		stock.Put(tx, "beans", 10)
		return outbox.Add(ctx, tx, OrderPlaced.New(order{ID: "order-1", Product: "beans", Qty: 2}))
	})
	err := svc.Run(ctx)

	fmt.Println(place, err, stock.Committed()["beans"])
	// Output:
	// reserved 2 beans for order-1
	// <nil> <nil> 8
}
