package settlepgx_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

// occupy reads a slot as somebody else does, until the connection is closed.
func occupy(t *testing.T, target, slot string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), target+"&replication=database&application_name=somebody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	conn.Frontend().SendQuery(&pgproto3.Query{
		String: fmt.Sprintf("START_REPLICATION SLOT %q LOGICAL 0/0 (proto_version '1', publication_names 'settle_outbox')", slot),
	})
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	m, err := conn.ReceiveMessage(t.Context())
	if _, ok := m.(*pgproto3.CopyBothResponse); !ok || err != nil {
		t.Fatalf("%#v, %v", m, err)
	}
	return conn
}

// claim waits for a shard.
func claim(t *testing.T, src relay.Source, owner string, ttl time.Duration) (lease relay.Lease) {
	t.Helper()
	eventually(t, owner+" owns the shard", func() (ok bool) {
		var err error
		lease, err = src.Claim(t.Context(), 0, owner, ttl)
		return err == nil
	})
	return lease
}

func slotIn(target string) string {
	return "s" + target[strings.LastIndex(target, "/")+1:strings.LastIndex(target, "?")]
}

// TestWALSlotInUse lets others have the slot: a stream of ours, of an owner that is gone, is ended, and nobody else's
// session is, who may be just dropping the slot.
func TestWALSlotInUse(t *testing.T) {
	t.Parallel()
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	slot := fmt.Sprintf("%063s", slotIn(target)) // The longest: a session's name is cut.
	slot = strings.ReplaceAll(slot, " ", "0")
	conn := connect(t, target)
	run(t, s, add(1, "a"))
	gone := newWAL(t, s, target, nil, settlepgx.WALConfig{Slot: slot})
	first := claim(t, gone, "gone", 200*time.Millisecond)
	at := drain(t, gone, first, first.Position, 1)
	eventually(t, "the log is read", func() bool {
		records, err := gone.Next(t.Context(), first, at, 10)
		return err == nil && len(records) == 0 && active(t, conn, slot) != 0
	})

	src := newWAL(t, s, target, nil, settlepgx.WALConfig{Slot: slot})
	lease := claim(t, src, "next", time.Minute)
	run(t, s, add(2, "a"))
	at = drain(t, src, lease, lease.Position, 2)
	before := active(t, conn, slot)
	eventually(t, "the next owner reads the log", func() bool {
		_, err := src.Next(t.Context(), lease, at, 10)
		pid := active(t, conn, slot)
		return err == nil && pid != 0 && pid != before
	})
	if err := src.Release(t.Context(), lease); err != nil {
		t.Fatal(err)
	}

	eventually(t, "the slot is free", func() bool { return active(t, conn, slot) == 0 })
	other := occupy(t, target, slot)
	lease = claim(t, src, "next", time.Minute)
	refused := 0
	eventually(t, "it is refused", func() bool {
		if _, err := src.Next(t.Context(), lease, at, 10); errors.Is(err, sqlstore.ErrUnavailable) {
			refused++
		}
		return refused == 3
	})
	if got := active(t, conn, slot); got != int(other.PID()) {
		t.Errorf("session %d has the slot, not %d", got, other.PID())
	}
	if err := other.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, s, add(3, "a"))
	drain(t, src, lease, at, 1)
}

// active is who has a slot, 0 for nobody.
func active(t *testing.T, conn *pgx.Conn, slot string) (pid int) {
	t.Helper()
	err := conn.QueryRow(t.Context(), "SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&pid)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	return pid
}

// drain reads until n different events came, and returns the position of the last.
func drain(t *testing.T, src relay.Source, lease relay.Lease, at outbox.Position, n int) outbox.Position {
	t.Helper()
	seen := map[event.ID]bool{}
	eventually(t, fmt.Sprintf("%d events", n), func() bool {
		records, err := src.Next(t.Context(), lease, at, 10)
		if err != nil {
			return false
		}
		for _, r := range records {
			seen[r.Event.ID], at = true, r.Position
		}
		return len(seen) >= n
	})
	return at
}

// TestWALSlotElsewhere names a slot that another database of the cluster has: the table is read, and the slot is left
// alone.
func TestWALSlotElsewhere(t *testing.T) {
	t.Parallel()
	elsewhere := newDatabase(t, shared(t))
	slot := slotIn(elsewhere)
	conn := connect(t, elsewhere)
	if _, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot); err != nil {
		t.Fatal(err)
	}
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	out := newSink()
	stop := carry(t, newWAL(t, s, target, nil, settlepgx.WALConfig{Slot: slot}), out)
	write(t, s, 2, 1, 20)
	eventually(t, "all events", func() bool { return out.count() == 40 })
	stop()
	out.inOrder(t, 2, 20)
	var database string
	if err := conn.QueryRow(t.Context(), "SELECT database FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&database); err != nil {
		t.Errorf("the slot of another database: %v", err)
	}
}

