package settleredis

import (
	"fmt"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/internal/server"
)

// TestTrimmingNeverOutrunsAGroup has a quick and a slow group, and a group that is gone.
func TestTrimmingNeverOutrunsAGroup(t *testing.T) {
	cfg := config(t)
	cfg.Partitions, cfg.Retention, cfg.TrimEvery = 1, 50*time.Millisecond, time.Hour
	s := server.Start(t, server.Redis, server.Options{Settings: map[string]string{"stream-node-max-entries": "10"}})
	b := openAt(t, s.URL(), cfg)
	batch := func() {
		t.Helper()
		for i := range 100 {
			publishOne(t, b, fmt.Sprint(i))
		}
		if err := b.trim(t.Context()); err != nil { // Notes how far the log reaches.
			t.Fatal(err)
		}
		wait(2 * cfg.Retention)
	}
	_, parts := join(t, b, "slow", 1)
	slow := parts[0]
	_, parts = join(t, b, "quick", 1)
	quick := parts[0]
	for _, p := range []*partition{slow, quick} { // A group begins with its first fetch.
		if _, err := p.Fetch(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	batch()
	first := func() uint64 {
		t.Helper()
		if err := b.trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		entries, err := b.db.XRangeN(t.Context(), b.cfg.logKey(logName(topic, 0)), "-", "+", 1).Result()
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return tailOf(t, b).Offsets[logName(topic, 0)] + 1
		}
		n, _ := parseID(entries[0].ID)
		return n
	}
	ack := func(p *partition, m broker.Message) {
		t.Helper()
		if err := p.Ack(t.Context(), m.Position); err != nil {
			t.Fatal(err)
		}
	}
	all := fetchAll(t, 100, quick)
	ack(quick, all[99])
	if n := first(); n != 1 {
		t.Fatalf("trimmed to %d before the slow group read anything", n)
	}
	got := fetchAll(t, 100, slow)
	if n := first(); n != 1 {
		t.Fatalf("trimmed to %d, what the slow group has in hand included", n)
	}
	ack(slow, got[49])
	if n := first(); n <= 1 || n > 51 {
		t.Fatalf("first message is %d after the slow group acknowledged 50, want 2 to 51", n)
	}
	ack(slow, got[99])
	publishOne(t, b, "young")
	if n := first(); n <= 51 || n > 101 {
		t.Fatalf("first message is %d, want 52 to 101", n)
	}
	batch()
	ack(quick, fetchAll(t, 101, quick)[100])
	if n := first(); n > 101 {
		t.Fatalf("trimmed to %d past the slow group", n)
	}
	if err := slow.Release(); err != nil {
		t.Fatal(err)
	}
	if err := b.Forget(t.Context(), "slow", topic); err != nil {
		t.Fatal(err)
	}
	if n := first(); n <= 151 {
		t.Fatalf("first message is %d after the slow group was forgotten", n)
	}
}

func TestNothingYoungIsTrimmed(t *testing.T) {
	cfg := config(t)
	cfg.Partitions, cfg.Retention, cfg.TrimEvery = 1, time.Hour, 20*time.Millisecond
	b := openAt(t, server.Shared(t, server.Redis), cfg)
	for i := range 300 {
		publishOne(t, b, fmt.Sprint(i))
	}
	wait(100 * time.Millisecond)
	if n := b.db.XLen(t.Context(), b.cfg.logKey(logName(topic, 0))).Val(); n != 300 {
		t.Fatalf("%d messages are left of 300", n)
	}
	if n := b.db.ZCard(t.Context(), b.cfg.tickKey(logName(topic, 0))).Val(); n == 0 {
		t.Fatal("nothing was noted by the trimming of its own")
	}
}

// TestWhatOthersHoldBackIsNotReadAgain has a new incarnation while a slow group keeps messages past their
// retention: the inboxes of others may have forgotten them.
func TestWhatOthersHoldBackIsNotReadAgain(t *testing.T) {
	cfg := config(t)
	cfg.Partitions, cfg.Retention, cfg.TrimEvery = 1, 300*time.Millisecond, time.Hour
	b := openAt(t, server.Shared(t, server.Redis), cfg)
	_, parts := join(t, b, "slow", 1)
	slow := parts[0]
	_, parts = join(t, b, "quick", 1)
	quick := parts[0]
	if _, err := slow.Fetch(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	round := func() (last broker.Message) {
		t.Helper()
		for i := range 10 {
			publishOne(t, b, fmt.Sprint(i))
		}
		last = fetchAll(t, 10, quick)[9]
		if err := quick.Ack(t.Context(), last.Position); err != nil {
			t.Fatal(err)
		}
		if err := b.trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		return last
	}
	round()
	wait(2 * cfg.Retention)
	last := round()
	if err := b.Incarnate(t.Context(), tailOf(t, b)); err != nil {
		t.Fatal(err)
	}
	tailOf(t, b)
	for name, test := range map[string]struct {
		p     *partition
		first uint64
		n     int
	}{"quick": {quick, 11, 10}, "slow": {slow, 1, 20}} {
		if got := fetchAll(t, test.n, test.p); got[0].Position.Offset != test.first || got[0].Position.Incarnation == last.Position.Incarnation {
			t.Errorf("%s group read again from %s, want from %d", name, got[0].Position, test.first)
		}
	}
}
