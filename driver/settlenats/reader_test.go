package settlenats

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

func newID() event.ID { return event.NewID(time.Now()) }

// take joins a group on order-events and takes its one partition.
func take(t *testing.T, b *Broker) *partition {
	t.Helper()
	m, err := b.Subscribe(t.Context(), broker.Subscription{Group: "group", Topics: []string{"order-events"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Next(t.Context())
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
				t.Fatalf("got %s, want %d more beginning with another", m.Event.ID, len(want))
			}
			want = want[1:]
		}
	}
}

func TestConsumerThatIsGoneIsReplaced(t *testing.T) {
	b := openEmbedded(t, Config{Wait: 20 * time.Millisecond})
	p := take(t, b)
	expect(t, p, publishOne(t, b, "key"))
	r := p.reader
	if err := b.js.DeleteConsumer(t.Context(), r.stream, r.name); err != nil {
		t.Fatal(err)
	}
	expect(t, p, publishOne(t, b, "key"), publishOne(t, b, "key"))
	if now := p.reader; now == r {
		t.Fatal("the same consumer goes on")
	}
}

// TestStolenMessageIsReadAgain has another pull on the same consumer take a message away.
func TestStolenMessageIsReadAgain(t *testing.T) {
	b := openEmbedded(t, Config{Wait: 50 * time.Millisecond})
	p := take(t, b)
	expect(t, p, publishOne(t, b, "key"))
	r := p.reader
	for len(r.pulls) > 0 { // let the pull under way end
		if _, verdict := p.accept(t.Context(), r, <-r.arrived); verdict != isStatus {
			t.Fatalf("verdict %d", verdict)
		}
	}
	first := publishOne(t, b, "key")
	consumer, err := b.js.Consumer(t.Context(), r.stream, r.name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	expect(t, p, first, publishOne(t, b, "key"))
}

// TestSilentConsumerIsReplaced makes the reader believe that a pull is under way that never was.
func TestSilentConsumerIsReplaced(t *testing.T) {
	b := openEmbedded(t, Config{Wait: 20 * time.Millisecond, CheckEvery: 50 * time.Millisecond})
	p := take(t, b)
	expect(t, p, publishOne(t, b, "key"))
	r := p.reader
	r.pulls = []pull{{number: 1 << 40, left: 1000, ends: time.Now().Add(time.Hour)}}
	want := publishOne(t, b, "key")
	for r.arrivedMessage() { // the pull that really was under way may still bring it
		<-r.arrived
	}
	expect(t, p, want)
}

func (r *reader) arrivedMessage() bool {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	return len(r.arrived) > 0
}

func TestRetentionThatOvertakesIsReported(t *testing.T) {
	for name, reopen := range map[string]bool{"while reading": false, "when reading begins again": true} {
		t.Run(name, func(t *testing.T) {
			b := openEmbedded(t, Config{Wait: 20 * time.Millisecond, CheckEvery: time.Hour})
			p := take(t, b)
			expect(t, p, publishOne(t, b, "key"))
			r := p.reader
			for len(r.pulls) > 0 { // let the pull under way end
				if _, verdict := p.accept(t.Context(), r, <-r.arrived); verdict != isStatus {
					t.Fatalf("verdict %d", verdict)
				}
			}
			var kept broker.Message
			for range 5 {
				kept = publishOne(t, b, "key")
			}
			stream, err := b.js.Stream(t.Context(), "settle_order-events")
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(6)); err != nil {
				t.Fatal(err)
			}
			if reopen {
				p.drop()
			}
			if _, err := p.Fetch(t.Context(), 10); !errors.Is(err, broker.ErrPositionLost) {
				t.Fatalf("fetch: %v, want ErrPositionLost", err)
			}
			if err := p.Seek(t.Context(), broker.Position{}); err != nil {
				t.Fatal(err)
			}
			expect(t, p, kept)
		})
	}
}

func TestNewIncarnationReachesARunningReader(t *testing.T) {
	b := openEmbedded(t, Config{CheckEvery: time.Hour})
	p := take(t, b)
	var all []broker.Message
	for i := range 3 {
		all = append(all, publishOne(t, b, fmt.Sprint(i)))
	}
	expect(t, p, all...)
	if err := b.Incarnate(t.Context(), tailOf(t, b)); err != nil {
		t.Fatal(err)
	}
	expect(t, p, all...)
}
