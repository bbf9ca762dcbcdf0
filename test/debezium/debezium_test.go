package debezium_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlekafka"
	"github.com/settledev/settle/event"
)

// The guide's blocks of SQL, after the one that newRig runs.
const (
	view = 1 + iota
	status
	purge
	drop
)

// TestDebezium has one connector carry the events of several tests, each of its own topic.
func TestDebezium(t *testing.T) {
	r := newRig(t)
	early := newWritten()
	if err := r.on(t, "early").writer(t.Context(), early, "shop", 30, 0); err != nil {
		t.Fatal(err)
	}
	r.deploy(quick)
	t.Run("before the connector", func(t *testing.T) {
		r := r.on(t, "early")
		r.check(early, r.consume())
	})
	t.Run("concurrent writers", func(t *testing.T) { testWriters(t, r.on(t, "orders")) })
	t.Run("killed", func(t *testing.T) { testKills(t, r.on(t, "killed")) })
	t.Run("slot lost", func(t *testing.T) { testSlotLost(t, r.on(t, "lost")) })
	t.Run("slot overrun", func(t *testing.T) { testSlotOverrun(t, r.on(t, "overrun")) })
	t.Run("record", func(t *testing.T) { testRecord(t, r.on(t, "record")) })
	t.Run("purge", func(t *testing.T) { testPurge(t, r.on(t, "purge")) })
	t.Run("to the relay and back", func(t *testing.T) { testRelay(t, r.on(t, "moved")) })
	t.Run("refused by the table", func(t *testing.T) { testRefused(t, r.on(t, "refused")) })
}

// quick has the slot confirmed at once, where a test waits for that.
var quick = map[string]string{"heartbeat.interval.ms": "200"}

// writers has four programs write, and returns what waits for them.
func (r *rig) writers(ctx context.Context, w *written, transactions int, pause time.Duration) func() {
	var writers errgroup.Group
	for i := range 4 {
		writers.Go(func() error { return r.writer(ctx, w, fmt.Sprintf("shop-%d", i), transactions, pause) })
	}
	return func() {
		r.tb.Helper()
		if err := writers.Wait(); err != nil {
			r.tb.Fatal(err)
		}
	}
}

func testWriters(t *testing.T, r *rig) {
	t.Helper()
	x, w := r.consume(), newWritten()
	r.writers(t.Context(), w, 100, time.Millisecond)()
	r.check(w, x)
}

// testKills kills Connect, then Kafka, while writers go on.
func testKills(t *testing.T, r *rig) {
	t.Helper()
	x, w := r.consume(), newWritten()
	wait := r.writers(t.Context(), w, 200, 20*time.Millisecond)
	r.await("effects", func() bool { return x.count() > 50 })
	r.connect.Kill()
	r.connect.Restart()
	before := x.count()
	r.await("effects after Connect was killed", func() bool { return x.count() > before+50 })
	r.kafka.Kill()
	<-time.After(time.Second)
	r.kafka.Restart()
	wait()
	r.check(w, x)
}

// testSlotLost loses the slot, and what it held with it: the connector has to notice and to read the table
// again. The second time there is another slot of the same name, which knows nothing of what came before it.
func testSlotLost(t *testing.T, r *rig) {
	t.Helper()
	x, w := r.consume(), newWritten()
	for _, again := range []bool{false, true} {
		r.writers(t.Context(), w, 20, 0)()
		r.await("effects", func() bool { return x.count() == w.total() })
		r.stop()
		r.exec("SELECT pg_drop_replication_slot('" + slot + "')")
		r.writers(t.Context(), w, 20, 0)()
		if again {
			r.exec("SELECT pg_create_logical_replication_slot('" + slot + "', 'pgoutput')")
		}
		r.resume()
		r.writers(t.Context(), w, 20, 0)()
		r.check(w, x)
	}
}

