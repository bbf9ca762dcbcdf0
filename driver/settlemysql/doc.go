// Package settlemysql opens a sqlstore on MySQL 8.0 or MariaDB 10.6 and newer. Its tests run on MariaDB 10.11;
// the statements keep to what both have.
//
//	store, err := settlemysql.Open(ctx, "mysql://shop:secret@127.0.0.1:3306/order", settlemysql.Config{})
//
// # Guarantee
//
// Every session runs at READ COMMITTED and in strict mode, whatever the server's defaults are: at REPEATABLE
// READ a transaction that waited for a row would go on with what it had read before, and a server that is not
// strict cuts what is too long for its column. A transaction that ended in a deadlock or a lock timeout runs
// again.
//
// Events of one aggregate are carried in commit order, also those that a program in another language writes:
// its INSERT into settle_outbox gives type, topic, aggregate_id and data, and comes after the aggregate's row
// was locked. The shard's owner gives positions to what is committed; it waits for no transaction that is under
// way. A reader in another process sees an event after the owner's next look, when its position is on disk. That
// needs innodb_flush_log_at_trx_commit=1, which is the server's default, and a binary log that is not
// written by statement.
//
// Statements may number their placeholders (?1, ?2), as SQLite's do: MySQL itself knows only ?, so they are
// rewritten, once for each text. Rows affected are those that changed, unless the URL says
// clientFoundRows=true; the store works with both.
//
// # What this package does not do
//
// It pipelines nothing: the protocol has one statement under way. It does not read the binary log, and has no
// doorbell: other processes poll. A definition of a table commits by itself on MySQL, so a service's migration
// that fails half way has to be mended by hand; those of settle may be run again. While a dump keeps an old
// snapshot, a look at the outbox costs more with each event (25 ms after a million).
package settlemysql
