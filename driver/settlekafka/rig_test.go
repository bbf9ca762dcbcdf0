package settlekafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

const orders = "order-events"

func oneMessage(key, data string) broker.Message {
	now := time.Now()
	return broker.Message{Origin: "0.0.1", Event: event.Envelope{
		ID: event.NewID(now), Type: "OrderPlaced", Version: 1, Topic: orders, AggregateType: "order",
		AggregateID: key, OccurredAt: now.UTC(), Producer: "order", Data: []byte(data),
	}}
}

func publish(t *testing.T, b *Broker, messages ...broker.Message) {
	t.Helper()
	for i, err := range b.Publish(t.Context(), messages) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
}

// publishPatiently repeats what is unavailable, as a relay does.
func publishPatiently(t *testing.T, b *Broker, messages ...broker.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(messages) > 0 {
		var again []broker.Message
		for i, err := range b.Publish(ctx, messages) {
			switch {
			case err == nil:
			case errors.Is(err, broker.ErrUnavailable) && ctx.Err() == nil:
				again = append(again, messages[i])
			default:
				t.Fatal(err)
			}
		}
		if messages = again; len(again) > 0 {
			_ = pause(ctx, 20*time.Millisecond)
		}
	}
}

func subscribe(t *testing.T, b *Broker, group string, topics ...string) *membership {
	t.Helper()
	m, err := b.Subscribe(t.Context(), broker.Subscription{Group: group, Topics: topics})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	ours, ok := m.(*membership)
	if !ok {
		t.Fatalf("membership is a %T", m)
	}
	return ours
}

func next(t *testing.T, m broker.Membership) *partition {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := m.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ours, ok := p.(*partition)
	if !ok {
		t.Fatalf("partition is a %T", p)
	}
	return ours
}

// fetchSome fetches until there is something; what is unavailable comes back.
func fetchSome(t *testing.T, p broker.Partition) []broker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		got, err := p.Fetch(ctx, 100)
		if err != nil && !errors.Is(err, broker.ErrUnavailable) {
			t.Fatal(err)
		}
		if len(got) > 0 {
			return got
		}
	}
}

// expect fetches until all of want have come, in order, each once.
func expect(t *testing.T, p broker.Partition, want ...broker.Message) {
	t.Helper()
	for len(want) > 0 {
		for _, m := range fetchSome(t, p) {
			if len(want) == 0 || m.Event.ID != want[0].Event.ID {
				t.Fatalf("got %s of %s, want %d more beginning with another", m.Event.Data, m.Event.AggregateID, len(want))
			}
			want = want[1:]
		}
	}
}

// expectNone fetches for a while and fails if anything comes.
func expectNone(t *testing.T, p broker.Partition, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		got, err := p.Fetch(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) > 0 {
			t.Fatalf("got %s of %s", got[0].Event.Data, got[0].Event.AggregateID)
		}
	}
}

// collector reads every partition of a topic and remembers first appearances by key.
type collector struct {
	mu    sync.Mutex
	seen  map[event.ID]int
	keys  map[string][]string
	total int
}

// collect reads in a group of its own until the test ends.
func collect(t *testing.T, b *Broker, topics ...string) *collector {
	t.Helper()
	c := &collector{seen: map[event.ID]int{}, keys: map[string][]string{}}
	m := subscribe(t, b, "collector-"+prefix(), topics...)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		for ctx.Err() == nil {
			p, err := m.Next(ctx)
			if err != nil {
				return
			}
			wg.Go(func() { c.read(ctx, p) })
		}
	})
	return c
}

func (c *collector) read(ctx context.Context, p broker.Partition) {
	for {
		messages, err := p.Fetch(ctx, 500)
		if ctx.Err() != nil || errors.Is(err, broker.ErrRevoked) {
			return
		}
		c.mu.Lock()
		for _, m := range messages {
			c.total++
			if c.seen[m.Event.ID]++; c.seen[m.Event.ID] == 1 {
				c.keys[m.Event.AggregateID] = append(c.keys[m.Event.AggregateID], string(m.Event.Data))
			}
		}
		c.mu.Unlock()
		if err != nil {
			_ = pause(ctx, 20*time.Millisecond)
		}
	}
}

// await waits until as many different events have come.
func (c *collector) await(t *testing.T, n int, within time.Duration) {
	t.Helper()
	end := time.Now().Add(within)
	for {
		c.mu.Lock()
		got := len(c.seen)
		c.mu.Unlock()
		if got >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d events within %s, want %d", got, within, n)
		}
		_ = pause(t.Context(), 10*time.Millisecond)
	}
}

// outboxRig is a memory store, its relay, and what was added to it.
type outboxRig struct {
	store   *memory.Store
	relay   *relay.Relay
	mu      sync.Mutex
	written map[string][]string
	outages int
	parked  []outbox.Record
}

func startRelay(t *testing.T, to broker.Publisher, cfg relay.Config) *outboxRig {
	t.Helper()
	r := &outboxRig{store: memory.New(), written: map[string][]string{}}
	cfg.Logger = quiet()
	cfg.Hooks.Outage = func(down bool, _ error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if down {
			r.outages++
		}
	}
	cfg.Hooks.Parked = func(record outbox.Record, _ string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.parked = append(r.parked, record)
	}
	var err error
	if r.relay, err = relay.New(r.store.Outbox(), to, cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

// add commits the next event of a key.
func (r *outboxRig) add(t *testing.T, key string, data string) {
	t.Helper()
	err := r.store.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("order", nil)
		return outbox.Add(ctx, tx, event.Draft{
			Type: "OrderPlaced", Version: 1, Topic: orders, AggregateType: "order", AggregateID: key, Data: []byte(data),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written[key] = append(r.written[key], data)
}

// addSome commits n events, of 20 keys in turn.
func (r *outboxRig) addSome(t *testing.T, n int) {
	t.Helper()
	for range n {
		r.mu.Lock()
		total := 0
		for _, w := range r.written {
			total += len(w)
		}
		r.mu.Unlock()
		r.add(t, fmt.Sprintf("k%d", total%20), fmt.Sprint(total))
	}
}

// sameOrder fails unless each key's first appearances are what was written.
func (r *outboxRig) sameOrder(t *testing.T, c *collector) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, want := range r.written {
		if got := c.keys[key]; !slices.Equal(got, want) {
			t.Errorf("%s: got %.500v\nwant %.500v", key, got, want)
		}
	}
}
