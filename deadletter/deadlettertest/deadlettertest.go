// Package deadlettertest is the conformance suite of deadletter.Store. Every store runs it.
package deadlettertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	deadletter.Provider
}

// Harness is one store under test.
type Harness struct {
	// Open returns an empty store and closes it when the test ends. Required.
	Open func(t *testing.T) Store
	// Reopen gives up a store as a crash does and opens its data again.
	Reopen func(t *testing.T, s Store) Store
	// Around runs each test, for stores that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
	// Lacks names what the store cannot do, which is then skipped and printed: Reopen, Grouper, Auditor.
	Lacks []string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	storetest.Run(t, h, h.Around, []storetest.Case[Harness]{
		{Name: "ComesBackWhole", Test: comesBackWhole},
		{Name: "ParkedOnce", Test: parkedOnce},
		{Name: "ParkedInEachGroup", Test: parkedInEachGroup},
		{Name: "FollowersWait", Test: followersWait},
		{Name: "FollowerNeverOvertakes", Test: followerNeverOvertakes},
		{Name: "FollowerOfNoneIsHead", Test: followerOfNoneIsHead},
		{Name: "RemoveWakesTheNext", Test: removeWakesTheNext},
		{Name: "RemoveBehindTheHead", Test: removeBehindTheHead},
		{Name: "LanesAreIndependent", Test: lanesAreIndependent},
		{Name: "Update", Test: update},
		{Name: "UpdateOfNone", Test: updateOfNone},
		{Name: "Rollback", Test: rollback},
		{Name: "ConcurrentRemove", Test: concurrentRemove},
		{Name: "SelectFilters", Test: selectFilters},
		{Name: "SelectPages", Test: selectPages},
		{Name: "Groups", Test: groups},
		{Name: "Audit", Test: audit},
		{Name: "AuditRollsBack", Test: auditRollsBack},
		{Name: "Reopened", Test: reopened},
	})
}

const group = "payment"

// at is when the suite's letters failed first; the nth thing happens n seconds later.
func at(n int) time.Time {
	return time.Date(2026, 11, 21, 10, 0, n, 0, time.UTC)
}

// letter is a letter of the nth event of a key.
func letter(t *testing.T, key string, n int, state deadletter.State) deadletter.Letter {
	t.Helper()
	return deadletter.Letter{
		Group: group, Event: storetest.Envelope(t, key, n), Partition: storetest.Topic + "/0",
		Position: fmt.Sprintf("i1/%d", n), State: state, Attempts: 1,
		FirstAt: at(n), LastAt: at(n), NextAt: at(n), Cause: "boom",
	}
}

func park(t *testing.T, s Store, letters ...deadletter.Letter) {
	t.Helper()
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		for _, l := range letters {
			if err := s.Letters().Park(ctx, tx, l); err != nil {
				return err
			}
		}
		return nil
	})
}

func remove(t *testing.T, s Store, l deadletter.Letter) bool {
	t.Helper()
	var ok bool
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
		ok, err = s.Letters().Remove(ctx, tx, l.Group, l.Event.ID)
		return err
	})
	return ok
}

func find(t *testing.T, s Store, q deadletter.Query) []deadletter.Letter {
	t.Helper()
	letters, err := s.Letters().Select(t.Context(), q)
	if err != nil {
		t.Fatalf("select: %v", err)
	}
	return letters
}

func one(t *testing.T, s Store, l deadletter.Letter) deadletter.Letter {
	t.Helper()
	letters := find(t, s, deadletter.Query{Group: l.Group, ID: l.Event.ID})
	if len(letters) != 1 {
		t.Fatalf("letter %s must be parked once: %d found", l.ID(), len(letters))
	}
	return letters[0]
}

// positions returns the positions of letters, which tell the suite's letters apart.
func positions(letters []deadletter.Letter) []string {
	out := []string{}
	for i := range letters {
		out = append(out, letters[i].Position)
	}
	return out
}

func lanes(t *testing.T, s Store, group string) map[deadletter.Lane]bool {
	t.Helper()
	all, err := s.Letters().Lanes(t.Context(), group)
	if err != nil {
		t.Fatalf("lanes: %v", err)
	}
	set := map[deadletter.Lane]bool{}
	for _, l := range all {
		if set[l] {
			t.Fatalf("a lane must be listed once: %v", all)
		}
		set[l] = true
	}
	return set
}

