package memory_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/brokertest"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
)

func TestBroker(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		b := memory.NewBroker(memory.BrokerConfig{Partitions: 4, Wait: 20 * time.Millisecond})
		t.Cleanup(func() { _ = b.Close() })
		return brokertest.Harness{
			Broker: b, Partitions: 4, DataBytesMax: event.DataBytesMax,
			LoseTail: func(_ *testing.T, n int, publish func(broker.Broker)) broker.Broker {
				publish(b)
				b.LoseTail(n)
				return b
			},
			Expire: func(_ *testing.T, n int) { b.Expire(n) },
			Garble: func(_ *testing.T, key string) { b.Garble(brokertest.Topic, key) },
			Revoke: func(_ *testing.T, group string) { b.Revoke(group) },
		}
	})
}

func testEvent(key string) event.Envelope {
	return event.Envelope{ID: event.NewID(time.Now()), Topic: "topic", AggregateID: key}
}

func TestBrokerFetchWaitsInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.NewBroker(memory.BrokerConfig{Partitions: 1})
		m, err := b.Subscribe(t.Context(), broker.Subscription{Group: "g", Topics: []string{"topic"}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if got, err := p.Fetch(t.Context(), 10); len(got) != 0 || err != nil || time.Since(start) != 250*time.Millisecond {
			t.Fatalf("%d messages, %v after %s", len(got), err, time.Since(start))
		}
		go func() { b.Publish(t.Context(), []broker.Message{{Event: testEvent("a")}}) }()
		start = time.Now()
		if got, err := p.Fetch(t.Context(), 10); len(got) != 1 || err != nil || time.Since(start) != 0 {
			t.Fatalf("%d messages, %v after %s", len(got), err, time.Since(start))
		}
	})
}

func TestBrokerFaults(t *testing.T) {
	b := memory.NewBroker(memory.BrokerConfig{Partitions: 1})
	publish := func(key string) error {
		return b.Publish(t.Context(), []broker.Message{{Event: testEvent(key)}})[0]
	}
	unavailable := func(when string) {
		t.Helper()
		if err := publish("a"); !isUnavailable(err) {
			t.Fatalf("publish %s: %v, want ErrUnavailable", when, err)
		}
	}
	if err := publish("a"); err != nil {
		t.Fatal(err)
	}
	b.SetDown(true)
	unavailable("while down")
	b.SetDown(false)
	b.Refuse(func(e event.Envelope) bool { return e.AggregateID == "bad" })
	if err := publish("bad"); err == nil || isUnavailable(err) {
		t.Fatalf("publish of a refused key: %v", err)
	}
	b.Refuse(nil)
	b.LoseAcks(1)
	unavailable("with a lost ack")
	end := func() uint64 {
		tail, err := b.Tail(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return tail.Offsets["topic/0"]
	}
	if end() != 2 {
		t.Fatalf("log ends at %d, want 2: a lost ack stores its message", end())
	}
	before, _ := b.Tail(t.Context())
	b.LoseTail(1)
	lost, _ := b.Tail(t.Context())
	if lost.Incarnation != before.Incarnation || lost.Life == before.Life || lost.Opened["topic/0"] != 1 {
		t.Fatalf("tail %+v after %+v does not show the loss", lost, before)
	}
	unavailable("after a lost tail")
	if now, _ := b.Tail(t.Context()); now.Incarnation == before.Incarnation || now.Life != lost.Life {
		t.Fatalf("tail %+v after the loss was found", now)
	}
	if err := publish("a"); err != nil || end() != 2 {
		t.Fatalf("publish in the new incarnation: %v, end %d", err, end())
	}
}

func isUnavailable(err error) bool { return errors.Is(err, broker.ErrUnavailable) }
