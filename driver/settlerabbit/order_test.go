package settlerabbit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

const orderTopic = "order-events"

// oneMessage returns the nth event of a key to publish.
func oneMessage(key string, n int) broker.Message {
	now := time.Now()
	return broker.Message{Origin: fmt.Sprint("0.0.", n), Event: event.Envelope{
		ID: event.NewID(now), Type: "OrderPlaced", Version: 1, Topic: orderTopic, AggregateType: "order", AggregateID: key,
		OccurredAt: now.UTC(), Producer: "shop", Data: fmt.Append(nil, n),
	}}
}

// publishNumbered publishes events from to to of one key.
func publishNumbered(t *testing.T, b *Broker, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := b.Publish(t.Context(), []broker.Message{oneMessage("key", n)})[0]; err != nil {
			t.Fatal(err)
		}
	}
}

func number(t *testing.T, m *broker.Message) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(string(m.Event.Data), &n); err != nil {
		t.Fatalf("message %q: %v", m.Event.Data, err)
	}
	return n
}

func join(t *testing.T, b *Broker, group string) broker.Membership {
	t.Helper()
	m, err := b.Subscribe(t.Context(), broker.Subscription{Group: group, Topics: []string{orderTopic}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func takeOne(t *testing.T, m broker.Membership) *partition {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next, err := m.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := next.(*partition)
	if !ok {
		t.Fatalf("partition is a %T", next)
	}
	return p
}

// TestOrderThroughReturns has an owner lose its connection, its channel or its partition over and over, with
// some messages acknowledged, some only fetched and some still under way: what comes next is never beyond
// what was handled.
func TestOrderThroughReturns(t *testing.T) {
	cfg, url := config(t), shared(t)
	cfg.Partitions = 1
	b := openAt(t, url, cfg)
	b.prefetch = 20
	s := broker.Subscription{Group: "g", Topics: []string{orderTopic}}
	t.Cleanup(func() { removeQueues(t, url, cfg, s) })
	m := join(t, b, "g")
	const total = 60
	publishNumbered(t, b, 1, total)
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	handled, losses, repeats := 0, 0, 0
	for handled < total {
		p := takeOne(t, m)
		for range random.IntN(4) {
			messages, err := p.Fetch(t.Context(), 1+random.IntN(15))
			if errors.Is(err, broker.ErrRevoked) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			keep := 0
			if len(messages) > 0 {
				keep = random.IntN(len(messages) + 1)
			}
			for i := range messages[:keep] {
				switch n := number(t, &messages[i]); {
				case n > handled+1:
					t.Fatalf("message %d came after %d, and %d losses", n, handled, losses)
				case n <= handled:
					repeats++
				default:
					handled = n
				}
			}
			if keep < len(messages) {
				break // As a handler that fails: what follows is not looked at.
			}
			if keep > 0 && random.IntN(2) == 0 {
				if err := p.Ack(t.Context(), messages[keep-1].Position); err != nil {
					t.Fatal(err)
				}
			}
		}
		losses++
		switch random.IntN(3) {
		case 0:
			p.claim.link.kill()
			<-p.Revoked()
		case 1:
			if p.feed != nil {
				p.feed.close(b)
			}
			fallthrough
		default:
			if err := p.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d losses, %d repeats", losses, repeats)
}