func lane(key string) deadletter.Lane { return deadletter.Lane{Topic: storetest.Topic, Key: key} }

// same fails unless everything of a letter but its head's wake-up was kept.
func same(t *testing.T, got, want deadletter.Letter) {
	t.Helper()
	storetest.SameEvent(t, got.Event, want.Event)
	storetest.SameTime(t, "the time of the first failure", got.FirstAt, want.FirstAt)
	storetest.SameTime(t, "the time of the last failure", got.LastAt, want.LastAt)
	storetest.SameTime(t, "the time of the next attempt", got.NextAt, want.NextAt)
	got.Event, got.FirstAt, got.LastAt, got.NextAt = want.Event, want.FirstAt, want.LastAt, want.NextAt
	storetest.Equal(t, "a letter must come back as it was stored", got, want)
}

func comesBackWhole(t *testing.T, h Harness) {
	s := h.Open(t)
	want := letter(t, "a", 1, deadletter.StateDead)
	want.Attempts, want.LastAt, want.NextAt = 7, at(5), at(9)
	want.Stack, want.Permanent = "goroutine 1 [running]", true
	park(t, s, want)
	same(t, one(t, s, want), want)
}

func parkedOnce(t *testing.T, h Harness) {
	s := h.Open(t)
	first := letter(t, "a", 1, deadletter.StateRetrying)
	park(t, s, first, letter(t, "a", 2, deadletter.StateWaiting))
	again := first
	again.Attempts, again.Cause, again.State = 9, "another", deadletter.StateDead
	park(t, s, again)
	same(t, one(t, s, first), first)
	storetest.Equal(t, "parking again must change nothing", positions(find(t, s, deadletter.Query{})), []string{"i1/1", "i1/2"})
}

func parkedInEachGroup(t *testing.T, h Harness) {
	s := h.Open(t)
	l := letter(t, "a", 1, deadletter.StateDead)
	other := l
	other.Group = "shipping"
	park(t, s, l, other)
	if !remove(t, s, other) {
		t.Fatal("each group must have its own letter of an event")
	}
	same(t, one(t, s, l), l)
}

func followersWait(t *testing.T, h Harness) {
	s := h.Open(t)
	head := letter(t, "a", 1, deadletter.StateDead)
	second, third := letter(t, "a", 2, deadletter.StateWaiting), letter(t, "a", 3, deadletter.StateWaiting)
	park(t, s, head, second)
	park(t, s, third)
	storetest.Equal(t, "letters must keep the order in which they were parked",
		positions(find(t, s, deadletter.Query{Group: group, Topic: storetest.Topic, Key: "a"})), []string{"i1/1", "i1/2", "i1/3"})
	for _, l := range []deadletter.Letter{second, third} {
		if got := one(t, s, l); got.State != deadletter.StateWaiting {
			t.Fatalf("a follower must wait for its head, or it overtakes: %s is %s", l.Position, got.State)
		}
	}
	due := find(t, s, deadletter.Query{Group: group, State: deadletter.StateRetrying, DueBy: at(3600)})
	storetest.Equal(t, "a follower must not be due", positions(due), []string{})
}

func followerNeverOvertakes(t *testing.T, h Harness) {
	s := h.Open(t)
	head := letter(t, "a", 1, deadletter.StateDead)
	park(t, s, head)
	// The consumer saw it fail while its lane was empty; another member has parked head meanwhile.
	late := letter(t, "a", 2, deadletter.StateRetrying)
	park(t, s, late)
	if got := one(t, s, late); got.State != deadletter.StateWaiting {
		t.Fatalf("a letter whose lane has a head must wait behind it, or it overtakes: it is %s", got.State)
	}
	remove(t, s, head)
	if got := one(t, s, late); got.State != deadletter.StateRetrying {
		t.Fatalf("a letter that had to wait must be woken: it is %s", got.State)
	}
}

func followerOfNoneIsHead(t *testing.T, h Harness) {
	s := h.Open(t)
	first := letter(t, "a", 1, deadletter.StateDead)
	park(t, s, first)
	remove(t, s, first)
	// The consumer has planned to park it behind first, which an operator has discarded meanwhile.
	late := letter(t, "a", 2, deadletter.StateWaiting)
	park(t, s, late)
	got := one(t, s, late)
	if got.State != deadletter.StateRetrying {
		t.Fatalf("a letter whose lane is empty must be its head, or it waits for ever: it is %s", got.State)
	}
	due := find(t, s, deadletter.Query{Group: group, State: deadletter.StateRetrying, DueBy: time.Now().Add(time.Minute)})
	storetest.Equal(t, "a letter whose lane is empty must be due at once", positions(due), []string{"i1/2"})
}