// testSlotOverrun has Postgres give up the slot of a connector that stayed away for too long, and mends it as
// the guide says: until the slot is dropped, Connect shows a connector that runs, and has no task.
func testSlotOverrun(t *testing.T, r *rig) {
	t.Helper()
	x, w := r.consume(), newWritten()
	r.exec("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
	r.exec("SELECT pg_reload_conf()")
	r.stop()
	r.writers(t.Context(), w, 20, 0)()
	r.await("the end of the slot", func() bool {
		r.exec("INSERT INTO account SELECT gen_random_uuid()::text FROM generate_series(1, 1000)")
		r.exec("SELECT pg_switch_wal()")
		r.exec("CHECKPOINT")
		var status string
		if err := r.pool.QueryRow(t.Context(), "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&status); err != nil {
			t.Fatal(err)
		}
		return status == "lost"
	})
	r.exec("ALTER SYSTEM RESET max_slot_wal_keep_size")
	r.exec("SELECT pg_reload_conf()")
	r.rest(http.MethodPut, "/connectors/"+connector+"/resume", nil)
	r.exec(block(t, "sql", drop))
	r.rest(http.MethodPost, "/connectors/"+connector+"/restart?includeTasks=true", nil)
	r.awaitState("RUNNING")
	r.writers(t.Context(), w, 20, 0)()
	r.check(w, x)
}

// testRecord pins what is on the wire, at the limit of data, and that a key's partition is the one that
// our own publisher chooses: a carrier may be exchanged for the other.
func testRecord(t *testing.T, r *rig) {
	t.Helper()
	b, err := settlekafka.Open(t.Context(), r.kafka.URL(), settlekafka.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const keys = 20
	data := bytes.Repeat([]byte{'7'}, event.DataBytesMax)
	now := time.Now()
	for i := range keys {
		e := event.Envelope{
			ID: event.NewID(now), Type: "OrderPlaced", Version: 3, Topic: r.topic, AggregateType: "order",
			AggregateID: fmt.Sprintf("käse-%d", i), OccurredAt: now, Producer: "relay", Data: []byte("1"),
		}
		if err := b.Publish(t.Context(), []broker.Message{{Event: e}})[0]; err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			data = []byte("2")
		}
		_, err := r.pool.Exec(t.Context(), `INSERT INTO settle_outbox (event_id, occurred_at, type, version, topic,
			aggregate_type, aggregate_id, producer, data) VALUES ($1, $2, $3, $4, $5, $6, $7, 'shop', $8)`,
			[16]byte(e.ID), now.UnixNano(), e.Type, e.Version, e.Topic, e.AggregateType, e.AggregateID, data)
		if err != nil {
			t.Fatal(err)
		}
	}
	partitions := map[string]int32{}
	for _, got := range r.records(2 * keys) {
		key := string(got.Key)
		if p, ok := partitions[key]; ok && p != got.Partition {
			t.Errorf("%s is in partitions %d and %d", key, p, got.Partition)
		}
		partitions[key] = got.Partition
		if age := time.Since(got.Timestamp); age > time.Minute || age < -time.Second {
			t.Errorf("a record of %s, which retention would go by", got.Timestamp)
		}
		headers := map[string]string{}
		for _, h := range got.Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers["ce_source"] == "/relay" {
			continue
		}
		if key == "käse-0" && len(got.Value) != event.DataBytesMax || key != "käse-0" && string(got.Value) != "2" {
			t.Errorf("data of %s: %d bytes", key, len(got.Value))
		}
		want := map[string]string{
			"id": headers["ce_id"], "ce_id": headers["ce_id"], "ce_specversion": "1.0", "ce_type": "OrderPlaced",
			"ce_dataversion": "3", "ce_source": "shop", "ce_subject": "order", "content-type": "application/json",
			"ce_timeunixnano": strconv.FormatInt(now.UnixNano(), 10), "ce_traceparent": "", "ce_correlationid": "",
			"ce_causationid": "", "ce_idempotencykey": "",
		}
		if !maps.Equal(headers, want) {
			t.Errorf("headers %v, want %v", headers, want)
		}
	}
	if len(partitions) != keys {
		t.Errorf("%d keys, want %d", len(partitions), keys)
	}
}

// records reads the topic's first records.
func (r *rig) records(n int) []*kgo.Record {
	r.tb.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.TrimPrefix(r.kafka.URL(), "kafka://")), kgo.ConsumeTopics(r.topic))
	if err != nil {
		r.tb.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.tb.Context(), 30*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			r.tb.Fatalf("%d records of %d came", len(records), n)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// testPurge writes events of yesterday. They are kept while Debezium has not confirmed them, and today's are
// kept anyway.
func testPurge(t *testing.T, r *rig) {
	t.Helper()
	r.exec(block(t, "sql", view))
	confirmed := func() bool {
		r.exec("CHECKPOINT") // Else a slot learns only every 15s which transactions have ended.
		return r.pending(block(t, "sql", status)) == 0
	}
	r.await("confirmation", confirmed)
	r.stop()
	const yesterday = "(((extract(epoch FROM now())::bigint / 43200) + 1) % 4)::smallint"
	for range 10 {
		r.exec("INSERT INTO settle_outbox (slot, type, topic, aggregate_type, aggregate_id, data) VALUES (" +
			yesterday + ", 'OrderPlaced', 'purge', 'order', 'a', '1')")
	}
	if got := r.pending(block(t, "sql", status)); got != 10 {
		t.Errorf("%d of the last events are pending while Debezium is stopped, want 10", got)
	}
	if _, err := r.pool.Exec(t.Context(), block(t, "sql", purge)); err == nil {
		t.Fatal("purged what was not confirmed")
	}
	r.resume()
	r.records(10)
	r.await("confirmation", confirmed)
	var before, old, after int
	count := func(n *int, where string) {
		t.Helper()
		if err := r.pool.QueryRow(t.Context(), "SELECT count(*) FROM settle_outbox WHERE slot "+where+" "+yesterday).Scan(n); err != nil {
			t.Fatal(err)
		}
	}
	count(&before, "<>")
	r.exec(block(t, "sql", purge))
	count(&old, "=")
	count(&after, "<>")
	if old != 0 || before == 0 || after != before {
		t.Errorf("%d events of yesterday and %d of %d others are left", old, after, before)
	}
	r.awaitState("RUNNING")
}

func (r *rig) pending(status string) (n int) {
	r.tb.Helper()
	rows, err := r.pool.Query(r.tb.Context(), status)
	if err != nil {
		r.tb.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		r.tb.Fatal(err)
	}
	for _, row := range list {
		if row["status"] == "PENDING" {
			n++
		}
	}
	return n
}

// testRefused has the table refuse what would stop the connector for everybody.
func testRefused(t *testing.T, r *rig) {
	t.Helper()
	const insert = `INSERT INTO settle_outbox (type, topic, aggregate_type, aggregate_id, data) VALUES ('T', $1, 'order', $2, $3)`
	for _, row := range []struct {
		topic, key string
		data       []byte
	}{
		{"no topic", "a", []byte("1")},
		{"t", strings.Repeat("a", 257), []byte("1")},
		{"t", "a", nil},
		{"t", "a", []byte{}},
		{"t", "a", make([]byte, event.DataBytesMax+1)},
	} {
		if _, err := r.pool.Exec(t.Context(), insert, row.topic, row.key, row.data); err == nil {
			t.Errorf("topic %q, key of %d bytes, data of %d was taken", row.topic, len(row.key), len(row.data))
		}
	}
}
