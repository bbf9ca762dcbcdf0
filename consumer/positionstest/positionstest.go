// Package positionstest is the conformance suite of consumer.Positions. Every store runs it.
package positionstest

import (
	"context"
	"errors"
	"testing"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	consumer.Provider
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
		{Name: "StartsAtZero", Test: startsAtZero},
		{Name: "StoredWithItsBatch", Test: storedWithItsBatch},
		{Name: "RollbackKeepsThePosition", Test: rollbackKeepsThePosition},
		{Name: "OldReaderIsFenced", Test: oldReaderIsFenced},
		{Name: "FencedBatchLeavesNothing", Test: fencedBatchLeavesNothing},
		{Name: "TakeDuringABatch", Test: takeDuringABatch},
		{Name: "PartitionsAndGroupsAreIndependent", Test: partitionsAndGroupsAreIndependent},
		{Name: "IncarnationsAndBackwards", Test: incarnationsAndBackwards},
		{Name: "Reopened", Test: reopened},
	})
}

func at(incarnation string, offset uint64) broker.Position {
	return broker.Position{Incarnation: incarnation, Offset: offset}
}

func take(t *testing.T, s Store, group, partition string) (broker.Position, int64) {
	t.Helper()
	p, fence, err := s.Positions().Take(t.Context(), group, partition)
	if err != nil {
		t.Fatalf("take %s: %v", partition, err)
	}
	return p, fence
}

func store(t *testing.T, s Store, group, partition string, fence int64, p broker.Position) error {
	t.Helper()
	return storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		return s.Positions().Store(ctx, tx, group, partition, fence, p)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("the reader that has the partition must be able to store its position: %v", err)
	}
}

func wantFenced(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, consumer.ErrFenced) {
		t.Fatalf("a reader whose partition was taken must be refused with ErrFenced: %v", err)
	}
}

func wantAt(t *testing.T, guarantee string, s Store, partition string, want broker.Position) int64 {
	t.Helper()
	got, fence := take(t, s, "g", partition)
	if got != want {
		t.Fatalf("%s: position %s, want %s", guarantee, got, want)
	}
	return fence
}

func startsAtZero(t *testing.T, h Harness) {
	s := h.Open(t)
	wantAt(t, "a partition that nobody has read", s, "p", broker.Position{})
	all, err := s.Positions().All(t.Context(), "g")
	if err != nil || all["p"] != (broker.Position{}) {
		t.Fatalf("a partition that nobody has read must have the zero position: %v, %v", all, err)
	}
}

func storedWithItsBatch(t *testing.T, h Harness) {
	s := h.Open(t)
	_, fence := take(t, s, "g", "p")
	must(t, store(t, s, "g", "p", fence, at("i1", 5)))
	must(t, store(t, s, "g", "p", fence, at("i1", 9)))
	all, err := s.Positions().All(t.Context(), "g")
	if err != nil {
		t.Fatalf("all: %v", err)
	}
	storetest.Equal(t, "a committed position must be there", all, map[string]broker.Position{"p": at("i1", 9)})
	wantAt(t, "the next reader must go on behind the last batch", s, "p", at("i1", 9))
}

func rollbackKeepsThePosition(t *testing.T, h Harness) {
	s := h.Open(t)
	_, fence := take(t, s, "g", "p")
	must(t, store(t, s, "g", "p", fence, at("i1", 5)))
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error {
		return s.Positions().Store(ctx, tx, "g", "p", fence, at("i1", 9))
	})
	wantAt(t, "a position whose batch was rolled back must not move", s, "p", at("i1", 5))
}