func removeWakesTheNext(t *testing.T, h Harness) {
	s := h.Open(t)
	head, second, third := letter(t, "a", 1, deadletter.StateDead), letter(t, "a", 2, deadletter.StateWaiting), letter(t, "a", 3, deadletter.StateWaiting)
	park(t, s, head, second, third)
	if !remove(t, s, head) {
		t.Fatal("remove must report that the letter was there")
	}
	if remove(t, s, head) {
		t.Fatal("remove must report that the letter was gone: the effect would happen twice")
	}
	got := one(t, s, second)
	if got.State != deadletter.StateRetrying {
		t.Fatalf("the next letter must become the head: it is %s", got.State)
	}
	if got.NextAt.After(time.Now().Add(time.Second)) {
		t.Fatalf("the new head must be due from now on, not at %s", got.NextAt)
	}
	if got := one(t, s, third); got.State != deadletter.StateWaiting {
		t.Fatalf("one letter of a lane must be tried at a time: the third is %s", got.State)
	}
	remove(t, s, second)
	remove(t, s, third)
	if n := len(lanes(t, s, group)); n != 0 {
		t.Fatalf("a lane without letters must be gone, its events flow again: %d lanes", n)
	}
}

func removeBehindTheHead(t *testing.T, h Harness) {
	s := h.Open(t)
	head, second, third := letter(t, "a", 1, deadletter.StateDead), letter(t, "a", 2, deadletter.StateWaiting), letter(t, "a", 3, deadletter.StateWaiting)
	park(t, s, head, second, third)
	remove(t, s, second)
	if got := one(t, s, third); got.State != deadletter.StateWaiting {
		t.Fatalf("a follower must wait while the head is there: it is %s", got.State)
	}
	same(t, one(t, s, head), head)
}

func lanesAreIndependent(t *testing.T, h Harness) {
	s := h.Open(t)
	a, b := letter(t, "a", 1, deadletter.StateDead), letter(t, "b", 2, deadletter.StateRetrying)
	park(t, s, a, b, letter(t, "b", 3, deadletter.StateWaiting))
	other := letter(t, "c", 4, deadletter.StateDead)
	other.Group = "shipping"
	park(t, s, other)
	storetest.Equal(t, "every lane of the group must be listed, and no other's", lanes(t, s, group),
		map[deadletter.Lane]bool{lane("a"): true, lane("b"): true})
	remove(t, s, b)
	if got := one(t, s, a); got.State != deadletter.StateDead {
		t.Fatalf("removing a letter must not touch other lanes: a is %s", got.State)
	}
}

func update(t *testing.T, h Harness) {
	s := h.Open(t)
	l := letter(t, "a", 1, deadletter.StateRetrying)
	park(t, s, l)
	l.State, l.Attempts, l.Permanent = deadletter.StateDead, 5, true
	l.FirstAt, l.LastAt, l.NextAt, l.Cause, l.Stack = at(2), at(10), at(11), "declined", "stack"
	l.Event.Data = []byte(`{"key":"a","n":2}`)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return s.Letters().Update(ctx, tx, l) })
	same(t, one(t, s, l), l)
}

func updateOfNone(t *testing.T, h Harness) {
	s := h.Open(t)
	l := letter(t, "a", 1, deadletter.StateDead)
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error { return s.Letters().Update(ctx, tx, l) })
	wantErr(t, "an update must not bring a letter back that was handled or discarded", err, deadletter.ErrNotFound)
}

func rollback(t *testing.T, h Harness) {
	s := h.Open(t)
	head, second := letter(t, "a", 1, deadletter.StateDead), letter(t, "a", 2, deadletter.StateWaiting)
	park(t, s, head, second)
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error {
		if _, err := s.Letters().Remove(ctx, tx, group, head.Event.ID); err != nil {
			return err
		}
		changed := second
		changed.State, changed.Cause = deadletter.StateDead, "changed"
		if err := s.Letters().Update(ctx, tx, changed); err != nil {
			return err
		}
		return s.Letters().Park(ctx, tx, letter(t, "b", 3, deadletter.StateDead))
	})
	same(t, one(t, s, head), head)
	same(t, one(t, s, second), second)
	storetest.Equal(t, "a rolled-back transaction must park nothing", lanes(t, s, group), map[deadletter.Lane]bool{lane("a"): true})
}

