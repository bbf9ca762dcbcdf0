package settleredis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

func TestShare(t *testing.T) {
	logs := func(owners ...string) (all []holding) {
		for i, o := range owners {
			all = append(all, holding{log: fmt.Sprintf("t/%d", i), owner: o})
		}
		return all
	}
	seats := func(ids ...string) (all []seat) {
		for i, id := range ids {
			all = append(all, seat{id: id, join: uint64(i + 1), topics: []string{"t"}})
		}
		return all
	}
	for name, test := range map[string]struct {
		seats []seat
		logs  []holding
		want  []string // owners in the order of logs
	}{
		"alone":             {seats("a"), logs("", "", ""), []string{"a", "a", "a"}},
		"fair":              {seats("a", "b"), logs("", "", "", ""), []string{"a", "b", "a", "b"}},
		"nothing moves":     {seats("a", "b"), logs("b", "b", "a", "b", "a"), []string{"b", "b", "a", "b", "a"}},
		"one moves":         {seats("a", "b"), logs("a", "a", "a"), []string{"b", "a", "a"}},
		"the owner is gone": {seats("a", "b"), logs("c", "a", "c", "c"), []string{"b", "a", "a", "b"}},
		"more than logs":    {seats("a", "b", "c"), logs("a", "a"), []string{"b", "a"}},
		"other topics": {
			append(seats("a"), seat{id: "b", join: 2, topics: []string{"u"}}), logs("b", "", ""), []string{"a", "a", "a"},
		},
		"nobody": {nil, logs("a"), []string{""}},
	} {
		slices.Reverse(test.seats) // In whatever order the server names them.
		got := share(test.seats, slices.Clone(test.logs))
		for i, l := range test.logs {
			if got[l.log] != test.want[i] {
				t.Errorf("%s: %s is to go to %q, want %q", name, l.log, got[l.log], test.want[i])
			}
		}
	}
}

// TestProcessesShare has two Brokers, as two processes have, and lets one end in order and one be killed.
func TestProcessesShare(t *testing.T) {
	url, cfg := server.Shared(t, server.Redis), config(t)
	cfg.Partitions, cfg.Lease = 5, 600*time.Millisecond
	first, second := openAt(t, url, cfg), openAt(t, url, cfg)
	_, held := join(t, first, "g", 5)
	m, moved := join(t, second, "g", 2)
	revoked := 0
	for _, p := range held {
		if !p.claim.live() {
			revoked++
		}
	}
	if revoked != 2 || moved[0].Name() == moved[1].Name() {
		t.Fatalf("%d partitions moved, want 2 of 5", revoked)
	}
	want := map[event.ID]bool{}
	for i := range 40 {
		want[publishOne(t, first, fmt.Sprint(i)).Event.ID] = true
	}
	var live []*partition
	for _, p := range held {
		if p.claim.live() {
			live = append(live, p)
		}
	}
	got := map[event.ID]bool{}
	for _, m := range fetchAll(t, 40, append(live, moved...)...) {
		got[m.Event.ID] = true
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%d different messages, want 40", len(got))
	}
	freeze(t, first)
	began := time.Now()
	takeFrom(t, m, 3)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the partitions of a member that died were without an owner for %s", took)
	}
}

