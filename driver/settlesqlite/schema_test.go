package settlesqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

func service(files ...string) sqlstore.Schema {
	fsys := fstest.MapFS{"README.md": {Data: []byte("ignored")}}
	for i := 0; i < len(files); i += 2 {
		fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return sqlstore.Schema{Name: "order", Files: fsys}
}

func TestSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	one := service("0001_orders.sql", "CREATE TABLE orders (id TEXT PRIMARY KEY); CREATE INDEX by_id ON orders (id)")
	two := service("0001_orders.sql", "CREATE TABLE orders (id TEXT PRIMARY KEY); CREATE INDEX by_id ON orders (id)",
		"0002_lines.sql", "CREATE TABLE lines (id TEXT PRIMARY KEY)")
	broken := service("0001_orders.sql", "CREATE TABLE orders (id TEXT PRIMARY KEY); CREATE INDEX by_id ON orders (id)",
		"0002_lines.sql", "CREATE TABLE lines (id TEXT PRIMARY KEY); CREATE TABLE orders (id TEXT)")
	edited := service("0001_orders.sql", "CREATE TABLE orders (id TEXT PRIMARY KEY)")

	open := func(schemas ...sqlstore.Schema) error {
		s, err := settlesqlite.Open(t.Context(), path, settlesqlite.Config{Store: sqlstore.Config{Schemas: schemas}})
		if err != nil {
			return err
		}
		return s.Close()
	}
	if err := open(); !errors.Is(err, sqlstore.ErrSchema) || !strings.Contains(err.Error(), "version 0, this program needs 2") {
		t.Errorf("an empty file was opened: %v", err)
	}
	if n, err := settlesqlite.Migrate(t.Context(), path, one); n != 3 || err != nil {
		t.Fatalf("%d migrations, %v", n, err)
	}
	if err := open(one); err != nil {
		t.Error(err)
	}
	if n, err := settlesqlite.Migrate(t.Context(), path, one); n != 0 || err != nil {
		t.Errorf("again: %d migrations, %v", n, err)
	}
	if err := open(two); !errors.Is(err, sqlstore.ErrSchema) || !strings.Contains(err.Error(), "schema order is at version 1, this program needs 2") {
		t.Errorf("an old schema was opened: %v", err)
	}
	if n, err := settlesqlite.Migrate(t.Context(), path, broken); n != 0 || err == nil || !strings.Contains(err.Error(), "0002_lines.sql") {
		t.Errorf("a broken migration: %d, %v", n, err)
	}
	if n, err := settlesqlite.Migrate(t.Context(), path, two); n != 1 || err != nil { // Nothing of the broken one is left.
		t.Errorf("%d migrations, %v", n, err)
	}
	if err := open(one); !errors.Is(err, sqlstore.ErrSchema) || !strings.Contains(err.Error(), "version 2, this program knows 1") {
		t.Errorf("a newer schema was opened: %v", err)
	}
	if err := open(edited); !errors.Is(err, sqlstore.ErrSchema) {
		t.Errorf("an edited past was opened: %v", err)
	}
	if _, err := settlesqlite.Migrate(t.Context(), path, service("0002_lines.sql", "SELECT 1")); err == nil {
		t.Error("a gap between migrations was accepted")
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, cfg := range map[string]settlesqlite.Config{
		"negative readers":   {Readers: -1},
		"gap and no gap":     {Migrate: true, Store: sqlstore.Config{NoGap: true, Gap: 1}},
		"too few statements": {Migrate: true, Store: sqlstore.Config{StatementsMax: 3}},
	} {
		path := filepath.Join(t.TempDir(), "x.db")
		if s, err := settlesqlite.Open(t.Context(), path, cfg); err == nil {
			t.Errorf("%s: opened", name)
			s.Close()
		}
		openStore(t, path, settlesqlite.Config{}) // What was refused has left no lock.
	}
	if _, err := settlesqlite.OpenReader(t.Context(), filepath.Join(t.TempDir(), "none.db"), settlesqlite.Config{}); err == nil {
		t.Error("a reader made a file")
	}
}

// TestQueryPlans asserts that a hot statement finds its rows by an index, and sorts nothing.
func TestQueryPlans(t *testing.T) {
	s := newStore(t)
	all, err := sqlstore.SQLite().Statements()
	if err != nil {
		t.Fatal(err)
	}
	texts := maps.Collect(all)
	for name, want := range map[string]string{
		"outbox.after":           "SEARCH settle_outbox USING INTEGER PRIMARY KEY (rowid>?)",
		"outbox.purge":           "SEARCH settle_outbox USING INTEGER PRIMARY KEY (rowid<?)",
		"outbox.stats":           "SEARCH settle_outbox USING INTEGER PRIMARY KEY (rowid>?)",
		"relay.advance":          "SEARCH settle_relay USING INTEGER PRIMARY KEY (rowid=?)",
		"relay.parked_key":       "settle_relay_parked_key (topic=? AND aggregate_id=? AND id>?)",
		"relay.parked_replay":    "settle_relay_parked_replay",
		"relay.replay":           "settle_relay_parked_key (topic=? AND aggregate_id=?)",
		"relay.replay_topic":     "settle_relay_parked_key (topic=?)",
		"inbox.forget_timed":     "SEARCH settle_inbox USING PRIMARY KEY (group_id=? AND event_id<?)",
		"inbox.forget_untimed":   "SEARCH settle_inbox USING COVERING INDEX settle_inbox_untimed (at<?)",
		"consumer.store":         "SEARCH settle_position USING PRIMARY KEY (group_name=? AND partition=?)",
		"timer.cancel":           "settle_timer USING INDEX sqlite_autoindex_settle_timer_1 (key=?)",
		"timer.due":              "settle_timer USING INDEX settle_timer_at (at<?)",
		"timer.next":             "settle_timer USING COVERING INDEX settle_timer_at",
		"call.due":               "settle_call USING INDEX settle_call_due (call=? AND due<?)",
		"call.finish":            "settle_call USING INDEX sqlite_autoindex_settle_call_1 (call=? AND key=?)",
		"call.next":              "settle_call USING COVERING INDEX settle_call_due (call=?)",
		"deadletter.select_due":  "settle_letter USING INDEX settle_letter_due (group_name=? AND next_at<?)",
		"deadletter.select_lane": "settle_letter USING INDEX settle_letter_lane (group_name=? AND topic=? AND aggregate_id=? AND seq>?)",
		"deadletter.select_any":  "SEARCH settle_letter USING INTEGER PRIMARY KEY (rowid>?)",
		"deadletter.promote":     "settle_letter USING COVERING INDEX settle_letter_lane (group_name=? AND topic=? AND aggregate_id=?)",
		"deadletter.remove":      "(group_name=? AND event_id=?)",
		"deadletter.lanes":       "COVERING INDEX settle_letter_lane (group_name=?)",
		"idempotency.lookup":     "settle_answer USING INDEX sqlite_autoindex_settle_answer_1 (scope=? AND key=?)",
		"idempotency.forget":     "settle_answer USING COVERING INDEX settle_answer_saved (saved_at<?)",
		"push.after_all":         "SEARCH settle_frame USING INTEGER PRIMARY KEY (rowid>?)",
		"push.after":             "SEARCH x USING PRIMARY KEY (feed=? AND position>?)",
		"push.trim_feed":         "SEARCH settle_frame_feed USING PRIMARY KEY (feed=? AND position=?)",
	} {
		plan := explain(t, s, texts[name])
		sorts := strings.Contains(plan, "TEMP B-TREE FOR ORDER BY") && name != "deadletter.select_due"
		if !strings.Contains(plan, want) || sorts {
			t.Errorf("%s: want %s\n%s", name, want, plan)
		}
	}
}

func explain(t *testing.T, s *sqlstore.Store, text string) string {
	t.Helper()
	var plan strings.Builder
	run(t, s, func(ctx context.Context, tx *txn.Tx) error {
		e, err := txn.SQL(tx)
		if err != nil {
			return err
		}
		args := make([]any, strings.Count(text, "?")) // At least as many as there are parameters.
		rows, err := e.QueryContext(ctx, "EXPLAIN QUERY PLAN "+text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, parent, unused sql.NullInt64
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				return err
			}
			plan.WriteString(detail + "\n")
		}
		return rows.Err()
	})
	return plan.String()
}
