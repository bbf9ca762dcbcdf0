package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

func orderPerKey(t *testing.T, s *suite) {
	s.declare(t, "order-group")
	want := s.numbered(t, 20, keys(50)...)
	parts := s.join(t, "order-group", nil)
	got := collect(t, parts, count(want), 37)
	sameOrder(t, got, want)
	last := map[string]broker.Position{}
	used := map[string]bool{}
	for _, d := range got {
		if before := last[d.partition]; d.Position.Offset <= before.Offset || d.Position.Incarnation == "" {
			t.Fatalf("%s: position %s after %s", d.partition, d.Position, before)
		}
		last[d.partition], used[d.partition] = d.Position, true
	}
	if s.Partitions > 1 && len(used) < 2 {
		t.Fatalf("50 keys stand in %d of %d partitions", len(used), s.Partitions)
	}
}

func roundTrip(t *testing.T, s *suite) {
	s.declare(t, "trip-group")
	full := s.event("käse-☃ 100% \"quoted\" a+b=c,d;e/f:\u00a0x", 1)
	full.Version = 7
	full.Type = "Name_with-all.Kinds09"
	full.AggregateType = "order-item_x.y"
	full.TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	full.CorrelationID = " leading and trailing, 漢字 "
	full.CausationID = event.NewID(s.now)
	full.IdempotencyKey = "key%20already%encoded 🎉"
	full.Data = []byte("{\"text\":\"zeile\\n\u2028 ☃\",\"n\":1}\n")
	bare := s.event("bare", 2)
	bare.CorrelationID = ""
	bare.OccurredAt = bare.OccurredAt.Truncate(1e9)
	bare.Data = nil
	longest := s.event(strings.Repeat("ü", event.KeyBytesMax/2), 3)
	longest.CorrelationID = strings.Repeat("%", event.KeyBytesMax)
	want := map[event.ID]event.Envelope{full.ID: full, bare.ID: bare, longest.ID: longest}
	s.publish(t, full, bare, longest)
	for _, d := range collect(t, s.join(t, "trip-group", nil), 3, 10) {
		w := want[d.Event.ID]
		g := d.Event
		if d.Err != nil || !bytes.Equal(g.Data, w.Data) || !g.OccurredAt.Equal(w.OccurredAt) {
			t.Errorf("got %+v (%v), want %+v", g, d.Err, w)
		}
		g.Data, w.Data, g.OccurredAt, w.OccurredAt = nil, nil, s.now, s.now
		if fmt.Sprintf("%#v", g) != fmt.Sprintf("%#v", w) {
			t.Errorf("got  %#v\nwant %#v", g, w)
		}
		if d.Origin == "" {
			t.Errorf("%s came without its origin", d.Event.ID)
		}
	}
}

func groupsAreIndependent(t *testing.T, s *suite) {
	s.declare(t, "group-0", "group-1", "group-2")
	want := s.numbered(t, 5, keys(4)...)
	for i := range 3 {
		got := collect(t, s.join(t, fmt.Sprintf("group-%d", i), nil), count(want), 100)
		sameOrder(t, got, want)
	}
}

