package settlepgx_test

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/sqlstore"
)

func statements(t *testing.T) map[string]string {
	t.Helper()
	all, err := sqlstore.Postgres().Statements()
	if err != nil {
		t.Fatal(err)
	}
	return maps.Collect(all)
}

func TestEveryStatementPrepares(t *testing.T) {
	s := newStore(t)
	conn := connect(t, databaseOf(t, s))
	n := 0
	for name, text := range statements(t) {
		n++
		if strings.HasPrefix(name, "store.") {
			continue // Transactions and the schema are run by migrating.
		}
		if _, err := conn.Prepare(t.Context(), name, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n < 80 {
		t.Errorf("only %d statements", n)
	}
}

// TestMigrateTogether lets several processes migrate at the same time.
func TestMigrateTogether(t *testing.T) {
	target := newDatabase(t, shared(t))
	files := sqlstore.Schema{Name: "order", Files: fstest.MapFS{
		"0001_orders.sql": {Data: []byte("CREATE TABLE orders (id text PRIMARY KEY); CREATE INDEX by_id ON orders (id)")},
	}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	applied := 0
	for range 4 {
		wg.Go(func() {
			n, err := settlepgx.Migrate(t.Context(), target, files)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			applied += n
		})
	}
	wg.Wait()
	if applied != 3 {
		t.Errorf("%d migrations applied, want 3", applied)
	}
	openStore(t, target, settlepgx.Config{Store: sqlstore.Config{Schemas: []sqlstore.Schema{files}}})
}

// TestQueryPlans asserts that the log's statements find their rows by the index, also when a table is large
// and nobody has analysed it since.
func TestQueryPlans(t *testing.T) {
	s := newStore(t)
	conn := connect(t, databaseOf(t, s))
	for _, text := range []string{
		"INSERT INTO settle_outbox (xid, slot, type, topic, aggregate_id) SELECT (n / 3 + 3)::text::xid8, n % 4, 't', 't', 'a' FROM generate_series(1, 120000) n",
		"INSERT INTO settle_relay (shard) VALUES (0)",
		"INSERT INTO settle_tick (shard, tick, snapshot, lsn, at, events) SELECT 0, n, (n * 10 + 3 || ':' || n * 10 + 3 || ':')::pg_snapshot, '0/0', 0, 30 FROM generate_series(0, 4000) n",
		"ANALYZE",
	} {
		if _, err := conn.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	texts := statements(t)
	for name, args := range map[string]string{
		"outbox.next":          "0, 1000, 0, 256, 500, 1000",
		"outbox.parts":         "0, 1000, 256",
		"outbox.part":          "0, 1000, 3000, 3256, 1000, 1100",
		"outbox.bounds":        "0, 1000",
		"outbox.jump":          "0",
		"outbox.tick":          "0, 4000, 1, 'x', 500, 1000",
		"outbox.open":          "0, 0, 100",
		"outbox.oldest":        "0, 1000, 0, 100",
		"outbox.foreign":       "0",
		"outbox.slot_last":     "1, 0",
		"outbox.settled_below": "0, 1000",
		"relay.position":       "0",
		"relay.move":           "0, 0, 1, 1",
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			plan := explain(t, conn, texts[name], args, mode)
			ticks := strings.Contains(plan, "Seq Scan on settle_tick") && name != "outbox.open" // It asks whether there is any.
			if ticks || strings.Contains(plan, "Seq Scan on settle_outbox") {
				t.Errorf("%s, %s:\n%s", name, mode, plan)
			}
		}
	}
}

// explain returns the plan of a statement with the values of its parameters.
func explain(t *testing.T, conn *pgx.Conn, text, args, mode string) string {
	t.Helper()
	prepare := "SET plan_cache_mode = " + mode + "; DEALLOCATE ALL; PREPARE explained AS " + text
	if _, err := conn.Exec(t.Context(), prepare); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), "EXPLAIN EXECUTE explained ("+args+")", pgx.QueryExecModeExec)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
