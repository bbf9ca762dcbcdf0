// Package settle makes a business change and its consequences one thing: a service commits its rows
// and its events in one local transaction, and everything after that (other services, read models,
// browsers) follows once, in order, across crashes.
//
// A [Service] is one store, one broker and its handlers:
//
//	store, broker := memory.New(), memory.NewBroker(memory.BrokerConfig{})
//	stock := memory.NewTable[string, int]()
//	svc := settle.NewService("stock", store, broker, settle.Config{})
//	settle.On(svc, OrderPlaced, func(ctx context.Context, tx *txn.Tx, e event.Of[order]) error {
//		free, _ := stock.Get(tx, e.Data.Product)
//		if free < e.Data.Qty {
//			return outbox.Add(ctx, tx, StockMissing.New(e.Data))
//		}
//		stock.Put(tx, e.Data.Product, free-e.Data.Qty)
//		return outbox.Add(ctx, tx, StockReserved.New(e.Data))
//	})
//	settle.After(svc, "print", StockReserved, func(_ context.Context, e event.Of[order]) error {
//		fmt.Println("reserved", e.Data.Qty, e.Data.Product, "for", e.Data.ID)
//		stop()
//		return nil
//	})
//	place := svc.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
//		stock.Put(tx, "beans", 10)
//		return outbox.Add(ctx, tx, OrderPlaced.New(order{ID: "order-1", Product: "beans", Qty: 2}))
//	})
//	err := svc.Run(ctx)
//
// # An event's way
//
// The folders tell it in order: a handler adds an event to the [outbox] in its transaction ([txn]), the
// [relay] carries it to the [broker], a [consumer] hands it to the next handler and remembers it in the
// [inbox] of that transaction. A [call] reaches outside, a [timer] wakes a key later, a [deadletter]
// parks a key that fails, [push] shows it to browsers.
//
// # Guarantee
//
// No committed event is lost, no event of a rolled-back transaction is seen, each effect inside a
// service's database happens once for each event, and events of one aggregate are handled in commit
// order, whatever is killed, repeated or delayed.
//
// # What this package does not do
//
// It makes no outside effect happen exactly once: a call is at-least-once under a stable key. It is no
// cluster: order, partitions and fail-over come from the database and the broker.
package settle