func topicsAreSelected(t *testing.T, s *suite) {
	other := s.event("key-0", 99)
	other.Topic = "broker-other-events"
	s.declare(t, "one-topic")
	s.declareTopics(t, "two-topics", Topic, other.Topic)
	s.publish(t, other)
	want := s.numbered(t, 3, "key-0")
	sameOrder(t, collect(t, s.join(t, "one-topic", nil), 3, 10), want)

	m, err := s.Broker.Subscribe(bounded(t), broker.Subscription{Group: "two-topics", Topics: []string{Topic, other.Topic}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	n := 2 * s.Partitions
	if s.Publish != nil {
		n = s.Partitions // one partition for each producer, whatever the topics
	}
	got := collect(t, s.take(t, m, n, nil), 4, 10)
	topics := map[string]int{}
	for _, d := range got {
		topics[d.Event.Topic]++
	}
	if topics[Topic] != 3 || topics[other.Topic] != 1 {
		t.Fatalf("messages by topic: %v", topics)
	}
}

// duplicatesKeepFirstOrder repeats messages as a relay does after a crash: all since some event.
func duplicatesKeepFirstOrder(t *testing.T, s *suite) {
	if s.Publish != nil {
		t.Skip("an outbox has each event once")
	}
	s.declare(t, "twice")
	var events []event.Envelope
	want := map[string][]event.ID{}
	for i := range 12 {
		key := fmt.Sprintf("key-%d", i%3)
		events = append(events, s.event(key, i))
		want[key] = append(want[key], events[i].ID)
	}
	s.publish(t, events[:9]...)
	s.publish(t, events[3:]...)
	sameOrder(t, collect(t, s.join(t, "twice", nil), 12, 5), want)
}

func oversizeRejectsOnlyItself(t *testing.T, s *suite) {
	if s.DataBytesMax == 0 {
		t.Skip("the broker takes every event that Check allows")
	}
	s.declare(t, "g")
	var batch []broker.Message
	for i := range 5 {
		e := s.event(fmt.Sprintf("key-%d", i), i)
		if i == 2 {
			e.Data = bytes.Repeat([]byte("x"), s.DataBytesMax+1)
		}
		batch = append(batch, broker.Message{Event: e})
	}
	for i, err := range s.send(bounded(t), batch) {
		var rejected *broker.RejectedError
		if i == 2 && !errors.As(err, &rejected) {
			t.Fatalf("message of %d bytes: %v, want a RejectedError", s.DataBytesMax+1, err)
		}
		if i != 2 && err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if got := collect(t, s.join(t, "g", nil), 4, 10); len(got) != 4 {
		t.Fatalf("%d messages, want 4", len(got))
	}
}

func malformedIsDelivered(t *testing.T, s *suite) {
	if s.Garble == nil {
		t.Skip("the harness cannot garble a message")
	}
	s.declare(t, "first", "second")
	before := s.numbered(t, 1, "key-a")
	s.Garble(t, "key-a")
	after := s.numbered(t, 1, "key-a")
	var identity event.ID
	for _, group := range []string{"first", "second"} {
		got := collect(t, s.join(t, group, nil), 3, 10)
		if got[0].Event.ID != before["key-a"][0] || got[2].Event.ID != after["key-a"][0] {
			t.Fatalf("the neighbours of the malformed message are %v and %v", got[0].Event.ID, got[2].Event.ID)
		}
		bad := got[1]
		if !errors.Is(bad.Err, event.ErrMalformed) || bad.Event.ID.IsZero() || bad.Event.AggregateID == "" || bad.Event.Topic != Topic {
			t.Fatalf("malformed message: %+v", bad)
		}
		if !identity.IsZero() && identity != bad.Event.ID {
			t.Fatalf("identity %s at the second delivery, %s at the first", bad.Event.ID, identity)
		}
		identity = bad.Event.ID
	}
}

func fetchLimit(t *testing.T, s *suite) {
	s.declare(t, "limited")
	s.numbered(t, 10, "key-a")
	parts := s.join(t, "limited", nil)
	ctx := bounded(t)
	for _, limit := range []int{0, -1, broker.FetchMax + 1} {
		if _, err := parts[0].Fetch(ctx, limit); err == nil {
			t.Errorf("fetch of %d messages was not refused", limit)
		}
	}
	total := 0
	for total < 10 {
		for _, p := range parts {
			messages, err := p.Fetch(ctx, 3)
			if err != nil {
				t.Fatal(err)
			}
			if total += len(messages); len(messages) > 3 {
				t.Fatalf("%d messages, limit 3", len(messages))
			}
		}
	}
	for _, p := range parts {
		if messages, err := p.Fetch(ctx, 3); err != nil || len(messages) != 0 {
			t.Fatalf("%d messages (%v) after the last one", len(messages), err)
		}
	}
}

// waitingFetchIsWoken lets a fetch wait before each message; how fast it is woken is for benchmarks.
func waitingFetchIsWoken(t *testing.T, s *suite) {
	parts := s.join(t, "waiting", nil)
	for i := range 20 {
		done := make(chan []delivered, 1)
		go func() { done <- collect(t, parts, 1, 10) }()
		want := s.event("key-a", i)
		s.publish(t, want)
		if got := <-done; len(got) != 1 || got[0].Event.ID != want.ID {
			t.Fatalf("got %v", got)
		}
	}
}

func lag(t *testing.T, s *suite) {
	s.declare(t, "lagging")
	s.numbered(t, 10, "key-a")
	parts := s.join(t, "lagging", nil)
	sum := func() (n int64) {
		for _, p := range parts {
			l, ok := p.(broker.Laggard)
			if !ok {
				t.Skip("partitions cannot tell their lag")
			}
			left, err := l.Lag(bounded(t))
			if err != nil {
				t.Fatal(err)
			}
			n += left
		}
		return n
	}
	if n := sum(); n != 10 {
		t.Fatalf("lag %d before the first fetch, want 10", n)
	}
	got := collect(t, parts, 4, 4)
	if n := sum(); n != int64(10-len(got)) {
		t.Fatalf("lag %d after %d of 10", n, len(got))
	}
	collect(t, parts, 10-len(got), 10)
	if n := sum(); n != 0 {
		t.Fatalf("lag %d at the end", n)
	}
}

// manyConcurrent has producers that each own some keys, and one group that reads meanwhile.
func manyConcurrent(t *testing.T, s *suite) {
	const producers, perProducer = 8, 1250
	parts := s.join(t, "many", nil)
	want := map[string][]event.ID{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for producer := range producers {
		wg.Go(func() {
			mine := make([]string, 25)
			for i := range mine {
				mine[i] = fmt.Sprintf("p%d-%d", producer, i)
			}
			ids, err := s.sendRounds(t.Context(), mine, perProducer/len(mine))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(want, ids)
		})
	}
	got := collect(t, parts, producers*perProducer, 500)
	wg.Wait()
	sameOrder(t, got, want)
}

// sendRounds publishes one event of each key, rounds times, and repeats what was unavailable.
func (s *suite) sendRounds(ctx context.Context, keys []string, rounds int) (map[string][]event.ID, error) {
	ids := map[string][]event.ID{}
	for round := range rounds {
		batch := make([]broker.Message, len(keys))
		for i, key := range keys {
			batch[i].Event = s.event(key, round)
			batch[i].Origin = fmt.Sprintf("0.0.%d", round+1)
			ids[key] = append(ids[key], batch[i].Event.ID)
		}
		for len(batch) > 0 {
			var again []broker.Message
			for i, err := range s.send(ctx, batch) {
				switch {
				case errors.Is(err, broker.ErrUnavailable) && ctx.Err() == nil:
					again = append(again, batch[i])
				case err != nil:
					return nil, fmt.Errorf("publish %s: %w", batch[i].Event.AggregateID, err)
				}
			}
			batch = again
		}
	}
	return ids, nil
}
