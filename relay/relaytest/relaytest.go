// Package relaytest is the conformance suite of the outbox that a relay reads: relay.Source and its
// optional abilities. Every store runs it.
//
//	func TestOutbox(t *testing.T) {
//		relaytest.Run(t, relaytest.Harness{
//			Open:   func(t *testing.T) relaytest.Store { return open(t, t.TempDir()) },
//			Reopen: func(t *testing.T, s relaytest.Store) relaytest.Store { ... },
//		})
//	}
//
// # What this package does not do
//
// It starts no relay and kills no process: package relay tests the one, the module test does the other.
package relaytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	relay.Provider
}

// Harness is one store under test.
type Harness struct {
	// Open returns an empty store and closes it when the test ends. Required.
	Open func(t *testing.T) Store
	// Reopen gives up a store as a crash does and opens its data again.
	Reopen func(t *testing.T, s Store) Store
	// Around runs each test, for stores that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
	// Lacks names what the store cannot do, which is then skipped and printed: Reopen, Parking, Bell,
	// Marks, Observer, Lister, Purger. What is lacking and not named fails.
	Lacks []string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	storetest.Run(t, h, h.Around, []storetest.Case[Harness]{
		{Name: "EventComesBackWhole", Test: eventComesBackWhole},
		{Name: "RolledBackIsNeverSeen", Test: rolledBackIsNeverSeen},
		{Name: "OpenIsNotSeen", Test: openIsNotSeen},
		{Name: "OrderWithinAndAcross", Test: orderWithinAndAcross},
		{Name: "OrderOfConcurrentWriters", Test: orderOfConcurrentWriters},
		{Name: "ReadAgainIsTheSame", Test: readAgainIsTheSame},
		{Name: "PositionsAreNeverGivenAgain", Test: positionsAreNeverGivenAgain},
		{Name: "PositionsNeverGiven", Test: positionsNeverGiven},
		{Name: "Reopened", Test: reopened},
		{Name: "Held", Test: heldByAnother},
		{Name: "RenewKeepsFence", Test: renewKeepsFence},
		{Name: "LeaseRunsOut", Test: leaseRunsOut},
		{Name: "ReleaseEndsLease", Test: releaseEndsLease},
		{Name: "OldOwnerIsFenced", Test: oldOwnerIsFenced},
		{Name: "AdvanceIsKept", Test: advanceIsKept},
		{Name: "RewindReadsAgain", Test: rewindReadsAgain},
		{Name: "RewindBehindRetention", Test: rewindBehindRetention},
		{Name: "PurgeKeepsUnsettled", Test: purgeKeepsUnsettled},
		{Name: "PurgeKeepsYoung", Test: purgeKeepsYoung},
		{Name: "ParkingOrder", Test: parkingOrder},
		{Name: "ParkedOnce", Test: parkedOnce},
		{Name: "ReplayMarksKeys", Test: replayMarksKeys},
		{Name: "RefusedAgainEndsReplay", Test: refusedAgainEndsReplay},
		{Name: "ParkedOutlivesPurge", Test: parkedOutlivesPurge},
		{Name: "BellRings", Test: bellRings},
		{Name: "MarksNewestFirst", Test: marksNewestFirst},
		{Name: "MarksEndWithRetention", Test: marksEndWithRetention},
		{Name: "Stats", Test: stats},
		{Name: "ListShowsStatus", Test: listShowsStatus},
	})
}

// shard is the one that every store has.
const shard = 0

const ttl = time.Minute

func claim(t *testing.T, src relay.Source, owner string) relay.Lease {
	t.Helper()
	lease, err := src.Claim(t.Context(), shard, owner, ttl)
	if err != nil {
		t.Fatalf("claim a free shard for %s: %v", owner, err)
	}
	return lease
}

// read returns everything after a position, page by page.
func read(t *testing.T, src relay.Source, lease relay.Lease, after outbox.Position, page int) []outbox.Record {
	t.Helper()
	var all []outbox.Record
	for {
		records, err := src.Next(t.Context(), lease, after, page)
		if err != nil {
			t.Fatalf("next after %s: %v", after, err)
		}
		if len(records) > page {
			t.Fatalf("next returned %d records, the limit is %d", len(records), page)
		}
		if len(records) == 0 {
			return all
		}
		for i := range records {
			if records[i].Position.Compare(after) <= 0 {
				t.Fatalf("positions must rise: %s after %s", records[i].Position, after)
			}
			after = records[i].Position
		}
		all = append(all, records...)
	}
}

