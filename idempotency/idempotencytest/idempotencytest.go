// Package idempotencytest is the conformance suite of idempotency.Store. Every store runs it.
package idempotencytest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	idempotency.Provider
}

// Harness is one store under test.
type Harness struct {
	// Open returns an empty store and closes it when the test ends. Required.
	Open func(t *testing.T) Store
	// Reopen gives up a store as a crash does and opens its data again.
	Reopen func(t *testing.T, s Store) Store
	// Around runs each test, for stores that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
	// Lacks names what the store cannot do, which is then skipped and printed: Reopen.
	Lacks []string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	storetest.Run(t, h, h.Around, []storetest.Case[Harness]{
		{Name: "ComesBackWhole", Test: comesBackWhole},
		{Name: "Bare", Test: bare},
		{Name: "TheFirstAnswerStays", Test: theFirstAnswerStays},
		{Name: "TwiceInOneTransaction", Test: twiceInOne},
		{Name: "ConcurrentSave", Test: concurrentSave},
		{Name: "RollbackKeepsNothing", Test: rollbackKeepsNothing},
		{Name: "ScopesAreSeparate", Test: scopesAreSeparate},
		{Name: "ForgetsTheOldOnly", Test: forgetsTheOldOnly},
		{Name: "Reopened", Test: reopened},
	})
}

func answer(scope, key string) idempotency.Answer {
	return idempotency.Answer{
		Scope: scope, Key: key, Fingerprint: [32]byte{0, 1, 0xff}, Status: 201,
		Header: map[string]string{"Location": "/orders/" + key, "Retry-After": "3"},
		Body:   []byte(`{"id":"` + key + `"}`), SavedAt: storetest.Now(),
	}
}

func save(t *testing.T, s Store, a idempotency.Answer) error {
	t.Helper()
	return storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error { return s.Answers().Save(ctx, tx, a) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("a first answer must be kept: %v", err)
	}
}

func lookup(t *testing.T, s Store, scope, key string) (idempotency.Answer, bool) {
	t.Helper()
	a, ok, err := s.Answers().Lookup(t.Context(), scope, key)
	if err != nil {
		t.Fatalf("lookup: %v", err)
	}
	return a, ok
}

func wantExists(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, idempotency.ErrExists) {
		t.Fatalf("a key that is taken must be refused with ErrExists, or its command runs twice: %v", err)
	}
}

func wantAnswer(t *testing.T, s Store, want idempotency.Answer) {
	t.Helper()
	got, ok := lookup(t, s, want.Scope, want.Key)
	if !ok {
		t.Fatalf("the answer of %s %s must be kept", want.Scope, want.Key)
	}
	storetest.SameTime(t, "the time of saving", got.SavedAt, want.SavedAt)
	got.SavedAt = want.SavedAt
	storetest.Equal(t, "an answer must come back as it was saved", got, want)
}

func comesBackWhole(t *testing.T, h Harness) {
	s := h.Open(t)
	want := answer("ann POST /orders", "key-1")
	must(t, save(t, s, want))
	wantAnswer(t, s, want)
	if _, ok := lookup(t, s, want.Scope, "key-2"); ok {
		t.Fatal("a key that was never used must have no answer")
	}
}

func bare(t *testing.T, h Harness) {
	s := h.Open(t)
	must(t, save(t, s, idempotency.Answer{Scope: "s", Key: "k", Status: 204, SavedAt: storetest.Now()}))
	got, ok := lookup(t, s, "s", "k")
	if !ok || got.Status != 204 || len(got.Body) != 0 || len(got.Header) != 0 {
		t.Fatalf("an answer without header and body must stay one: %t %+v", ok, got)
	}
}

func theFirstAnswerStays(t *testing.T, h Harness) {
	s := h.Open(t)
	first := answer("s", "k")
	must(t, save(t, s, first))
	again := answer("s", "k")
	again.Status, again.Fingerprint = 500, [32]byte{9}
	wantExists(t, save(t, s, again))
	wantAnswer(t, s, first)
}

func twiceInOne(t *testing.T, h Harness) {
	s := h.Open(t)
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := s.Answers().Save(ctx, tx, answer("s", "k")); err != nil {
			return err
		}
		return s.Answers().Save(ctx, tx, answer("s", "k"))
	})
	wantExists(t, err)
	if _, ok := lookup(t, s, "s", "k"); ok {
		t.Fatal("a transaction that was refused must keep no answer")
	}
}

func concurrentSave(t *testing.T, h Harness) {
	s := h.Open(t)
	const racers = 6
	errs := make(chan error, racers)
	for range racers {
		go func() {
			errs <- storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
				return s.Answers().Save(ctx, tx, answer("s", "k"))
			})
		}()
	}
	won := 0
	for range racers {
		if err := <-errs; err == nil {
			won++
		} else {
			wantExists(t, err)
		}
	}
	if won != 1 {
		t.Fatalf("one of the racers on a key must win: %d did", won)
	}
}

func rollbackKeepsNothing(t *testing.T, h Harness) {
	s := h.Open(t)
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error { return s.Answers().Save(ctx, tx, answer("s", "k")) })
	if _, ok := lookup(t, s, "s", "k"); ok {
		t.Fatal("an answer whose effects were rolled back must not be kept: the command would never run")
	}
	must(t, save(t, s, answer("s", "k")))
}

func scopesAreSeparate(t *testing.T, h Harness) {
	s := h.Open(t)
	// Scope and key must not run into one another either.
	all := []idempotency.Answer{answer("ann", "k"), answer("bob", "k"), answer("a", "nnk"), answer("ann ", "k"), answer("ann", "K")}
	for i := range all {
		all[i].Status = 200 + i
		must(t, save(t, s, all[i]))
	}
	for _, want := range all {
		wantAnswer(t, s, want)
	}
}

func forgetsTheOldOnly(t *testing.T, h Harness) {
	s := h.Open(t)
	old, young := storetest.Now().Add(-48*time.Hour), storetest.Now()
	for n := range 3 {
		a := answer("s", fmt.Sprintf("old-%d", n))
		a.SavedAt = old
		must(t, save(t, s, a))
	}
	kept := answer("s", "young")
	kept.SavedAt = young
	must(t, save(t, s, kept))
	before := young.Add(-24 * time.Hour)
	for _, want := range []int{2, 1, 0} {
		n, err := s.Answers().Forget(t.Context(), before, 2)
		if err != nil || n != want {
			t.Fatalf("forget must delete what is older, up to its limit of 2: %d, want %d, %v", n, want, err)
		}
	}
	wantAnswer(t, s, kept)
	if _, ok := lookup(t, s, "s", "old-0"); ok {
		t.Fatal("an answer older than the retention must be gone")
	}
}

func reopened(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s := h.Open(t)
	want := answer("s", "k")
	must(t, save(t, s, want))
	s = h.Reopen(t, s)
	wantAnswer(t, s, want)
	wantExists(t, save(t, s, answer("s", "k")))
}
