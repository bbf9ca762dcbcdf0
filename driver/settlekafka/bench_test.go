package settlekafka

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
)

// benchMessages returns a call of Publish, one event for each of as many keys, with 300 bytes of data.
func benchMessages(n int) []broker.Message {
	now := time.Now()
	data := fmt.Appendf(nil, `{"orderId":"order-%0270d"}`, 7)
	messages := make([]broker.Message, n)
	for i := range messages {
		messages[i] = broker.Message{Origin: "0.0.123456", Event: event.Envelope{
			Type: "OrderCreated", Version: 1, Topic: orders, AggregateType: "order",
			AggregateID: fmt.Sprintf("order-%d", i), OccurredAt: now, Producer: "order", Data: data,
			TraceParent:   "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			CorrelationID: "01a1fd8c-697b-74cd-aae4-ab39c784b37a", CausationID: event.NewID(now),
		}}
	}
	return messages
}

func publishAll(b *testing.B, to *Broker, messages []broker.Message) {
	b.Helper()
	for i := range messages {
		messages[i].Event.ID = event.NewID(messages[i].Event.OccurredAt)
	}
	for i, err := range to.Publish(context.Background(), messages) {
		if err != nil {
			b.Errorf("message %d: %v", i, err)
			return
		}
	}
}

func rate(b *testing.B, events int) {
	b.Helper()
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkPublish publishes as a relay does, four calls at a time.
func BenchmarkPublish(b *testing.B) {
	for name, id := range map[string]string{"idempotent": "", "transactional": "bench"} {
		for _, size := range []int{1, 100, 500} {
			b.Run(fmt.Sprintf("%s/batch=%d", name, size), func(b *testing.B) {
				to := open(b, server.Shared(b, server.Kafka), Config{Prefix: prefix(), TransactionalID: id})
				publishAll(b, to, benchMessages(size))
				b.ResetTimer()
				inParallel(b, func(messages []broker.Message) { publishAll(b, to, messages) }, size)
			})
		}
	}
}

func inParallel(b *testing.B, publish func(messages []broker.Message), size int) {
	b.Helper()
	calls := make(chan struct{}, b.N)
	for range b.N {
		calls <- struct{}{}
	}
	close(calls)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			messages := benchMessages(size)
			for range calls {
				publish(messages)
			}
		})
	}
	wg.Wait()
	rate(b, b.N*size)
}

// BenchmarkRawProduce has the client itself produce records of the same size, as many at a time.
func BenchmarkRawProduce(b *testing.B) {
	for _, size := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			to := open(b, server.Shared(b, server.Kafka), Config{Prefix: prefix()})
			publishAll(b, to, benchMessages(size))
			cl, err := kgo.NewClient(kgo.SeedBrokers(to.where.seeds...))
			if err != nil {
				b.Fatal(err)
			}
			defer cl.Close()
			values := make([][]byte, size)
			for i, m := range benchMessages(size) {
				m.Event.ID = event.NewID(m.Event.OccurredAt)
				values[i] = flat(&m)
			}
			b.ResetTimer()
			inParallel(b, func(messages []broker.Message) {
				records := make([]*kgo.Record, len(messages))
				for i := range records {
					records[i] = &kgo.Record{Topic: to.cfg.topicName(orders), Key: []byte(messages[i].Event.AggregateID), Value: values[i]}
				}
				if err := cl.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
					b.Error(err)
				}
			}, size)
		})
	}
}

// flat is the value and headers of a message in one piece.
func flat(m *broker.Message) []byte {
	r := encode("", m)
	value := r.Value
	for _, h := range r.Headers {
		value = append(append(value, h.Key...), h.Value...)
	}
	return value
}

func BenchmarkFetch(b *testing.B) {
	const total = 200_000
	from := open(b, server.Shared(b, server.Kafka), Config{Prefix: prefix(), Partitions: 1})
	messages := benchMessages(1000)
	for range total / len(messages) {
		publishAll(b, from, messages)
	}
	m, err := from.Subscribe(b.Context(), broker.Subscription{Group: "bench", Topics: []string{orders}})
	if err != nil {
		b.Fatal(err)
	}
	next, err := m.Next(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	p, ok := next.(*partition)
	if !ok {
		b.Fatal("not a partition of ours")
	}
	n := 0
	for b.Loop() {
		if n%total == 0 {
			_ = p.Seek(b.Context(), broker.Position{})
		}
		for got := 0; got < 500; {
			fetched, err := p.Fetch(b.Context(), 500-got)
			if err != nil {
				b.Fatal(err)
			}
			got += len(fetched)
		}
		n += 500
	}
	rate(b, n)
}

// BenchmarkHop is the latency from Publish to the return of a waiting Fetch, one event at a time.
func BenchmarkHop(b *testing.B) {
	over := open(b, server.Shared(b, server.Kafka), Config{Prefix: prefix(), Partitions: 1})
	publishAll(b, over, benchMessages(1))
	m, err := over.Subscribe(b.Context(), broker.Subscription{Group: "bench", Topics: []string{orders}})
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
			for range messages {
				arrived <- struct{}{}
			}
		}
	}()
	<-arrived
	messages := benchMessages(1)
	for b.Loop() {
		publishAll(b, over, messages)
		<-arrived
	}
}
