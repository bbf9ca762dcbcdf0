// Package brokertest is the conformance suite of package broker: every driver runs it, and says in its
// harness what it cannot do, so that what was skipped is printed.
//
//	func TestBroker(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) brokertest.Harness {
//			return brokertest.Harness{Broker: open(t), Partitions: 4}
//		})
//	}
//
// # What this package does not do
//
// It does not measure, and it kills nothing: crash runs live in the module test.
package brokertest

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
)

// timeout bounds each wait of the suite; a driver that reaches it has failed.
const timeout = 20 * time.Second

// Topic is the topic that the suite uses. Harnesses may create it with settings of their own.
const Topic = "broker.test-events"

// Harness is one broker under test. Optional fields that are nil skip the tests that need them.
type Harness struct {
	// Broker is empty at the start of each test. The harness closes it.
	Broker broker.Broker
	// Partitions is how many partitions a subscription to one topic has.
	Partitions int
	// Declare makes a group known to a broker that keeps messages only for the groups it knows. The suite
	// calls it before it publishes what a group is to read that has not subscribed yet.
	Declare func(t *testing.T, subscription broker.Subscription)
	// Publish stands in for the Publish of a broker that reads outboxes.
	Publish func(ctx context.Context, messages []broker.Message) []error
	// DataBytesMax is the largest event data that the broker takes; 0 when any event's fits.
	DataBytesMax int
	// Reopen closes the broker and opens it again over the same data.
	Reopen func(t *testing.T) broker.Broker
	// LoseTail calls publish, which puts up to n messages on each log, loses at least these as a power
	// failure does, and returns the broker that stands there afterwards. publish is given the broker to
	// use, which may be another one over the same data. The broker must be a broker.Tailer.
	LoseTail func(t *testing.T, n int, publish func(b broker.Broker)) broker.Broker
	// Expire drops the first n messages of each log, as retention does. The suite then uses few keys,
	// so that a log has more than n messages.
	Expire func(t *testing.T, n int)
	// Garble puts a message that is not an event on Topic, in the partition of key.
	Garble func(t *testing.T, key string)
	// Revoke takes the partitions of a group away and hands them out again.
	Revoke func(t *testing.T, group string)
}

// Run runs the suite. open is called once for each test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"OrderPerKey", orderPerKey},
		{"RoundTrip", roundTrip},
		{"SeekResumes", seekResumes},
		{"ReopenResumes", reopenResumes},
		{"GroupsAreIndependent", groupsAreIndependent},
		{"TopicsAreSelected", topicsAreSelected},
		{"DuplicatesKeepFirstOrder", duplicatesKeepFirstOrder},
		{"OversizeRejectsOnlyItself", oversizeRejectsOnlyItself},
		{"MalformedIsDelivered", malformedIsDelivered},
		{"PositionLost", positionLost},
		{"LostTailIsReadAgain", lostTailIsReadAgain},
		{"LostAtSpansIncarnations", lostAtSpansIncarnations},
		{"FetchLimit", fetchLimit},
		{"WaitingFetchIsWoken", waitingFetchIsWoken},
		{"Cancel", cancels},
		{"ReleaseHandsOutAgain", releaseHandsOutAgain},
		{"MembersShare", membersShare},
		{"Standby", standby},
		{"RevokeTakesAway", revokeTakesAway},
		{"CloseEndsNext", closeEndsNext},
		{"Lag", lag},
		{"ManyConcurrent", manyConcurrent},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := open(t)
			test.run(t, &suite{Harness: h, now: time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC)})
		})
	}
}

