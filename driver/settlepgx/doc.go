// Package settlepgx opens a sqlstore on PostgreSQL 14 and newer, through pgx.
//
//	store, err := settlepgx.Open(ctx, "postgres://shop:secret@127.0.0.1:5432/order", settlepgx.Config{})
//
// # Guarantee
//
// Transactions run at READ COMMITTED. BEGIN travels with the first statement, what is queued with the next
// one, and the events with COMMIT, so that a transaction of one statement is two round trips. One that ended
// in a deadlock or a serialisation failure runs again. Other processes on the database are told of commits by
// NOTIFY from a connection of its own, never in the business transaction, where it would serialise commits.
//
// # What this package does not do
//
// It gives no *sql.Tx: see [Tx] for pgx's own. It manages no replicas: the URL must lead to the primary.
package settlepgx
