package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// Server is a database with many writers, as a driver package provides it. Its transactions run at READ
// COMMITTED, and a statement of the store's own dialect gets the arguments that the store's files name.
type Server interface {
	// Begin opens a transaction on a connection of its own. It waits for a connection while ctx lasts.
	Begin(ctx context.Context) (Transaction, error)
	// Query runs a query outside any transaction.
	Query(ctx context.Context, query string, args ...any) (txn.Rows, error)
}

// Transaction is one open transaction of a [Server].
type Transaction interface {
	txn.Conn
	// Commit sends what is queued and commits. An error that is not [ErrUnavailable] means that nothing
	// was committed.
	Commit(ctx context.Context) error
	// Rollback ends the transaction. It is harmless after Commit.
	Rollback(ctx context.Context) error
}

// Doorbell tells the processes that share a database that something was committed, outside of the
// business transaction: a notification inside of it would serialise commits.
type Doorbell interface {
	// Ring never blocks. Rings are coalesced, and may be lost.
	Ring()
	// Listen returns a channel that receives after rings of other processes, and a function that ends it.
	Listen() (ring <-chan struct{}, stop func())
}

// A transaction that met a conflict runs again, after a pause that grows and differs.
const (
	conflictsMax  = 10
	conflictPause = 2 * time.Millisecond
)

// eventWriter is a log that writes a transaction's events as its last statement.
type eventWriter interface {
	write(ctx context.Context, tx *txn.Tx, events []event.Envelope) error
}

// serverEngine runs each transaction on a connection of its own.
type serverEngine struct {
	s *Store

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup

	quit chan struct{} // ends hear
	done sync.WaitGroup
}

func newServerEngine(s *Store, _ *statements) *serverEngine {
	return &serverEngine{s: s, quit: make(chan struct{})}
}

// start listens to other processes. The schema has been checked.
func (e *serverEngine) start() {
	if d := e.s.backend.Doorbell; d != nil {
		ring, stop := d.Listen()
		e.done.Go(func() {
			defer stop()
			e.hear(ring)
		})
	}
}

// hear passes on what other processes ring.
func (e *serverEngine) hear(ring <-chan struct{}) {
	for {
		select {
		case <-ring:
			e.s.outboxBell.ring()
		case <-e.quit:
			return
		}
	}
}

// enter keeps the engine open while a transaction runs.
func (e *serverEngine) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.running.Add(1)
	return true
}

