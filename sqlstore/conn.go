package sqlstore

import (
	"container/list"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/settledev/settle/txn"
)

// preparer is what [sql.Conn] and [sql.DB] have in common for a cache of statements.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// stmtCache keeps the most recently used prepared statements by their text. It is for one goroutine.
type stmtCache struct {
	db     preparer
	check  func(text string) error
	max    int
	byText map[string]*list.Element
	order  *list.List // of *cached, most recently used in front
}

type cached struct {
	text string
	stmt *sql.Stmt
}

func newStmtCache(db preparer, limit int, check func(string) error) *stmtCache {
	return &stmtCache{db: db, check: check, max: limit, byText: make(map[string]*list.Element, limit), order: list.New()}
}

func (c *stmtCache) get(ctx context.Context, text string) (*sql.Stmt, error) {
	if el, ok := c.byText[text]; ok {
		if c.order.Front() != el {
			c.order.MoveToFront(el)
		}
		return el.Value.(*cached).stmt, nil //nolint:errcheck // The list holds nothing else.
	}
	if c.check != nil {
		if err := c.check(text); err != nil {
			return nil, err
		}
	}
	stmt, err := c.db.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	c.byText[text] = c.order.PushFront(&cached{text, stmt})
	if c.order.Len() > c.max {
		old := c.order.Remove(c.order.Back()).(*cached) //nolint:errcheck // The list holds nothing else.
		delete(c.byText, old.text)
		_ = old.stmt.Close() // It was only a cache; an error of closing hurts nobody.
	}
	return stmt, nil
}

func (c *stmtCache) close() {
	for el := c.order.Front(); el != nil; el = el.Next() {
		_ = el.Value.(*cached).stmt.Close() //nolint:errcheck // See get.
	}
	clear(c.byText)
	c.order.Init()
}

// conn is one member's view of the writer's connection. After the first error of a statement it refuses
// every other one: SQLite may have ended the whole transaction, and what follows would be committed on
// its own.
type conn struct {
	w    *writer
	err  error
	open *rows
	raw  bool // the function has had the connection itself
}

var _ txn.Conn = (*conn)(nil)

// memberContext is the context of a member's function: it cannot be cancelled, and it knows its store,
// so that a transaction inside the transaction is refused instead of waiting for itself.
type memberContext struct {
	context.Context //nolint:containedctx // It wraps its parent, as contexts do.

	store *Store
}

type insideKey struct{}

func (memberContext) Deadline() (deadline time.Time, ok bool) { return }
func (memberContext) Done() <-chan struct{}                   { return nil }
func (memberContext) Err() error                              { return nil }

func (c memberContext) Value(key any) any {
	if key == (insideKey{}) {
		return c.store
	}
	return c.Context.Value(key)
}

// uncancelled returns ctx, or one that cannot be cancelled: an interrupted statement would take the
// whole group with it.
func uncancelled(ctx context.Context) context.Context {
	if ctx.Done() == nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

func (c *conn) fail(err error) error {
	err = c.w.backend.classify(err)
	if c.err == nil {
		c.err = err
	}
	return err
}

func (c *conn) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if c.err != nil {
		return nil, fmt.Errorf("transaction has failed: %w", c.err)
	}
	if c.open != nil {
		return nil, c.fail(ErrRowsOpen)
	}
	s, err := c.w.stmts.get(ctx, query)
	if err != nil {
		return nil, c.fail(err)
	}
	return s, nil
}

// errControl refuses a function's own BEGIN, COMMIT and the like: it would end its neighbours'
// transaction, or commit half of them.
var errControl = errors.New("a transaction's function cannot control the transaction")

// checkControl is asked once for each text, when it is prepared.
func checkControl(query string) error {
	rest := query
	for {
		rest = strings.TrimLeft(rest, " \t\r\n;")
		if after, ok := strings.CutPrefix(rest, "--"); ok {
			_, rest, _ = strings.Cut(after, "\n")
		} else if after, ok := strings.CutPrefix(rest, "/*"); ok {
			_, rest, _ = strings.Cut(after, "*/")
		} else {
			break
		}
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return !unicode.IsLetter(r) })
	if end < 0 {
		end = len(rest)
	}
	switch strings.ToUpper(rest[:end]) {
	case "BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE":
		return fmt.Errorf("%.40q: %w", query, errControl)
	}
	return nil
}

// Exec implements [txn.Conn].
func (c *conn) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := c.result(ctx, query, args)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (c *conn) result(ctx context.Context, query string, args []any) (sql.Result, error) {
	ctx = uncancelled(ctx)
	s, err := c.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	res, err := s.ExecContext(ctx, args...)
	if err != nil {
		return nil, c.fail(err)
	}
	return res, nil
}

// Query implements [txn.Conn].
func (c *conn) Query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	ctx = uncancelled(ctx)
	s, err := c.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	r, err := s.QueryContext(ctx, args...)
	if err != nil {
		return nil, c.fail(err)
	}
	c.open = &rows{Rows: r, c: c}
	return c.open, nil
}

// Queue implements [txn.Conn]: SQLite has nothing to pipeline, so the statement runs now.
func (c *conn) Queue(query string, args ...any) {
	_, _ = c.result(context.Background(), query, args) // The error is kept and fails the transaction.
}

// Raw implements [txn.Conn].
func (c *conn) Raw() any {
	c.raw = true
	return &executor{c: c}
}

// rows reports its errors to the member's connection.
type rows struct {
	*sql.Rows

	c *conn
}

func (r *rows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	if err := r.Err(); err != nil {
		_ = r.c.fail(err)
	}
	return false
}

func (r *rows) Close() error {
	if r.c.open == r {
		r.c.open = nil
	}
	return r.Rows.Close()
}

// executor is the connection for object mappers and generated queries.
type executor struct{ c *conn }

var _ txn.Executor = (*executor)(nil)

func (e *executor) check() error {
	if e.c.err != nil {
		return fmt.Errorf("transaction has failed: %w", e.c.err)
	}
	return nil
}

func (e *executor) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return e.c.result(ctx, query, args)
}

func (e *executor) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if err := checkControl(query); err != nil {
		return nil, e.c.fail(err)
	}
	s, err := e.c.w.conn.PrepareContext(uncancelled(ctx), query)
	if err != nil {
		return nil, e.c.fail(err)
	}
	return s, nil
}

func (e *executor) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if err := checkControl(query); err != nil {
		return nil, e.c.fail(err)
	}
	r, err := e.c.w.conn.QueryContext(uncancelled(ctx), query, args...)
	if err != nil {
		return nil, e.c.fail(err)
	}
	return r, nil
}

func (e *executor) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	ctx = uncancelled(ctx)
	if e.check() != nil || checkControl(query) != nil {
		// A row cannot be made by hand; a cancelled context makes one that holds an error.
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		ctx = cancelled
	}
	row := e.c.w.conn.QueryRowContext(ctx, query, args...)
	if err := row.Err(); err != nil && !errors.Is(err, sql.ErrNoRows) {
		_ = e.c.fail(err)
	}
	return row
}
