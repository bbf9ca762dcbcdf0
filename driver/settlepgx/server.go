package settlepgx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// server is the database as the store uses it.
type server struct {
	pool    *pgxpool.Pool
	timeout time.Duration
}

var (
	_ sqlstore.Server      = (*server)(nil)
	_ sqlstore.Transaction = (*transaction)(nil)
)

const (
	textBegin    = "begin isolation level read committed"
	textCommit   = "commit"
	textRollback = "rollback"
	// rollbackTimeout bounds a rollback, also when the transaction's own time is over.
	rollbackTimeout = 5 * time.Second
)

var errEnded = errors.New("transaction was ended behind the store's back")

// Begin implements [sqlstore.Server]. BEGIN itself waits for the first statement.
func (s *server) Begin(ctx context.Context) (sqlstore.Transaction, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	t := &transaction{conn: conn}
	t.Queue(textBegin)
	return t, nil
}

// Query implements [sqlstore.Server].
func (s *server) Query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	r, err := s.pool.Query(ctx, query, args...)
	if err != nil {
		cancel()
		return nil, err
	}
	return &rows{Rows: r, end: func() error { cancel(); return nil }}, nil
}

// transaction is one open transaction on a connection of its own. What is queued, BEGIN first, is sent with
// the next statement in one round trip.
type transaction struct {
	conn   *pgxpool.Conn
	queued []statement
	begun  bool // BEGIN was sent
	over   bool
	raw    pgx.Tx
}

type statement struct {
	query string
	args  []any
}

// Queue implements [txn.Conn].
func (t *transaction) Queue(query string, args ...any) {
	t.queued = append(t.queued, statement{query, args})
}

// send sends what is queued and one more statement, and reads the results of what was queued.
func (t *transaction) send(ctx context.Context, query string, args ...any) (pgx.BatchResults, error) {
	var b pgx.Batch
	for _, s := range t.queued {
		b.Queue(s.query, s.args...)
	}
	if query != "" {
		b.Queue(query, args...)
	}
	queued := t.queued
	t.queued, t.begun = nil, true
	results := t.conn.SendBatch(ctx, &b)
	for _, s := range queued {
		if _, err := results.Exec(); err != nil {
			return nil, errors.Join(fmt.Errorf("queued %.60q: %w", s.query, err), ignoreSame(results.Close(), err))
		}
	}
	return results, nil
}

// ignoreSame leaves out the error that closing a batch repeats.
func ignoreSame(err, known error) error {
	if err == nil || err.Error() == known.Error() {
		return nil
	}
	return err
}

// flush sends what is queued by itself.
func (t *transaction) flush(ctx context.Context) error {
	if len(t.queued) == 0 {
		return nil
	}
	results, err := t.send(ctx, "")
	if err != nil {
		return err
	}
	return results.Close()
}

// Exec implements [txn.Conn]. A text without arguments may hold several statements, so it goes alone.
func (t *transaction) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if len(t.queued) == 0 || len(args) == 0 {
		if err := t.flush(ctx); err != nil {
			return 0, err
		}
		tag, err := t.conn.Exec(ctx, query, args...)
		return tag.RowsAffected(), err
	}
	results, err := t.send(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	tag, err := results.Exec()
	if err != nil {
		return 0, errors.Join(err, ignoreSame(results.Close(), err))
	}
	return tag.RowsAffected(), results.Close()
}

// Query implements [txn.Conn].
func (t *transaction) Query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	if len(t.queued) == 0 {
		r, err := t.conn.Query(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		return &rows{Rows: r}, nil
	}
	results, err := t.send(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	r, err := results.Query()
	if err != nil {
		return nil, errors.Join(err, ignoreSame(results.Close(), err))
	}
	return &rows{Rows: r, end: results.Close}, nil
}

// Raw implements [txn.Conn]; see [Tx].
func (t *transaction) Raw() any { return t }

// Commit implements [sqlstore.Transaction]. What is queued, the events above all, travels with COMMIT.
func (t *transaction) Commit(ctx context.Context) error {
	if !t.begun && len(t.queued) == 1 { // BEGIN alone.
		t.release()
		return nil
	}
	defer t.release()
	if t.begun && t.conn.Conn().PgConn().TxStatus() == 'I' {
		return errEnded
	}
	results, err := t.send(ctx, textCommit)
	if err != nil {
		return err
	}
	tag, err := results.Exec()
	if err != nil {
		return errors.Join(err, ignoreSame(results.Close(), err))
	}
	if err := results.Close(); err != nil {
		return err
	}
	if tag.String() != "COMMIT" { // It was aborted, and COMMIT only said so.
		return fmt.Errorf("%s: %w", tag.String(), pgx.ErrTxCommitRollback)
	}
	return nil
}

// Rollback implements [sqlstore.Transaction].
func (t *transaction) Rollback(ctx context.Context) error {
	if t.over {
		return nil
	}
	defer t.release()
	if !t.begun || t.conn.Conn().IsClosed() || t.conn.Conn().PgConn().TxStatus() == 'I' {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_, err := t.conn.Exec(ctx, textRollback)
	return err
}

// release gives the connection back. The pool closes one that is inside a transaction or broken.
func (t *transaction) release() {
	if !t.over {
		t.over = true
		t.conn.Release()
	}
}

// Tx returns pgx's own transaction behind tx, for generated queries and for COPY. Do not commit it or roll it
// back. [errors.ErrUnsupported] says that the store is not on this driver.
func Tx(ctx context.Context, tx *txn.Tx) (pgx.Tx, error) {
	t, ok := tx.Raw().(*transaction)
	if !ok {
		return nil, fmt.Errorf("settlepgx: store %T has no pgx transaction: %w", tx.Port(), errors.ErrUnsupported)
	}
	if t.over {
		return nil, fmt.Errorf("settlepgx: %w", txn.ErrClosed)
	}
	if err := t.flush(ctx); err != nil {
		return nil, fmt.Errorf("settlepgx: %w", err)
	}
	if t.raw == nil {
		var err error
		// The transaction is open already: this one joins it.
		if t.raw, err = t.conn.Conn().BeginTx(ctx, pgx.TxOptions{BeginQuery: "select 1"}); err != nil {
			return nil, fmt.Errorf("settlepgx: %w", err)
		}
	}
	return t.raw, nil
}

// isCode reports whether err is the server's error of a code.
func isCode(err error, code string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == code
}
