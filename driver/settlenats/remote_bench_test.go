package settlenats

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
)

// openBench connects to a server of a kind and makes a topic on it.
func openBench(b *testing.B, kind server.Kind, partitions int) *Broker {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	to, err := Open(ctx, server.Shared(b, kind), Config{
		Prefix: fmt.Sprint("bench", time.Now().UnixNano()), Partitions: partitions, Logger: quiet(),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = to.js.DeleteStream(context.WithoutCancel(b.Context()), to.cfg.streamName("order-events"))
		_ = to.Close()
	})
	first := benchMessages(1)
	first[0].Event.ID = event.NewID(time.Now())
	for to.Publish(ctx, first)[0] != nil && ctx.Err() == nil { // Other nodes hear of the stream a moment later.
		_ = pause(ctx, 20*time.Millisecond)
	}
	return to
}

// rawPublish is the client's own way to do the same: publish all, then await all acknowledgements.
func rawPublish(b *testing.B, to *Broker, messages []broker.Message) {
	b.Helper()
	known, err := to.topic(b.Context(), "order-events")
	if err != nil {
		b.Fatal(err)
	}
	encoder := newEncoder()
	futures := make([]jetstream.PubAckFuture, len(messages))
	for i := range messages {
		m := &messages[i]
		m.Event.ID = event.NewID(m.Event.OccurredAt)
		subject := known.subjects[assign.Partition(m.Event.AggregateID, known.partitions)]
		if futures[i], err = to.js.PublishMsgAsync(encoder.encode(subject, m)); err != nil {
			b.Fatal(err)
		}
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			b.Fatal(err)
		}
	}
}

// BenchmarkRemotePublish publishes to one server, and to three that keep each message three times.
func BenchmarkRemotePublish(b *testing.B) {
	for _, kind := range []server.Kind{server.NATS, server.NATSCluster} {
		for _, size := range []int{1, 100, 1000} {
			for _, way := range []struct {
				name    string
				publish func(*testing.B, *Broker, []broker.Message)
			}{{"settle", publishAll}, {"raw", rawPublish}} {
				b.Run(fmt.Sprintf("%s/%s/batch=%d", kind, way.name, size), func(b *testing.B) {
					to := openBench(b, kind, 4)
					messages := benchMessages(size)
					b.ResetTimer()
					n := 0
					for b.Loop() {
						way.publish(b, to, messages)
						n += size
					}
					rate(b, n)
				})
			}
		}
	}
}

// BenchmarkRemoteFetch reads what was published before; raw is the client's own pulls, without
// acknowledgements as ours are.
func BenchmarkRemoteFetch(b *testing.B) {
	const limit = 500
	fill := func(b *testing.B) *Broker {
		b.Helper()
		from := openBench(b, server.NATS, 1)
		messages := benchMessages(1000)
		for range limit*b.N/len(messages) + 1 {
			publishAll(b, from, messages)
		}
		return from
	}
	b.Run("settle", func(b *testing.B) {
		from := fill(b)
		m, err := from.Subscribe(b.Context(), broker.Subscription{Group: "bench", Topics: []string{"order-events"}})
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
				got += len(fetched)
			}
		}
		rate(b, limit*b.N)
	})
	b.Run("raw", func(b *testing.B) {
		from := fill(b)
		b.ResetTimer()
		consumer, err := from.js.CreateConsumer(b.Context(), from.cfg.streamName("order-events"), jetstream.ConsumerConfig{
			AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		})
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			for got := 0; got < limit; {
				batch, err := consumer.Fetch(limit-got, jetstream.FetchMaxWait(time.Second))
				if err != nil {
					b.Fatal(err)
				}
				for msg := range batch.Messages() {
					if _, ok := parsePlace(msg.Reply()); !ok {
						b.Fatal("no place")
					}
					got++
				}
			}
		}
		rate(b, limit*b.N)
	})
}
