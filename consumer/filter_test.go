package consumer_test

import (
	"context"
	"errors"
	"iter"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
)

// fakeFilter is a filter in memory, which can be down and can be flushed.
type fakeFilter struct {
	mu     sync.Mutex
	known  map[string]bool
	scopes map[string]bool
	down   error
	asked  int
	hits   int
	taught int
}

func newFakeFilter() *fakeFilter {
	return &fakeFilter{known: map[string]bool{}, scopes: map[string]bool{}}
}

func (f *fakeFilter) Seen(_ context.Context, scope string, ids []event.ID) ([]bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	f.scopes[scope] = true
	if f.down != nil {
		return nil, f.down
	}
	seen := make([]bool, len(ids))
	for i, id := range ids {
		if seen[i] = f.known[scope+id.String()]; seen[i] {
			f.hits++
		}
	}
	return seen, nil
}

func (f *fakeFilter) Remember(_ context.Context, scope string, ids []event.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return f.down
	}
	for _, id := range ids {
		f.known[scope+id.String()] = true
		f.taught++
	}
	return nil
}

func (f *fakeFilter) locked(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *fakeFilter) count(n *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *n
}

func TestFilterSparesTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, filter := newRig(t), newFakeFilter()
		store := &faulty{Runner: r.store}
		r.run = store
		r.start(func(cfg *consumer.Config) { cfg.Filter = filter })
		e := []event.Envelope{r.event("a"), r.event("a"), r.event("b")}
		r.publish(e...)
		pass(100 * time.Millisecond)
		runs := store.count()
		r.publish(e...) // As a relay does after a crash.
		pass(100 * time.Millisecond)
		if n := store.count(); n != runs {
			t.Errorf("%d transactions for events that the filter knows", n-runs)
		}
		if n := r.count(&r.dups); n != 3 {
			t.Errorf("%d duplicates were reported, want 3", n)
		}
		r.publish(append(e, r.event("b"))...)
		pass(5 * time.Second) // And the position moves past them.
		r.wantDone("a", 2)
		r.wantDone("b", 2)
		all, err := r.store.Positions().All(t.Context(), group)
		if err != nil || sumOffsets(maps.Values(all)) != 10 {
			t.Errorf("positions %v (%v), want 10 messages passed", all, err)
		}
	})
}

// TestFilterIsNeverTheTruth has one that forgets, fails and comes back: no effect is missing or repeated.
func TestFilterIsNeverTheTruth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, filter := newRig(t), newFakeFilter()
		r.start(func(cfg *consumer.Config) { cfg.Filter = filter })
		var all []event.Envelope
		round := func() {
			t.Helper()
			fresh := []event.Envelope{r.event("a"), r.event("b")}
			r.publish(append(append([]event.Envelope{}, all...), fresh...)...)
			all = append(all, fresh...)
			pass(100 * time.Millisecond)
		}
		round()
		filter.locked(func() { clear(filter.known) })
		round()
		filter.locked(func() { filter.down = errors.New("connection refused") })
		asked := filter.count(&filter.asked)
		for range 5 {
			round()
		}
		if n := filter.count(&filter.asked) - asked; n > 2 {
			t.Errorf("a filter that is down was asked %d times within its rest", n)
		}
		filter.locked(func() { filter.down = nil })
		pass(2 * time.Second)
		round()
		r.wantDone("a", 8)
		r.wantDone("b", 8)
		if filter.count(&filter.hits) == 0 {
			t.Error("the filter was never of use")
		}
	})
}

// TestFilterLearnsAfterTheCommit has commits fail: what is not in the database must not be known, and what
// was known before is not relied on, as the store may come back in an earlier state.
func TestFilterLearnsAfterTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, filter := newRig(t), newFakeFilter()
		store := &faulty{Runner: r.store}
		r.run = store
		r.start(func(cfg *consumer.Config) { cfg.Filter = filter })
		r.add(1, "a")
		pass(100 * time.Millisecond)
		store.set(nil, func() error { return errors.New("connection lost at commit") })
		taught := filter.count(&filter.taught)
		r.add(1, "a")
		pass(150 * time.Millisecond)
		if n := filter.count(&filter.taught); n != taught {
			t.Fatalf("the filter learnt %d ids of transactions that did not commit", n-taught)
		}
		store.set(nil, nil)
		pass(10 * time.Second)
		r.wantDone("a", 2)
		if n := len(filter.scopes); n < 2 {
			t.Errorf("%d scope: the filter was relied on beyond a failure of the store", n)
		}
	})
}

func TestFilterNeedsAnInbox(t *testing.T) {
	r := newRig(t)
	cfg := r.config()
	cfg.Mode, cfg.Filter = consumer.AtLeastOnce, newFakeFilter()
	if _, err := consumer.New(r.run, r.store, r.broker, cfg); err == nil {
		t.Error("a filter without an inbox was taken")
	}
}

func sumOffsets(positions iter.Seq[broker.Position]) (sum uint64) {
	for p := range positions {
		sum += p.Offset
	}
	return sum
}
