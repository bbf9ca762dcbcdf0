package settlesqlite_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

type noteV1 struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

var noted = event.Define("Noted", 1, event.Spec[noteV1]{
	Topic: "notes", Aggregate: "note", Key: func(n noteV1) string { return n.Key },
})

func openStore(t testing.TB, path string, cfg settlesqlite.Config) *sqlstore.Store {
	t.Helper()
	cfg.Migrate = true
	s, err := settlesqlite.Open(context.Background(), path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newStore(t testing.TB) *sqlstore.Store {
	t.Helper()
	return openStore(t, filepath.Join(t.TempDir(), "test.db"), settlesqlite.Config{})
}

func run(t testing.TB, s txn.Runner, fn func(ctx context.Context, tx *txn.Tx) error) {
	t.Helper()
	if err := s.Run(t.Context(), bound(fn)); err != nil {
		t.Fatal(err)
	}
}

func bound(fn func(context.Context, *txn.Tx) error) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("notebook", nil)
		return fn(ctx, tx)
	}
}

func add(keys ...string) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		for _, k := range keys {
			if err := outbox.Add(ctx, tx, noted.New(noteV1{Key: k, Text: strings.Repeat("x", 20)})); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestEveryStatementPrepares(t *testing.T) {
	s := newStore(t)
	all, err := sqlstore.SQLite().Statements()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, text := range all {
		n++
		if strings.HasPrefix(name, "store.") {
			continue // Transactions and the schema are run by opening the store.
		}
		run(t, s, func(_ context.Context, tx *txn.Tx) error {
			e, err := txn.SQL(tx)
			if err != nil {
				return err
			}
			stmt, err := e.PrepareContext(t.Context(), text)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return nil
			}
			return stmt.Close()
		})
	}
	if n < 50 {
		t.Errorf("only %d statements", n)
	}
}

func TestOutboxRoundTrip(t *testing.T) {
	s := newStore(t)
	run(t, s, add("a", "b"))
	run(t, s, add("c"))
	src := s.Outbox()
	got, err := src.Next(t.Context(), relay.Lease{}, outbox.Position{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Event.AggregateID != "a" || got[2].Position.ID != 3 {
		t.Fatalf("got %+v", got)
	}
}