// TestNoStandbyBesideTheDead has a member join beside one that died with the only partition: it waits for it, and is no
// standby meanwhile, as nobody reads.
func TestNoStandbyBesideTheDead(t *testing.T) {
	url, cfg := server.Shared(t, server.Redis), config(t)
	cfg.Partitions, cfg.Lease = 1, 600*time.Millisecond
	first, second := openAt(t, url, cfg), openAt(t, url, cfg)
	join(t, first, "g", 1)
	freeze(t, first)
	next, err := second.Subscribe(t.Context(), broker.Subscription{Group: "g", Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	m, ok := next.(*member)
	if !ok {
		t.Fatalf("membership is a %T", next)
	}
	began := time.Now()
	for ; len(m.held()) == 0; time.Sleep(time.Millisecond) {
		if m.Standby() {
			t.Fatalf("a standby after %s", time.Since(began))
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("the partition is not taken over")
		}
	}
	if took := time.Since(began); took < cfg.Lease/4 {
		t.Errorf("taken over after %s: nobody was waited for", took)
	}
}

// freeze stops what a Broker's members do by themselves, as a pause of the process does.
func freeze(t *testing.T, b *Broker) {
	t.Helper()
	b.mu.Lock()
	members := slices.Collect(maps.Keys(b.members))
	b.mu.Unlock()
	for _, m := range members {
		m.stop()
		<-m.done
	}
}

// TestPausedOwner has an owner sleep through the end of its lease with a batch in hand: what it does when
// it wakes up is refused by the broker, and by the database.
func TestPausedOwner(t *testing.T) {
	url, cfg := server.Shared(t, server.Redis), config(t)
	cfg.Partitions, cfg.Lease = 1, 500*time.Millisecond
	paused, other := openAt(t, url, cfg), openAt(t, url, cfg)
	store := memory.New()
	for range 5 {
		publishOne(t, paused, "key")
	}
	_, parts := join(t, paused, "g", 1)
	old := parts[0]
	_, fence, err := store.Positions().Take(t.Context(), "g", old.Name())
	if err != nil {
		t.Fatal(err)
	}
	inHand := fetchAll(t, 5, old)
	freeze(t, paused)

	_, parts = join(t, other, "g", 1)
	at, newFence, err := store.Positions().Take(t.Context(), "g", parts[0].Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := parts[0].Seek(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	again := fetchAll(t, 5, parts[0])
	for i := range again {
		if again[i].Event.ID != inHand[i].Event.ID {
			t.Fatalf("message %d of the new owner is %s, pending was %s", i, again[i].Event.ID, inHand[i].Event.ID)
		}
	}
	old.claim.extend(time.Now().Add(time.Hour)) // Its clock stood still as well: it believes in its lease.
	commit := func(fence int64, p broker.Position) error {
		return store.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			return store.Positions().Store(ctx, tx, "g", old.Name(), fence, p)
		})
	}
	if err := commit(fence, inHand[4].Position); !errors.Is(err, consumer.ErrFenced) {
		t.Errorf("commit of the paused owner: %v, want ErrFenced", err)
	}
	if err := old.Ack(t.Context(), inHand[4].Position); !errors.Is(err, broker.ErrRevoked) {
		t.Errorf("ack of the paused owner: %v, want ErrRevoked", err)
	}
	if n := pendingOf(t, other, 0); n != 5 {
		t.Errorf("%d messages are pending, want the new owner's 5", n)
	}
	if err := commit(newFence, again[4].Position); err != nil {
		t.Error(err)
	}
	if err := parts[0].Ack(t.Context(), again[4].Position); err != nil {
		t.Error(err)
	}
	if n := pendingOf(t, other, 0); n != 0 {
		t.Errorf("%d messages are pending after the acknowledgement", n)
	}
	select {
	case <-old.Revoked():
	default:
		t.Error("the paused owner's partition is not revoked")
	}
}

func pendingOf(t *testing.T, b *Broker, partition int) int64 {
	t.Helper()
	pending, err := b.db.XPending(t.Context(), b.cfg.logKey(logName(topic, partition)), "g").Result()
	if err != nil {
		t.Fatal(err)
	}
	return pending.Count
}

// TestLateReaderTakesNothing has a late owner read past the new one: what it took comes to the new one all
// the same.
func TestLateReaderTakesNothing(t *testing.T) {
	url, cfg := server.Shared(t, server.Redis), config(t)
	cfg.Partitions, cfg.Lease = 1, 500*time.Millisecond
	late, owner := openAt(t, url, cfg), openAt(t, url, cfg)
	publishOne(t, late, "key")
	_, parts := join(t, late, "g", 1)
	old := parts[0]
	fetchAll(t, 1, old)
	freeze(t, late)
	_, parts = join(t, owner, "g", 1)
	fetchAll(t, 1, parts[0])
	var want []event.ID
	for range 6 {
		want = append(want, publishOne(t, owner, "key").Event.ID)
	}
	old.claim.extend(time.Now().Add(time.Hour))
	if stolen, err := old.Fetch(t.Context(), 3); err != nil || len(stolen) == 0 {
		t.Fatalf("the late owner got %d messages (%v)", len(stolen), err)
	}
	for i, m := range fetchAll(t, 6, parts[0]) {
		if m.Event.ID != want[i] {
			t.Fatalf("message %d is %s, want %s", i, m.Event.ID, want[i])
		}
	}
}

// TestPendingComesFirst has an owner end with messages in hand, of which the database knows some.
func TestPendingComesFirst(t *testing.T) {
	url, cfg := server.Shared(t, server.Redis), config(t)
	cfg.Partitions = 1
	b := openAt(t, url, cfg)
	for range 8 {
		publishOne(t, b, "key")
	}
	_, parts := join(t, b, "g", 1)
	got := fetchAll(t, 8, parts[0])
	if err := parts[0].Ack(t.Context(), got[1].Position); err != nil { // The third commits, unacknowledged.
		t.Fatal(err)
	}
	_ = b.Close()
	next := openAt(t, url, cfg)
	_, parts = join(t, next, "g", 1)
	if err := parts[0].Seek(t.Context(), got[2].Position); err != nil {
		t.Fatal(err)
	}
	if err := parts[0].open(t.Context()); err != nil || !parts[0].pending {
		t.Fatalf("nothing is pending (%v)", err)
	}
	if n := pendingOf(t, next, 0); n != 5 {
		t.Errorf("%d messages are pending, want the 5 after the position", n)
	}
	last := publishOne(t, next, "key")
	rest := fetchAll(t, 6, parts[0])
	if rest[0].Position.Offset != 4 || rest[5].Event.ID != last.Event.ID {
		t.Fatalf("after offset 3 came %d, and at the end %s", rest[0].Position.Offset, rest[5].Event.ID)
	}
	consumers, err := next.db.XInfoConsumers(t.Context(), next.cfg.logKey(logName(topic, 0)), "g").Result()
	if err != nil || len(consumers) != 1 {
		t.Fatalf("%d consumers in the group (%v), want the owner only", len(consumers), err)
	}
}
