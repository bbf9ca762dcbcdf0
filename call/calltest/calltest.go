// Package calltest is the conformance suite of call.Store. Every store runs it.
package calltest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	call.Provider
}

// Harness is one store under test.
type Harness struct {
	// Open returns an empty store and closes it when the test ends. Required.
	Open func(t *testing.T) Store
	// Reopen gives up a store as a crash does and opens its data again.
	Reopen func(t *testing.T, s Store) Store
	// Around runs each test, for stores that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
	// Lacks names what the store cannot do, which is then skipped and printed: Reopen, Bell, Observer.
	Lacks []string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	storetest.Run(t, h, h.Around, []storetest.Case[Harness]{
		{Name: "ComesBackWhole", Test: comesBackWhole},
		{Name: "PreparedOnce", Test: preparedOnce},
		{Name: "RollbackPreparesNothing", Test: rollbackPreparesNothing},
		{Name: "ClaimCountsAttempts", Test: claimCountsAttempts},
		{Name: "ClaimedIsNotGivenAgain", Test: claimedIsNotGivenAgain},
		{Name: "OldestFirstUpToLimit", Test: oldestFirstUpToLimit},
		{Name: "DefinitionsAreIndependent", Test: definitionsAreIndependent},
		{Name: "FinishDeletes", Test: finishDeletes},
		{Name: "FinishRollsBack", Test: finishRollsBack},
		{Name: "LostLeaseCannotFinish", Test: lostLeaseCannotFinish},
		{Name: "LostLeaseCannotDefer", Test: lostLeaseCannotDefer},
		{Name: "DeferGivesBack", Test: deferGivesBack},
		{Name: "ConcurrentClaim", Test: concurrentClaim},
		{Name: "Next", Test: next},
		{Name: "BellRings", Test: bellRings},
		{Name: "Pending", Test: pending},
		{Name: "Reopened", Test: reopened},
	})
}

const name = "authorize"

const lease = time.Minute

// base is when the suite's calls are due.
func base() time.Time { return storetest.Now().Add(-time.Hour) }

func work(key string, due time.Time) call.Work {
	return call.Work{Call: name, Key: key, Request: []byte(`{"key":"` + key + `"}`), Due: due, CreatedAt: due}
}

func prepare(t *testing.T, s Store, works ...call.Work) {
	t.Helper()
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		for _, w := range works {
			if err := s.Calls().Prepare(ctx, tx, w); err != nil {
				return err
			}
		}
		return nil
	})
}

func claim(t *testing.T, s Store, name string, now time.Time, limit int) []call.Work {
	t.Helper()
	works, err := s.Calls().Claim(t.Context(), name, now, now.Add(lease), limit)
	if err != nil {
		t.Fatalf("claim: %v", err)
	}
	return works
}

func claimOne(t *testing.T, s Store, now time.Time) call.Work {
	t.Helper()
	works := claim(t, s, name, now, 10)
	if len(works) != 1 {
		t.Fatalf("one call must be due: %d", len(works))
	}
	return works[0]
}

func finish(t *testing.T, s Store, w call.Work) bool {
	t.Helper()
	var ok bool
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
		ok, err = s.Calls().Finish(ctx, tx, w)
		return err
	})
	return ok
}

func keys(works []call.Work) []string {
	out := []string{}
	for _, w := range works {
		out = append(out, w.Key)
	}
	return out
}

func comesBackWhole(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	want := work("order-42#authorize", due)
	want.Cause = event.Cause{TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", CorrelationID: "c", CausationID: event.NewID(due)}
	want.CreatedAt = due.Add(-time.Second)
	prepare(t, s, want)
	got := claimOne(t, s, due)
	storetest.SameTime(t, "the time of preparing", got.CreatedAt, want.CreatedAt)
	got.CreatedAt, got.Due, got.Attempts, got.Fence = want.CreatedAt, want.Due, 0, 0
	storetest.Equal(t, "a call must come back as it was prepared", got, want)
}

func preparedOnce(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	first := work("a", due)
	again := work("a", due.Add(time.Hour))
	again.Request = []byte(`{"other":true}`)
	prepare(t, s, first, again)
	prepare(t, s, again)
	w := claimOne(t, s, due)
	if string(w.Request) != string(first.Request) {
		t.Fatalf("a call that is prepared again must stay as it is: %s", w.Request)
	}
	prepare(t, s, again)
	if !finish(t, s, w) {
		t.Fatal("preparing a call again must not end its lease")
	}
	if n := len(claim(t, s, name, due.Add(24*time.Hour), 10)); n != 0 {
		t.Fatalf("a call that is prepared twice must be made once: %d left", n)
	}
}

func rollbackPreparesNothing(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error { return s.Calls().Prepare(ctx, tx, work("a", due)) })
	if n := len(claim(t, s, name, due, 10)); n != 0 {
		t.Fatalf("a call whose hop was rolled back must never be made: %d claimed", n)
	}
}

