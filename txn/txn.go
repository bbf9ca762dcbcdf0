package txn

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/settledev/settle/event"
)

// EventsPerTxMax bounds the events that one transaction may add.
const EventsPerTxMax = 1000

// Errors of a transaction.
var (
	// ErrClosed says that a transaction was used after its function had returned.
	ErrClosed = errors.New("transaction is over")
	// ErrTooManyEvents says that one transaction added more than EventsPerTxMax events: split it.
	ErrTooManyEvents = errors.New("too many events in one transaction")
	// ErrUnavailable says that the database server cannot be reached, or was lost in the middle. Whether a
	// transaction that was committing is there is known when it answers again; repeat under the same key.
	ErrUnavailable = errors.New("database is unavailable")
)

// PanicError is the error of a transaction whose function panicked. It was rolled back like any other,
// and nobody else's with it.
type PanicError struct {
	Value any
	Stack []byte
}

// Error has the value, not the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("txn: function panicked: %v", e.Value) }

// Unwrap returns the panic's value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Runner runs business transactions. A store implements it; a service wraps its store's.
type Runner interface {
	// Run calls fn in one transaction and commits it durably when fn returns nil; any error rolls
	// everything back, and so does a panic, which is returned as a *PanicError. fn may be called again
	// after a conflict, so it must not touch anything but the transaction, and must not keep tx.
	// Cancelling ctx stops waiting for a turn; a function that has begun runs to its end, so that an
	// answer is never in doubt.
	Run(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error
}

type onceKey struct{}

// Once returns a context with which a Runner returns a conflict instead of running the transaction again: for
// a caller that can do its work in smaller ones.
func Once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

// IsOnce reports whether ctx is one of [Once]: for stores.
func IsOnce(ctx context.Context) bool { return ctx.Value(onceKey{}) != nil }

// Conn is what a driver provides for one open transaction.
type Conn interface {
	// Exec runs a statement and returns the rows affected.
	Exec(ctx context.Context, query string, args ...any) (int64, error)
	// Query runs a query. The caller closes the rows before the next statement.
	Query(ctx context.Context, query string, args ...any) (Rows, error)
	// Queue adds a statement that is sent with the next one, or at the end; a driver without
	// pipelining runs it then. Its error fails the transaction.
	Queue(query string, args ...any)
	// Raw returns the driver's own transaction; see [SQL].
	Raw() any
}

// Rows is the part of [sql.Rows] that every driver has.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Tx is one open business transaction. It belongs to one goroutine and ends with the function that
// it was given to.
type Tx struct {
	conn      Conn
	port      any
	now       time.Time
	producer  string
	listeners *Listeners
	events    []event.Envelope
	after     []func()
	closed    bool
}

// NewTx opens a transaction over conn: for stores. port is the store itself, through which the
// contract packages (timer, call, inbox, ...) reach their statements; now is the time of the
// transaction.
func NewTx(conn Conn, port any, now time.Time) *Tx {
	return &Tx{conn: conn, port: port, now: now}
}

// Bind names the service that adds this transaction's events, and its in-process listeners. A
// service calls it first.
func (tx *Tx) Bind(producer string, listeners *Listeners) {
	tx.producer, tx.listeners = producer, listeners
}

// Exec runs a statement and returns the rows affected.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if tx.closed {
		return 0, ErrClosed
	}
	return tx.conn.Exec(ctx, query, args...)
}

// Query runs a query. Close the rows before the next statement.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	if tx.closed {
		return nil, ErrClosed
	}
	return tx.conn.Query(ctx, query, args...)
}

// QueryRow runs a query for one row and scans it; [sql.ErrNoRows] when there is none.
func (tx *Tx) QueryRow(ctx context.Context, query string, args []any, dest ...any) (err error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	return rows.Scan(dest...)
}

// Queue adds a statement whose result nobody waits for. Its error fails the transaction.
func (tx *Tx) Queue(query string, args ...any) { tx.conn.Queue(query, args...) }

// Now returns the time of the transaction, the same throughout.
func (tx *Tx) Now() time.Time { return tx.now }

// Producer returns the service that runs the transaction.
func (tx *Tx) Producer() string { return tx.producer }

// Port returns the store behind the transaction, for contract packages.
func (tx *Tx) Port() any { return tx.port }

// Append buffers events that are already sealed, after the in-transaction listeners have run. Use
// outbox.Add for drafts.
func (tx *Tx) Append(ctx context.Context, events ...event.Envelope) error {
	if tx.closed {
		return ErrClosed
	}
	if n := len(tx.events) + len(events); n > EventsPerTxMax {
		return fmt.Errorf("txn: %d events, %d allowed: %w", n, EventsPerTxMax, ErrTooManyEvents)
	}
	for _, e := range events {
		tx.events = append(tx.events, e)
		if err := tx.listeners.within(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

// Events returns what the store writes as the transaction's last statement.
func (tx *Tx) Events() []event.Envelope { return tx.events }

// AfterCommit registers fn to be called once the transaction is durable, and never when it is rolled
// back. fn must not block. Its panic is logged and hurts nobody.
func (tx *Tx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

// Close ends the transaction for its users: for stores, when fn has returned.
func (tx *Tx) Close() { tx.closed = true }

// Committed tells the transaction that it is durable: for stores, once, after commit.
func (tx *Tx) Committed() {
	tx.closed = true
	for _, fn := range tx.after {
		tx.afterCommit(fn)
	}
	tx.listeners.committed(tx.events)
}

// afterCommit calls a hook. The transaction is durable: whatever the hook does, the others follow.
func (tx *Tx) afterCommit(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			tx.listeners.logger().Error("after-commit hook panicked", "err", p, "stack", string(debug.Stack()))
		}
	}()
	fn()
}

// Raw returns the driver's own transaction, for driver packages that give it to users by its own type.
func (tx *Tx) Raw() any { return tx.conn.Raw() }

// Executor is what [sql.Conn] and [sql.Tx] have in common, as object mappers and generated queries
// expect it.
type Executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// SQL returns the database/sql transaction behind tx, or [errors.ErrUnsupported] when the store is
// not built on database/sql. Do not commit it or roll it back.
func SQL(tx *Tx) (Executor, error) {
	if e, ok := tx.conn.Raw().(Executor); ok {
		return e, nil
	}
	return nil, fmt.Errorf("txn: store %T has no database/sql transaction: %w", tx.port, errors.ErrUnsupported)
}
