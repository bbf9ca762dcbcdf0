package settlemysql_test

import (
	"context"
	"testing"

	"github.com/settledev/settle/call/calltest"
	"github.com/settledev/settle/consumer/positionstest"
	"github.com/settledev/settle/deadletter/deadlettertest"
	"github.com/settledev/settle/idempotency/idempotencytest"
	"github.com/settledev/settle/inbox/inboxtest"
	"github.com/settledev/settle/lock/locktest"
	"github.com/settledev/settle/push/pushtest"
	"github.com/settledev/settle/relay/relaytest"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/timer/timertest"
	"github.com/settledev/settle/txn"
	"github.com/settledev/settle/txn/txntest"
)

// store is a fresh store, again the same data as after a crash, as a suite wants them.
func store[S any](r *rig) (fresh func(t *testing.T) S, again func(t *testing.T, s S) S) {
	fresh = func(t *testing.T) S {
		t.Helper()
		return as[S](t, r.open(t))
	}
	again = func(t *testing.T, s S) S {
		t.Helper()
		return as[S](t, r.reopen(t, s))
	}
	return fresh, again
}

func TestRelaySuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		fresh, again := store[relaytest.Store](r)
		relaytest.Run(t, relaytest.Harness{Open: fresh, Reopen: func(t *testing.T, s relaytest.Store) relaytest.Store {
			t.Helper()
			s = again(t, s)
			// The suite's lease lasts for a minute: as if it had run out.
			run(t, s, exec("UPDATE settle_relay SET expires_at = 1"))
			return s
		}})
	})
}

func TestInboxSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		fresh, again := store[inboxtest.Store](r)
		inboxtest.Run(t, inboxtest.Harness{Open: fresh, Reopen: again})
	})
}

func TestPositionsSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		fresh, again := store[positionstest.Store](r)
		positionstest.Run(t, positionstest.Harness{Open: fresh, Reopen: again})
	})
}

func TestTimerSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		fresh, again := store[timertest.Store](r)
		timertest.Run(t, timertest.Harness{Open: fresh, Reopen: again})
	})
}

func TestCallSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		fresh, again := store[calltest.Store](r)
		calltest.Run(t, calltest.Harness{Open: fresh, Reopen: again})
	})
}

func TestLettersSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		fresh, again := store[deadlettertest.Store](r)
		deadlettertest.Run(t, deadlettertest.Harness{Open: fresh, Reopen: again})
	})
}

func TestAnswersSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		fresh, again := store[idempotencytest.Store](r)
		idempotencytest.Run(t, idempotencytest.Harness{Open: fresh, Reopen: again})
	})
}

func TestFeedSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		fresh, again := store[pushtest.Store](r)
		pushtest.Run(t, pushtest.Harness{Open: fresh, Reopen: again})
	})
}

const (
	counterTable = "CREATE TABLE counter (name VARCHAR(64) PRIMARY KEY, n INT NOT NULL)"
	counterRead  = "SELECT coalesce(sum(n), 0) FROM counter WHERE name = ?1"
	counterAdd   = "INSERT INTO counter (name, n) VALUES (?1, ?2) ON DUPLICATE KEY UPDATE n = n + ?2"
	counterPut   = "INSERT INTO counter (name, n) VALUES (?1, ?2) ON DUPLICATE KEY UPDATE n = ?2"
)

// withCounters opens an empty store with a table of business state.
func (r *rig) withCounters(t *testing.T) *sqlstore.Store {
	t.Helper()
	s := r.open(t)
	run(t, s, exec(counterTable))
	return s
}

func TestTxnSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		txntest.Run(t, txntest.Harness{
			Open: func(t *testing.T) txn.Runner { return r.withCounters(t) },
			Add: func(ctx context.Context, tx *txn.Tx, name string, n int) error {
				_, err := tx.Exec(ctx, counterAdd, name, n)
				return err
			},
			Committed: func(t *testing.T, s txn.Runner, name string) int {
				var n int
				if err := as[*sqlstore.Store](t, s).QueryRow(t.Context(), counterRead, []any{name}, &n); err != nil {
					t.Error(err)
				}
				return n
			},
			Reopen: func(t *testing.T, s txn.Runner) txn.Runner { return r.reopen(t, s) },
		})
	})
}

func TestLockSuite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		locktest.Run(t, locktest.Harness{
			Open: func(t *testing.T) locktest.Store { return r.withCounters(t) },
			Get: func(ctx context.Context, tx *txn.Tx, name string) (n int, err error) {
				err = tx.QueryRow(ctx, counterRead, []any{name}, &n)
				return n, err
			},
			Put: func(ctx context.Context, tx *txn.Tx, name string, n int) error {
				_, err := tx.Exec(ctx, counterPut, name, n)
				return err
			},
			Peer:   func(t *testing.T, s locktest.Store) locktest.Store { return r.reopen(t, s) },
			Reopen: func(t *testing.T, s locktest.Store) locktest.Store { return r.reopen(t, s) },
		})
	})
}
