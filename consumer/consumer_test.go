package consumer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/txn"
)

func records(t *testing.T, s *memory.Store) []outbox.Record {
	t.Helper()
	l, err := s.Outbox().Claim(t.Context(), 0, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Outbox().Next(t.Context(), l, outbox.Position{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestHandlesInOrderOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		keys := []string{"a", "b", "c", "d", "e", "f", "g"}
		r.add(100, keys...)
		c, stop := r.start(nil)
		pass(time.Second)
		r.add(50, keys...)
		pass(time.Second)
		for _, k := range keys {
			r.wantDone(k, 150)
		}
		s, err := c.Stats(t.Context())
		if err != nil || s.Lag != 0 || len(s.Partitions) != 4 {
			t.Errorf("stats: %+v, %v", s, err)
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		// Nothing comes again to the next process: the position was stored with the effects.
		r.start(nil)
		pass(time.Second)
		if n := r.count(&r.dups); n != 0 {
			t.Errorf("%d duplicates", n)
		}
	})
}

func TestDuplicateHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		one, two := r.event("a"), r.event("a")
		r.publish(one, one, two, one) // A relay that crashed sends again at a new offset, also in one batch.
		_, stop := r.start(nil)
		pass(time.Second)
		r.publish(two, one)
		pass(time.Second)
		r.wantDone("a", 2)
		if r.count(&r.dups) != 4 {
			t.Errorf("%d duplicates, want 4", r.count(&r.dups))
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		// A new process knows what the old one did.
		r.start(nil)
		r.publish(one, r.event("a"))
		pass(time.Second)
		r.wantDone("a", 3)
	})
}

func TestCauseIsInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		def := event.Define("Billed", 1, event.Spec[string]{Topic: "bills", Aggregate: "bill", Key: func(s string) string { return s }})
		r.start(func(cfg *consumer.Config) {
			cfg.Handlers["OrderPlaced"] = func(ctx context.Context, tx *txn.Tx, e event.Envelope) error {
				tx.Bind("billing", nil)
				return outbox.Add(ctx, tx, def.New(e.AggregateID))
			}
		})
		e := r.event("a")
		r.publish(e)
		pass(time.Second)
		got := r.outbox()
		if len(got) != 1 || got[0].CausationID != e.ID || got[0].CorrelationID != e.CorrelationID {
			t.Errorf("got %+v, want one event caused by %s", got, e.ID)
		}
	})
}

// TestStandby has three members for two partitions: one knows that the others have them, and takes over from whoever
// leaves.
func TestStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker = memory.NewBroker(memory.BrokerConfig{Partitions: 2})
		var stops []func() error
		var all []*consumer.Consumer
		want := func(states ...bool) {
			t.Helper()
			pass(time.Second)
			for i, want := range states {
				s, err := all[i].Stats(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if s.Standby != want || s.Standby && (len(s.Partitions) > 0 || s.Lag > 0) {
					t.Errorf("member %d: standby %t, want %t; partitions %v, lag %d", i+1, s.Standby, want, s.Partitions, s.Lag)
				}
			}
		}
		for range 3 {
			c, stop := r.start(nil)
			all, stops = append(all, c), append(stops, stop)
			pass(time.Second)
		}
		want(false, false, true)
		if err := stops[0](); err != nil {
			t.Fatal(err)
		}
		want(false, false, false)
	})
}

func TestModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail("a/2", errBroken)
		_, stop := r.start(func(cfg *consumer.Config) { cfg.Mode = consumer.AtMostOnce })
		r.add(3, "a")
		pass(time.Minute)
		if got := r.done(); !slices.Equal(got, []string{"a/1", "a/3"}) || r.count(&r.lost) != 1 || r.tried("a/2") != 1 {
			t.Errorf("at most once: %v, %d lost", got, r.count(&r.lost))
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_, stop := r.start(func(cfg *consumer.Config) { cfg.Mode = consumer.AtLeastOnce })
		e := r.event("a")
		r.publish(e, e)
		r.fail("b/1", errBroken)
		r.add(2, "b")
		pass(500 * time.Millisecond)
		if got := r.doneOf("a"); len(got) != 2 {
			t.Errorf("at least once: %v, want both copies", got)
		}
		r.mend("b/1")
		pass(5 * time.Second)
		r.wantDone("b", 2)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestPositionOfUnhandledIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		f := &faulty{Runner: r.store}
		r.run = f
		_, stop := r.start(nil)
		pass(time.Second)
		before := f.count()
		for range 100 {
			e := r.event("a")
			e.Type = "OrderSeen"
			r.publish(e)
			pass(20 * time.Millisecond)
		}
		pass(3 * time.Second)
		if n := f.count() - before; n < 1 || n > 4 {
			t.Errorf("%d transactions for 2 s of events that nobody handles, want 1 to 4", n)
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		all, err := r.store.Positions().All(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		var sum uint64
		for _, p := range all {
			sum += p.Offset
		}
		if sum != 100 {
			t.Errorf("positions %v, want 100 in all", all)
		}
	})
}

