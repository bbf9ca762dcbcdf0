package brokertest

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

// rest returns what of want is not in got, by key.
func rest(want map[string][]event.ID, got []delivered) map[string][]event.ID {
	seen := map[event.ID]bool{}
	for _, d := range got {
		seen[d.Event.ID] = true
	}
	left := map[string][]event.ID{}
	for key, ids := range want {
		for _, id := range ids {
			if !seen[id] {
				left[key] = append(left[key], id)
			}
		}
	}
	return left
}

func needSeek(t *testing.T, parts []broker.Partition) {
	t.Helper()
	for _, p := range parts {
		if _, ok := p.(broker.Seeker); !ok {
			t.Skip("partitions cannot seek")
		}
	}
}

func seekResumes(t *testing.T, s *suite) {
	s.declare(t, "seeking")
	want := s.numbered(t, 20, keys(10)...)
	parts := s.join(t, "seeking", nil)
	needSeek(t, parts)
	part := collect(t, parts, 80, 7)
	for _, p := range parts {
		if at, ok := positions(part)[p.Name()]; ok {
			if err := p.Ack(bounded(t), at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range parts {
		if err := p.Release(); err != nil {
			t.Fatal(err)
		}
	}
	left := rest(want, part)
	// Another group at the same positions: positions are the consumer's, not the group's.
	got := collect(t, s.join(t, "seeking-too", positions(part)), count(left), 50)
	sameOrder(t, got, left)
}

func reopenResumes(t *testing.T, s *suite) {
	if s.Reopen == nil {
		t.Skip("the harness cannot reopen the broker")
	}
	s.declare(t, "reopening")
	want := s.numbered(t, 20, keys(10)...)
	part := collect(t, s.join(t, "reopening", nil), 80, 7)
	s.Broker = s.Reopen(t)
	more := s.numbered(t, 3, "key-late")
	left := rest(want, part)
	maps.Copy(left, more)
	sameOrder(t, collect(t, s.join(t, "reopening", positions(part)), count(left), 50), left)
}

func positionLost(t *testing.T, s *suite) {
	if s.Expire == nil {
		t.Skip("the harness cannot expire messages")
	}
	s.numbered(t, 10, "key-a")
	parts := s.join(t, "late", nil)
	needSeek(t, parts)
	at := positions(collect(t, parts, 3, 3)[:1])
	_ = parts[0].Release()
	s.Expire(t, 6)
	ctx := bounded(t)
	parts = s.join(t, "late-again", at)
	for _, p := range parts {
		if _, ok := at[p.Name()]; !ok {
			continue
		}
		if _, err := p.Fetch(ctx, 10); !errors.Is(err, broker.ErrPositionLost) {
			t.Fatalf("fetch after an expired position: %v, want ErrPositionLost", err)
		}
		if _, err := p.Fetch(ctx, 10); !errors.Is(err, broker.ErrPositionLost) {
			t.Fatalf("second fetch after an expired position: %v, want ErrPositionLost until Seek", err)
		}
		seek(ctx, t, p, broker.Position{})
		got := collect(t, []broker.Partition{p}, 4, 10)
		if len(got) != 4 || string(got[0].Event.Data) != `{"n":7}` {
			t.Fatalf("after Seek to the start: %d messages, the first %s", len(got), got[0].Event.Data)
		}
	}
}

// lostTailIsReadAgain plays the whole story: a tail is lost, a relay sees it, begins a new incarnation
// and refills in another order; a consumer that stood past the loss must still see everything.
func lostTailIsReadAgain(t *testing.T, s *suite) {
	if s.LoseTail == nil {
		t.Skip("the harness cannot lose the tail")
	}
	var events []event.Envelope
	for i := range 10 {
		events = append(events, s.event("key-a", i), s.event("key-b", i))
	}
	s.publish(t, events[:14]...)
	ctx := bounded(t)
	var seen broker.Tail
	var at map[string]broker.Position
	s.Broker = s.LoseTail(t, 6, func(b broker.Broker) {
		s.Broker = b
		s.publish(t, events[14:]...)
		seen = tail(ctx, t, b)
		at = positions(collect(t, s.join(t, "g", nil), 20, 50))
	})
	lost := tail(ctx, t, s.Broker)
	shorter := false
	for name, offset := range seen.Offsets {
		shorter = shorter || lost.Offsets[name] < offset
	}
	if !shorter || lost.Incarnation != seen.Incarnation {
		t.Fatalf("tail %+v after %+v does not show the loss", lost, seen)
	}
	tailer := asTailer(t, s.Broker)
	if err := tailer.Incarnate(ctx, lost); err != nil {
		t.Fatal(err)
	}
	now := tail(ctx, t, s.Broker)
	if now.Incarnation == lost.Incarnation {
		t.Fatalf("incarnation is still %s", now.Incarnation)
	}
	if err := tailer.Incarnate(ctx, lost); err != nil {
		t.Fatal(err)
	}
	if again := tail(ctx, t, s.Broker); again.Incarnation != now.Incarnation {
		t.Fatal("a second relay began another incarnation for the same loss")
	}

	late := s.join(t, "g-2", at)
	want := map[string][]event.ID{}
	for i := 19; i >= 10; i-- { // refilled, and then some, in another interleaving
		e := s.event("key-c", i)
		want["key-c"] = append(want["key-c"], e.ID)
		s.publish(t, e)
	}
	s.publish(t, events...)
	for _, e := range events {
		want[e.AggregateID] = append(want[e.AggregateID], e.ID)
	}
	all := map[event.ID]bool{}
	for len(all) < 30 {
		for _, d := range collect(t, late, 1, 50) {
			all[d.Event.ID] = true
			if d.Position.Incarnation != now.Incarnation {
				t.Fatalf("position %s in incarnation %s", d.Position, now.Incarnation)
			}
		}
	}
}

func asTailer(t *testing.T, b broker.Broker) broker.Tailer {
	t.Helper()
	tailer, ok := b.(broker.Tailer)
	if !ok {
		t.Fatalf("%T can lose its tail, and is no Tailer", b)
	}
	return tailer
}

func tail(ctx context.Context, t *testing.T, b broker.Broker) broker.Tail {
	t.Helper()
	tail, err := asTailer(t, b).Tail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if tail.Incarnation == "" {
		t.Fatal("tail without an incarnation")
	}
	return tail
}

func lostAtSpansIncarnations(t *testing.T, s *suite) {
	tailer, ok := s.Broker.(broker.Tailer)
	if !ok {
		t.Skip("the broker is no Tailer")
	}
	s.numbered(t, 4, "key-a")
	ctx := bounded(t)
	first := tail(ctx, t, s.Broker)
	// Two losses, the second one deeper, as a relay would report them.
	low := broker.Tail{Incarnation: first.Incarnation, Offsets: maps.Clone(first.Offsets)}
	if err := tailer.Incarnate(ctx, low); err != nil {
		t.Fatal(err)
	}
	second := tail(ctx, t, s.Broker)
	deeper := broker.Tail{Incarnation: second.Incarnation, Offsets: maps.Clone(first.Offsets)}
	for name, offset := range deeper.Offsets {
		deeper.Offsets[name] = offset / 2
	}
	if err := tailer.Incarnate(ctx, deeper); err != nil {
		t.Fatal(err)
	}
	for _, incarnation := range []string{first.Incarnation, second.Incarnation} {
		offsets, ok, err := tailer.LostAt(ctx, incarnation)
		if err != nil || !ok || !maps.Equal(offsets, deeper.Offsets) {
			t.Fatalf("lost at %s: %v %v %v, want %v", incarnation, offsets, ok, err, deeper.Offsets)
		}
	}
	if _, ok, err := tailer.LostAt(ctx, "unheard-of"); ok || err != nil {
		t.Fatalf("lost at an unknown incarnation: %v %v", ok, err)
	}
	if _, ok, err := tailer.LostAt(ctx, tail(ctx, t, s.Broker).Incarnation); ok || err != nil {
		t.Fatalf("lost at the current incarnation: %v %v", ok, err)
	}
}
