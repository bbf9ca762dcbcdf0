package settlemysql_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// as is a value the way a suite wants it, or what else it must be.
func as[S any](tb testing.TB, s any) S {
	tb.Helper()
	v, ok := s.(S)
	if !ok {
		tb.Fatalf("%T is no %s", s, reflect.TypeFor[S]())
	}
	return v
}

// both runs a test in both ways of counting the rows that an UPDATE affects.
func both(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	server.Shared(t, server.MariaDB) // -short skips the test here: below, a suite's own tests would go on.
	for _, found := range []string{"false", "true"} {
		t.Run("clientFoundRows="+found, func(t *testing.T) {
			test(t, &rig{tb: t, query: "clientFoundRows=" + found, urls: map[*sqlstore.Store]string{}})
		})
	}
}

// rig opens stores, each in a database of its own. A database that was used is emptied and used again, as to
// make one takes longer than most tests.
type rig struct {
	tb    testing.TB
	query string
	urls  map[*sqlstore.Store]string
	free  []string
}

// database returns the URL of a new database on a server, which is dropped in the end.
func database(tb testing.TB, on, query string) string {
	tb.Helper()
	u, err := url.Parse(on)
	if err != nil {
		tb.Fatal(err)
	}
	u.Path, u.RawQuery = "/settle_"+strings.ToLower(rand.Text()[:10]), query
	ctx := context.WithoutCancel(tb.Context())
	if err := settlemysql.EnsureDatabase(ctx, u.String()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := settlemysql.DropDatabase(ctx, u.String()); err != nil {
			tb.Error(err)
		}
	})
	return u.String()
}

func openStore(tb testing.TB, target string, cfg settlemysql.Config) *sqlstore.Store {
	tb.Helper()
	cfg.Migrate = true
	s, err := settlemysql.Open(tb.Context(), target, cfg)
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

func newStore(tb testing.TB) *sqlstore.Store {
	tb.Helper()
	return openStore(tb, database(tb, server.Shared(tb, server.MariaDB), ""), settlemysql.Config{})
}

func (r *rig) open(t *testing.T) *sqlstore.Store {
	t.Helper()
	if len(r.free) == 0 {
		r.free = append(r.free, database(r.tb, server.Shared(r.tb, server.MariaDB), r.query))
	}
	target := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	t.Cleanup(func() { r.empty(t, target) })
	s := openStore(t, target, settlemysql.Config{})
	r.urls[s] = target
	return s
}

// empty makes a database as if it had just been migrated.
func (r *rig) empty(t *testing.T, target string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	s, err := settlemysql.Open(ctx, target, settlemysql.Config{})
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	rows, err := s.Query(ctx, `SELECT concat(CASE WHEN table_name LIKE 'settle%' THEN 'DELETE FROM ' ELSE 'DROP TABLE ' END, table_name)
		FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'
			AND table_name NOT IN ('settle_schema', 'settle_feed')`)
	texts := []string{"UPDATE settle_feed SET epoch = REPLACE(UUID(), '-', ''), `last` = 0"}
	for err == nil && rows.Next() {
		var text string
		err = rows.Scan(&text)
		texts = append(texts, text)
	}
	if err == nil {
		err = errors.Join(rows.Err(), rows.Close())
	}
	if err == nil {
		err = s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
			for _, text := range texts {
				if _, err := tx.Exec(ctx, text); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		t.Error(err)
		return
	}
	r.free = append(r.free, target)
}

// reopen gives a store up as a crash of its process does: another one opens the database beside it.
func (r *rig) reopen(t *testing.T, old any) *sqlstore.Store {
	t.Helper()
	target := r.urls[as[*sqlstore.Store](t, old)]
	s := openStore(t, target, settlemysql.Config{})
	r.urls[s] = target
	return s
}

type noteV1 struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

var noted = event.Define("Noted", 1, event.Spec[noteV1]{
	Topic: "notes", Aggregate: "note", Key: func(n noteV1) string { return n.Key },
})

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

func exec(query string, args ...any) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
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

func then(fns ...func(context.Context, *txn.Tx) error) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		for _, fn := range fns {
			if err := fn(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	}
}