// labels returns key/n of each record.
func labels(t *testing.T, records []outbox.Record) []string {
	t.Helper()
	out := []string{}
	for _, r := range records {
		out = append(out, label(t, r))
	}
	return out
}

func label(t *testing.T, r outbox.Record) string {
	t.Helper()
	var thing storetest.Thing
	if err := json.Unmarshal(r.Event.Data, &thing); err != nil {
		t.Fatalf("data of an event was changed: %q: %v", r.Event.Data, err)
	}
	return fmt.Sprintf("%s/%d", thing.Key, thing.N)
}

func wantErr(t *testing.T, guarantee string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got error %v, want %v", guarantee, got, want)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func eventComesBackWhole(t *testing.T, h Harness) {
	s := h.Open(t)
	want := storetest.Envelope(t, "whole", 1)
	want.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	want.CausationID = storetest.Envelope(t, "cause", 1).ID
	want.IdempotencyKey, want.Version = "key-ü", 7
	plain := storetest.Envelope(t, "plain", 2)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return tx.Append(ctx, want, plain) })
	records := read(t, s.Outbox(), claim(t, s.Outbox(), "a"), outbox.Position{}, 10)
	if len(records) != 2 {
		t.Fatalf("every committed event must be there: got %d, want 2", len(records))
	}
	storetest.SameEvent(t, records[0].Event, want)
	storetest.SameEvent(t, records[1].Event, plain)
	if age := time.Since(records[0].CreatedAt); age < -time.Second || age > storetest.Timeout {
		t.Fatalf("a record's time must be that of its transaction, it is %s old", age)
	}
}

func rolledBackIsNeverSeen(t *testing.T, h Harness) {
	s := h.Open(t)
	storetest.Add(t, s, 1, "a")
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error {
		return storetest.AddIn(ctx, tx, 2, "a", "b")
	})
	storetest.Add(t, s, 3, "a")
	got := labels(t, read(t, s.Outbox(), claim(t, s.Outbox(), "a"), outbox.Position{}, 10))
	storetest.Equal(t, "no event of a rolled-back transaction may be seen", got, []string{"a/1", "a/3"})
}

func openIsNotSeen(t *testing.T, h Harness) {
	s := h.Open(t)
	lease := claim(t, s.Outbox(), "a")
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		if err := storetest.AddIn(ctx, tx, 1, "a"); err != nil {
			return err
		}
		// A reader on another connection, as a relay is one.
		records, err := s.Outbox().Next(ctx, lease, outbox.Position{}, 10)
		if err == nil && len(records) > 0 {
			t.Errorf("an event was seen before its transaction was committed")
		}
		return err
	})
}

func orderWithinAndAcross(t *testing.T, h Harness) {
	s := h.Open(t)
	storetest.Add(t, s, 1, "b", "a", "a")
	storetest.Add(t, s, 4, "a", "b")
	storetest.Add(t, s, 6, "c")
	lease := claim(t, s.Outbox(), "a")
	want := []string{"b/1", "a/2", "a/3", "a/4", "b/5", "c/6"}
	for page := 1; page <= 7; page++ {
		got := labels(t, read(t, s.Outbox(), lease, outbox.Position{}, page))
		storetest.Equal(t, fmt.Sprintf("events must come in the order of commits and of adding (pages of %d)", page), got, want)
	}
}

func orderOfConcurrentWriters(t *testing.T, h Harness) {
	s := h.Open(t)
	const writers, each = 8, 25
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			errs <- func() error {
				for n := range each {
					err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
						return storetest.AddIn(ctx, tx, 2*n, fmt.Sprint(w), fmt.Sprint(w))
					})
					if err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	// A reader that follows while the writers write must see each event once, like one that comes later.
	lease := claim(t, s.Outbox(), "a")
	var followed []outbox.Record
	storetest.Eventually(t, "all committed events are read", func() bool {
		after := outbox.Position{}
		if n := len(followed); n > 0 {
			after = followed[n-1].Position
		}
		followed = append(followed, read(t, s.Outbox(), lease, after, 7)...)
		return len(followed) >= 2*writers*each
	})
	for range writers {
		must(t, "concurrent writer", <-errs)
	}
	next := map[string]int{}
	for i, r := range followed {
		key := r.Event.AggregateID
		if got, want := label(t, r), fmt.Sprintf("%s/%d", key, next[key]); got != want {
			t.Fatalf("events of a key must keep their order: record %d is %s, want %s", i, got, want)
		}
		next[key]++
	}
	again := read(t, s.Outbox(), lease, outbox.Position{}, 1000)
	storetest.Equal(t, "a reader that followed must have seen what a later one sees", labels(t, followed), labels(t, again))
}