func (e *serverEngine) run(ctx context.Context, fn func(context.Context, *txn.Tx) error) error {
	if !e.enter() {
		return ErrClosed
	}
	defer e.running.Done()
	for n := 1; ; n++ {
		err := e.once(ctx, fn)
		if err == nil || n == conflictsMax || txn.IsOnce(ctx) || !errors.Is(err, ErrConflict) || ctx.Err() != nil {
			return err
		}
		pause := conflictPause << min(n, 6)
		timer := time.NewTimer(pause/2 + time.Duration(rand.Int64N(int64(pause))))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// once runs one transaction. Once it has begun it ends by itself, whatever becomes of ctx.
func (e *serverEngine) once(ctx context.Context, fn func(context.Context, *txn.Tx) error) (err error) {
	t, err := e.s.backend.Server.Begin(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("sqlstore: begin: %w", e.s.backend.classify(err))
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.s.cfg.TxTimeout)
	defer cancel()
	committed := false
	defer func() {
		if !committed { // Also when fn ends its goroutine.
			_ = t.Rollback(work)
		}
	}()
	c := &serverConn{e: e, t: t, work: work}
	tx := txn.NewTx(c, e.s, time.Now())
	err = e.call(serverContext{work, e.s}, tx, fn)
	if c.open != nil {
		_ = c.open.Close() // Forgotten: the next statement must not meet it.
	}
	if err == nil || c.err != nil && !errors.Is(err, c.err) {
		err = errors.Join(err, c.err) // A function that hides why it failed must not hide a conflict.
	}
	if err != nil {
		return err
	}
	if events := tx.Events(); len(events) > 0 {
		if w, ok := e.s.outbox.(eventWriter); ok {
			if err := w.write(work, txn.NewTx(c, e.s, tx.Now()), events); err != nil {
				return fmt.Errorf("sqlstore: add %d events: %w", len(events), err)
			}
		}
	}
	if err := t.Commit(work); err != nil {
		return fmt.Errorf("sqlstore: commit: %w", e.s.backend.classify(err))
	}
	committed = true
	tx.Committed()
	if len(tx.Events()) > 0 {
		e.s.ringOutbox()
	}
	return nil
}

// ringOutbox tells this process and others that there is something new in the outbox: events that were committed,
// or that got their positions, without which followers do not see them.
func (s *Store) ringOutbox() {
	s.outboxBell.ring()
	if d := s.backend.Doorbell; d != nil {
		d.Ring()
	}
}

func (e *serverEngine) call(ctx context.Context, tx *txn.Tx, fn func(context.Context, *txn.Tx) error) (err error) {
	defer tx.Close()
	defer func() {
		if p := recover(); p != nil {
			err = &txn.PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return fn(ctx, tx)
}

func (e *serverEngine) query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	if !e.enter() {
		return nil, ErrClosed
	}
	defer e.running.Done()
	rows, err := e.s.backend.Server.Query(ctx, query, args...)
	if err != nil {
		return nil, e.s.backend.classify(err)
	}
	return rows, nil
}

func (e *serverEngine) close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.running.Wait()
	close(e.quit)
	e.done.Wait()
	return nil
}

// serverContext knows its store, so that a transaction inside the transaction is refused: it would wait
// for a connection, and for the locks of the one around it.
type serverContext struct {
	context.Context //nolint:containedctx // It wraps its parent, as contexts do.

	store *Store
}

func (c serverContext) Value(key any) any {
	if key == (insideKey{}) {
		return c.store
	}
	return c.Context.Value(key)
}

// serverConn is a function's view of its transaction. After a statement has failed the transaction is over,
// whatever the function makes of the error; this is the server's own rule, told early.
type serverConn struct {
	e    *serverEngine
	t    Transaction
	work context.Context //nolint:containedctx // It bounds every statement: a cancelled one would end the transaction.
	err  error
	open *serverRows
}

var _ txn.Conn = (*serverConn)(nil)

func (c *serverConn) fail(err error) error {
	err = c.e.s.backend.classify(err)
	if c.err == nil {
		c.err = err
	}
	return err
}

func (c *serverConn) ready(query string) error {
	switch {
	case c.err != nil:
		return fmt.Errorf("transaction has failed: %w", c.err)
	case c.open != nil:
		return c.fail(ErrRowsOpen)
	}
	if err := checkControl(query); err != nil {
		return c.fail(err)
	}
	return nil
}

// Exec implements [txn.Conn].
func (c *serverConn) Exec(_ context.Context, query string, args ...any) (int64, error) {
	if err := c.ready(query); err != nil {
		return 0, err
	}
	n, err := c.t.Exec(c.work, query, args...)
	if err != nil {
		return 0, c.fail(err)
	}
	return n, nil
}

// Query implements [txn.Conn].
func (c *serverConn) Query(_ context.Context, query string, args ...any) (txn.Rows, error) {
	if err := c.ready(query); err != nil {
		return nil, err
	}
	r, err := c.t.Query(c.work, query, args...)
	if err != nil {
		return nil, c.fail(err)
	}
	c.open = &serverRows{Rows: r, c: c}
	return c.open, nil
}

// Queue implements [txn.Conn].
func (c *serverConn) Queue(query string, args ...any) {
	if c.ready(query) == nil {
		c.t.Queue(query, args...)
	}
}

// Raw implements [txn.Conn].
func (c *serverConn) Raw() any { return c.t.Raw() }

// serverRows reports its errors to the transaction.
type serverRows struct {
	txn.Rows

	c *serverConn
}

func (r *serverRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	if err := r.Err(); err != nil {
		_ = r.c.fail(err)
	}
	return false
}

func (r *serverRows) Close() error {
	if r.c.open == r {
		r.c.open = nil
	}
	return r.Rows.Close()
}