func concurrentRemove(t *testing.T, h Harness) {
	s := h.Open(t)
	head := letter(t, "a", 1, deadletter.StateRetrying)
	park(t, s, head, letter(t, "a", 2, deadletter.StateWaiting))
	const members = 6
	won := make(chan bool, members)
	for range members {
		go func() {
			var ok bool
			err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) (err error) {
				ok, err = s.Letters().Remove(ctx, tx, group, head.Event.ID)
				return err
			})
			won <- ok && err == nil
		}()
	}
	n := 0
	for range members {
		if <-won {
			n++
		}
	}
	if n != 1 {
		t.Fatalf("one member must get a letter, or its effect happens twice: %d did", n)
	}
}

func groups(t *testing.T, h Harness) {
	s := h.Open(t)
	g := storetest.Need[deadletter.Grouper](t, s.Letters(), h.Lacks, "Grouper")
	declined := letter(t, "d", 4, deadletter.StateDead)
	declined.Cause = "declined"
	other := letter(t, "e", 5, deadletter.StateDead)
	other.Group = "shipping"
	park(t, s, letter(t, "a", 1, deadletter.StateDead), letter(t, "b", 3, deadletter.StateDead), declined, other,
		letter(t, "c", 2, deadletter.StateRetrying))
	got, err := g.Groups(t.Context())
	if err != nil {
		t.Fatalf("groups: %v", err)
	}
	found := map[string]bool{}
	for _, g := range got {
		found[fmt.Sprintf("%s %s %s %s %d %d-%d", g.Group, g.Topic, g.Cause, g.State, g.Count, g.First.Second(), g.Last.Second())] = true
	}
	storetest.Equal(t, "letters must be counted by group, topic, cause and state, with the first and last failure", found, map[string]bool{
		"payment " + storetest.Topic + " boom DEAD 2 1-3":     true,
		"payment " + storetest.Topic + " boom RETRYING 1 2-2": true,
		"payment " + storetest.Topic + " declined DEAD 1 4-4": true,
		"shipping " + storetest.Topic + " boom DEAD 1 5-5":    true,
	})
}

func entry(n int) deadletter.Entry {
	return deadletter.Entry{At: at(n), Operator: "ann", Action: deadletter.ActionReplay, Letter: fmt.Sprintf("payment:%d", n), Note: "why"}
}

func audit(t *testing.T, h Harness) {
	s := h.Open(t)
	a := storetest.Need[deadletter.Auditor](t, s.Letters(), h.Lacks, "Auditor")
	for _, n := range []int{3, 1, 2} { // Clocks may go back, the order of writing does not.
		storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return a.Audit(ctx, tx, entry(n)) })
	}
	got, err := a.Entries(t.Context(), 2)
	if err != nil || len(got) != 2 {
		t.Fatalf("entries must keep their limit of 2: %d, %v", len(got), err)
	}
	for i, n := range []int{2, 1} {
		storetest.SameTime(t, "an entry's time", got[i].At, at(n))
		got[i].At = at(n)
		storetest.Equal(t, "the newest entry must come first, and whole", got[i], entry(n))
	}
}

func auditRollsBack(t *testing.T, h Harness) {
	s := h.Open(t)
	a := storetest.Need[deadletter.Auditor](t, s.Letters(), h.Lacks, "Auditor")
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error { return a.Audit(ctx, tx, entry(1)) })
	got, err := a.Entries(t.Context(), 10)
	if err != nil || len(got) != 0 {
		t.Fatalf("what was not done must not be audited: %v, %v", got, err)
	}
}

func reopened(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s := h.Open(t)
	head, second := letter(t, "a", 1, deadletter.StateDead), letter(t, "a", 2, deadletter.StateWaiting)
	park(t, s, head, second)
	s = h.Reopen(t, s)
	same(t, one(t, s, head), head)
	same(t, one(t, s, second), second)
	park(t, s, letter(t, "a", 3, deadletter.StateWaiting))
	storetest.Equal(t, "letters must keep their order across a crash",
		positions(find(t, s, deadletter.Query{Group: group})), []string{"i1/1", "i1/2", "i1/3"})
}