func oldReaderIsFenced(t *testing.T, h Harness) {
	s := h.Open(t)
	_, old := take(t, s, "g", "p")
	must(t, store(t, s, "g", "p", old, at("i1", 5)))
	_, fence := take(t, s, "g", "p")
	if fence <= old {
		t.Fatalf("the fence must rise with each reader: %d after %d", fence, old)
	}
	wantFenced(t, store(t, s, "g", "p", old, at("i1", 6)))
	must(t, store(t, s, "g", "p", fence, at("i1", 7)))
	wantFenced(t, store(t, s, "g", "p", old, at("i1", 8)))
	wantFenced(t, store(t, s, "g", "never taken", fence, at("i1", 8)))
	wantAt(t, "a fenced reader must not move the position", s, "p", at("i1", 7))
}

func fencedBatchLeavesNothing(t *testing.T, h Harness) {
	s := h.Open(t)
	_, old := take(t, s, "g", "p")
	_, other := take(t, s, "g", "q")
	take(t, s, "g", "p")
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := s.Positions().Store(ctx, tx, "g", "q", other, at("i1", 3)); err != nil {
			return err
		}
		return s.Positions().Store(ctx, tx, "g", "p", old, at("i1", 3))
	})
	wantFenced(t, err)
	wantAt(t, "a batch of a fenced reader must leave nothing", s, "q", broker.Position{})
}

// takeDuringABatch takes a partition while a batch that has stored its position is still open: either the
// taker waits and sees it, or the batch fails. A position that is committed behind the taker's back would
// be of a batch that the taker handles again.
func takeDuringABatch(t *testing.T, h Harness) {
	s := h.Open(t)
	_, old := take(t, s, "g", "p")
	type taken struct {
		p   broker.Position
		err error
	}
	result := make(chan taken, 1)
	batch := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := s.Positions().Store(ctx, tx, "g", "p", old, at("i1", 4)); err != nil {
			return err
		}
		go func() {
			p, _, err := s.Positions().Take(t.Context(), "g", "p")
			result <- taken{p, err}
		}()
		return nil
	})
	r := <-result
	if r.err != nil {
		t.Fatalf("take: %v", r.err)
	}
	switch {
	case batch == nil && r.p != at("i1", 4):
		t.Fatalf("a taker must see the position of every batch that is committed, it saw %s", r.p)
	case batch != nil && r.p != (broker.Position{}):
		t.Fatalf("a taker must not see the position of a batch that failed (%v), it saw %s", batch, r.p)
	}
}

func partitionsAndGroupsAreIndependent(t *testing.T, h Harness) {
	s := h.Open(t)
	_, fence := take(t, s, "one", "p")
	_, q := take(t, s, "one", "q")
	_, two := take(t, s, "two", "p")
	must(t, store(t, s, "one", "p", fence, at("i1", 1)))
	must(t, store(t, s, "one", "q", q, at("i1", 2)))
	must(t, store(t, s, "two", "p", two, at("i1", 3)))
	for group, want := range map[string]map[string]broker.Position{
		"one":   {"p": at("i1", 1), "q": at("i1", 2)},
		"two":   {"p": at("i1", 3)},
		"three": {},
	} {
		all, err := s.Positions().All(t.Context(), group)
		if err != nil {
			t.Fatalf("all of %s: %v", group, err)
		}
		if len(all) == 0 && len(want) == 0 {
			continue
		}
		storetest.Equal(t, "groups and partitions must not touch one another", all, want)
	}
}

func incarnationsAndBackwards(t *testing.T, h Harness) {
	s := h.Open(t)
	_, fence := take(t, s, "g", "p")
	must(t, store(t, s, "g", "p", fence, at("old", 900)))
	must(t, store(t, s, "g", "p", fence, at("new", 2)))
	wantAt(t, "a position of a new life of the log may be lower", s, "p", at("new", 2))
}

func reopened(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s := h.Open(t)
	_, old := take(t, s, "g", "p")
	must(t, store(t, s, "g", "p", old, at("i1", 5)))
	s = h.Reopen(t, s)
	if fence := wantAt(t, "a position must survive a crash", s, "p", at("i1", 5)); fence <= old {
		t.Fatalf("the fence must rise also across a crash: %d after %d", fence, old)
	}
	wantFenced(t, store(t, s, "g", "p", old, at("i1", 6)))
}
