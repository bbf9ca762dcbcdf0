package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/cmd/settle/internal/doctor"
	"github.com/settledev/settle/internal/server"
)

// argsVariable makes the test binary the command itself, so that tests have a process to kill.
const argsVariable = "SETTLE_TEST_ARGS"

func TestMain(m *testing.M) {
	if text := os.Getenv(argsVariable); text != "" {
		_ = os.Unsetenv(argsVariable)
		os.Exit(run(strings.Split(text, "\n"), os.Stdout, os.Stderr))
	}
	os.Exit(server.Main(m))
}

// settle runs the command in this process.
func settle(args ...string) (code int, out string) {
	var o, e bytes.Buffer
	code = run(args, &o, &e)
	return code, o.String() + e.String()
}

// newDatabase makes a database on a server and returns it with its URL.
func newDatabase(t *testing.T, base string) (target string, db *sql.DB) {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/t" + strings.ToLower(rand.Text()[:12])
	all, err := app.Databases(u.String(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := all[0].Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err = all[0].Raw()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return u.String(), db
}

func migrated(t *testing.T, base string) (target string, db *sql.DB) {
	t.Helper()
	target, db = newDatabase(t, base)
	if code, out := settle("migrate", "up", "--store", target); code != 0 {
		t.Fatalf("migrate up: %d: %s", code, out)
	}
	return target, db
}

func execute(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// file writes a relay's configuration.
func file(t *testing.T, cfg map[string]any) string {
	t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "relay.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// daemon is a relay in a process of its own.
type daemon struct {
	cmd  *exec.Cmd
	said bytes.Buffer
}

func startRelay(t *testing.T, path string) *daemon {
	t.Helper()
	d := &daemon{cmd: exec.Command(os.Args[0])}
	d.cmd.Env = append(os.Environ(), argsVariable+"=relay\nrun\n-v\n--file\n"+path)
	d.cmd.Stderr = &d.said
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("relay said:\n%s", d.said.String())
		}
	})
	return d
}

// end sends a signal and returns the exit code, -1 when the signal ended it.
func (d *daemon) end(s os.Signal) int {
	_ = d.cmd.Process.Signal(s)
	_ = d.cmd.Wait()
	return d.cmd.ProcessState.ExitCode()
}

// within waits for something to become true.
func within(t *testing.T, limit time.Duration, what string, fn func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !fn(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

func get(t *testing.T, address string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func ready(addr string) func(t *testing.T) bool {
	return func(t *testing.T) bool {
		t.Helper()
		code, _ := get(t, "http://"+addr+"/readyz")
		return code == http.StatusOK
	}
}

// receive reads a topic until it has seen n different events, and fails when a key's are out of order.
func receive(t *testing.T, target, prefix, topic string, n int) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := app.OpenBroker(ctx, target, app.Carrier{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	m, err := b.Subscribe(ctx, broker.Subscription{Group: "reader", Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	found := make(chan broker.Message)
	go func() {
		for {
			p, err := m.Next(ctx)
			if err != nil {
				return
			}
			go read(ctx, p, found)
		}
	}()
	seen, last := map[string]string{}, map[string]string{}
	for len(seen) < n {
		select {
		case msg := <-found:
			key, data := msg.Event.AggregateID, string(msg.Event.Data)
			if seen[key+"/"+data] == "" && (len(data) < len(last[key]) || len(data) == len(last[key]) && data < last[key]) {
				t.Errorf("%s: %s came after %s", key, data, last[key]) // Data of equal length compare as numbers.
			}
			if seen[key+"/"+data] == "" {
				last[key] = data
			}
			seen[key+"/"+data] = msg.Event.Type
		case <-ctx.Done():
			t.Fatalf("%d of %d events arrived on %s", len(seen), n, topic)
		}
	}
	return seen
}

func read(ctx context.Context, p broker.Partition, found chan<- broker.Message) {
	if s, ok := p.(broker.Seeker); ok && s.Seek(ctx, broker.Position{}) != nil {
		return
	}
	for ctx.Err() == nil {
		messages, err := p.Fetch(ctx, 100)
		if err != nil && !errors.Is(err, broker.ErrUnavailable) {
			return
		}
		for _, m := range messages {
			select {
			case found <- m:
			case <-ctx.Done():
				return
			}
		}
	}
}

const insertEvent = `INSERT INTO settle_outbox (type, topic, aggregate_type, aggregate_id, producer, data) VALUES `

// TestRelay proves that events of plain SQL arrive, whatever happens to the process that carries them.
func TestRelay(t *testing.T) {
	for _, tt := range []struct {
		name          string
		store, broker server.Kind
		mode          string
	}{
		{"window to NATS", server.Postgres, server.NATS, "window"},
		{"log to Kafka", server.Postgres, server.Kafka, "wal"},
		{"MySQL to NATS", server.MariaDB, server.NATS, "window"},
		{"pooler to NATS", server.PgBouncer, server.NATS, "window"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target, db := migrated(t, server.Shared(t, tt.store))
			carrier, prefix, addr := server.Shared(t, tt.broker), "t"+strings.ToLower(rand.Text()[:8]), server.FreeAddress(t)
			path := file(t, map[string]any{
				"listen":  addr,
				"sources": []any{map[string]any{"name": "shop", "store": target, "pooler": tt.store == server.PgBouncer, "mode": tt.mode, "sink": "main"}},
				"sinks":   []any{map[string]any{"name": "main", "broker": carrier, "topicPrefix": prefix}},
			})
			if code, out := settle("relay", "check", "--file", path); code != 0 {
				t.Errorf("relay check: exit code %d\n%s", code, out)
			}
			const events = 600
			d := startRelay(t, path)
			for i := range events {
				execute(t, db, insertEvent+fmt.Sprintf("('OrderPlaced', 'orders', 'order', 'order-%d', 'sql', '%d')", i%7, i))
				if i == events/2 {
					within(t, 30*time.Second, "ready", func() bool { return ready(addr)(t) })
					d.end(syscall.SIGKILL)
					d = startRelay(t, path)
				}
			}
			within(t, 45*time.Second, "ready again", func() bool { return ready(addr)(t) })
			receive(t, carrier, prefix, "orders", events)
			within(t, 30*time.Second, "nothing pending", func() bool {
				_, body := get(t, "http://"+addr+"/metrics")
				return strings.Contains(body, `settle_outbox_pending{service="shop"} 0`) && strings.Contains(body, `settle_relay_owned{service="shop"} 1`)
			})
			if code := d.end(syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d after SIGTERM", code)
			}
		})
	}
}

// TestRelayStandby proves that a second process is ready but idle, and goes on when the first one ends.
func TestRelayStandby(t *testing.T) {
	t.Parallel()
	target, db := migrated(t, server.Shared(t, server.Postgres))
	prefix := "t" + strings.ToLower(rand.Text()[:8])
	var daemons [2]*daemon
	var addrs [2]string
	for i, state := range []string{"carries", "standby"} {
		addrs[i] = server.FreeAddress(t)
		daemons[i] = startRelay(t, file(t, map[string]any{
			"listen":  addrs[i],
			"sources": []any{map[string]any{"name": "shop", "store": target, "sink": "main"}},
			"sinks":   []any{map[string]any{"name": "main", "broker": server.Shared(t, server.NATS), "topicPrefix": prefix}},
		}))
		within(t, 30*time.Second, state, func() bool {
			code, body := get(t, "http://"+addrs[i]+"/readyz")
			return code == http.StatusOK && strings.Contains(body, state)
		})
	}
	if code := daemons[0].end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	execute(t, db, insertEvent+"('A', 'orders', 'order', '1', 'sql', '1')")
	receive(t, server.Shared(t, server.NATS), prefix, "orders", 1)
	if _, body := get(t, "http://"+addrs[1]+"/readyz"); !strings.Contains(body, "carries") {
		t.Errorf("the second one says %s", body)
	}
	if code := daemons[1].end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

// TestRelayDebezium proves that a table of Debezium is carried as the file says, without Debezium.
func TestRelayDebezium(t *testing.T) {
	t.Parallel()
	target, db := migrated(t, server.Shared(t, server.Postgres))
	execute(t, db, `CREATE TABLE outboxevent (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL,
		type text NOT NULL, payload jsonb NOT NULL)`)
	carrier, prefix, addr := server.Shared(t, server.NATS), "t"+strings.ToLower(rand.Text()[:8]), server.FreeAddress(t)
	path := file(t, map[string]any{
		"listen": addr,
		"sources": []any{map[string]any{
			"name": "shop", "store": target, "mode": "wal", "layout": "debezium", "table": "outboxevent", "topicSuffix": "-events", "sink": "main",
		}},
		"sinks": []any{map[string]any{"name": "main", "broker": carrier, "topicPrefix": prefix}},
	})
	d := startRelay(t, path)
	within(t, 60*time.Second, "slot", func() bool { // It is active, and sees nothing yet, while it is made.
		var n int
		err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_replication_slots
			WHERE database = current_database() AND active AND confirmed_flush_lsn IS NOT NULL`).Scan(&n)
		return err == nil && n == 1
	})
	for i := range 20 {
		execute(t, db, `INSERT INTO outboxevent VALUES (gen_random_uuid(), 'order', $1, 'OrderPlaced', '{"n": 1}')`, fmt.Sprintf("o-%d", i))
	}
	execute(t, db, "DELETE FROM outboxevent") // As Debezium's users do.
	for _, kind := range receive(t, carrier, prefix, "order-events", 20) {
		if kind != "OrderPlaced" {
			t.Errorf("type %s", kind)
		}
	}
	if code := d.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	within(t, 60*time.Second, "the server has noticed the end", func() bool {
		_, err := db.ExecContext(t.Context(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
		return err == nil
	})
}

// TestRelayRefuses proves that what only a person can mend ends the relay with one line, and an outage does not.
func TestRelayRefuses(t *testing.T) {
	t.Parallel()
	target, _ := newDatabase(t, server.Shared(t, server.Postgres))
	sinks := []any{map[string]any{"name": "main", "broker": "nats://127.0.0.1:1"}}
	path := file(t, map[string]any{
		"listen": server.FreeAddress(t), "sources": []any{map[string]any{"name": "shop", "store": target, "sink": "main"}}, "sinks": sinks,
	})
	code, out := settle("relay", "run", "--file", path)
	if code != 1 || !strings.Contains(out, "settle migrate up") {
		t.Errorf("unmigrated: %d, %s", code, out)
	}
	addr := server.FreeAddress(t)
	path = file(t, map[string]any{
		"listen":  addr,
		"sources": []any{map[string]any{"name": "shop", "store": "postgres://u:geheim@127.0.0.1:1/db", "sink": "main"}}, "sinks": sinks,
	})
	d := startRelay(t, path)
	within(t, 20*time.Second, "healthy", func() bool { code, _ := get(t, "http://"+addr+"/healthz"); return code == http.StatusOK })
	if code, body := get(t, "http://"+addr+"/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("ready without anything: %d %s", code, body)
	}
	if code := d.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM in an outage", code)
	}
	if strings.Contains(d.said.String(), "geheim") {
		t.Errorf("a secret was told: %s", d.said.String())
	}
}

// TestRelayCheck proves that every planted problem is found, in one look.
func TestRelayCheck(t *testing.T) {
	t.Parallel()
	plain := server.Start(t, server.Postgres, server.Options{Settings: map[string]string{"wal_level": "replica"}})
	target, db := migrated(t, plain.URL())
	fresh, _ := newDatabase(t, plain.URL())
	execute(t, db, "CREATE ROLE nobody NOLOGIN")
	execute(t, db, "CREATE ROLE reader LOGIN")
	execute(t, db, "CREATE ROLE outsider LOGIN")
	execute(t, db, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
	as := func(user string) string { return strings.Replace(target, "postgres@", user+"@", 1) }
	path := file(t, map[string]any{
		"sources": []any{
			map[string]any{"name": "fine", "store": target, "sink": "main"},
			map[string]any{"name": "log", "store": target, "shard": 1, "mode": "wal", "sink": "main"},
			map[string]any{"name": "stranger", "store": as("nobody"), "sink": "main"},
			map[string]any{"name": "reader", "store": as("reader"), "sink": "main"},
			map[string]any{"name": "outsider", "store": as("outsider"), "sink": "main"},
			map[string]any{"name": "fresh", "store": fresh, "sink": "missing"},
			map[string]any{"name": "away", "store": "postgres://u:geheim@127.0.0.1:1/db", "sink": "main"},
		},
		"sinks": []any{map[string]any{"name": "main", "broker": "nats://127.0.0.1:1"}},
	})
	code, out := settle("relay", "check", "--file", path)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		`FAIL file: source fresh: sink "missing" is none of the sinks`,
		"FAIL source log: wal_level is replica",
		"FAIL source stranger: ", "mend user, password or rights",
		"FAIL source reader: the role may not UPDATE settle_relay", "FAIL source reader: the role may not INSERT settle_tick",
		"FAIL source reader: the role may not TRUNCATE settle_outbox_0",
		"FAIL source outsider: the role may not SELECT settle_schema", "FAIL source outsider: the role may not UPDATE settle_relay",
		"FAIL source fresh: schema settle lacks migration 0001_settle.sql",
		"FAIL source away: ", "FAIL sink main: ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	for _, not := range []string{"FAIL source fine", "geheim"} {
		if strings.Contains(out, not) {
			t.Errorf("%q is in:\n%s", not, out)
		}
	}
}

// TestMigrate proves what is applied, shown and printed, for an adopter and for the shop's services.
func TestMigrate(t *testing.T) {
	for _, kind := range []server.Kind{server.Postgres, server.MariaDB} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			base := server.Shared(t, kind)
			target, _ := newDatabase(t, base)
			if code, out := settle("migrate", "status", "--store", target); code != 1 || !strings.Contains(out, "pending") {
				t.Errorf("status before: %d, %s", code, out)
			}
			if code, out := settle("doctor", "--store", target); code != 1 || !strings.Contains(out, "settle migrate up") {
				t.Errorf("doctor before: %d, %s", code, out)
			}
			if code, out := settle("migrate", "up", "--store", target); code != 0 {
				t.Fatalf("up: %d, %s", code, out)
			}
			if code, out := settle("migrate", "up", "--store", target); code != 0 || !strings.Contains(out, " 0 migrations applied") {
				t.Errorf("up again: %d, %s", code, out)
			}
			if code, out := settle("migrate", "status", "--store", target); code != 0 || strings.Contains(out, "pending") {
				t.Errorf("status after: %d, %s", code, out)
			}
			if code, out := settle("doctor", "--store", target); code != 0 {
				t.Errorf("doctor after: %d, %s", code, out)
			}
			_, printed := settle("migrate", "print", "--store", target)
			other, db := newDatabase(t, base)
			if kind == server.Postgres { // MySQL's driver takes one statement at a time.
				execute(t, db, printed)
				if code, out := settle("migrate", "status", "--store", other); code != 0 {
					t.Errorf("status of what was printed: %d, %s", code, out)
				}
			}
			u, err := url.Parse(other)
			if err != nil {
				t.Fatal(err)
			}
			u.Path += "_shop"
			shop := u.String()
			if code, out := settle("migrate", "up", "--create", "--store", shop, "--services", "order,gateway"); code != 0 {
				t.Fatalf("up of services: %d, %s", code, out)
			}
			if code, out := settle("doctor", "--store", shop, "--services", "order,gateway"); code != 0 {
				t.Errorf("doctor of services: %d, %s", code, out)
			}
			if code, out := settle("migrate", "status", "--store", shop, "--services", "order", "--json"); code != 0 || !strings.Contains(out, `"schema":"order"`) {
				t.Errorf("status of a service: %d, %s", code, out)
			}
		})
	}
}

// TestDoctor proves that planted damage is found.
func TestDoctor(t *testing.T) {
	t.Parallel()
	s := server.Start(t, server.Postgres, server.Options{Settings: map[string]string{
		"max_slot_wal_keep_size": "1MB", "max_prepared_transactions": "5", "min_wal_size": "32MB", "max_wal_size": "32MB",
	}})
	target, db := migrated(t, s.URL())
	execute(t, db, "SELECT pg_create_logical_replication_slot('planted', 'pgoutput')")
	for range 6 {
		execute(t, db, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
		execute(t, db, "SELECT pg_switch_wal()")
		execute(t, db, "CHECKPOINT")
	}
	execute(t, db, "BEGIN; "+insertEvent+"('A', 'orders', 'order', '1', 'sql', '1'); PREPARE TRANSACTION 'planted'")
	execute(t, db, insertEvent+"('A', 'no topic', 'order', '1', 'sql', '1')")
	execute(t, db, "UPDATE settle_outbox SET created_at = 1")
	execute(t, db, "DROP INDEX settle_letter_due")
	all, err := app.Databases(target, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	found := doctor.Database(t.Context(), all[0], doctor.Config{PreparedMax: time.Nanosecond})
	text := ""
	for _, f := range append(found, doctor.Topics(t.Context(), all[0])...) {
		text += f.String() + "\n"
	}
	for _, want := range []string{
		"index settle_letter_due of schema settle is gone", "no topic",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	execute(t, db, "CREATE INDEX settle_letter_due ON settle_letter (group_name, next_at) WHERE state = 'RETRYING'")
	text = ""
	for _, f := range doctor.Database(t.Context(), all[0], doctor.Config{PreparedMax: time.Nanosecond}) {
		text += f.String() + "\n"
	}
	for _, want := range []string{"slot planted is lost", "a prepared transaction is", "cannot be emptied", "oldest event in the outbox"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	if code, out := settle("doctor", "--store", target); code != 1 || !strings.Contains(out, "pg_drop_replication_slot") {
		t.Errorf("doctor: %d, %s", code, out)
	}
}

// TestRebase proves that an outbox of another cluster is refused by name, and used again after the command.
func TestRebase(t *testing.T) {
	t.Parallel()
	target, db := migrated(t, server.Shared(t, server.Postgres))
	execute(t, db, insertEvent+"('A', 'orders', 'order', '1', 'sql', '1')")
	execute(t, db, "INSERT INTO settle_relay (shard, cluster) VALUES (0, '1')")
	path := file(t, map[string]any{
		"listen":  server.FreeAddress(t),
		"sources": []any{map[string]any{"name": "shop", "store": target, "sink": "main"}},
		"sinks":   []any{map[string]any{"name": "main", "broker": server.Shared(t, server.NATS), "topicPrefix": "t" + strings.ToLower(rand.Text()[:8])}},
	})
	if code, out := settle("relay", "run", "--file", path); code != 1 || !strings.Contains(out, "settle outbox rebase") {
		t.Errorf("relay of another cluster: %d, %s", code, out)
	}
	if code, out := settle("outbox", "rebase", "--store", target); code != 2 || !strings.Contains(out, "--yes") || !strings.Contains(out, "1 of 1") {
		t.Errorf("without --yes: %d, %s", code, out)
	}
	if code, out := settle("outbox", "rebase", "--store", target, "--yes"); code != 0 || !strings.Contains(out, "1 events will be published again") {
		t.Errorf("with --yes: %d, %s", code, out)
	}
	d := startRelay(t, path)
	within(t, 30*time.Second, "published", func() bool {
		var n int
		err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM settle_outbox_status WHERE status = 'SENT'").Scan(&n)
		return err == nil && n == 1
	})
	if code := d.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}
