package relaytest

import (
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

// parkingLot is a store with the events a/1 b/2 a/3 c/4 a/5, and its owner's lease.
type parkingLot struct {
	store   Store
	src     relay.Source
	lot     relay.Parking
	lease   relay.Lease
	records []outbox.Record
}

func newParkingLot(t *testing.T, h Harness) *parkingLot {
	t.Helper()
	s := h.Open(t)
	p := &parkingLot{store: s, src: s.Outbox()}
	p.lot = storetest.Need[relay.Parking](t, p.src, h.Lacks, "Parking")
	storetest.Add(t, s, 1, "a", "b", "a", "c", "a")
	p.lease = claim(t, p.src, "a")
	p.records = read(t, p.src, p.lease, outbox.Position{}, 10)
	return p
}

func (p *parkingLot) park(t *testing.T, cause string, n ...int) {
	t.Helper()
	for _, n := range n {
		must(t, "park", p.lot.Park(t.Context(), p.lease, cause, p.records[n-1]))
	}
}

func (p *parkingLot) parked(t *testing.T, q relay.ParkedQuery) []string {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	parked, err := p.lot.Parked(t.Context(), q)
	must(t, "parked", err)
	out := []string{}
	for _, r := range parked {
		out = append(out, label(t, r.Record))
	}
	return out
}

func parkingOrder(t *testing.T, h Harness) {
	p := newParkingLot(t, h)
	p.park(t, "refused", 5, 1, 4, 3) // Not in order: a relay parks what fails when it fails.
	for _, c := range []struct {
		guarantee string
		q         relay.ParkedQuery
		want      []string
	}{
		{"parked events must come in order of position", relay.ParkedQuery{}, []string{"a/1", "a/3", "c/4", "a/5"}},
		{"a topic and key must narrow", relay.ParkedQuery{Topic: storetest.Topic, Key: "a"}, []string{"a/1", "a/3", "a/5"}},
		{"a topic must narrow", relay.ParkedQuery{Topic: "another"}, []string{}},
		{"a page must keep its limit", relay.ParkedQuery{Limit: 2}, []string{"a/1", "a/3"}},
		{"a page must go on after a position", relay.ParkedQuery{After: p.records[2].Position}, []string{"c/4", "a/5"}},
		{"nothing is marked for replay", relay.ParkedQuery{ReplayOnly: true}, []string{}},
	} {
		storetest.Equal(t, c.guarantee, p.parked(t, c.q), c.want)
	}
	parked, err := p.lot.Parked(t.Context(), relay.ParkedQuery{Limit: 1})
	must(t, "parked", err)
	if got := parked[0]; got.Record.Position != p.records[0].Position || got.Cause != "refused" || got.Replay {
		t.Fatalf("a parked event must keep its position and cause: %+v", got)
	}
	storetest.SameEvent(t, parked[0].Record.Event, p.records[0].Event)
	if age := time.Since(parked[0].ParkedAt); age < -time.Second || age > storetest.Timeout {
		t.Fatalf("a parked event must say since when, this one says %s ago", age)
	}
	must(t, "unpark", p.lot.Unpark(t.Context(), p.lease, p.records[0], p.records[3], p.records[1]))
	storetest.Equal(t, "unpark must remove what was published and nothing else", p.parked(t, relay.ParkedQuery{}), []string{"a/3", "a/5"})
}

func parkedOnce(t *testing.T, h Harness) {
	p := newParkingLot(t, h)
	p.park(t, "too large", 1, 3)
	p.park(t, "still too large", 1)
	storetest.Equal(t, "an event must be parked once however often it is", p.parked(t, relay.ParkedQuery{}), []string{"a/1", "a/3"})
	parked, err := p.lot.Parked(t.Context(), relay.ParkedQuery{Limit: 10})
	must(t, "parked", err)
	if parked[0].Cause != "still too large" || parked[1].Cause != "too large" {
		t.Fatalf("the last cause must be kept: %q, %q", parked[0].Cause, parked[1].Cause)
	}
}

func replayMarksKeys(t *testing.T, h Harness) {
	p := newParkingLot(t, h)
	p.park(t, "refused", 1, 2, 3, 4)
	n, err := p.lot.Replay(t.Context(), storetest.Topic, "a")
	must(t, "replay", err)
	if n != 2 {
		t.Fatalf("replay must say how many events it marks: %d, want 2", n)
	}
	storetest.Equal(t, "replay must mark every event of its key and no other", p.parked(t, relay.ParkedQuery{ReplayOnly: true}), []string{"a/1", "a/3"})
	if n, err = p.lot.Replay(t.Context(), "another", ""); err != nil || n != 0 {
		t.Fatalf("replay of another topic marks nothing: %d, %v", n, err)
	}
	if n, err = p.lot.Replay(t.Context(), storetest.Topic, ""); err != nil || n != 4 {
		t.Fatalf("replay of a topic marks all its keys, 4 events: %d, %v", n, err)
	}
	storetest.Equal(t, "a marked event stays parked until it is published", p.parked(t, relay.ParkedQuery{}), []string{"a/1", "b/2", "a/3", "c/4"})
}

func refusedAgainEndsReplay(t *testing.T, h Harness) {
	p := newParkingLot(t, h)
	p.park(t, "refused", 1, 3, 4)
	_, err := p.lot.Replay(t.Context(), storetest.Topic, "a")
	must(t, "replay", err)
	p.park(t, "refused again", 1)
	if got := p.parked(t, relay.ParkedQuery{ReplayOnly: true}); len(got) != 0 {
		t.Fatalf("a head that is refused again ends the replay of its key, or its followers overtake it: %v", got)
	}
}

func parkedOutlivesPurge(t *testing.T, h Harness) {
	p := newParkingLot(t, h)
	purger := storetest.Need[relay.Purger](t, p.src, h.Lacks, "Purger")
	p.park(t, "refused", 1, 3)
	must(t, "advance", p.src.Advance(t.Context(), p.lease, p.records[4].Position))
	_, err := purger.Purge(t.Context(), time.Now().Add(time.Hour), 100)
	must(t, "purge", err)
	storetest.Equal(t, "a parked event is not published yet and must outlive retention", p.parked(t, relay.ParkedQuery{}), []string{"a/1", "a/3"})
	if h.Reopen == nil {
		return
	}
	p.store = h.Reopen(t, p.store)
	p.lot = storetest.Need[relay.Parking](t, p.store.Outbox(), h.Lacks, "Parking")
	storetest.Equal(t, "a parked event must survive a crash", p.parked(t, relay.ParkedQuery{}), []string{"a/1", "a/3"})
}

func listShowsStatus(t *testing.T, h Harness) {
	p := newParkingLot(t, h)
	lister := storetest.Need[relay.Lister](t, p.src, h.Lacks, "Lister")
	p.park(t, "refused", 1)
	p.park(t, "behind another", 3)
	must(t, "advance", p.src.Advance(t.Context(), p.lease, p.records[3].Position))
	list := func(status relay.Status, after outbox.Position, limit int) []string {
		entries, err := lister.List(t.Context(), status, after, limit)
		must(t, "list", err)
		out := []string{}
		for _, e := range entries {
			out = append(out, label(t, e.Record)+" "+string(e.Status))
		}
		return out
	}
	zero := outbox.Position{}
	all := []string{"a/1 FAILED", "b/2 SENT", "a/3 FAILED", "c/4 SENT", "a/5 PENDING"}
	storetest.Equal(t, "the view must show every event with its status, newest last", list("", zero, 100), all)
	storetest.Equal(t, "the view must page", list("", p.records[0].Position, 2), all[1:3])
	storetest.Equal(t, "PENDING must narrow", list(relay.StatusPending, zero, 100), all[4:])
	storetest.Equal(t, "SENT must narrow", list(relay.StatusSent, zero, 100), []string{all[1], all[3]})
	storetest.Equal(t, "SENT must keep its limit", list(relay.StatusSent, zero, 1), []string{all[1]})
	storetest.Equal(t, "FAILED must narrow", list(relay.StatusFailed, zero, 100), []string{all[0], all[2]})
	entries, err := lister.List(t.Context(), relay.StatusFailed, zero, 1)
	must(t, "list", err)
	if e := entries[0]; e.Attempts < 1 || e.LastError != "refused" || e.LastAttemptAt.IsZero() {
		t.Fatalf("a FAILED event must say how often it was tried, when last and why it failed: %+v", e)
	}
	if o, ok := p.src.(relay.Observer); ok {
		st, err := o.Stats(t.Context())
		must(t, "stats", err)
		if st.Parked != 2 || st.Pending != 1 {
			t.Fatalf("2 events are parked, 1 is pending: %+v", st)
		}
	}
}
