package consumer_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

// A message that stands twice in the broker has one effect.
func Example() {
	store, b := memory.New(), memory.NewBroker(memory.BrokerConfig{})
	placed := event.Define("OrderPlaced", 1, event.Spec[string]{
		Topic: "orders", Aggregate: "order", Key: func(order string) string { return order },
	})
	e, err := placed.New("order-42").Seal("shop", time.Now(), event.Cause{})
	if err != nil {
		panic(err)
	}
	b.Publish(context.Background(), []broker.Message{{Event: e}, {Event: e}})

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := consumer.New(store, store, b, consumer.Config{
		Group: "billing", Topics: []string{"orders"}, Logger: slog.New(slog.DiscardHandler),
		Handlers: map[string]consumer.Handler{
			"OrderPlaced": func(_ context.Context, tx *txn.Tx, e event.Envelope) error {
				tx.AfterCommit(func() { fmt.Println("billed", e.AggregateID) })
				return nil
			},
		},
		Hooks: consumer.Hooks{Duplicate: func(event.Envelope) { cancel() }},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println("ended:", c.Run(ctx))
	// Output:
	// billed order-42
	// ended: <nil>
}
