package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing/fstest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/driver/settlenats"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// thing is the event of the benchmarks: about 300 bytes of JSON, as a small business event has.
type thing struct {
	Key  string `json:"key"`
	N    int    `json:"n"`
	Text string `json:"text"`
}

const text = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua ut enim ad minim veniam quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat duis aute irure dolor in reprehenderit"

func happened() event.Type[thing] {
	return event.Define("ThingHappened", 1, event.Spec[thing]{Topic: "bench-events", Aggregate: "thing", Key: func(t thing) string { return t.Key }})
}

// table is a business table with a row for each key.
const table = `CREATE TABLE sale (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, note TEXT NOT NULL);
CREATE TABLE account (id TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 999) INSERT INTO account SELECT 'key-' || n, 0 FROM i;`

const insertSale = `INSERT INTO sale (n, note) VALUES (?, ?)`

const business = `UPDATE account SET n = n + 1 WHERE id = ?`

func open(ctx context.Context, dir, name string) (*sqlstore.Store, error) {
	return settlesqlite.Open(ctx, filepath.Join(dir, name+".db"), settlesqlite.Config{Migrate: true, Store: sqlstore.Config{
		Schemas: []sqlstore.Schema{{Name: "bench", Files: fstest.MapFS{"0001_account.sql": {Data: []byte(table)}}}},
	}})
}

func key(i int) string { return "key-" + strconv.Itoa(i%1000) }

// publish compares the CPU of a transaction with and without an event.
func publish(ctx context.Context, dir string) ([]Result, error) {
	s, err := open(ctx, dir, "publish")
	if err != nil {
		return nil, err
	}
	var all []Result
	for _, writers := range []int{1, 16, 64} {
		ours, base, err := pair(ctx, s, writers, linesPerOrder)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		small, bare, err := pair(ctx, s, writers, 2)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		r := result(fmt.Sprintf("publish/%d-writers", writers), "us CPU per transaction", ours, base,
			"the same transaction, an insert and 8 updates, without the event", "ratio <= 1.25", ours/base <= 1.25)
		r.Detail = fmt.Sprintf("of an insert and 2 updates: %.1f us, without %.1f us", small, bare)
		all = append(all, r)
	}
	return all, s.Close()
}

// pair measures transactions of a number of updates with and without an event, in microseconds of CPU
// each. The two take turns, so that a neighbour on the machine hurts both.
func pair(ctx context.Context, s *sqlstore.Store, writers, updates int) (ours, base float64, err error) {
	var with, without time.Duration
	const rounds, each = 6, 3000
	for range rounds {
		for _, add := range []bool{false, true} {
			used, err := transactions(ctx, s, writers, each, updates, add)
			if err != nil {
				return 0, 0, err
			}
			if add {
				with += used
			} else {
				without += used
			}
		}
	}
	return per(with, rounds*each), per(without, rounds*each), nil
}

func per(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }

// transactions runs n transactions from a number of writers and returns the CPU that they used.
func transactions(ctx context.Context, s *sqlstore.Store, writers, n, updates int, add bool) (time.Duration, error) {
	t := happened()
	var wg sync.WaitGroup
	errs := make([]error, writers)
	before := cpu()
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				err := s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
					tx.Bind("bench", nil)
					if _, err := tx.Exec(ctx, insertSale, i, text); err != nil {
						return err
					}
					for l := range updates {
						if _, err := tx.Exec(ctx, business, key(i+l)); err != nil {
							return err
						}
					}
					if !add {
						return nil
					}
					return outbox.Add(ctx, tx, t.New(thing{key(i), i, text}))
				})
				if err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return cpu() - before, errors.Join(errs...)
}

