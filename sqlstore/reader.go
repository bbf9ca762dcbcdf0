package sqlstore

import (
	"context"
	"database/sql"
	"sync"

	"github.com/settledev/settle/txn"
)

// reader runs queries on the connections that only read. It keeps the first statements that it meets,
// prepared on every connection; what does not fit any more is prepared each time.
type reader struct {
	db      *sql.DB
	backend *Backend
	max     int

	mu    sync.RWMutex
	stmts map[string]*sql.Stmt
}

func newReader(db *sql.DB, b *Backend, limit int) *reader {
	return &reader{db: db, backend: b, max: limit, stmts: map[string]*sql.Stmt{}}
}

// stmt returns the prepared statement of a text, nil when there is no room for it.
func (r *reader) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	r.mu.RLock()
	s, full := r.stmts[query], len(r.stmts) >= r.max
	r.mu.RUnlock()
	if s != nil || full {
		return s, nil
	}
	// No lock is held while a connection is waited for.
	s, err := r.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if other := r.stmts[query]; other != nil {
		return other, s.Close()
	}
	r.stmts[query] = s
	return s, nil
}

func (r *reader) query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	s, err := r.stmt(ctx, query)
	if err != nil {
		return nil, r.backend.classify(err)
	}
	var rows *sql.Rows
	if s != nil {
		rows, err = s.QueryContext(ctx, args...)
	} else {
		rows, err = r.db.QueryContext(ctx, query, args...)
	}
	if err != nil {
		return nil, r.backend.classify(err)
	}
	return rows, nil
}

func (r *reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.stmts {
		_ = s.Close() // The database is closed next.
	}
	clear(r.stmts)
}
