package settlemysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// server is the database as the store uses it.
type server struct {
	db   *sql.DB
	text rewriter
}

var (
	_ sqlstore.Server      = (*server)(nil)
	_ sqlstore.Transaction = (*transaction)(nil)
)

// Begin implements [sqlstore.Server]. The transaction outlives ctx: database/sql would roll it back.
func (s *server) Begin(ctx context.Context) (sqlstore.Transaction, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &transaction{s: s, conn: conn, tx: tx}, nil
}

// Query implements [sqlstore.Server].
func (s *server) Query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	query, args, err := s.text.bind(query, args)
	if err != nil {
		return nil, err
	}
	return s.db.QueryContext(ctx, query, args...)
}

// transaction is one open transaction on a connection of its own.
type transaction struct {
	s      *server
	conn   *sql.Conn
	tx     *sql.Tx
	queued []statement
	over   bool
}

type statement struct {
	query string
	args  []any
}

// Exec implements [txn.Conn].
func (t *transaction) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if err := t.flush(ctx); err != nil {
		return 0, err
	}
	return t.exec(ctx, query, args)
}

func (t *transaction) exec(ctx context.Context, query string, args []any) (int64, error) {
	query, args, err := t.s.text.bind(query, args)
	if err != nil {
		return 0, err
	}
	res, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Query implements [txn.Conn].
func (t *transaction) Query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	query, args, err := t.s.text.bind(query, args)
	if err != nil {
		return nil, err
	}
	return t.tx.QueryContext(ctx, query, args...)
}

// Queue implements [txn.Conn]: there is nothing to pipeline, so the statement only waits.
func (t *transaction) Queue(query string, args ...any) {
	t.queued = append(t.queued, statement{query, args})
}

func (t *transaction) flush(ctx context.Context) error {
	for len(t.queued) > 0 {
		s := t.queued[0]
		t.queued = t.queued[1:]
		if _, err := t.exec(ctx, s.query, s.args); err != nil {
			return err
		}
	}
	return nil
}

// Raw implements [txn.Conn]: it is the *sql.Tx.
func (t *transaction) Raw() any { return t.tx }

// Commit implements [sqlstore.Transaction].
func (t *transaction) Commit(ctx context.Context) error {
	if err := t.flush(ctx); err != nil {
		return err
	}
	err := t.tx.Commit() // Bounded by the connection's own timeouts.
	if err != nil {
		if _, told := errors.AsType[*mysql.MySQLError](err); !told {
			err = fmt.Errorf("%w: %w", sqlstore.ErrUnavailable, err) // Nobody said what became of it.
		}
	}
	return errors.Join(err, t.end(err))
}

// Rollback implements [sqlstore.Transaction].
func (t *transaction) Rollback(context.Context) error {
	if t.over {
		return nil
	}
	err := t.tx.Rollback()
	return errors.Join(err, t.end(err))
}

// end gives the connection back. After an error nobody shall have it: a transaction that is still open there
// would be committed by the next one's begin.
func (t *transaction) end(err error) error {
	t.over = true
	if err != nil {
		_ = t.conn.Raw(func(any) error { return driver.ErrBadConn })
		return nil
	}
	return t.conn.Close()
}
