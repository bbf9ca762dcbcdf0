package settlemysql_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/go-sql-driver/mysql"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// numbered is a numbered placeholder, which the driver of settle takes and MySQL does not.
var numbered = regexp.MustCompile(`\?\d+`)

// connect opens a database without settle's driver.
func connect(tb testing.TB, target string) *sql.DB {
	tb.Helper()
	u, err := url.Parse(target)
	if err != nil {
		tb.Fatal(err)
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = u.User.Username(), "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	db := sql.OpenDB(c)
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

func statements(t *testing.T) map[string]string {
	t.Helper()
	all, err := sqlstore.MySQL().Statements()
	if err != nil {
		t.Fatal(err)
	}
	return maps.Collect(all)
}

func TestEveryStatementPrepares(t *testing.T) {
	target := database(t, server.Shared(t, server.MariaDB), "")
	openStore(t, target, settlemysql.Config{})
	db := connect(t, target)
	texts := statements(t)
	for name, text := range texts {
		stmt, err := db.PrepareContext(t.Context(), numbered.ReplaceAllString(text, "?"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = stmt.Close()
	}
	if len(texts) < 80 {
		t.Errorf("only %d statements", len(texts))
	}
}

func service(files ...string) sqlstore.Schema {
	fsys := fstest.MapFS{"README.md": {Data: []byte("ignored")}}
	for i := 0; i < len(files); i += 2 {
		fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return sqlstore.Schema{Name: "order", Files: fsys}
}

func TestSchema(t *testing.T) {
	const orders = "CREATE TABLE orders (id VARCHAR(64) PRIMARY KEY); CREATE INDEX by_id ON orders (id);"
	target := database(t, server.Shared(t, server.MariaDB), "")
	one := service("0001_orders.sql", orders)
	two := service("0001_orders.sql", orders, "0002_lines.sql", "CREATE TABLE line (id VARCHAR(64) PRIMARY KEY)")
	broken := service("0001_orders.sql", orders, "0002_lines.sql", "CREATE TABLE orders (id VARCHAR(64)); CREATE TABLE line (id VARCHAR(64))")
	edited := service("0001_orders.sql", "CREATE TABLE orders (id VARCHAR(64) PRIMARY KEY)")
	open := func(schemas ...sqlstore.Schema) error {
		s, err := settlemysql.Open(t.Context(), target, settlemysql.Config{Store: sqlstore.Config{Schemas: schemas}})
		if err != nil {
			return err
		}
		return s.Close()
	}
	// Several processes migrate: one works, the others wait.
	var applied atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			n, err := settlemysql.Migrate(t.Context(), target, one)
			if err != nil {
				t.Error(err)
			}
			applied.Add(int64(n))
		})
	}
	if wg.Wait(); applied.Load() != 3 {
		t.Errorf("%d migrations applied, want 3", applied.Load())
	}
	if err := open(one); err != nil {
		t.Error(err)
	}
	if err := open(two); !errors.Is(err, sqlstore.ErrSchema) || !strings.Contains(err.Error(), "schema order is at version 1, this program needs 2") {
		t.Errorf("an old schema was opened: %v", err)
	}
	if n, err := settlemysql.Migrate(t.Context(), target, broken); n != 0 || err == nil || !strings.Contains(err.Error(), "0002_lines.sql") {
		t.Errorf("a broken migration: %d, %v", n, err)
	}
	if n, err := settlemysql.Migrate(t.Context(), target, two); n != 1 || err != nil {
		t.Errorf("%d migrations, %v", n, err)
	}
	if err := open(one); !errors.Is(err, sqlstore.ErrSchema) || !strings.Contains(err.Error(), "version 2, this program knows 1") {
		t.Errorf("a newer schema was opened: %v", err)
	}
	if err := open(edited); !errors.Is(err, sqlstore.ErrSchema) {
		t.Errorf("an edited past was opened: %v", err)
	}
}

// TestMigrateAgain lets settle's own migrations run after they have failed half way: what they define commits
// by itself.
func TestMigrateAgain(t *testing.T) {
	target := database(t, server.Shared(t, server.MariaDB), "")
	s := openStore(t, target, settlemysql.Config{})
	run(t, s, add("a"))
	run(t, s, exec("DELETE FROM settle_schema"))
	if n, err := settlemysql.Migrate(t.Context(), target); n != 2 || err != nil {
		t.Errorf("%d migrations, %v", n, err)
	}
	var n int
	if err := s.QueryRow(t.Context(), "SELECT count(*) FROM settle_outbox", nil, &n); err != nil || n != 1 {
		t.Errorf("%d events, %v", n, err)
	}
}

// TestStrict proves that nothing is cut to fit, and that the session reads what is committed, whatever the
// server's defaults are.
func TestStrict(t *testing.T) {
	private := server.Start(t, server.MariaDB, server.Options{Settings: map[string]string{"sql-mode": "", "transaction-isolation": "REPEATABLE-READ"}})
	s := openStore(t, database(t, private.URL(), ""), settlemysql.Config{})
	run(t, s, exec("CREATE TABLE item (name VARCHAR(3) PRIMARY KEY)"))
	if err := s.Run(t.Context(), bound(exec("INSERT INTO item VALUES ('long')"))); err == nil {
		t.Error("a name was cut to fit its column")
	}
	run(t, s, func(ctx context.Context, tx *txn.Tx) error {
		var n int
		count := func() int {
			if err := tx.QueryRow(ctx, "SELECT count(*) FROM item", nil, &n); err != nil {
				t.Error(err)
			}
			return n
		}
		before := count()
		other := connect(t, private.URL())
		var name string
		if err := tx.QueryRow(ctx, "SELECT DATABASE()", nil, &name); err != nil {
			return err
		}
		if _, err := other.ExecContext(ctx, "INSERT INTO `"+name+"`.item VALUES ('new')"); err != nil {
			return err
		}
		if after := count(); before != 0 || after != 1 {
			t.Errorf("%d rows, then %d", before, after)
		}
		return nil
	})
}

// TestEnsureAndDrop makes and drops databases, and spares those of others.
func TestEnsureAndDrop(t *testing.T) {
	u, err := url.Parse(server.Shared(t, server.MariaDB))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/settle-quoted_" + strings.ToLower(rand.Text()[:8])
	ctx, target := t.Context(), u.String()
	for range 2 {
		if err := settlemysql.EnsureDatabase(ctx, target); err != nil {
			t.Fatal(err)
		}
	}
	db := connect(t, target)
	if _, err := db.ExecContext(ctx, "CREATE TABLE theirs (id INT)"); err != nil {
		t.Fatal(err)
	}
	if err := settlemysql.DropDatabase(ctx, target); !errors.Is(err, settlemysql.ErrNotOurs) {
		t.Errorf("another's database was dropped: %v", err)
	}
	if _, err := db.ExecContext(ctx, "DROP TABLE theirs"); err != nil {
		t.Fatal(err)
	}
	openStore(t, target, settlemysql.Config{})
	for range 2 { // One that is gone is what was asked for.
		if err := settlemysql.DropDatabase(ctx, target); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"/", "/a`b", "/a/b"} {
		u.Path = path
		if err := settlemysql.EnsureDatabase(ctx, u.String()); err == nil {
			t.Errorf("database %q was made", path)
		}
	}
}

// TestQueryPlans asserts that a hot statement finds its rows by an index, and that none sorts or reads a whole
// table.
func TestQueryPlans(t *testing.T) {
	target := database(t, server.Shared(t, server.MariaDB), "")
	openStore(t, target, settlemysql.Config{})
	db := connect(t, target)
	fill(t, db)
	texts := statements(t)
	// Where 1, 2, 3, ... would find nothing, which needs no index.
	arguments := map[string][]string{
		"call.finish":            {"c", "2"},
		"relay.parked_key":       {"0", "0", "3", "4", "t1", "k1"},
		"relay.parked_replay":    {"0", "0", "3", "4", "", ""},
		"deadletter.select_due":  {"g1", "", "", "", "", "6", "7", "8"},
		"deadletter.select_lane": {"g1", "t1", "k1", "", "", "6", "7", "0"},
		"deadletter.select_any":  {"", "", "", "", "", "6", "7", "0", "9"},
		"idempotency.lookup":     {"s", "2"},
	}
	for name, want := range map[string]string{
		"outbox.new":             "ref settle_outbox_seq",
		"outbox.number":          "eq_ref PRIMARY",
		"outbox.after":           "range settle_outbox_seq",
		"outbox.after_new":       "settle_outbox_seq",
		"outbox.young":           "range settle_outbox_seq",
		"outbox.purge":           "range settle_outbox_seq",
		"outbox.numbered":        "PRIMARY",
		"relay.hold":             "const PRIMARY",
		"relay.claim":            "PRIMARY",
		"relay.move":             "PRIMARY",
		"relay.parked":           "range PRIMARY",
		"relay.parked_key":       "settle_relay_parked_key",
		"relay.parked_replay":    "settle_relay_parked_replay",
		"relay.failed":           "range PRIMARY",
		"relay.list_failed":      "range PRIMARY",
		"relay.replay":           "settle_relay_parked_key",
		"relay.replay_topic":     "settle_relay_parked_key",
		"inbox.known":            "eq_ref PRIMARY",
		"inbox.forget_timed":     "PRIMARY",
		"inbox.forget_untimed":   "settle_inbox_untimed",
		"consumer.store":         "PRIMARY",
		"timer.cancel":           "range key",
		"timer.due":              "settle_timer_at",
		"timer.take":             "eq_ref PRIMARY",
		"timer.next":             "settle_timer_at",
		"call.due":               "settle_call_due",
		"call.claim":             "eq_ref PRIMARY",
		"call.finish":            "settle_call_key",
		"call.next":              "settle_call_due",
		"deadletter.select_due":  "settle_letter_due",
		"deadletter.select_lane": "settle_letter_lane",
		"deadletter.select_any":  "range PRIMARY",
		"deadletter.head":        "ref settle_letter_lane",
		"deadletter.remove":      "settle_letter_event",
		"deadletter.lanes":       "settle_letter_",
		"idempotency.lookup":     "PRIMARY",
		"idempotency.forget":     "settle_answer_saved",
		"push.after_all":         "range PRIMARY",
		"push.after":             "range PRIMARY",
		"push.trim_feed":         "settle_frame_feed_position",
		"push.trim":              "range PRIMARY",
		"lock.read":              "PRIMARY",
	} {
		plan := explain(t, db, texts[name], arguments[name])
		whole := strings.Contains(plan, "ALL") || strings.Contains(plan, "filesort") && name != "deadletter.select_due"
		if !strings.Contains(plan, want) || whole {
			t.Errorf("%s: want %s\n%s", name, want, plan)
		}
	}
}

// fill puts so many rows into the tables that it pays to use an index.
func fill(t *testing.T, db *sql.DB) {
	t.Helper()
	const event = "event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at, trace_parent, correlation_id, idempotency_key, producer"
	const values = "unhex(md5(i)), 'T', 1, concat('t', i % 5), 'a', concat('k', i % 50), 0, '', '', '', 'p'"
	for table, columns := range map[string][2]string{
		"settle_outbox":       {event + ", seq", values + ", nullif(i, 1000)"},
		"settle_relay_parked": {"shard, epoch, tick, id, created_at, cause, parked_at, attempts, replay, " + event, "0, 0, 0, i, 0, 'c', 0, 1, i = 9, " + values},
		"settle_relay_mark":   {"shard, epoch, tick, id, at", "0, 0, 0, i, 0"},
		"settle_timer":        {"`key`, at, " + event, "i, i, " + values},
		"settle_call":         {"`call`, `key`, trace_parent, correlation_id, due, created_at", "'c', i, '', '', i, 0"},
		"settle_inbox":        {"group_id, event_id, at, timed", "i % 3, unhex(md5(i)), i, i > 5"},
		"settle_position":     {"group_name, `partition`, fence", "'g', i, 1"},
		"settle_letter": {
			"group_name, `partition`, position, state, attempts, first_at, last_at, next_at, cause, stack, permanent, " + event,
			"concat('g', i % 4), '', '', 'RETRYING', 1, 0, 0, i, '', '', false, " + values,
		},
		"settle_answer":     {"scope, `key`, fingerprint, status, header, saved_at", "'s', i, unhex(sha2(i, 256)), 200, '', i"},
		"settle_frame":      {"position, event, feeds", "i, 'e', '[]'"},
		"settle_frame_feed": {"feed, position", "concat('f', i % 20), i"},
		"settle_lease":      {"name, owner, fence, expires_at", "i, '', 1, 0"},
		"settle_relay":      {"shard", "i"},
	} {
		text := "INSERT INTO " + table + " (" + columns[0] + ") WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT " + columns[1] + " FROM n"
		for _, text := range []string{text, "ANALYZE TABLE " + table} {
			rows, err := db.QueryContext(t.Context(), text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			_ = rows.Close()
		}
	}
}

// explain returns the kind of access and the index of each table in a statement. What is not in the tables
// can be said without a plan, and a table function has no index.
func explain(t *testing.T, db *sql.DB, text string, args []string) string {
	t.Helper()
	text = numbered.ReplaceAllStringFunc(text, func(p string) string {
		switch {
		case strings.Contains(text, "JSON_TABLE("+p+","):
			return "'[1, 2]'"
		case strings.Contains(text, "LIMIT "+p), strings.Contains(text, p+" AS shard"):
			return "7"
		}
		if i := int(p[1] - '1'); i < len(args) && p[2:] == "" {
			return "'" + args[i] + "'"
		}
		return "'" + p[1:] + "'"
	})
	rows, err := db.QueryContext(t.Context(), "EXPLAIN "+text)
	if err != nil {
		return err.Error()
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err.Error()
	}
	var plan strings.Builder
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		dest := make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return err.Error()
		}
		field := map[string]string{}
		for i, column := range columns {
			field[column] = values[i].String
		}
		if !strings.Contains(field["Extra"], "Table function") {
			fmt.Fprintln(&plan, field["table"], field["type"], field["key"], field["Extra"])
		}
	}
	return plan.String()
}
