package settlepgx_test

import (
	"testing"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/inbox/inboxtest"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/relay/relaytest"
	"github.com/settledev/settle/txn"
	"github.com/settledev/settle/txn/txntest"
)

// pooled opens an empty store behind PgBouncer in transaction mode.
func pooled[S any](t *testing.T) S {
	t.Helper()
	pooler := server.Shared(t, server.PgBouncer)
	target := newDatabase(t, shared(t))
	s := openStore(t, withDatabase(t, pooler, path(t, target)[1:]), settlepgx.Config{Migrate: true, Pooler: true, ConnsMax: 12})
	return as[S](t, s)
}

// TestPooler runs suites behind a pooler. Nobody can tell its sessions from ours, so none is reopened.
func TestPooler(t *testing.T) {
	lacks := []string{"Reopen"}
	t.Run("Relay", func(t *testing.T) {
		relaytest.Run(t, relaytest.Harness{Open: pooled[relaytest.Store], Lacks: lacks})
	})
	t.Run("Inbox", func(t *testing.T) {
		inboxtest.Run(t, inboxtest.Harness{Open: pooled[inboxtest.Store], Lacks: lacks})
	})
	t.Run("Txn", func(t *testing.T) {
		txntest.Run(t, txntest.Harness{
			Open: func(t *testing.T) txn.Runner {
				s := pooled[txn.Runner](t)
				run(t, s, sqlExec("CREATE TABLE counter (name text PRIMARY KEY, n bigint NOT NULL)"))
				return s
			},
			Add: addCounter, Committed: committed, Lacks: lacks,
		})
	})
}