func claimCountsAttempts(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	prepare(t, s, work("a", due))
	for n := 1; n <= 3; n++ {
		w := claimOne(t, s, due)
		if w.Attempts != n || w.Fence != int64(n) {
			t.Fatalf("a claim must count its attempt, from 1: attempt %d, fence %d at claim %d", w.Attempts, w.Fence, n)
		}
		due = due.Add(lease)
	}
}

func claimedIsNotGivenAgain(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	prepare(t, s, work("a", due))
	if n := len(claim(t, s, name, due.Add(-time.Millisecond), 10)); n != 0 {
		t.Fatalf("a call must not be made before it is due: %d claimed", n)
	}
	claimOne(t, s, due)
	if n := len(claim(t, s, name, due.Add(lease-time.Millisecond), 10)); n != 0 {
		t.Fatalf("a call must not be given to a second worker while its lease runs: %d claimed", n)
	}
	claimOne(t, s, due.Add(lease)) // Its worker died: it is made again.
}

func oldestFirstUpToLimit(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	prepare(t, s, work("c", due.Add(3*time.Second)), work("a", due.Add(time.Second)), work("b", due.Add(2*time.Second)))
	storetest.Equal(t, "a claim must give the calls that are due longest, up to its limit",
		keys(claim(t, s, name, due.Add(time.Minute), 2)), []string{"a", "b"})
	storetest.Equal(t, "what the limit left must be given next", keys(claim(t, s, name, due.Add(time.Minute), 2)), []string{"c"})
}

func definitionsAreIndependent(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	other := work("a", due)
	other.Call = "capture"
	prepare(t, s, work("a", due), other)
	if n := len(claim(t, s, name, due, 10)); n != 1 {
		t.Fatalf("a worker must be given its own definition's calls: %d", n)
	}
	works := claim(t, s, "capture", due, 10)
	if len(works) != 1 || works[0].Call != "capture" || works[0].Attempts != 1 {
		t.Fatalf("the same key of two definitions must be two calls: %+v", works)
	}
}

func finishDeletes(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	prepare(t, s, work("a", due))
	w := claimOne(t, s, due)
	if !finish(t, s, w) {
		t.Fatal("a worker that holds the lease must be able to record")
	}
	if finish(t, s, w) {
		t.Fatal("an answer must be recorded once")
	}
	if n := len(claim(t, s, name, due.Add(time.Hour), 10)); n != 0 {
		t.Fatalf("a call that is answered must not be made again: %d", n)
	}
}

func finishRollsBack(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	prepare(t, s, work("a", due))
	w := claimOne(t, s, due)
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error {
		_, err := s.Calls().Finish(ctx, tx, w)
		return err
	})
	if !finish(t, s, w) {
		t.Fatal("a call whose record was rolled back must still be there, and the lease still hold")
	}
}

func lostLeaseCannotFinish(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	prepare(t, s, work("a", due))
	slow := claimOne(t, s, due)
	quick := claimOne(t, s, due.Add(lease))
	if finish(t, s, slow) {
		t.Fatal("a worker that lost its lease must not record: the answer would be recorded twice")
	}
	if !finish(t, s, quick) {
		t.Fatal("the worker that has the lease must be able to record")
	}
}

func lostLeaseCannotDefer(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	prepare(t, s, work("a", due))
	slow := claimOne(t, s, due)
	quick := claimOne(t, s, due.Add(lease))
	if err := s.Calls().Defer(t.Context(), slow, due, "late"); err != nil {
		t.Logf("defer by a worker that lost its lease: %v", err) // An error or nothing: both are fine.
	}
	if n := len(claim(t, s, name, due.Add(lease+time.Second), 10)); n != 0 {
		t.Fatal("a worker that lost its lease must not give the call back over another's head")
	}
	if !finish(t, s, quick) {
		t.Fatal("the worker that has the lease must be able to record")
	}
}