// queues has the partitions of a broker without their positions, and counts what they are told.
type queues struct {
	broker.Broker

	acks atomic.Int64
}

type queueMember struct {
	broker.Membership

	of *queues
}

type queue struct {
	broker.Partition

	of *queues
}

func (q *queues) Subscribe(ctx context.Context, s broker.Subscription) (broker.Membership, error) {
	m, err := q.Broker.Subscribe(ctx, s)
	return &queueMember{m, q}, err
}

func (m *queueMember) Next(ctx context.Context) (broker.Partition, error) {
	p, err := m.Membership.Next(ctx)
	return &queue{p, m.of}, err
}

func (q *queue) Ack(ctx context.Context, p broker.Position) error {
	q.of.acks.Add(1)
	return q.Partition.Ack(ctx, p)
}

// TestUnhandledIsAcknowledgedAtOnce by a broker that gives out only so many events ahead of that, and which has
// no use for the stored position; that is stored as seldom as ever.
func TestUnhandledIsAcknowledgedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		f := &faulty{Runner: r.store}
		q := &queues{Broker: r.broker}
		c, err := consumer.New(f, r.store, q, r.config())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		pass(time.Second)
		before := f.count()
		for i := range 10 {
			e := r.event("a")
			e.Type = "OrderSeen"
			r.publish(e)
			pass(20 * time.Millisecond)
			if n := q.acks.Load(); n < int64(i+1) {
				t.Fatalf("%d acknowledgements of %d events", n, i+1)
			}
		}
		if n := f.count() - before; n > 1 {
			t.Errorf("%d transactions for 200 ms of events that nobody handles, want 1 at most", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.gate = make(chan struct{})
		_, stop := r.start(nil)
		r.add(3, "a")
		pass(time.Second)
		time.AfterFunc(5*time.Second, func() { close(r.gate) })
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		r.wantDone("a", 3)
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.gate = make(chan struct{})
		_, stop := r.start(func(cfg *consumer.Config) { cfg.DrainTimeout = 2 * time.Second })
		r.add(1, "a")
		pass(time.Second)
		if err := stop(); !errors.Is(err, consumer.ErrDrain) {
			t.Errorf("Run: %v, want ErrDrain", err)
		}
		close(r.gate)
		synctest.Wait()
	})
}

func TestInboxIsPurged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(func(cfg *consumer.Config) {
			cfg.InboxRetention = 10 * time.Minute
			cfg.RelayRewind, cfg.BrokerRetention, cfg.DeadLetterRetention = time.Minute, time.Minute, time.Minute
		})
		e := r.event("a")
		r.publish(e)
		pass(9 * time.Minute)
		r.publish(e)
		pass(time.Second)
		r.wantDone("a", 1)
		pass(3 * time.Minute)
		r.publish(e) // Impossible by the retention rule; it shows that the row is gone.
		pass(time.Second)
		if got := r.done(); len(got) != 2 {
			t.Errorf("effects %v", got)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := newRig(t).config()
	tests := map[string]struct {
		change func(*consumer.Config)
		want   []string
	}{
		"group":     {func(c *consumer.Config) { c.Group = "a b" }, []string{"group"}},
		"topics":    {func(c *consumer.Config) { c.Topics = nil }, []string{"no topics"}},
		"batch":     {func(c *consumer.Config) { c.BatchMax = 1001 }, []string{"1001", "1000"}},
		"mode":      {func(c *consumer.Config) { c.Mode = 7 }, []string{"mode 7"}},
		"in flight": {func(c *consumer.Config) { c.InFlight = -1 }, []string{"-1"}},
		"retry":     {func(c *consumer.Config) { c.Retry.Multiplier = 0.5 }, []string{"0.5"}},
		"retention": {func(c *consumer.Config) { c.InboxRetention = 24 * time.Hour }, []string{"24h0m0s", "144h5m0s", "72h0m0s", "48h0m0s", "5m0s"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			cfg := good
			tt.change(&cfg)
			_, err := consumer.New(r.store, r.store, r.broker, cfg)
			for _, w := range tt.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("got %v, want %q in it", err, w)
				}
			}
		})
	}
	if _, err := consumer.New(nil, struct{}{}, nil, good); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("store that can do nothing: %v", err)
	}
}
