package debezium_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/driver/settlekafka"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

const (
	guide     = "../../docs/guides/debezium.md"
	connector = "shop-outbox"
	slot      = "debezium_settle"
)

// rig is the outbox of a shop, Debezium behind it, and Kafka behind that. Starting it takes longer than
// most tests, which share it and have topics of their own.
type rig struct {
	tb       testing.TB
	topic    string
	postgres *server.Server
	kafka    *server.Server
	connect  *server.Server
	store    *sqlstore.Store
	pool     *pgxpool.Pool
}

// newRig starts all but the connector.
func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{
		tb:       tb,
		postgres: server.Start(tb, server.Postgres, server.Options{}),
		kafka:    server.Start(tb, server.Kafka, server.Options{}),
	}
	r.connect = server.Start(tb, server.Connect, server.Options{Upstream: r.kafka.URL()})
	store, err := settlepgx.Open(tb.Context(), r.postgres.URL(), settlepgx.Config{Migrate: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	r.store = store
	config, err := pgxpool.ParseConfig(r.postgres.URL())
	if err != nil {
		tb.Fatal(err)
	}
	config.MaxConns = 16
	if r.pool, err = pgxpool.NewWithConfig(tb.Context(), config); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.pool.Close)
	r.exec("CREATE TABLE account (id text PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
	r.exec(block(tb, "sql", 0))
	return r
}

// on returns the rig in the hands of a subtest.
func (r *rig) on(t *testing.T, topic string) *rig {
	t.Helper()
	own := *r
	own.tb, own.topic = t, topic
	return &own
}

func (r *rig) exec(text string) {
	r.tb.Helper()
	if _, err := r.pool.Exec(r.tb.Context(), text); err != nil {
		r.tb.Fatalf("%s: %v", text, err)
	}
}

// block returns a block of the guide, so that what people copy is what was tested.
func block(tb testing.TB, language string, i int) string {
	tb.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		tb.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(text, -1)
	if i >= len(blocks) {
		tb.Fatalf("%s has %d blocks of %s, want number %d", guide, len(blocks), language, i+1)
	}
	return string(blocks[i][1])
}

// deploy gives Connect the guide's connector, with this database's address, and waits until it streams. An
// empty change takes a setting away.
func (r *rig) deploy(change map[string]string) {
	r.tb.Helper()
	config := map[string]string{}
	if err := json.Unmarshal([]byte(block(r.tb, "json", 0)), &config); err != nil {
		r.tb.Fatal(err)
	}
	u, err := url.Parse(r.postgres.URL())
	if err != nil {
		r.tb.Fatal(err)
	}
	config["database.hostname"], config["database.port"], config["database.dbname"] = u.Hostname(), u.Port(), strings.Trim(u.Path, "/")
	maps.Copy(config, change)
	maps.DeleteFunc(config, func(_, value string) bool { return value == "" })
	body, err := json.Marshal(config)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.rest(http.MethodPut, "/connectors/"+connector+"/config", body)
	r.awaitState("RUNNING")
	r.await("the slot", func() bool { return r.slotActive() })
}

// rest asks Connect. It repeats what Connect cannot answer while it starts or rebalances.
func (r *rig) rest(method, path string, body []byte) []byte {
	r.tb.Helper()
	var answer string
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); <-time.After(100 * time.Millisecond) {
		request, err := http.NewRequestWithContext(r.tb.Context(), method, r.connect.URL()+path, bytes.NewReader(body))
		if err != nil {
			r.tb.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			answer = err.Error()
			continue
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err == nil && response.StatusCode < 300 {
			return text
		}
		answer = fmt.Sprintf("%s: %s", response.Status, text)
		if response.StatusCode != http.StatusConflict && response.StatusCode < 500 && response.StatusCode != http.StatusNotFound {
			break
		}
	}
	r.tb.Fatalf("%s %s: %s", method, path, answer)
	return nil
}

// awaitState waits for a state of the connector and its task. A task that failed ends the test.
func (r *rig) awaitState(want string) {
	r.tb.Helper()
	r.await("state "+want, func() bool {
		var status struct {
			Connector struct{ State string }
			Tasks     []struct{ State, Trace string }
		}
		if err := json.Unmarshal(r.rest(http.MethodGet, "/connectors/"+connector+"/status", nil), &status); err != nil {
			r.tb.Fatal(err)
		}
		for _, task := range status.Tasks {
			if task.State == "FAILED" && want == "RUNNING" {
				r.tb.Fatalf("the connector's task failed: %s", task.Trace)
			}
			if task.State != want {
				return false
			}
		}
		return status.Connector.State == want && (len(status.Tasks) > 0 || want == "STOPPED")
	})
}

func (r *rig) stop() {
	r.tb.Helper()
	r.rest(http.MethodPut, "/connectors/"+connector+"/stop", nil)
	r.awaitState("STOPPED")
	r.await("the slot's release", func() bool { return !r.slotActive() })
}

func (r *rig) resume() {
	r.tb.Helper()
	r.rest(http.MethodPut, "/connectors/"+connector+"/resume", nil)
	r.awaitState("RUNNING")
}

func (r *rig) await(what string, done func() bool) {
	r.tb.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		if done() {
			return
		}
	}
	r.tb.Fatalf("waited a minute for %s", what)
}

func (r *rig) slotActive() bool {
	var n int
	row := r.pool.QueryRow(r.tb.Context(), "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active AND confirmed_flush_lsn IS NOT NULL", slot)
	if err := row.Scan(&n); err != nil {
		r.tb.Fatal(err)
	}
	return n == 1
}

