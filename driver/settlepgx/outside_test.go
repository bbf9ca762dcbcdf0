package settlepgx_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/sqlstore"
)

// TestWriter adds events in a transaction of database/sql.
func TestWriter(t *testing.T) {
	s := newStore(t)
	cfg, err := pgx.ParseConfig(databaseOf(t, s))
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	w, err := sqlstore.NewWriter(sqlstore.Postgres(), "notebook", 0)
	if err != nil {
		t.Fatal(err)
	}
	cause := event.Cause{CausationID: event.NewID(time.Now()), CorrelationID: "cor"}
	for _, commit := range []bool{true, false} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(event.WithCause(t.Context(), cause), tx, noted.New(noteV1{"a", 1}), noted.Once("k", noteV1{"b", 2})); err != nil {
			t.Fatal(err)
		}
		end := tx.Rollback
		if commit {
			end = tx.Commit
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	lease, err := s.Outbox().Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	records, err := s.Outbox().Next(t.Context(), lease, outbox.Position{}, 10)
	if err != nil || len(records) != 2 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	first, second := records[0].Event, records[1].Event
	if first.Producer != "notebook" || first.CausationID != cause.CausationID || first.AggregateID != "a" || second.IdempotencyKey != "k" {
		t.Errorf("events have changed: %+v, %+v", first, second)
	}
	for name, bad := range map[string]struct {
		dialect sqlstore.Dialect
		shards  int
	}{"negative": {sqlstore.Postgres(), -1}, "a file": {sqlstore.SQLite(), 1}, "no dialect": {sqlstore.Dialect{}, 1}} {
		if _, err := sqlstore.NewWriter(bad.dialect, "notebook", bad.shards); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
