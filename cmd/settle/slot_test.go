package main

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
)

// TestRelayDebeziumSlotLost drops the slot of a table that cannot be read again under its relay: the process ends and
// says why, also when it is started again. With a slot that a person made, it goes on.
func TestRelayDebeziumSlotLost(t *testing.T) {
	t.Parallel()
	target, db := migrated(t, server.Shared(t, server.Postgres))
	execute(t, db, `CREATE TABLE outboxevent (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL,
		type text NOT NULL, payload jsonb NOT NULL)`)
	slot, carrier, prefix := "lost"+strings.ToLower(rand.Text()[:8]), server.Shared(t, server.NATS), "t"+strings.ToLower(rand.Text()[:8])
	path := file(t, map[string]any{
		"listen": server.FreeAddress(t),
		"sources": []any{map[string]any{
			"name": "shop", "store": target, "mode": "wal", "layout": "debezium", "table": "outboxevent", "slot": slot, "sink": "main",
		}},
		"sinks": []any{map[string]any{"name": "main", "broker": carrier, "topicPrefix": prefix}},
	})
	d := startRelay(t, path)
	count := func(where string) (n int) {
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND "+where, slot).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// A slot is active while it is made, too; the relay counts on it from when it is on record.
	within(t, 60*time.Second, "slot", func() bool {
		return count("active AND EXISTS (SELECT 1 FROM settle_relay WHERE epoch = 1)") == 1
	})
	within(t, 60*time.Second, "no slot", func() bool {
		_, _ = db.ExecContext(t.Context(), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", slot)
		_, _ = db.ExecContext(t.Context(), "SELECT pg_drop_replication_slot($1)", slot) // The relay may have been quicker.
		return count("true") == 0
	})
	ended := func() {
		t.Helper()
		gone := make(chan struct{})
		go func() { defer close(gone); _ = d.cmd.Wait() }() // Its code says all.
		select {
		case <-gone:
		case <-time.After(60 * time.Second):
			_ = d.cmd.Process.Kill()
			<-gone
			t.Fatalf("it goes on without its slot: %s", d.said.String())
		}
		if code := d.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(d.said.String(), "replication slot is lost") {
			t.Errorf("exit code %d: %s", code, d.said.String())
		}
	}
	ended()
	execute(t, db, `INSERT INTO outboxevent VALUES (gen_random_uuid(), 'order', 'unseen', 'OrderPlaced', '{}')`)
	d = startRelay(t, path)
	ended()
	if n := count("true"); n != 0 {
		t.Errorf("%d slots were made anew, which hides what is missing", n)
	}

	execute(t, db, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	d = startRelay(t, path)
	execute(t, db, `INSERT INTO outboxevent VALUES (gen_random_uuid(), 'order', 'seen', 'OrderPlaced', '{}')`)
	receive(t, carrier, prefix, "order", 1)
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
	execute(t, db, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL", slot)
}
