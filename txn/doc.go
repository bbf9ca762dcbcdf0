// Package txn runs one business transaction: the rows of a hop, the events it adds, the timers it
// sets and the calls it prepares commit together or not at all.
//
//	err := runner.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
//		if _, err := tx.Exec(ctx, "UPDATE stock SET free = free - ? WHERE product = ? AND free >= ?", n, p, n); err != nil {
//			return err
//		}
//		return outbox.Add(ctx, tx, contract.StockReserved.New(data))
//	})
//
// # Guarantee
//
// Events are buffered and written by one statement, the last of the transaction. Handlers registered
// with [Within] run inside the transaction and can fail it; handlers registered with
// [After] run once it is durable, each on its own, and can hurt neither the transaction
// nor one another. After-commit handlers are lost when the process dies: what must happen belongs
// into an event.
//
// # What this package does not do
//
// It hides no transaction in a context, retries nothing, and knows no SQL dialect. Never call
// anything outside the database within a transaction; see package call.
package txn