func readAgainIsTheSame(t *testing.T, h Harness) {
	s := h.Open(t)
	storetest.Add(t, s, 1, "a", "b", "a", "c")
	lease := claim(t, s.Outbox(), "a")
	first := read(t, s.Outbox(), lease, outbox.Position{}, 3)
	storetest.Add(t, s, 5, "a")
	for i, r := range first {
		after := outbox.Position{}
		if i > 0 {
			after = first[i-1].Position
		}
		again, err := s.Outbox().Next(t.Context(), lease, after, 1)
		must(t, "next", err)
		if len(again) != 1 || again[0].Position != r.Position || again[0].Event.ID != r.Event.ID {
			t.Fatalf("the same position must lead to the same record: after %s got %v, want %s", after, again, r.Position)
		}
	}
}

func positionsAreNeverGivenAgain(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	purger := storetest.Need[relay.Purger](t, src, h.Lacks, "Purger")
	storetest.Add(t, s, 1, "a", "a")
	lease := claim(t, src, "a")
	records := read(t, src, lease, outbox.Position{}, 10)
	last := records[len(records)-1].Position
	must(t, "advance", src.Advance(t.Context(), lease, last))
	if _, err := purger.Purge(t.Context(), time.Now().Add(time.Hour), 100); err != nil {
		t.Fatalf("purge: %v", err)
	}
	if h.Reopen != nil {
		s = h.Reopen(t, s)
		src = s.Outbox()
		lease = claim(t, src, "b")
	}
	storetest.Add(t, s, 3, "a")
	got := labels(t, read(t, src, lease, last, 10))
	storetest.Equal(t, "an event that follows a purge must come after every position given before", got, []string{"a/3"})
}

// positionsNeverGiven reads behind a position that nobody was given here: whoever has one has read what this outbox, which
// was put back to an earlier state, has not got, and would pass over what comes in its place.
func positionsNeverGiven(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	storetest.Add(t, s, 1, "a", "a")
	lease := claim(t, src, "a")
	records := read(t, src, lease, outbox.Position{}, 10)
	ahead := records[1].Position
	ahead.ID += 1000
	if ahead.Tick > 0 {
		ahead.Tick += 1000
	}
	if _, err := src.Next(t.Context(), relay.Lease{}, ahead, 10); !errors.Is(err, relay.ErrRetention) {
		t.Fatalf("a position behind the last event must be refused: %v, want %v", err, relay.ErrRetention)
	}
	got := labels(t, read(t, src, lease, records[0].Position, 10))
	storetest.Equal(t, "what is there must be read as before", got, []string{"a/2"})
}

func reopened(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s := h.Open(t)
	storetest.Add(t, s, 1, "a", "b", "a")
	lease := claim(t, s.Outbox(), "a")
	before := read(t, s.Outbox(), lease, outbox.Position{}, 10)
	must(t, "advance", s.Outbox().Advance(t.Context(), lease, before[0].Position))
	s = h.Reopen(t, s)
	src := s.Outbox()
	var again relay.Lease
	storetest.Eventually(t, "the shard of a dead owner is free again", func() bool {
		var err error
		again, err = src.Claim(t.Context(), shard, "b", ttl)
		return err == nil
	})
	if again.Position != before[0].Position {
		t.Fatalf("an advanced position must survive a crash: got %s, want %s", again.Position, before[0].Position)
	}
	if again.Fence <= lease.Fence {
		t.Fatalf("the fence of a new owner must rise also across a crash: %d after %d", again.Fence, lease.Fence)
	}
	after := read(t, src, again, outbox.Position{}, 10)
	if !slices.EqualFunc(before, after, func(x, y outbox.Record) bool {
		return x.Position == y.Position && x.Event.ID == y.Event.ID
	}) {
		t.Fatalf("positions must be the same after a crash: %v, before it %v", labels(t, after), labels(t, before))
	}
	wantErr(t, "an owner from before the crash must be fenced", src.Advance(t.Context(), lease, before[2].Position), relay.ErrFenced)
}
