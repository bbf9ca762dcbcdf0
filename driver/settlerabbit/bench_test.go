package settlerabbit

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

// benchMessages returns a full call of Publish, one event for each of as many keys, with 300 bytes of data.
func benchMessages(n int) []broker.Message {
	now := time.Now()
	data := fmt.Appendf(nil, `{"orderId":"order-%0270d"}`, 7)
	messages := make([]broker.Message, n)
	for i := range messages {
		e := event.Envelope{
			Type: "OrderCreated", Version: 1, Topic: orderTopic, AggregateType: "order",
			AggregateID: fmt.Sprintf("order-%d", i), OccurredAt: now, Producer: "order", Data: data,
			TraceParent:   "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			CorrelationID: "01a1fd8c-697b-74cd-aae4-ab39c784b37a", CausationID: event.NewID(now),
		}
		messages[i] = broker.Message{Event: e, Origin: "0.0.123456"}
	}
	return messages
}

func publishAll(b *testing.B, to *Broker, messages []broker.Message) {
	b.Helper()
	for i := range messages {
		messages[i].Event.ID = event.NewID(messages[i].Event.OccurredAt)
	}
	for i, err := range to.Publish(b.Context(), messages) {
		if err != nil {
			b.Fatalf("message %d: %v", i, err)
		}
	}
}

// rawPublish returns the client's own way to do the same: publish all, then await all confirms.
func rawPublish(b *testing.B, to *Broker) func(*testing.B, *Broker, []broker.Message) {
	b.Helper()
	ch := rawChannel(b, to)
	if err := ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	return func(b *testing.B, to *Broker, messages []broker.Message) {
		b.Helper()
		confirms := make([]*amqp.DeferredConfirmation, len(messages))
		for i := range messages {
			m := &messages[i]
			m.Event.ID = event.NewID(m.Event.OccurredAt)
			p, _ := encode(m)
			key := strconv.Itoa(assign.Partition(m.Event.AggregateID, to.cfg.Partitions))
			var err error
			if confirms[i], err = ch.PublishWithDeferredConfirm(to.cfg.exchange(orderTopic), key, true, false, p); err != nil {
				b.Fatal(err)
			}
		}
		for _, c := range confirms {
			if !c.Wait() {
				b.Fatal("not confirmed")
			}
		}
	}
}

func rawChannel(b *testing.B, to *Broker) *amqp.Channel {
	b.Helper()
	conn, err := amqp.Dial(to.url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		b.Fatal(err)
	}
	return ch
}

// openBench returns a Broker with one group that reads order-events.
func openBench(b *testing.B, partitions int) *Broker {
	b.Helper()
	cfg := Config{Prefix: prefix(b), Partitions: partitions, Groups: []broker.Subscription{subscription("bench")}}
	to := openAt(b, shared(b), cfg)
	b.Cleanup(func() { removeQueues(b, to.url, cfg, cfg.Groups...) })
	return to
}

func rate(b *testing.B, events int) {
	b.Helper()
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		for _, name := range []string{"settle", "raw"} {
			b.Run(fmt.Sprintf("%s/batch=%d", name, size), func(b *testing.B) {
				to := openBench(b, 4)
				messages := benchMessages(size)
				publish := publishAll
				publish(b, to, messages)
				if name == "raw" {
					publish = rawPublish(b, to)
					publish(b, to, messages)
				}
				b.ResetTimer()
				n := 0
				for b.Loop() {
					publish(b, to, messages)
					n += size
				}
				rate(b, n)
			})
		}
	}
}

// BenchmarkFetch reads and acknowledges what was published before; raw is a consumer of the client's own.
func BenchmarkFetch(b *testing.B) {
	const limit = 500
	fill := func(b *testing.B) *Broker {
		b.Helper()
		from := openBench(b, 1)
		messages := benchMessages(1000)
		for range limit*b.N/len(messages) + 1 {
			publishAll(b, from, messages)
		}
		return from
	}
	b.Run("settle", func(b *testing.B) {
		from := fill(b)
		m, err := from.Subscribe(b.Context(), subscription("bench"))
		if err != nil {
			b.Fatal(err)
		}
		p, err := m.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for range b.N {
			for got := 0; got < limit; {
				fetched, err := p.Fetch(b.Context(), limit-got)
				if err != nil {
					b.Fatal(err)
				}
				if len(fetched) == 0 {
					continue
				}
				if err := p.Ack(b.Context(), fetched[len(fetched)-1].Position); err != nil {
					b.Fatal(err)
				}
				got += len(fetched)
			}
		}
		rate(b, limit*b.N)
	})
	b.Run("raw", func(b *testing.B) {
		from := fill(b)
		ch := rawChannel(b, from)
		if err := ch.Qos(prefetch, 0, false); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		deliveries, err := ch.Consume(from.cfg.queue("bench", orderTopic, 0), "raw", false, false, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			var last amqp.Delivery
			for range limit {
				last = <-deliveries
				if m := decode(orderTopic, "raw", &last); m.Err != nil {
					b.Fatal(m.Err)
				}
			}
			if err := last.Ack(true); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, limit*b.N)
	})
}

// BenchmarkPass has a group read what it handles none of; one event that it does handle tells the end.
func BenchmarkPass(b *testing.B) {
	const limit = 10_000
	to := openBench(b, 1)
	messages := benchMessages(1000)
	for range limit * b.N / len(messages) {
		publishAll(b, to, messages)
	}
	last := benchMessages(1)
	last[0].Event.Type = "OrderPaid"
	publishAll(b, to, last)
	done := make(chan struct{})
	store := memory.New()
	c, err := consumer.New(store, store, to, consumer.Config{
		Group: "bench", Topics: []string{orderTopic}, Logger: quiet(),
		Handlers: map[string]consumer.Handler{"OrderPaid": func(context.Context, *txn.Tx, event.Envelope) error {
			close(done)
			return nil
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.ResetTimer()
	go func() { ended <- c.Run(ctx) }()
	<-done
	b.StopTimer()
	rate(b, limit*b.N)
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

// BenchmarkHop is the latency from Publish to the return of a waiting Fetch, one event at a time.
func BenchmarkHop(b *testing.B) {
	over := openBench(b, 1)
	m, err := over.Subscribe(b.Context(), subscription("bench"))
	if err != nil {
		b.Fatal(err)
	}
	p, err := m.Next(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	arrived := make(chan struct{})
	go func() {
		for {
			messages, err := p.Fetch(b.Context(), 100)
			if err != nil {
				return
			}
			for i := range messages {
				if p.Ack(b.Context(), messages[i].Position) != nil {
					return
				}
				arrived <- struct{}{}
			}
		}
	}()
	messages := benchMessages(1)
	publishAll(b, over, messages)
	<-arrived
	for b.Loop() {
		publishAll(b, over, messages)
		<-arrived
	}
}