// fill adds n events.
func fill(ctx context.Context, s *sqlstore.Store, n int) error {
	t := happened()
	for i := 0; i < n; {
		err := s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
			tx.Bind("bench", nil)
			for range min(500, n-i) {
				if err := outbox.Add(ctx, tx, t.New(thing{key(i), i, text})); err != nil {
					return err
				}
				i++
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// nullSink takes everything.
type nullSink struct{}

func (nullSink) Publish(_ context.Context, m []broker.Message) []error { return make([]error, len(m)) }

// drain carries a backlog to a null sink, and to embedded JetStream.
func drain(ctx context.Context, dir string) (_ []Result, err error) {
	const n = 200_000
	s, err := open(ctx, dir, "relay")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(fill(ctx, s, n), s.Close()); err != nil {
		return nil, err
	}
	// Opened again, so that no event is served from memory: a backlog lies on disk.
	if s, err = open(ctx, dir, "relay"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	raw, err := scanRate(ctx, s)
	if err != nil {
		return nil, err
	}
	null, err := carry(ctx, s, nullSink{}, n)
	if err != nil {
		return nil, err
	}
	if err := rewind(ctx, s); err != nil {
		return nil, err
	}
	js, err := settlenats.OpenEmbedded(ctx, settlenats.Config{Dir: filepath.Join(dir, "jetstream")})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, js.Close()) }()
	streamed, err := carry(ctx, s, js, n)
	if err != nil {
		return nil, err
	}
	direct, err := publishDirect(ctx, js, n/4)
	if err != nil {
		return nil, err
	}
	return []Result{
		result("relay/null", "events/s", null, raw, "reading the same rows in batches", ">= 100,000 events/s", null >= 100_000),
		result("relay/jetstream", "events/s", streamed, direct, "publishing prepared messages in batches", ">= 40,000 events/s", streamed >= 40_000),
	}, nil
}

// scanRate reads all events in batches and does nothing with them.
func scanRate(ctx context.Context, s *sqlstore.Store) (float64, error) {
	started, n := time.Now(), 0
	var at outbox.Position
	for {
		records, err := s.Outbox().Next(ctx, relay.Lease{}, at, 500)
		if err != nil {
			return 0, err
		}
		if len(records) == 0 {
			return float64(n) / time.Since(started).Seconds(), nil
		}
		n += len(records)
		at = records[len(records)-1].Position
	}
}

func rewind(ctx context.Context, s *sqlstore.Store) error {
	lease, err := s.Outbox().Claim(ctx, 0, "bench", time.Minute)
	if err != nil {
		return err
	}
	return errors.Join(s.Outbox().Rewind(ctx, lease, outbox.Position{}), s.Outbox().Release(ctx, lease))
}

// carry runs a relay until n events are published, and returns the rate.
func carry(ctx context.Context, s *sqlstore.Store, to broker.Publisher, n int) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	published := 0
	var took time.Duration
	started := time.Now()
	r, err := relay.New(s.Outbox(), to, relay.Config{Hooks: relay.Hooks{Published: func(events int, _, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if published += events; published >= n && took == 0 {
			took = time.Since(started)
			cancel()
		}
	}}})
	if err != nil {
		return 0, err
	}
	if err := r.Run(ctx); err != nil {
		return 0, err
	}
	mu.Lock()
	defer mu.Unlock()
	if took == 0 {
		return 0, fmt.Errorf("relay ended after %d of %d events", published, n)
	}
	return float64(n) / took.Seconds(), nil
}

// publishDirect publishes prepared messages in batches, without an outbox.
func publishDirect(ctx context.Context, b broker.Publisher, n int) (float64, error) {
	t := happened()
	batch := make([]broker.Message, 500)
	started := time.Now()
	for i := 0; i < n; i += len(batch) {
		for j := range batch {
			e, err := t.New(thing{key(i + j), i, text}).Seal("bench", started, event.Cause{})
			if err != nil {
				return 0, err
			}
			batch[j] = broker.Message{Event: e}
		}
		if err := errors.Join(b.Publish(ctx, batch)...); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(started).Seconds(), nil
}

// consume handles a topic that lies ready in memory, with an inbox and without one.
func consume(ctx context.Context, dir string) ([]Result, error) {
	const n = 60_000
	var rates [2][]float64
	for round := range 2 { // Twice in turn; the better one of each counts.
		for i, mode := range []consumer.Mode{consumer.ExactlyOnce, consumer.AtLeastOnce} {
			s, err := open(ctx, dir, fmt.Sprintf("consume-%d-%d", round, i))
			if err != nil {
				return nil, err
			}
			rate, err := handleAll(ctx, s, mode, n, func(ctx context.Context, tx *txn.Tx, e event.Envelope) error {
				_, err := tx.Exec(ctx, business, e.AggregateID)
				return err
			})
			if err = errors.Join(err, s.Close()); err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], rate)
		}
	}
	with, without := max(rates[0][0], rates[0][1]), max(rates[1][0], rates[1][1])
	return []Result{result("inbox/sqlite", "messages/s", with, without, "the same batched handler without an inbox",
		">= 25,000 messages/s and ratio >= 0.6", with >= 25_000 && with/without >= 0.6)}, nil
}

func handleAll(ctx context.Context, s *sqlstore.Store, mode consumer.Mode, n int, h consumer.Handler) (float64, error) {
	b := memory.NewBroker(memory.BrokerConfig{Partitions: 4})
	if _, err := publishDirect(ctx, b, n); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	handled := 0
	var took time.Duration
	started := time.Now()
	c, err := consumer.New(s, s, b, consumer.Config{
		Group: "bench", Topics: []string{"bench-events"}, Mode: mode,
		Handlers: map[string]consumer.Handler{"ThingHappened": h},
		Hooks: consumer.Hooks{Handled: func(events []event.Envelope, _ time.Time) {
			mu.Lock()
			defer mu.Unlock()
			if handled += len(events); handled >= n && took == 0 {
				took = time.Since(started)
				cancel()
			}
		}},
	})
	if err != nil {
		return 0, err
	}
	if err := c.Run(ctx); err != nil {
		return 0, err
	}
	mu.Lock()
	defer mu.Unlock()
	if took == 0 {
		return 0, fmt.Errorf("consumer ended after %d of %d messages", handled, n)
	}
	return float64(n) / took.Seconds(), nil
}
