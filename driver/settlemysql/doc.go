// Package settlemysql opens a sqlstore on MySQL 8.0 or MariaDB 10.6 and newer.
//
//	store, err := settlemysql.Open(ctx, "mysql://shop:secret@127.0.0.1:3306/order", settlemysql.Config{})
//
// # Guarantee
//
// Every session runs at READ COMMITTED, whatever the server's default is: at REPEATABLE READ a transaction
// that waited for a row would go on with what it had read before. A transaction that ended in a deadlock
// or a lock timeout runs again.
//
// Statements may number their placeholders (?1, ?2), as SQLite's do: MySQL itself knows only ?, so they are
// rewritten, once for each text. Rows affected are those that changed, unless the URL says
// clientFoundRows=true; the store works with both.
//
// # What this package does not do
//
// It pipelines nothing: the protocol has one statement under way. It does not read the binary log. DDL commits
// by itself on MySQL, so a migration that fails half way has to be mended by hand.
package settlemysql
