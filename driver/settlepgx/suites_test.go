package settlepgx_test

import (
	"context"
	"testing"

	"github.com/settledev/settle/call/calltest"
	"github.com/settledev/settle/consumer/positionstest"
	"github.com/settledev/settle/deadletter/deadlettertest"
	"github.com/settledev/settle/driver/settlepgx"
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

// fresh opens an empty store.
func fresh[S any](t *testing.T) S {
	t.Helper()
	return as[S](t, newStore(t))
}

// databaseOf returns the URL of a store's database.
func databaseOf(t *testing.T, s *sqlstore.Store) string {
	t.Helper()
	var name string
	if err := s.QueryRow(t.Context(), "SELECT current_database()::text", nil, &name); err != nil {
		t.Fatal(err)
	}
	return withDatabase(t, shared(t), name)
}

// peer opens the database of a store as another process does.
func peer[S any](t *testing.T, s S) S {
	t.Helper()
	return as[S](t, openStore(t, databaseOf(t, as[*sqlstore.Store](t, s)), settlepgx.Config{ConnsMax: 8}))
}

// crash gives a store up as a crash does: its sessions end where they are, and another process opens the
// database.
func crash[S any](t *testing.T, old S) S {
	t.Helper()
	target := databaseOf(t, as[*sqlstore.Store](t, old))
	drop(t, target)
	// The lease of a process that died runs out; here, at once.
	conn := connect(t, target)
	if _, err := conn.Exec(t.Context(), "UPDATE settle_relay SET expires_at = 1"); err != nil {
		t.Fatal(err)
	}
	return as[S](t, openStore(t, target, settlepgx.Config{ConnsMax: 16}))
}

func TestRelaySuite(t *testing.T) {
	relaytest.Run(t, relaytest.Harness{Open: fresh[relaytest.Store], Reopen: crash[relaytest.Store]})
}

func TestInboxSuite(t *testing.T) {
	inboxtest.Run(t, inboxtest.Harness{Open: fresh[inboxtest.Store], Reopen: crash[inboxtest.Store]})
}

func TestPositionsSuite(t *testing.T) {
	positionstest.Run(t, positionstest.Harness{Open: fresh[positionstest.Store], Reopen: crash[positionstest.Store]})
}

func TestTimerSuite(t *testing.T) {
	timertest.Run(t, timertest.Harness{Open: fresh[timertest.Store], Reopen: crash[timertest.Store]})
}

func TestCallSuite(t *testing.T) {
	calltest.Run(t, calltest.Harness{Open: fresh[calltest.Store], Reopen: crash[calltest.Store]})
}

func TestLettersSuite(t *testing.T) {
	deadlettertest.Run(t, deadlettertest.Harness{Open: fresh[deadlettertest.Store], Reopen: crash[deadlettertest.Store]})
}

func TestAnswersSuite(t *testing.T) {
	idempotencytest.Run(t, idempotencytest.Harness{Open: fresh[idempotencytest.Store], Reopen: crash[idempotencytest.Store]})
}

func TestFeedSuite(t *testing.T) {
	pushtest.Run(t, pushtest.Harness{Open: fresh[pushtest.Store], Reopen: crash[pushtest.Store]})
}

func TestTxnSuite(t *testing.T) {
	txntest.Run(t, txntest.Harness{
		Open: func(t *testing.T) txn.Runner { return withCounters(t) },
		Add:  addCounter, Committed: committed,
		Reopen: crash[txn.Runner],
	})
}

func addCounter(ctx context.Context, tx *txn.Tx, name string, n int) error {
	_, err := tx.Exec(ctx, "INSERT INTO counter (name, n) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = counter.n + $2", name, n)
	return err
}

func committed(t *testing.T, s txn.Runner, name string) (n int) {
	t.Helper()
	err := as[*sqlstore.Store](t, s).QueryRow(t.Context(), "SELECT coalesce(sum(n), 0)::bigint FROM counter WHERE name = $1", []any{name}, &n)
	if err != nil {
		t.Error(err)
	}
	return n
}

// withCounters opens an empty store with a table of business state.
func withCounters(t *testing.T) *sqlstore.Store {
	t.Helper()
	s := newStore(t)
	run(t, s, sqlExec("CREATE TABLE counter (name text PRIMARY KEY, n bigint NOT NULL)"))
	return s
}

func TestLockSuite(t *testing.T) {
	locktest.Run(t, locktest.Harness{
		Open: func(t *testing.T) locktest.Store { return withCounters(t) },
		Get: func(ctx context.Context, tx *txn.Tx, name string) (n int, err error) {
			err = tx.QueryRow(ctx, "SELECT coalesce(sum(n), 0)::bigint FROM counter WHERE name = $1", []any{name}, &n)
			return n, err
		},
		Put: func(ctx context.Context, tx *txn.Tx, name string, n int) error {
			_, err := tx.Exec(ctx, "INSERT INTO counter (name, n) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = $2", name, n)
			return err
		},
		Reopen: crash[locktest.Store],
		Peer:   peer[locktest.Store],
	})
}
