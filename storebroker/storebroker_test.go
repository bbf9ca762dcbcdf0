package storebroker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/brokertest"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

const producer = "brokertest"

func TestBroker(t *testing.T) { suite(t, func(*memory.Store) Config { return Config{} }) }

func TestBrokerWithLeases(t *testing.T) {
	suite(t, func(s *memory.Store) Config { return Config{Leases: s.Leases(), LeaseTTL: time.Second} })
}

func suite(t *testing.T, config func(*memory.Store) Config) {
	t.Helper()
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		store := memory.New()
		cfg := config(store)
		cfg.Wait = 20 * time.Millisecond
		b := open(t, store, cfg)
		return brokertest.Harness{
			Broker: b, Partitions: 1,
			Publish: func(ctx context.Context, messages []broker.Message) []error { return add(ctx, store, messages) },
			Reopen: func(t *testing.T) broker.Broker {
				_ = b.Close()
				b = open(t, store, cfg)
				return b
			},
			Expire: func(t *testing.T, n int) { expire(t, store.Outbox(), n) },
			Revoke: func(_ *testing.T, group string) { b.table.Revoke(group) },
		}
	})
}

func open(t *testing.T, store *memory.Store, cfg Config) *Broker {
	t.Helper()
	b, err := New(map[string]relay.Source{producer: store.Outbox()}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// add puts all messages into the outbox in one transaction.
func add(ctx context.Context, store *memory.Store, messages []broker.Message) []error {
	errs := make([]error, len(messages))
	err := store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		for _, m := range messages {
			if err := tx.Append(ctx, m.Event); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// expire settles everything and purges the first n events.
func expire(t *testing.T, source relay.Source, n int) {
	t.Helper()
	ctx := t.Context()
	lease, err := source.Claim(ctx, 0, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	all, err := source.Next(ctx, lease, outbox.Position{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Advance(ctx, lease, all[len(all)-1].Position); err != nil {
		t.Fatal(err)
	}
	purger, ok := source.(relay.Purger)
	if !ok {
		t.Fatalf("%T does not purge", source)
	}
	if gone, err := purger.Purge(ctx, time.Now().Add(time.Hour), n); err != nil || gone != n {
		t.Fatalf("purged %d of %d: %v", gone, n, err)
	}
}

// happened makes events of a topic, numbered from 1.
func happened(topic string, n int) []broker.Message {
	messages := make([]broker.Message, n)
	for i := range messages {
		now := time.Now()
		messages[i].Event = event.Envelope{
			ID: event.NewID(now), Type: "TestHappened", Version: 1, Topic: topic, AggregateType: "thing",
			AggregateID: "key", OccurredAt: now, Producer: producer, Data: fmt.Append(nil, i+1),
		}
	}
	return messages
}

func must(t *testing.T, errs []error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func follow(t *testing.T, b *Broker, group, topic string) (broker.Partition, broker.Membership) {
	t.Helper()
	m, err := b.Subscribe(t.Context(), broker.Subscription{Group: group, Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p, m
}

func TestDoorbellWakesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p, _ := follow(t, open(t, store, Config{}), "group", "topic")
		start := time.Now()
		if got, err := p.Fetch(t.Context(), 10); len(got) != 0 || err != nil || time.Since(start) != 250*time.Millisecond {
			t.Fatalf("%d messages, %v after %s", len(got), err, time.Since(start))
		}
		go func() {
			time.Sleep(100 * time.Millisecond) // of the bubble's time
			_ = add(context.Background(), store, happened("topic", 1))
		}()
		start = time.Now()
		if got, err := p.Fetch(t.Context(), 10); len(got) != 1 || err != nil || time.Since(start) != 100*time.Millisecond {
			t.Fatalf("%d messages, %v after %s", len(got), err, time.Since(start))
		}
	})
}

// counting counts the records that are read.
type counting struct {
	relay.Source

	read int
}

func (c *counting) Next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	records, err := c.Source.Next(ctx, lease, after, limit)
	c.read += len(records)
	return records, err
}

func TestQuietGroupReadsOthersEventsOnce(t *testing.T) {
	store := memory.New()
	for range 5 {
		must(t, add(t.Context(), store, happened("loud", 900)))
	}
	source := &counting{Source: store.Outbox()}
	b, err := New(map[string]relay.Source{producer: source}, Config{Wait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	p, m := follow(t, b, "quiet", "silence")
	for range 20 {
		if got, err := p.Fetch(t.Context(), 500); len(got) != 0 || err != nil {
			t.Fatalf("%d messages, %v", len(got), err)
		}
	}
	if source.read != 4500 {
		t.Fatalf("%d records read of an outbox of 4500", source.read)
	}
	if at, ok := b.Settled(producer); !ok || at.ID != 4500 {
		t.Fatalf("settled up to %s, want 0.0.4500: nothing in it is the group's", at)
	}
	// The partition's next owner goes on where this one was.
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	must(t, add(t.Context(), store, happened("silence", 1)))
	p, _ = follow(t, b, "quiet", "silence")
	if got, err := p.Fetch(t.Context(), 500); len(got) != 1 || err != nil {
		t.Fatalf("%d messages, %v", len(got), err)
	}
	if source.read != 4501 {
		t.Fatalf("%d records read of an outbox of 4501", source.read)
	}
}

func TestRunSettlesTheSlowestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		must(t, add(t.Context(), store, happened("topic", 10)))
		b := open(t, store, Config{})
		fast, _ := follow(t, b, "fast", "topic")
		slow, _ := follow(t, b, "slow", "topic")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		pending := func() int64 {
			time.Sleep(2 * time.Second) // of the bubble's time
			synctest.Wait()
			observer, ok := store.Outbox().(relay.Observer)
			if !ok {
				t.Fatal("the outbox cannot tell its state")
			}
			stats, err := observer.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return stats.Pending
		}
		read := func(p broker.Partition, limit int) {
			got, err := p.Fetch(t.Context(), limit)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Ack(t.Context(), got[len(got)-1].Position); err != nil {
				t.Fatal(err)
			}
		}
		read(fast, 10)
		if n := pending(); n != 10 {
			t.Fatalf("%d events pending, want 10: the slow group has nothing yet", n)
		}
		read(slow, 4)
		if n := pending(); n != 6 {
			t.Fatalf("%d events pending, want 6", n)
		}
		if _, err := slow.Fetch(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		if n := pending(); n != 6 {
			t.Fatalf("%d events pending, want 6: what was fetched is not settled", n)
		}
		if err := slow.Ack(t.Context(), encode(outbox.Position{ID: 10})); err != nil {
			t.Fatal(err)
		}
		cancel() // the last state is told at the end
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if n := pending(); n != 0 {
			t.Fatalf("%d events pending at the end", n)
		}
	})
}

func TestPositionsAreLossless(t *testing.T) {
	for _, p := range []outbox.Position{{}, {ID: 7}, {Epoch: 3, ID: 1 << 62}, {Epoch: 1, Tick: 1 << 61, ID: 9}, {Tick: 5}} {
		got, err := decode(encode(p))
		if err != nil || got != p {
			t.Errorf("%s became %s (%v)", p, got, err)
		}
	}
	for _, p := range []broker.Position{{Incarnation: "x", Offset: 1}, {Incarnation: "1.", Offset: 1}, {Offset: 1}, {Incarnation: "0", Offset: 1 << 63}} {
		if got, err := decode(p); err == nil {
			t.Errorf("%s was taken for %s", p, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	source := memory.New().Outbox()
	for name, test := range map[string]struct {
		producers map[string]relay.Source
		cfg       Config
	}{
		"no producer":    {nil, Config{}},
		"a bad name":     {map[string]relay.Source{"a b": source}, Config{}},
		"a nil outbox":   {map[string]relay.Source{"a": nil}, Config{}},
		"negative wait":  {map[string]relay.Source{"a": source}, Config{Wait: -1}},
		"an unknown own": {map[string]relay.Source{"a": source}, Config{Own: []string{"b"}}},
		"a short lease":  {map[string]relay.Source{"a": source}, Config{SettleEvery: time.Second, SettleLease: time.Second}},
	} {
		if _, err := New(test.producers, test.cfg); err == nil {
			t.Errorf("New took %s", name)
		}
	}
}

// TestProcessesShareByLease lets two brokers, as two processes have them, follow one outbox for one group.
func TestProcessesShareByLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		cfg := Config{Leases: store.Leases(), LeaseTTL: 10 * time.Second}
		first, second := open(t, store, cfg), open(t, store, cfg)
		p, m := follow(t, first, "group", "topic")
		other, err := second.Subscribe(t.Context(), broker.Subscription{Group: "group", Topics: []string{"topic"}})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		soon, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := other.Next(soon); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a partition was handed out twice: %v", err)
		}
		must(t, add(t.Context(), store, happened("topic", 1)))
		if got, err := p.Fetch(t.Context(), 10); len(got) != 1 || err != nil {
			t.Fatalf("%d messages, %v", len(got), err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Fetch(t.Context(), 10); !errors.Is(err, broker.ErrRevoked) {
			t.Fatalf("a partition that was given back can be read: %v", err)
		}
		if _, err := other.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// sequenced is an outbox whose events are seen once they have been given their positions.
type sequenced struct {
	relay.Source

	given outbox.Position
}

func (s *sequenced) Sequence(ctx context.Context, lease relay.Lease) (outbox.Position, error) {
	records, err := s.Next(ctx, lease, s.given, 1000)
	if len(records) > 0 {
		s.given = records[len(records)-1].Position
	}
	return s.given, err
}

func TestRunSequencesAndSettlesWhatIsShared(t *testing.T) {
	settled(t, func(s *memory.Store) relay.Source { return &sequenced{Source: s.Outbox()} })
}

// TestRunSettlesWhatIsSharedInOrder of an outbox that gives positions by itself, as a file does.
func TestRunSettlesWhatIsSharedInOrder(t *testing.T) {
	settled(t, func(s *memory.Store) relay.Source { return s.Outbox() })
}

func settled(t *testing.T, outboxOf func(*memory.Store) relay.Source) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		const events = 2*walkMax + 1
		store := memory.New()
		source := outboxOf(store)
		b, err := New(map[string]relay.Source{producer: source}, Config{Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		must(t, add(t.Context(), store, happened("topic", events)))
		time.Sleep(3 * time.Second) // of the bubble's time
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		lease, err := source.Claim(t.Context(), 0, "test", time.Minute)
		if err != nil || lease.Position.ID != events {
			t.Fatalf("settled up to %s, want 0.0.%d: no other process tells what it has handled (%v)", lease.Position, events, err)
		}
	})
}

func TestRunBeginsWithWhatHasGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		must(t, add(t.Context(), store, happened("topic", 3)))
		source := &sequenced{Source: store.Outbox()}
		b, err := New(map[string]relay.Source{producer: source}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait() // No time passes.
		if source.given.ID != 3 {
			t.Errorf("positions are given up to %s at the start, want 0.0.3", source.given)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
