package settleredis

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
)

// benchMessages returns a full call of Publish, one event for each of as many keys, with 300 bytes of data.
func benchMessages(n int) []broker.Message {
	now := time.Now()
	data := fmt.Appendf(nil, `{"orderId":"order-%0270d"}`, 7)
	messages := make([]broker.Message, n)
	for i := range messages {
		e := event.Envelope{
			Type: "OrderCreated", Version: 1, Topic: topic, AggregateType: "order",
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

// pipelineAll is the same by XADD alone, as far as Redis can do it without any of the guarantees.
func pipelineAll(b *testing.B, to *Broker, messages []broker.Message) {
	b.Helper()
	_, err := to.db.Pipelined(b.Context(), func(p redis.Pipeliner) error {
		for i := range messages {
			m := &messages[i]
			m.Event.ID = event.NewID(m.Event.OccurredAt)
			log := to.cfg.logKey(logName(topic, assign.Partition(m.Event.AggregateID, 8)))
			args, _ := encode([]any{"XADD", log, "0-*"}, m)
			p.Do(b.Context(), args...)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

func rate(b *testing.B, events int) {
	b.Helper()
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

func openBench(b *testing.B, partitions int) *Broker {
	b.Helper()
	to := openAt(b, server.Shared(b, server.Redis), Config{Prefix: prefix(b), Partitions: partitions})
	b.Cleanup(func() {
		ctx := context.Background()
		names, _ := to.db.Keys(ctx, to.cfg.key("*")).Result()
		for _, name := range names {
			to.db.Unlink(ctx, name)
		}
	})
	return to
}

func BenchmarkPublish(b *testing.B) {
	for name, publish := range map[string]func(*testing.B, *Broker, []broker.Message){"settle": publishAll, "xadd": pipelineAll} {
		for _, size := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/batch=%d", name, size), func(b *testing.B) {
				to := openBench(b, 8)
				messages := benchMessages(size)
				publish(b, to, messages)
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

// BenchmarkFetch reads and acknowledges; raw is XREADGROUP and XACK by the client's own methods.
func BenchmarkFetch(b *testing.B) {
	const total = 50_000
	fill := func(b *testing.B) *Broker {
		b.Helper()
		from := openBench(b, 1)
		messages := benchMessages(1000)
		for range total / len(messages) {
			publishAll(b, from, messages)
		}
		return from
	}
	for _, limit := range []int{100, 1000} {
		b.Run(fmt.Sprintf("settle/limit=%d", limit), func(b *testing.B) {
			from := fill(b)
			m, err := from.Subscribe(b.Context(), broker.Subscription{Group: "bench", Topics: []string{topic}})
			if err != nil {
				b.Fatal(err)
			}
			next, err := m.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			p, ok := next.(*partition)
			if !ok {
				b.Fatalf("partition is a %T", next)
			}
			n := 0
			b.ResetTimer()
			for b.Loop() {
				if n%total < limit {
					_ = p.Seek(b.Context(), broker.Position{})
				}
				for got := 0; got < limit; {
					fetched, err := p.Fetch(b.Context(), limit-got)
					if err != nil {
						b.Fatal(err)
					}
					got += len(fetched)
				}
				if err := p.Ack(b.Context(), p.at); err != nil {
					b.Fatal(err)
				}
				n += limit
			}
			rate(b, n)
		})
		b.Run(fmt.Sprintf("raw/limit=%d", limit), func(b *testing.B) {
			from := fill(b)
			log := from.cfg.logKey(logName(topic, 0))
			from.db.XGroupCreate(b.Context(), log, "raw", "0")
			n := 0
			b.ResetTimer()
			for b.Loop() {
				if n%total < limit {
					from.db.XGroupSetID(b.Context(), log, "raw", "0")
				}
				streams, err := from.db.XReadGroup(b.Context(), &redis.XReadGroupArgs{
					Group: "raw", Consumer: "c", Streams: []string{log, ">"}, Count: int64(limit), Block: -1,
				}).Result()
				if err != nil {
					b.Fatal(err)
				}
				ids := make([]string, 0, limit)
				for _, m := range streams[0].Messages {
					ids = append(ids, m.ID)
				}
				from.db.XAck(b.Context(), log, "raw", ids...)
				n += limit
			}
			rate(b, n)
		})
	}
}

// BenchmarkHop is the latency from Publish to the return of a waiting Fetch, one event at a time.
func BenchmarkHop(b *testing.B) {
	over := openAt(b, server.Shared(b, server.Redis), Config{Prefix: prefix(b), Partitions: 1})
	m, err := over.Subscribe(b.Context(), broker.Subscription{Group: "bench", Topics: []string{topic}})
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
