package settletest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/settletest"
	"github.com/settledev/settle/txn"
)

type order struct {
	ID  string `json:"id"`
	Qty int    `json:"qty"`
}

func define(name string) event.Type[order] {
	return event.Define(name, 1, event.Spec[order]{
		Topic: "orders", Aggregate: "order", Key: func(o order) string { return o.ID },
	})
}

var (
	errNoStock = errors.New("no stock")

	orderPlaced   = define("OrderPlaced")
	stockAdded    = define("StockAdded")
	stockReserved = define("StockReserved")
	orderReminded = define("OrderReminded")
)

// register is the service under test: it reserves what there is.
func register(svc *settle.Service) {
	free := memory.NewTable[string, int]()
	settle.On(svc, stockAdded, func(_ context.Context, tx *txn.Tx, e event.Of[order]) error {
		n, _ := free.Get(tx, "beans")
		free.Put(tx, "beans", n+e.Data.Qty)
		return nil
	})
	settle.On(svc, orderPlaced, func(ctx context.Context, tx *txn.Tx, e event.Of[order]) error {
		n, _ := free.Get(tx, "beans")
		if n < e.Data.Qty {
			return retry.Permanent(errNoStock)
		}
		free.Put(tx, "beans", n-e.Data.Qty)
		return outbox.Add(ctx, tx, stockReserved.New(e.Data))
	})
}

// example stands for the *testing.T of a test.
type example struct{ cleanups []func() }

func (*example) Helper()                           {}
func (*example) Context() context.Context          { return context.Background() }
func (e *example) Cleanup(fn func())               { e.cleanups = append(e.cleanups, fn) }
func (*example) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (e *example) end() {
	for _, fn := range e.cleanups {
		fn()
	}
}

func Example() {
	t := &example{} // In a test: its *testing.T.
	defer t.end()
	rig := settletest.New(t, "stock", settletest.Config{})
	register(rig.Service)

	rig.Given(stockAdded.New(order{ID: "lot-1", Qty: 3})).
		When(orderPlaced.New(order{ID: "order-1", Qty: 2})).
		Then(stockReserved.New(order{ID: "order-1", Qty: 2}))
	rig.When(orderPlaced.New(order{ID: "order-2", Qty: 2})).
		ThenError(errNoStock)
	fmt.Println("as expected")
	// Output: as expected
}

// Settle tracks everything that a function causes, however many hops it takes.
func ExampleRig_Settle() {
	t := &example{}
	defer t.end()
	rig := settletest.New(t, "stock", settletest.Config{})
	register(rig.Service)

	events := rig.Settle(func(ctx context.Context) error {
		return rig.Service.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
			return outbox.Add(ctx, tx,
				stockAdded.New(order{ID: "order-1", Qty: 5}),
				orderPlaced.New(order{ID: "order-1", Qty: 2}))
		})
	})
	for _, e := range events {
		fmt.Println(e.Type, e.AggregateID)
	}
	// Output:
	// StockAdded order-1
	// OrderPlaced order-1
	// StockReserved order-1
}

// A Rig waits in real time outside of a bubble too, but only in one does a day pass at once: see
// TestTimers.
func ExampleQuiet() {
	t := &example{}
	defer t.end()
	broker := memory.NewBroker(memory.BrokerConfig{})
	shop := settletest.New(t, "shop", settletest.Config{Broker: broker})
	stock := settletest.New(t, "stock", settletest.Config{Broker: broker})
	register(stock.Service)
	stock.Given(stockAdded.New(order{ID: "lot-1", Qty: 3}))

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := shop.Service.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		return outbox.Add(ctx, tx, orderPlaced.New(order{ID: "order-1", Qty: 2}))
	})
	fmt.Println(err, settletest.Quiet(ctx, shop, stock))
	for _, e := range stock.Events() {
		fmt.Println(e.Type, "by", e.Producer)
	}
	// Output:
	// <nil> <nil>
	// StockReserved by stock
}
