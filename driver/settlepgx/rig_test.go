package settlepgx_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// newDatabase makes a database of its own on a server and returns its URL.
func newDatabase(tb testing.TB, base string) string {
	tb.Helper()
	name := "t" + strings.ToLower(rand.Text()[:12])
	target := withDatabase(tb, base, name)
	if err := settlepgx.EnsureDatabase(tb.Context(), target); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = settlepgx.DropDatabase(ctx, target) // The server may be gone before.
	})
	return target
}

func withDatabase(tb testing.TB, base, name string) string {
	tb.Helper()
	u, err := url.Parse(base)
	if err != nil {
		tb.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func shared(tb testing.TB) string {
	tb.Helper()
	return server.Shared(tb, server.Postgres)
}

// openStore opens the store of a database, and closes it when the test ends.
func openStore(tb testing.TB, target string, cfg settlepgx.Config) *sqlstore.Store {
	tb.Helper()
	s, err := settlepgx.Open(context.Background(), target, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// newStore opens an empty store.
func newStore(tb testing.TB) *sqlstore.Store {
	tb.Helper()
	return openStore(tb, newDatabase(tb, shared(tb)), settlepgx.Config{Migrate: true, ConnsMax: 16})
}

// connect returns a session beside the store's.
func connect(tb testing.TB, target string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), target)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// as is a value the way a suite wants it, or what else it must be.
func as[S any](tb testing.TB, s any) S {
	tb.Helper()
	v, ok := s.(S)
	if !ok {
		tb.Fatalf("%T is no %s", s, reflect.TypeFor[S]())
	}
	return v
}

func run(tb testing.TB, s txn.Runner, fn func(ctx context.Context, tx *txn.Tx) error) {
	tb.Helper()
	if err := s.Run(tb.Context(), bound(fn)); err != nil {
		tb.Fatal(err)
	}
}

func bound(fn func(context.Context, *txn.Tx) error) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("notebook", nil)
		return fn(ctx, tx)
	}
}

func sqlExec(query string, args ...any) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
	}
}

type noteV1 struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

var noted = event.Define("Noted", 1, event.Spec[noteV1]{
	Topic: "notes", Aggregate: "note", Key: func(n noteV1) string { return n.Key },
})

// add adds an event for each key, numbered from first.
func add(first int, keys ...string) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		for i, k := range keys {
			if err := outbox.Add(ctx, tx, noted.New(noteV1{Key: k, N: first + i})); err != nil {
				return err
			}
		}
		return nil
	}
}

// drop ends all sessions of a database, as a failover does.
func drop(tb testing.TB, target string) {
	tb.Helper()
	u, err := url.Parse(target)
	if err != nil {
		tb.Fatal(err)
	}
	conn := connect(tb, withDatabase(tb, target, "postgres"))
	if _, err := conn.Exec(tb.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", strings.TrimPrefix(u.Path, "/")); err != nil {
		tb.Fatal(fmt.Errorf("end sessions: %w", err))
	}
}
