package relay_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// reader remembers every message of a topic, and begins anew when a partition does.
type reader struct {
	mu   sync.Mutex
	seen map[event.ID]bool
	keys map[string][]string
}

func (r *reader) run(ctx context.Context, b broker.Broker) error {
	m, err := b.Subscribe(ctx, broker.Subscription{Group: "g", Topics: []string{"orders"}})
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	p, err := m.Next(ctx)
	if err != nil {
		return err
	}
	for {
		page, err := p.Fetch(ctx, 100)
		if err != nil {
			return err
		}
		r.mu.Lock()
		for _, msg := range page {
			if e := msg.Event; !r.seen[e.ID] {
				r.seen[e.ID] = true
				r.keys[e.AggregateID] = append(r.keys[e.AggregateID], string(e.Data))
			}
		}
		r.mu.Unlock()
	}
}

// TestMemory carries events from the memory store to the memory broker through an outage, a refused
// event and a lost tail, and reads what the broker holds.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := memory.New(), memory.NewBroker(memory.BrokerConfig{Partitions: 1})
		r, err := relay.New(store.Outbox(), b, relay.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		written, total := map[string][]string{}, 0
		add := func(n int) {
			for range n {
				key := fmt.Sprintf("k%d", total%5)
				total++
				data := fmt.Sprint(len(written[key]))
				written[key] = append(written[key], data)
				err := store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
					tx.Bind("shop", nil)
					return outbox.Add(ctx, tx, event.Draft{
						Type: "T", Version: 1, Topic: "orders", AggregateType: "order", AggregateID: key, Data: []byte(data),
					})
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(7 * time.Millisecond)
			}
		}
		add(300)
		b.SetDown(true)
		add(50)
		time.Sleep(time.Hour)
		b.SetDown(false)
		add(51)
		b.Refuse(func(e event.Envelope) bool { return e.AggregateID == "k1" })
		add(101)
		b.Refuse(nil)
		time.Sleep(3 * time.Second)
		add(32)
		b.LoseTail(20)
		add(13)
		lot, ok := store.Outbox().(relay.Parking)
		if !ok {
			t.Fatal("the store cannot park")
		}
		if _, err := lot.Replay(ctx, "orders", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		stats, err := r.Stats(t.Context())
		if err != nil || stats.Pending != 0 || stats.Parked != 0 {
			t.Errorf("stats %+v, err %v", stats, err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		read := reader{seen: map[event.ID]bool{}, keys: map[string][]string{}}
		go func() { ended <- read.run(ctx, b) }()
		time.Sleep(time.Minute)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for key, want := range written {
			got := read.keys[key]
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %d in order", key, got, len(want))
			}
		}
	})
}
