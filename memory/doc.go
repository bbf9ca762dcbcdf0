// Package memory is every contract in RAM: a [Store] and a [Broker] for tests, examples and programs
// that may forget.
//
//	store := memory.New()
//	stock := memory.NewTable[string, int]()
//	err := store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
//		free, _ := stock.Get(tx, "beans")
//		if free < n {
//			return outbox.Add(ctx, tx, StockReservationFailed.New(data))
//		}
//		stock.Put(tx, "beans", free-n)
//		return outbox.Add(ctx, tx, StockReserved.New(data))
//	})
//
// # Guarantee
//
// It passes the same conformance suites as the durable stores and brokers: transactions are serial and
// all or nothing, readers see only what is committed, and fences, leases, lanes and positions are those
// of a database. Everything works inside a testing/synctest bubble that it was made in.
//
// # What this package does not do
//
// Nothing outlives the process. A store has no SQL: tx.Exec and tx.Query return an error that wraps
// errors.ErrUnsupported, and business state belongs in a [Table]. There is one transaction at a time,
// also when they touch different things.
package memory
