package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/txn"
)

// Reader runs queries outside of transactions. Stores of package sqlstore are readers.
type Reader interface {
	Query(ctx context.Context, query string, args ...any) (txn.Rows, error)
}

// ReaderOf returns the store's reader. A store that is none answers every query with
// [errors.ErrUnsupported].
func ReaderOf(store any) Reader {
	if r, ok := store.(Reader); ok {
		return r
	}
	return noReader{store}
}

type noReader struct{ store any }

func (r noReader) Query(context.Context, string, ...any) (txn.Rows, error) {
	return nil, fmt.Errorf("page: store %T runs no queries: %w", r.store, errors.ErrUnsupported)
}

// List serves one SQL query as pages. The query takes (after, limit) as its only arguments and orders by
// key; scan reads one row.
func List[T any](db Reader, query string, scan func(txn.Rows) (T, error), key func(T) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ask, err := Parse(r)
		if err != nil {
			problem.Write(w, http.StatusBadRequest, "bad-page", "The page cannot be read", err.Error(), nil)
			return
		}
		items, err := Select(r.Context(), db, query, []any{ask.After, ask.Limit}, scan)
		if err != nil {
			problem.Internal(err, "The list cannot be read").Send(w)
			return
		}
		Write(w, http.StatusOK, New(ask, items, key))
	}
}

// Select runs a query and reads its rows.
func Select[T any](ctx context.Context, db Reader, query string, args []any, scan func(txn.Rows) (T, error)) (items []T, err error) {
	rows, err := db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		item, err := scan(rows)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, rows.Err()
}
