package peers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/settledev/settle"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/storebroker"
	"github.com/settledev/settle/txn"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

const (
	jobs   = 100_000
	rounds = 3
	// riverWorkers is where River was fastest of 100, 1000 and 10,000, and settleBatch where settle was of 100
	// (its default), 300 and 1000.
	riverWorkers = 1000
	settleBatch  = 1000
)

type thing struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

// Kind implements river.JobArgs.
func (thing) Kind() string { return "thing" }

// BenchmarkEmpty works messages that wait in one PostgreSQL and whose handlers do nothing: the cost of the
// library alone. All take turns, and each rate is given from the start of the workers and from the first message
// on. Ours and Watermill remember each message, River completes each job.
func BenchmarkEmpty(b *testing.B) {
	target := server.Shared(b, server.Postgres)
	peers := []struct {
		name string
		work func(b *testing.B, target string, n int) times
	}{
		{"settle", workSettle(settleBatch)},
		{"default", workSettle(0)},
		{"river", workRiver},
		{"watermill", workWatermill},
	}
	for b.Loop() {
		rates, steady := map[string]float64{}, map[string]float64{}
		for round := range rounds {
			for _, p := range peers {
				took := p.work(b, database(b, target, fmt.Sprintf("peers_%s_%d_%d", p.name, os.Getpid(), round)), jobs)
				rate, running := jobs/took.all.Seconds(), jobs/(took.all-took.first).Seconds()
				b.Logf("%s: %.0f messages/s, %.0f from the first on, which was done after %s",
					p.name, rate, running, took.first.Round(time.Millisecond))
				rates[p.name] += rate / rounds
				steady[p.name] += running / rounds
			}
		}
		for _, p := range peers {
			b.ReportMetric(rates[p.name], p.name+"/s")
			b.ReportMetric(steady[p.name], p.name+"-running/s")
		}
		for _, name := range []string{"river", "watermill"} {
			b.ReportMetric(rates["settle"]/rates[name], "x-"+name)
			b.ReportMetric(rates["default"]/rates[name], "default-x-"+name)
			b.ReportMetric(steady["settle"]/steady[name], "x-"+name+"-running")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// database makes an empty one, which is dropped with the benchmark.
func database(b *testing.B, target, name string) string {
	b.Helper()
	u, err := url.Parse(target)
	if err != nil {
		b.Fatal(err)
	}
	admin := pool(b, target)
	if _, err := admin.Exec(b.Context(), "CREATE DATABASE "+name); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		p, err := pgxpool.New(context.Background(), target)
		if err != nil {
			b.Error(err)
			return
		}
		defer p.Close()
		if _, err := p.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			b.Error(err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

func pool(b *testing.B, target string) *pgxpool.Pool {
	b.Helper()
	config, err := pgxpool.ParseConfig(target)
	if err != nil {
		b.Fatal(err)
	}
	config.MaxConns = 32
	p, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}

// analyze gives the planner what it would know of tables that had been filled slowly.
func analyze(b *testing.B, target string) {
	b.Helper()
	if _, err := pool(b, target).Exec(b.Context(), "VACUUM ANALYZE"); err != nil {
		b.Fatal(err)
	}
}

// counter tells when n handlers have committed.
type counter struct {
	left  atomic.Int64
	first atomic.Int64 // when, in nanoseconds
	done  chan struct{}
}

func newCounter(n int) *counter {
	c := &counter{done: make(chan struct{})}
	c.left.Store(int64(n))
	return c
}

func (c *counter) add(n int) {
	c.first.CompareAndSwap(0, time.Now().UnixNano())
	if left := c.left.Add(-int64(n)); left <= 0 && left+int64(n) > 0 {
		close(c.done)
	}
}

func (c *counter) wait(b *testing.B) {
	b.Helper()
	select {
	case <-c.done:
	case <-time.After(2 * time.Minute):
		b.Fatalf("%d messages are left after two minutes", c.left.Load())
	}
}

// times are from the start of the workers: until the first message was done, and until all were.
type times struct{ first, all time.Duration }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// workSettle follows the outbox of the same database, with an inbox, in transactions of up to batch messages.
func workSettle(batch int) func(b *testing.B, target string, n int) times {
	return func(b *testing.B, target string, n int) times {
		b.Helper()
		s, err := settlepgx.Open(b.Context(), target, settlepgx.Config{Migrate: true})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		happened := event.Define("ThingHappened", 1, event.Spec[thing]{Topic: "things", Aggregate: "thing", Key: func(t thing) string { return t.Key }})
		for i := 0; i < n; i += 500 {
			err := s.Run(b.Context(), func(ctx context.Context, tx *txn.Tx) error {
				tx.Bind("peers", nil)
				for j := range 500 {
					if err := outbox.Add(ctx, tx, happened.New(thing{"key-" + strconv.Itoa(i+j), i})); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		analyze(b, target)
		br, err := storebroker.New(map[string]relay.Source{"peers": s.Outbox()}, storebroker.Config{})
		if err != nil {
			b.Fatal(err)
		}
		defer br.Close()
		done := newCounter(n)
		cfg := settle.Config{Logger: quiet()}
		cfg.Consumer.BatchMax = batch
		cfg.Consumer.Hooks.Handled = func(events []event.Envelope, _ time.Time) { done.add(len(events)) }
		service := settle.NewService("peers", s, br, cfg)
		settle.On(service, happened, func(context.Context, *txn.Tx, event.Of[thing]) error { return nil })
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 2)
		began := time.Now()
		go func() { ended <- br.Run(ctx) }()
		go func() { ended <- service.Run(ctx) }()
		done.wait(b)
		took := times{time.Unix(0, done.first.Load()).Sub(began), time.Since(began)}
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				b.Error(err)
			}
		}
		var remembered int
		if err := s.QueryRow(b.Context(), "SELECT count(*) FROM settle_inbox", nil, &remembered); err != nil || remembered != n {
			b.Fatalf("%d messages remembered, want %d: %v", remembered, n, err)
		}
		return took
	}
}

// worker does nothing.
type worker struct {
	river.WorkerDefaults[thing]
}

// Work implements river.Worker.
func (worker) Work(context.Context, *river.Job[thing]) error { return nil }

// workRiver works jobs, fetched as often as River allows.
func workRiver(b *testing.B, target string, n int) times {
	b.Helper()
	p := pool(b, target)
	driver := riverpgxv5.New(p)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := migrator.Migrate(b.Context(), rivermigrate.DirectionUp, nil); err != nil {
		b.Fatal(err)
	}
	all := river.NewWorkers()
	river.AddWorker(all, worker{})
	client, err := river.NewClient(driver, &river.Config{
		Logger: quiet(), Workers: all, FetchCooldown: river.FetchCooldownMin, FetchPollInterval: river.FetchPollIntervalMin,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
	})
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < n; i += 500 {
		params := make([]river.InsertManyParams, 500)
		for j := range params {
			params[j] = river.InsertManyParams{Args: thing{"key-" + strconv.Itoa(i+j), i}}
		}
		if _, err := client.InsertManyFast(b.Context(), params); err != nil {
			b.Fatal(err)
		}
	}
	analyze(b, target)
	completed, stop := client.SubscribeConfig(&river.SubscribeConfig{ChanSize: n, Kinds: []river.EventKind{river.EventKindJobCompleted}})
	defer stop()
	began := time.Now()
	if err := client.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	limit := time.After(2 * time.Minute)
	var took times
	for i := range n {
		select {
		case <-completed: // Sent when the completion is stored.
			if i == 0 {
				took.first = time.Since(began)
			}
		case <-limit:
			b.Fatalf("river: %d jobs of %d", i, n)
		}
	}
	took.all = time.Since(began)
	if err := client.Stop(b.Context()); err != nil {
		b.Error(err)
	}
	var left int
	if err := p.QueryRow(b.Context(), "SELECT count(*) FROM river_job WHERE state <> 'completed'").Scan(&left); err != nil || left != 0 {
		b.Fatalf("river: %d jobs are not completed: %v", left, err)
	}
	return took
}

// workWatermill has one subscriber, which its offsets allow per group, and remembers each message in the
// subscriber's transaction: watermill-sql has no deduplication of its own.
func workWatermill(b *testing.B, target string, n int) times {
	b.Helper()
	p := pool(b, target)
	db := wsql.BeginnerFromPgx(p)
	schema := wsql.DefaultPostgreSQLSchema{}
	pub, err := wsql.NewPublisher(db, wsql.PublisherConfig{SchemaAdapter: schema, AutoInitializeSchema: true}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer pub.Close()
	for i := 0; i < n; i += 500 {
		messages := make([]*message.Message, 500)
		for j := range messages {
			messages[j] = message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, `{"key":"key-%d","n":%d}`, i+j, i))
		}
		if err := pub.Publish("things", messages...); err != nil {
			b.Fatal(err)
		}
	}
	analyze(b, target)
	if _, err := p.Exec(b.Context(), "CREATE TABLE seen (id text PRIMARY KEY)"); err != nil {
		b.Fatal(err)
	}
	sub, err := wsql.NewSubscriber(db, wsql.SubscriberConfig{
		ConsumerGroup: "peers", SchemaAdapter: schema, OffsetsAdapter: wsql.DefaultPostgreSQLOffsetsAdapter{},
		InitializeSchema: true, PollInterval: 10 * time.Millisecond,
	}, nil)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	messages, err := sub.Subscribe(b.Context(), "things")
	if err != nil {
		b.Fatal(err)
	}
	limit := time.After(2 * time.Minute)
	var took times
	for i := range n {
		select {
		case m := <-messages:
			if i == 0 {
				took.first = time.Since(began)
			}
			tx, ok := wsql.TxFromContext(m.Context())
			if !ok {
				b.Fatal("watermill: a message without a transaction")
			}
			if _, err := tx.ExecContext(b.Context(), "INSERT INTO seen (id) VALUES ($1) ON CONFLICT DO NOTHING", m.UUID); err != nil {
				b.Fatal(err)
			}
			m.Ack()
		case <-limit:
			b.Fatalf("watermill: %d messages of %d", i, n)
		}
	}
	if err := sub.Close(); err != nil { // It waits for the last commit.
		b.Error(err)
	}
	took.all = time.Since(began)
	var seen int
	if err := p.QueryRow(b.Context(), "SELECT count(*) FROM seen").Scan(&seen); err != nil || seen < n-100 {
		b.Fatalf("watermill: %d messages remembered, want %d: %v", seen, n, err)
	}
	return took
}