// written is what committed, by identity.
type written struct {
	mu     sync.Mutex
	events map[event.ID]event.Envelope
}

func newWritten() *written { return &written{events: map[event.ID]event.Envelope{}} }

func (w *written) add(events ...event.Envelope) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		w.events[e.ID] = e
	}
}

func (w *written) total() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.events)
}

const (
	upsert = `INSERT INTO account (id, n) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = account.n + 1 RETURNING n`
	insert = `INSERT INTO settle_outbox (type, version, topic, aggregate_type, aggregate_id, producer,
	trace_parent, correlation_id, causation_id, idempotency_key, data)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING event_id, occurred_at`
)

// writer writes transactions of one to three events of one account each, as a program in another language
// would. Every fifth is rolled back. The account's number in the data tells the order of commits.
func (r *rig) writer(ctx context.Context, w *written, name string, transactions int, pause time.Duration) error {
	for i := range transactions {
		key := fmt.Sprintf("%s käse %d", r.topic, i%7)
		var events []event.Envelope
		tx, err := r.pool.Begin(ctx)
		if err != nil {
			return err
		}
		for range 1 + i%3 {
			e, err := writeOne(ctx, tx, r.topic, key, name)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
		if i%5 == 4 {
			if err := tx.Rollback(ctx); err != nil {
				return err
			}
			continue
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		w.add(events...)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	return nil
}

func writeOne(ctx context.Context, tx pgx.Tx, topic, key, name string) (event.Envelope, error) {
	var n int
	err := tx.QueryRow(ctx, upsert, key).Scan(&n)
	if err != nil {
		return event.Envelope{}, err
	}
	e := event.Envelope{
		Type: "OrderPlaced", Version: 1 + n%3, Topic: topic, AggregateType: "order", AggregateID: key, Producer: name,
		Data: fmt.Appendf(nil, `{"n": %d, "text": "\u00e9 \\ ü \"quoted\""}`, n),
	}
	if n%2 == 0 {
		e.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		e.CorrelationID = "1.0" // Looks like a number, and must stay a text.
		e.CausationID = event.NewID(time.Now())
		e.IdempotencyKey = `{"a": [1, 2]}`
	}
	var cause *[16]byte
	if !e.CausationID.IsZero() {
		cause = (*[16]byte)(&e.CausationID)
	}
	var id [16]byte
	var at int64
	err = tx.QueryRow(ctx, insert, e.Type, e.Version, e.Topic, e.AggregateType, e.AggregateID, e.Producer,
		e.TraceParent, e.CorrelationID, cause, e.IdempotencyKey, e.Data).Scan(&id, &at)
	e.ID, e.OccurredAt = id, time.Unix(0, at).UTC()
	return e, err
}

// effects are what a consumer on a store of ours did for good.
type effects struct {
	mu         sync.Mutex
	events     []event.Envelope // in commit order
	duplicates int
	failed     []string
}

// consume runs a consumer until the test ends.
func (r *rig) consume() *effects {
	r.tb.Helper()
	b, err := settlekafka.Open(r.tb.Context(), r.kafka.URL(), settlekafka.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.tb.Fatal(err)
	}
	x := &effects{}
	store := memory.New()
	c, err := consumer.New(store, store, b, consumer.Config{
		Group: "billing-" + r.topic, Topics: []string{r.topic}, Logger: slog.New(slog.DiscardHandler),
		Handlers: map[string]consumer.Handler{
			"OrderPlaced": func(_ context.Context, tx *txn.Tx, e event.Envelope) error {
				e.Data = slices.Clone(e.Data)
				tx.AfterCommit(func() {
					x.mu.Lock()
					defer x.mu.Unlock()
					x.events = append(x.events, e)
				})
				return nil
			},
		},
		Hooks: consumer.Hooks{
			Duplicate: func(event.Envelope) {
				x.mu.Lock()
				defer x.mu.Unlock()
				x.duplicates++
			},
			Parked: func(l deadletter.Letter) {
				x.mu.Lock()
				defer x.mu.Unlock()
				x.failed = append(x.failed, l.Cause)
			},
		},
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.tb.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	r.tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.tb.Errorf("consumer: %v", err)
		}
		_ = b.Close()
	})
	return x
}

func (x *effects) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.events)
}

// check waits until everything took effect, and for a moment more, and compares.
func (r *rig) check(w *written, x *effects) {
	r.tb.Helper()
	for end := time.Now().Add(60 * time.Second); x.count() < w.total() && time.Now().Before(end); {
		<-time.After(50 * time.Millisecond)
	}
	<-time.After(300 * time.Millisecond)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, cause := range x.failed {
		r.tb.Errorf("parked: %s", cause)
	}
	if len(x.events) != len(w.events) {
		r.tb.Errorf("%d effects of %d events", len(x.events), len(w.events))
	}
	last := map[string]int{}
	for _, got := range x.events {
		want, ok := w.events[got.ID]
		if !ok {
			r.tb.Fatalf("an event that nobody committed: %+v", got)
		}
		if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); a != b {
			r.tb.Fatalf("got  %s\nwant %s", a, b)
		}
		var data struct{ N int }
		if err := json.Unmarshal(got.Data, &data); err != nil {
			r.tb.Fatal(err)
		}
		if last[got.AggregateID]++; data.N != last[got.AggregateID] {
			r.tb.Fatalf("%s: number %d took effect where %d was to", got.AggregateID, data.N, last[got.AggregateID])
		}
	}
	r.tb.Logf("%d events, %d duplicates", len(x.events), x.duplicates)
}
