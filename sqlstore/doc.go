// Package sqlstore keeps every durable contract (outbox, inbox, positions, dead letters, timers, calls,
// answers, feeds) in a database, over database/sql. A driver package opens it:
//
//	store, err := settlesqlite.Open(ctx, "data/order.db", settlesqlite.Config{Migrate: true})
//	...
//	err = store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
//		if _, err := tx.Exec(ctx, "INSERT INTO orders (id, state) VALUES (?, 'NEW')", id); err != nil {
//			return err
//		}
//		return outbox.Add(ctx, tx, OrderCreated.New(data))
//	})
//
// # Group commit
//
// SQLite has one writer, and a durable commit costs a flush of the disk. One goroutine owns one
// connection and runs the members of a group one after the other, each in a savepoint, and commits them
// together; every answer waits for that commit. An idle writer commits at once. A busy one waits
// [Config.Gap] between commits for as long as that brings members together.
//
// # Guarantee
//
// Run returns nil only when the transaction is on disk. A member that fails, panics or is cancelled
// before its turn takes nothing of its neighbours with it. When SQLite itself ends the whole transaction
// (disk full, I/O error), the failing member gets the error and the others run again, one by one. Positions
// of the outbox are its row numbers: the order of commits, never given twice.
//
// After a statement has failed, its transaction is over for its function, whatever the function makes of
// the error: the same rule as in Postgres. Use ON CONFLICT where a conflict is no failure.
//
// # Servers
//
// On Postgres and MySQL each transaction has a connection of its own, and runs again after a conflict, so its
// function must be repeatable. Row numbers are given out before commit there, so the shard's leased owner says
// in which order events stand: on Postgres by windows between snapshots (ticks), on MySQL by numbers. Positions
// are the same whoever reads, also after a crash. Postgres keeps its outbox in four slots of half a day, which
// are emptied as a whole: a retention of one day costs nothing, see [Store.Outbox] and package relay.
//
// # What this package does not do
//
// It imports no database driver and changes no schema by itself: [Migrate] does, when it is asked to. It
// gives no isolation between processes: a file belongs to the one process that opened it for writing.
package sqlstore
