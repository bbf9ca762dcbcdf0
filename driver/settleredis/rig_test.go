package settleredis

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

const topic = "order-events"

// rig is a producer with its relay and a group with its consumers, each with a Broker of its own, as
// processes have.
type rig struct {
	t      *testing.T
	server *server.Server
	cfg    Config
	from   *memory.Store
	to     *memory.Store

	mu      sync.Mutex
	written map[string]int   // by key: how many events
	effects map[string][]int // by key: what was committed, in order
	dups    int
	rewound int
}

func newRig(t *testing.T, s *server.Server) *rig {
	t.Helper()
	return &rig{
		t: t, server: s, cfg: config(t), from: memory.New(), to: memory.New(),
		written: map[string]int{}, effects: map[string][]int{},
	}
}

// run runs an engine until the test ends.
func (r *rig) run(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("%s: %v", name, err)
		}
	})
}

func (r *rig) relay() {
	r.t.Helper()
	engine, err := relay.New(r.from.Outbox(), openAt(r.t, r.server.URL(), r.cfg), relay.Config{
		Logger: quiet(), RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond, MarkEvery: 100 * time.Millisecond,
		BatchMax: 50,
		Hooks: relay.Hooks{Rewound: func(outbox.Position, outbox.Position) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.rewound++
		}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.run("relay", engine.Run)
}

func (r *rig) consume(filter consumer.Filter) {
	r.t.Helper()
	engine, err := consumer.New(r.to, r.to, openAt(r.t, r.server.URL(), r.cfg), consumer.Config{
		Group: "billing", Topics: []string{topic}, Logger: quiet(), Filter: filter, BatchMax: 20,
		Handlers: map[string]consumer.Handler{"OrderPlaced": r.handle},
		Hooks: consumer.Hooks{Duplicate: func(event.Envelope) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dups++
		}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.run("consumer", engine.Run)
}

func (r *rig) handle(_ context.Context, tx *txn.Tx, e event.Envelope) error {
	var n int
	if _, err := fmt.Sscan(string(e.Data), &n); err != nil {
		return err
	}
	tx.AfterCommit(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.effects[e.AggregateID] = append(r.effects[e.AggregateID], n)
	})
	return nil
}

// add commits n events, over 20 keys, one after the other.
func (r *rig) add(n int) {
	r.t.Helper()
	for i := range n {
		key := fmt.Sprintf("order-%d", i%20)
		r.mu.Lock()
		r.written[key]++
		data := fmt.Append(nil, r.written[key])
		r.mu.Unlock()
		err := r.from.Run(r.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			tx.Bind("shop", nil)
			return outbox.Add(ctx, tx, event.Draft{
				Type: "OrderPlaced", Version: 1, Topic: topic, AggregateType: "order", AggregateID: key, Data: data,
			})
		})
		if err != nil {
			r.t.Fatal(err)
		}
		wait(time.Millisecond)
	}
}

func wait(d time.Duration) { <-time.After(d) }

// settled waits until every event has had its effect, and checks that it was one, in its key's order.
func (r *rig) settled() {
	r.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !r.complete() {
		if time.Now().After(deadline) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("effects %v\nof %v", r.effects, r.written)
		}
		wait(20 * time.Millisecond)
	}
	wait(300 * time.Millisecond) // For what comes twice.
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, n := range r.written {
		var want []int
		for i := range n {
			want = append(want, i+1)
		}
		if got := r.effects[key]; !slices.Equal(got, want) {
			r.t.Errorf("%s: effects %v, want 1 to %d, once each", key, got, n)
		}
	}
}

func (r *rig) complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, n := range r.written {
		if len(r.effects[key]) < n {
			return false
		}
	}
	return true
}

func (r *rig) count(n *int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *n
}

// oneMessage returns an event of a key to publish.
func oneMessage(key string) broker.Message {
	now := time.Now()
	return broker.Message{Origin: "0.0.1", Event: event.Envelope{
		ID: event.NewID(now), Type: "OrderPlaced", Version: 1, Topic: topic, AggregateType: "order", AggregateID: key,
		OccurredAt: now.UTC(), Producer: "shop", Data: []byte("1"),
	}}
}

func publishOne(t *testing.T, b *Broker, key string) broker.Message {
	t.Helper()
	m := oneMessage(key)
	if err := b.Publish(t.Context(), []broker.Message{m})[0]; err != nil {
		t.Fatal(err)
	}
	return m
}

func tailOf(t *testing.T, b *Broker) broker.Tail {
	t.Helper()
	tail, err := b.Tail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tail
}

// join makes a member and takes n partitions.
func join(t *testing.T, b *Broker, group string, n int) (broker.Membership, []*partition) {
	t.Helper()
	m, err := b.Subscribe(t.Context(), broker.Subscription{Group: group, Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, takeFrom(t, m, n)
}

func takeFrom(t *testing.T, m broker.Membership, n int) []*partition {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var parts []*partition
	for range n {
		next, err := m.Next(ctx)
		if err != nil {
			t.Fatalf("after %d partitions: %v", len(parts), err)
		}
		p, ok := next.(*partition)
		if !ok {
			t.Fatalf("partition is a %T", next)
		}
		parts = append(parts, p)
	}
	return parts
}

// fetchAll fetches until n messages have come.
func fetchAll(t *testing.T, n int, parts ...*partition) (got []broker.Message) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for len(got) < n {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages, want %d", len(got), n)
		}
		for _, p := range parts {
			messages, err := p.Fetch(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, messages...)
		}
	}
	return got
}