// suite is one test's state.
type suite struct {
	Harness

	now time.Time
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// event returns the nth event of a key, with an identity of its own.
func (s *suite) event(key string, n int) event.Envelope {
	e := event.Envelope{
		ID: event.NewID(s.now), Type: "TestHappened", Version: 1, Topic: Topic,
		AggregateType: "thing", AggregateID: key, OccurredAt: s.now, Producer: "brokertest",
		Data: fmt.Appendf(nil, `{"n":%d}`, n),
	}
	e.CorrelationID = e.ID.String()
	return e
}

// declare makes groups of Topic known.
func (s *suite) declare(t *testing.T, groups ...string) {
	t.Helper()
	for _, group := range groups {
		s.declareTopics(t, group, Topic)
	}
}

func (s *suite) declareTopics(t *testing.T, group string, topics ...string) {
	t.Helper()
	if s.Declare != nil {
		s.Declare(t, broker.Subscription{Group: group, Topics: topics})
	}
}

// send publishes and returns the results.
func (s *suite) send(ctx context.Context, messages []broker.Message) []error {
	if s.Publish != nil {
		return s.Publish(ctx, messages)
	}
	publisher, ok := s.Broker.(broker.Publisher)
	if !ok {
		return slices.Repeat([]error{errors.New("the broker is no publisher, and the harness has no Publish")}, len(messages))
	}
	return publisher.Publish(ctx, messages)
}

// publish sends events one call per event of a key, as a relay does, and fails the test on any error.
func (s *suite) publish(t *testing.T, events ...event.Envelope) {
	t.Helper()
	ctx := bounded(t)
	for len(events) > 0 {
		var batch []broker.Message
		var rest []event.Envelope
		seen := map[string]bool{}
		for _, e := range events {
			if seen[e.AggregateID] || len(batch) == broker.PublishMax {
				rest = append(rest, e)
				seen[e.AggregateID] = true
				continue
			}
			seen[e.AggregateID] = true
			batch = append(batch, broker.Message{Event: e, Origin: "0.0." + e.ID.String()})
		}
		for i, err := range s.send(ctx, batch) {
			if err != nil {
				t.Fatalf("publish %s: %v", batch[i].Event.Data, err)
			}
		}
		events = rest
	}
}

// numbered publishes events 1 to n of each key and returns them by key.
func (s *suite) numbered(t *testing.T, n int, keys ...string) map[string][]event.ID {
	t.Helper()
	var all []event.Envelope
	ids := map[string][]event.ID{}
	for i := range n {
		for _, key := range keys {
			e := s.event(key, i+1)
			all = append(all, e)
			ids[key] = append(ids[key], e.ID)
		}
	}
	s.publish(t, all...)
	return ids
}

// join subscribes and takes every partition, sought to the positions given by name.
func (s *suite) join(t *testing.T, group string, at map[string]broker.Position) []broker.Partition {
	t.Helper()
	m, err := s.Broker.Subscribe(bounded(t), broker.Subscription{Group: group, Topics: []string{Topic}})
	if err != nil {
		t.Fatalf("subscribe %s: %v", group, err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return s.take(t, m, s.Partitions, at)
}

func (s *suite) take(t *testing.T, m broker.Membership, n int, at map[string]broker.Position) []broker.Partition {
	t.Helper()
	ctx := bounded(t)
	parts := make([]broker.Partition, n)
	names := map[string]bool{}
	for i := range parts {
		p, err := m.Next(ctx)
		if err != nil {
			t.Fatalf("next partition after %d of %d: %v", i, n, err)
		}
		if names[p.Name()] {
			t.Fatalf("partition %s was handed out twice", p.Name())
		}
		names[p.Name()], parts[i] = true, p
		if _, ok := p.(broker.Seeker); ok {
			seek(ctx, t, p, at[p.Name()])
		}
	}
	return parts
}

func seek(ctx context.Context, t *testing.T, p broker.Partition, at broker.Position) {
	t.Helper()
	seeker, ok := p.(broker.Seeker)
	if !ok {
		t.Fatalf("partition %s cannot seek", p.Name())
	}
	if err := seeker.Seek(ctx, at); err != nil {
		t.Fatalf("seek %s to %s: %v", p.Name(), at, err)
	}
}

// delivered is a message with the partition that it came from.
type delivered struct {
	broker.Message

	partition string
}

// collect fetches from all partitions at once, and acknowledges, until there are n different events or
// more, in order within each partition.
func collect(t *testing.T, parts []broker.Partition, n, limit int) []delivered {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	var mu sync.Mutex
	var got []delivered
	var failed error
	distinct := map[event.ID]bool{}
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			for ctx.Err() == nil {
				messages, err := p.Fetch(ctx, limit)
				if len(messages) > 0 && err == nil {
					err = p.Ack(ctx, messages[len(messages)-1].Position)
				}
				mu.Lock()
				for _, m := range messages {
					got = append(got, delivered{m, p.Name()})
					distinct[m.Event.ID] = true
				}
				if err != nil && ctx.Err() == nil && failed == nil {
					failed = fmt.Errorf("fetch from %s, or ack: %w", p.Name(), err)
				}
				if failed != nil || len(distinct) >= n {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	if len(distinct) < n {
		t.Fatalf("%d events within %s, want %d", len(distinct), timeout, n)
	}
	return got
}

// positions returns the last position of each partition in got.
func positions(got []delivered) map[string]broker.Position {
	last := map[string]broker.Position{}
	for _, d := range got {
		last[d.partition] = d.Position
	}
	return last
}

// sameOrder fails unless the first deliveries of each key are exactly want, in order.
func sameOrder(t *testing.T, got []delivered, want map[string][]event.ID) {
	t.Helper()
	first := map[string][]event.ID{}
	seen := map[event.ID]bool{}
	home := map[string]string{}
	for _, d := range got {
		if d.Err != nil {
			t.Fatalf("message at %s: %v", d.Position, d.Err)
		}
		key := d.Event.AggregateID
		if h, ok := home[key]; ok && h != d.partition {
			t.Fatalf("key %s stands in %s and %s", key, h, d.partition)
		}
		home[key] = d.partition
		if !seen[d.Event.ID] {
			seen[d.Event.ID] = true
			first[key] = append(first[key], d.Event.ID)
		}
	}
	for key, ids := range want {
		if fmt.Sprint(first[key]) != fmt.Sprint(ids) {
			t.Fatalf("key %s: first deliveries\n%v, published\n%v", key, first[key], ids)
		}
	}
	if len(first) != len(want) {
		t.Fatalf("%d keys delivered, %d published", len(first), len(want))
	}
}

func keys(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("key-%d", i)
	}
	return names
}

func count(want map[string][]event.ID) int {
	n := 0
	for _, ids := range want {
		n += len(ids)
	}
	return n
}