func deferGivesBack(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	prepare(t, s, work("a", due))
	w := claimOne(t, s, due)
	later := due.Add(10 * time.Second)
	if err := s.Calls().Defer(t.Context(), w, later, "connection refused"); err != nil {
		t.Fatalf("defer: %v", err)
	}
	if finish(t, s, w) {
		t.Fatal("a worker that gave a call back must not record it")
	}
	if n := len(claim(t, s, name, later.Add(-time.Millisecond), 10)); n != 0 {
		t.Fatal("a deferred call must not be made before its time")
	}
	again := claimOne(t, s, later)
	if again.Attempts != 2 || again.LastError != "connection refused" {
		t.Fatalf("a deferred call must keep its attempts and its last error: %d, %q", again.Attempts, again.LastError)
	}
}

func concurrentClaim(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	const calls, workers = 40, 5
	works := make([]call.Work, calls)
	for n := range works {
		works[n] = work(fmt.Sprint(n), due)
	}
	prepare(t, s, works...)
	type result struct {
		works []call.Work
		err   error
	}
	results := make(chan result, workers)
	for range workers {
		go func() {
			var all []call.Work
			for {
				got, err := s.Calls().Claim(t.Context(), name, due, due.Add(lease), 3)
				all = append(all, got...)
				if err != nil || len(got) == 0 {
					results <- result{all, err}
					return
				}
			}
		}()
	}
	claimed := map[string]int{}
	for range workers {
		r := <-results
		if r.err != nil {
			t.Fatalf("claim: %v", r.err)
		}
		for _, w := range r.works {
			claimed[w.Key]++
		}
	}
	for _, w := range works {
		if claimed[w.Key] != 1 {
			t.Fatalf("a call must be in one worker's hands: %s was given %d times", w.Key, claimed[w.Key])
		}
	}
}

func next(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	check := func(what string, want time.Time) {
		t.Helper()
		at, ok, err := s.Calls().Next(t.Context(), name)
		if err != nil || ok != !want.IsZero() {
			t.Fatalf("%s: next must tell whether there is a call: %t, %v", what, ok, err)
		}
		if ok {
			storetest.SameTime(t, what, at, want)
		}
	}
	check("no call", time.Time{})
	other := work("x", due.Add(-time.Hour))
	other.Call = "capture"
	prepare(t, s, work("b", due.Add(time.Second)), work("a", due), other)
	check("the earliest call of the definition", due)
	w := claimOne(t, s, due)
	check("the earliest call that is free", due.Add(time.Second))
	finish(t, s, w)
	finish(t, s, claimOne(t, s, due.Add(time.Second)))
	check("no call of the definition", time.Time{})
}

func bellRings(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	bell := storetest.Need[call.Bell](t, s.Calls(), h.Lacks, "Bell")
	ring, stop := bell.Listen()
	defer stop()
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error { return s.Calls().Prepare(ctx, tx, work("a", due)) })
	storetest.Silent(t, ring, "a transaction that was rolled back")
	prepare(t, s, work("a", due))
	storetest.Rings(t, ring, "a commit that prepared a call")
	if n := len(claim(t, s, name, due, 10)); n != 1 {
		t.Fatalf("what rang the bell must be there to be claimed: %d", n)
	}
}

func pending(t *testing.T, h Harness) {
	s, due := h.Open(t), base()
	o := storetest.Need[call.Observer](t, s.Calls(), h.Lacks, "Observer")
	other := work("x", due)
	other.Call = "capture"
	prepare(t, s, work("b", due.Add(time.Second)), work("a", due), other)
	finish(t, s, claim(t, s, "capture", due, 1)[0])
	claimOne(t, s, due)
	got, err := o.Pending(t.Context())
	if err != nil || len(got) != 1 {
		t.Fatalf("pending must have each definition that has calls: %v, %v", got, err)
	}
	storetest.SameTime(t, "pending must tell since when", got[0].Oldest, due)
	got[0].Oldest = due
	storetest.Equal(t, "pending must count calls, claimed ones too", got[0], call.Pending{Call: name, Count: 2, Oldest: due, Attempts: 1})
}

func reopened(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s, due := h.Open(t), base()
	prepare(t, s, work("a", due), work("b", due))
	works := claim(t, s, name, due, 2)
	if len(works) != 2 || !finish(t, s, works[0]) {
		t.Fatalf("claim and finish: %d claimed", len(works))
	}
	s = h.Reopen(t, s)
	again := claimOne(t, s, due.Add(24*time.Hour))
	if again.Key != works[1].Key || again.Attempts != 2 {
		t.Fatalf("a call in a dead worker's hands must be made again, and counted: %+v", again)
	}
	if finish(t, s, works[1]) {
		t.Fatal("a worker from before the crash must not record")
	}
	if !finish(t, s, again) {
		t.Fatal("the worker that has the lease must be able to record")
	}
}