// TestDebeziumSlotLost loses the slot of a table that has no windows: that is said, also by the next owner, and no new
// slot is made that would hide the gap. A person may make one.
func TestDebeziumSlotLost(t *testing.T) {
	t.Parallel()
	srv := server.Start(t, server.Postgres, server.Options{Settings: smallLog()})
	for name, lose := range map[string]func(t *testing.T, conn *pgx.Conn, slot string){
		"dropped": dropSlot, "outgrown": outgrow,
	} {
		t.Run(name, func(t *testing.T) {
			target := newDatabase(t, srv.URL())
			s := openStore(t, target, settlepgx.Config{Migrate: true})
			conn := connect(t, target)
			insert := func() {
				t.Helper()
				if _, err := conn.Exec(t.Context(), `INSERT INTO outboxevent VALUES (gen_random_uuid(), 'order', 'k', 'OrderPlaced', '{}')`); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := conn.Exec(t.Context(), `CREATE TABLE outboxevent (id uuid PRIMARY KEY, aggregatetype text NOT NULL,
				aggregateid text NOT NULL, type text NOT NULL, payload jsonb)`); err != nil {
				t.Fatal(err)
			}
			layout, err := settlepgx.DebeziumLayout("outboxevent", "-events", "shop")
			if err != nil {
				t.Fatal(err)
			}
			cfg := settlepgx.WALConfig{Slot: slotIn(target), Publication: "outboxevent", Layout: layout}
			src := newWAL(t, s, target, nil, cfg)
			lease := claim(t, src, "first", time.Minute)
			if _, err := src.Next(t.Context(), lease, lease.Position, 10); err != nil { // Makes the slot; carries nothing.
				t.Fatal(err)
			}
			if name == "outgrown" { // Of a relay that is away: one that is there confirms.
				if err := src.Release(t.Context(), lease); err != nil {
					t.Fatal(err)
				}
			}
			insert()
			lose(t, conn, cfg.Slot)
			if name == "dropped" {
				eventually(t, "the relay says so", func() bool {
					_, err := src.Next(t.Context(), lease, lease.Position, 10)
					return errors.Is(err, settlepgx.ErrSlotLost)
				})
				if err := src.Release(t.Context(), lease); err != nil {
					t.Fatal(err)
				}
			}
			src = newWAL(t, s, target, nil, cfg)
			lease = claim(t, src, "second", time.Minute)
			for range 3 {
				eventually(t, "the next owner says so", func() bool { // Until then the stream before may be ending.
					records, err := src.Next(t.Context(), lease, lease.Position, 10)
					if err == nil {
						t.Fatalf("the next owner goes on with %d records", len(records))
					}
					return errors.Is(err, settlepgx.ErrSlotLost)
				})
			}

			dropSlot(t, conn, cfg.Slot) // If it is still there.
			if _, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", cfg.Slot); err != nil {
				t.Fatal(err)
			}
			insert()
			drain(t, src, lease, lease.Position, 1)
		})
	}
}

// smallLog are the settings of a server that gives a slot up soon.
func smallLog() map[string]string {
	return map[string]string{"max_slot_wal_keep_size": "16MB", "max_wal_size": "32MB", "min_wal_size": "32MB", "wal_level": "logical"}
}

// outgrow writes log until a slot is lost, which nobody reads.
func outgrow(t *testing.T, conn *pgx.Conn, slot string) {
	t.Helper()
	exec := func(query string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE ballast (b text)")
	eventually(t, "the slot is lost", func() bool {
		exec("INSERT INTO ballast SELECT repeat(md5(i::text), 100) FROM generate_series(1, 5000) i")
		exec("SELECT pg_switch_wal()")
		exec("CHECKPOINT")
		var status string
		if err := conn.QueryRow(t.Context(), "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&status); err != nil {
			t.Fatal(err)
		}
		return status == "lost"
	})
}

// dropSlot drops a slot that a relay reads, which takes it again as soon as it can.
func dropSlot(t *testing.T, conn *pgx.Conn, slot string) {
	t.Helper()
	var last error
	eventually(t, "the slot is dropped", func() bool {
		_, _ = conn.Exec(t.Context(), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", slot)
		_, err := conn.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", slot)
		if err != nil && (last == nil || err.Error() != last.Error()) {
			t.Log(err)
		}
		last = err
		return err == nil || strings.Contains(err.Error(), "does not exist")
	})
}
