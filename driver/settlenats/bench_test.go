package settlenats

import (
	"fmt"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

// benchMessages returns a full call of Publish, one event for each of as many keys, with 300 bytes of data.
func benchMessages(n int) []broker.Message {
	now := time.Now()
	data := fmt.Appendf(nil, `{"orderId":"order-%0270d"}`, 7)
	messages := make([]broker.Message, n)
	for i := range messages {
		e := event.Envelope{
			Type: "OrderCreated", Version: 1, Topic: "order-events", AggregateType: "order",
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

func rate(b *testing.B, events int) {
	b.Helper()
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			to := openEmbedded(b, Config{})
			messages := benchMessages(size)
			publishAll(b, to, messages)
			b.ResetTimer()
			n := 0
			for b.Loop() {
				publishAll(b, to, messages)
				n += size
			}
			rate(b, n)
		})
	}
}

func BenchmarkFetch(b *testing.B) {
	for _, limit := range []int{100, 1000} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			from := openEmbedded(b, Config{})
			messages := benchMessages(1000)
			const total = 100_000
			for range total / len(messages) {
				publishAll(b, from, messages)
			}
			m, err := from.Subscribe(b.Context(), broker.Subscription{Group: "bench", Topics: []string{"order-events"}})
			if err != nil {
				b.Fatal(err)
			}
			p, err := m.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			b.ResetTimer()
			for b.Loop() {
				if n%total == 0 {
					seeker, ok := p.(broker.Seeker)
					if !ok || seeker.Seek(b.Context(), broker.Position{}) != nil {
						b.Fatal("cannot seek")
					}
				}
				for got := 0; got < limit; {
					fetched, err := p.Fetch(b.Context(), limit-got)
					if err != nil {
						b.Fatal(err)
					}
					got += len(fetched)
				}
				n += limit
			}
			rate(b, n)
		})
	}
}

// BenchmarkHop is the latency from Publish to the return of a waiting Fetch, one event at a time.
func BenchmarkHop(b *testing.B) {
	over := openEmbedded(b, Config{})
	m, err := over.Subscribe(b.Context(), broker.Subscription{Group: "bench", Topics: []string{"order-events"}})
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
	messages := benchMessages(1)
	publishAll(b, over, messages)
	<-arrived
	for b.Loop() {
		publishAll(b, over, messages)
		<-arrived
	}
}
