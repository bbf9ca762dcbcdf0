package settlesqlite_test

import (
	"context"
	"testing"

	"github.com/settledev/settle/lock/locktest"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
	"github.com/settledev/settle/txn/txntest"
)

func TestTxnSuite(t *testing.T) {
	txntest.Run(t, txntest.Harness{
		Open: func(t *testing.T) txn.Runner { return withCounters(t) },
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

// withCounters opens an empty store with a table of business state.
func withCounters(t *testing.T) *sqlstore.Store {
	t.Helper()
	s := newStore(t)
	run(t, s, sqlExec("CREATE TABLE counter (name TEXT PRIMARY KEY, n INTEGER NOT NULL)"))
	return s
}

func TestLockSuite(t *testing.T) {
	locktest.Run(t, locktest.Harness{
		Open: func(t *testing.T) locktest.Store { return withCounters(t) },
		Get: func(ctx context.Context, tx *txn.Tx, name string) (n int, err error) {
			err = tx.QueryRow(ctx, "SELECT coalesce(sum(n), 0) FROM counter WHERE name = ?1", []any{name}, &n)
			return n, err
		},
		Put: func(ctx context.Context, tx *txn.Tx, name string, n int) error {
			_, err := tx.Exec(ctx, "INSERT INTO counter (name, n) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET n = ?2", name, n)
			return err
		},
		Reopen: func(t *testing.T, s locktest.Store) locktest.Store { return crash(t, s) },
		Lacks:  []string{"Parallel"},
	})
}
