package settlesqlite_test

import (
	"context"
	"testing"

	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
	"github.com/settledev/settle/txn/txntest"
)

func TestTxnSuite(t *testing.T) {
	txntest.Run(t, txntest.Harness{
		Open: func(t *testing.T) txn.Runner {
			s := newStore(t)
			err := s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
				_, err := tx.Exec(ctx, "CREATE TABLE counter (name TEXT PRIMARY KEY, n INTEGER NOT NULL)")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Add: func(ctx context.Context, tx *txn.Tx, name string, n int) error {
			_, err := tx.Exec(ctx, "INSERT INTO counter (name, n) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET n = n + ?2", name, n)
			return err
		},
		Committed: func(t *testing.T, s txn.Runner, name string) int {
			store, ok := s.(*sqlstore.Store)
			if !ok {
				t.Fatalf("runner is a %T", s)
			}
			var n int
			err := store.QueryRow(t.Context(), "SELECT coalesce(sum(n), 0) FROM counter WHERE name = ?1", []any{name}, &n)
			if err != nil {
				t.Error(err)
			}
			return n
		},
		Reopen: func(t *testing.T, s txn.Runner) txn.Runner { return crash(t, s) },
	})
}
