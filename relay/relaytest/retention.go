package relaytest

import (
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

func purgeKeepsUnsettled(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	purger := storetest.Need[relay.Purger](t, src, h.Lacks, "Purger")
	storetest.Add(t, s, 1, "a", "a", "a", "a")
	future := time.Now().Add(time.Hour)
	n, err := purger.Purge(t.Context(), future, 100)
	must(t, "purge", err)
	if n != 0 {
		t.Fatalf("an outbox that no relay has carried must be kept, %d of 4 events were purged", n)
	}
	lease := claim(t, src, "a")
	records := read(t, src, lease, lease.Position, 10)
	must(t, "advance", src.Advance(t.Context(), lease, records[1].Position))
	n, err = purger.Purge(t.Context(), future, 1)
	if err != nil || n != 1 {
		t.Fatalf("purge must keep its limit of 1: %d, %v", n, err)
	}
	n, err = purger.Purge(t.Context(), future, 100)
	if err != nil || n != 1 {
		t.Fatalf("purge must delete what is settled and nothing else, 1 event here: %d, %v", n, err)
	}
	got := labels(t, read(t, src, lease, records[1].Position, 10))
	storetest.Equal(t, "a purge must never delete an unsettled event", got, []string{"a/3", "a/4"})
}

func purgeKeepsYoung(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	purger := storetest.Need[relay.Purger](t, src, h.Lacks, "Purger")
	storetest.Add(t, s, 1, "a")
	lease := claim(t, src, "a")
	records := read(t, src, lease, lease.Position, 10)
	must(t, "advance", src.Advance(t.Context(), lease, records[0].Position))
	n, err := purger.Purge(t.Context(), time.Now().Add(-time.Hour), 100)
	if err != nil || n != 0 {
		t.Fatalf("events within retention must be kept, a rewind may need them: %d purged, %v", n, err)
	}
}

func bellRings(t *testing.T, h Harness) {
	s := h.Open(t)
	bell := storetest.Need[relay.Bell](t, s.Outbox(), h.Lacks, "Bell")
	ring, stop := bell.Listen()
	defer stop()
	other, stopOther := bell.Listen()
	storetest.Silent(t, ring, "nothing was committed")
	storetest.Add(t, s, 1, "a")
	storetest.Rings(t, ring, "a commit that added an event")
	storetest.Rings(t, other, "a commit that added an event, a second listener")
	got := labels(t, read(t, s.Outbox(), claim(t, s.Outbox(), "a"), outbox.Position{}, 10))
	storetest.Equal(t, "what rang the bell must be there to be read", got, []string{"a/1"})
	stopOther()
	for n := range 5 {
		storetest.Add(t, s, 2+n, "a")
	}
	storetest.Rings(t, ring, "rings may be coalesced, but not lost")
	stop() // Twice is harmless.
}

func marksNewestFirst(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	marks := storetest.Need[relay.Marks](t, src, h.Lacks, "Marks")
	storetest.Add(t, s, 1, "a", "a", "a")
	lease := claim(t, src, "a")
	records := read(t, src, lease, lease.Position, 10)
	now := storetest.Now()
	for i, r := range records {
		m := relay.Mark{Position: r.Position, At: now.Add(time.Duration(i) * time.Second), Tail: []byte{byte('a' + i)}}
		must(t, "add mark", marks.AddMark(t.Context(), lease, m))
	}
	got, err := marks.Marks(t.Context(), shard)
	must(t, "marks", err)
	if len(got) != 3 {
		t.Fatalf("every mark within retention must be kept: %d of 3", len(got))
	}
	for i, m := range got {
		want := records[2-i]
		if m.Position != want.Position || string(m.Tail) != string(rune('c'-i)) {
			t.Fatalf("marks must come newest first and whole: number %d is %s %q", i, m.Position, m.Tail)
		}
		storetest.SameTime(t, "a mark's time", m.At, now.Add(time.Duration(2-i)*time.Second))
	}
}

func marksEndWithRetention(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	marks := storetest.Need[relay.Marks](t, src, h.Lacks, "Marks")
	purger := storetest.Need[relay.Purger](t, src, h.Lacks, "Purger")
	storetest.Add(t, s, 1, "a", "a", "a", "a")
	lease := claim(t, src, "a")
	records := read(t, src, lease, lease.Position, 10)
	must(t, "add mark", marks.AddMark(t.Context(), lease, relay.Mark{Position: records[0].Position, At: storetest.Now()}))
	must(t, "advance", src.Advance(t.Context(), lease, records[3].Position))
	_, err := purger.Purge(t.Context(), time.Now().Add(time.Hour), 3)
	must(t, "purge", err)
	must(t, "add mark", marks.AddMark(t.Context(), lease, relay.Mark{Position: records[3].Position, At: storetest.Now()}))
	got, err := marks.Marks(t.Context(), shard)
	must(t, "marks", err)
	if len(got) != 1 || got[0].Position != records[3].Position {
		t.Fatalf("a mark at events that are gone must be dropped, nobody can rewind there: %d marks", len(got))
	}
}

func stats(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	o := storetest.Need[relay.Observer](t, src, h.Lacks, "Observer")
	st, err := o.Stats(t.Context())
	must(t, "stats", err)
	storetest.Equal(t, "an empty outbox has nothing to tell", st, relay.Stats{})
	storetest.Add(t, s, 1, "a", "b", "a")
	first := time.Now()
	storetest.Eventually(t, "time passes", func() bool { return time.Since(first) > 10*time.Millisecond })
	storetest.Add(t, s, 4, "a")
	lease := claim(t, src, "a")
	records := read(t, src, lease, lease.Position, 10)
	st, err = o.Stats(t.Context())
	must(t, "stats", err)
	if st.Pending != 4 || st.Sent != 0 || st.Age < 10*time.Millisecond {
		t.Fatalf("4 events are pending, the oldest for more than 10ms: %+v", st)
	}
	must(t, "advance", src.Advance(t.Context(), lease, records[2].Position))
	st, err = o.Stats(t.Context())
	must(t, "stats", err)
	if st.Pending != 1 || st.Sent != 3 || st.Parked != 0 {
		t.Fatalf("3 events are sent, 1 is pending: %+v", st)
	}
	must(t, "advance", src.Advance(t.Context(), lease, records[3].Position))
	st, err = o.Stats(t.Context())
	must(t, "stats", err)
	if st.Pending != 0 || st.Sent != 4 || st.Age != 0 {
		t.Fatalf("an outbox that is carried has no age: %+v", st)
	}
}
