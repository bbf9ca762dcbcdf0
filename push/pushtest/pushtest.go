// Package pushtest is the conformance suite of push.Log. Every store runs it.
package pushtest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/push"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	push.Provider
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
		{Name: "OrderAndPages", Test: orderAndPages},
		{Name: "FeedsAreSeparate", Test: feedsAreSeparate},
		{Name: "NamedTwiceIsShownOnce", Test: namedTwice},
		{Name: "RolledBackIsNeverShown", Test: rolledBack},
		{Name: "ConcurrentAppend", Test: concurrentAppend},
		{Name: "TrimKeepsTheNewest", Test: trimKeepsTheNewest},
		{Name: "TrimOfEverything", Test: trimOfEverything},
		{Name: "Epochs", Test: epochs},
		{Name: "BellRings", Test: bellRings},
		{Name: "Reopened", Test: reopened},
	})
}

func frame(n int, feeds ...string) push.Frame {
	return push.Frame{Feeds: feeds, Event: "ThingHappened", Data: fmt.Appendf(nil, `{"n":%d}`, n)}
}

func add(t *testing.T, s Store, frames ...push.Frame) {
	t.Helper()
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return s.Feed().Append(ctx, tx, frames...) })
}

func after(t *testing.T, s Store, feed string, position int64, limit int) []push.Frame {
	t.Helper()
	frames, err := s.Feed().After(t.Context(), feed, position, limit)
	if err != nil {
		t.Fatalf("after %d: %v", position, err)
	}
	return frames
}

// read reads a whole feed in pages of two.
func read(t *testing.T, s Store, feed string) []string {
	t.Helper()
	data, position := []string{}, int64(0)
	for {
		page := after(t, s, feed, position, 2)
		if len(page) == 0 {
			return data
		}
		if len(page) > 2 {
			t.Fatalf("a page must keep its limit of 2: %d", len(page))
		}
		for _, f := range page {
			if f.Position <= position {
				t.Fatalf("positions must rise: %d after %d", f.Position, position)
			}
			position = f.Position
			data = append(data, string(f.Data))
		}
	}
}

func bounds(t *testing.T, s Store) (epoch string, first, last int64) {
	t.Helper()
	epoch, first, last, err := s.Feed().Bounds(t.Context())
	if err != nil {
		t.Fatalf("bounds: %v", err)
	}
	return epoch, first, last
}

func comesBackWhole(t *testing.T, h Harness) {
	s := h.Open(t)
	want := push.Frame{Feeds: []string{"order/42", "orders"}, Event: "OrderPaid", Data: []byte(`{"ü":"\u2028"}`)}
	add(t, s, want)
	got := after(t, s, "order/42", 0, 10)
	if len(got) != 1 {
		t.Fatalf("a frame must be in its feed: %d", len(got))
	}
	want.Position = got[0].Position
	slices.Sort(got[0].Feeds)
	storetest.Equal(t, "a frame must come back as it was appended", got[0], want)
	if want.Position < 1 {
		t.Fatalf("positions must start at 1: %d", want.Position)
	}
}

func orderAndPages(t *testing.T, h Harness) {
	s := h.Open(t)
	add(t, s, frame(1, "a"), frame(2, "b"), frame(3, "a"))
	add(t, s, frame(4, "a"))
	add(t, s, frame(5, "b"))
	storetest.Equal(t, "frames must come in the order of appending, and the feed without a name must show all",
		read(t, s, ""), []string{`{"n":1}`, `{"n":2}`, `{"n":3}`, `{"n":4}`, `{"n":5}`})
	_, first, last := bounds(t, s)
	all := after(t, s, "", 0, 100)
	if first != all[0].Position || last != all[4].Position {
		t.Fatalf("bounds must be the first and last position: %d-%d", first, last)
	}
	resumed := after(t, s, "", all[2].Position, 100)
	if len(resumed) != 2 || resumed[0].Position != all[3].Position {
		t.Fatalf("a reader that resumes must miss nothing and get nothing twice: %+v", resumed)
	}
	if n := len(after(t, s, "", last, 100)); n != 0 {
		t.Fatalf("nothing comes after the last frame: %d", n)
	}
}

func feedsAreSeparate(t *testing.T, h Harness) {
	s := h.Open(t)
	add(t, s, frame(1, "order/1"), frame(2, "order/12"), frame(3, "order/1", "orders"), frame(4))
	storetest.Equal(t, "a feed must show its frames and no other's", read(t, s, "order/1"), []string{`{"n":1}`, `{"n":3}`})
	storetest.Equal(t, "a feed must show its frames and no other's", read(t, s, "order/12"), []string{`{"n":2}`})
	storetest.Equal(t, "a frame of several feeds must be in each", read(t, s, "orders"), []string{`{"n":3}`})
	storetest.Equal(t, "a feed that has no frames must be empty", read(t, s, "order/"), []string{})
	if n := len(read(t, s, "")); n != 4 {
		t.Fatalf("the feed without a name must show all, frames of no feed too: %d of 4", n)
	}
}

func namedTwice(t *testing.T, h Harness) {
	s := h.Open(t)
	add(t, s, frame(1, "a", "b", "a"), frame(2, "a"))
	storetest.Equal(t, "a frame that names a feed twice must be shown once", read(t, s, "a"), []string{`{"n":1}`, `{"n":2}`})
}

func rolledBack(t *testing.T, h Harness) {
	s := h.Open(t)
	add(t, s, frame(1, "a"))
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error { return s.Feed().Append(ctx, tx, frame(2, "a", "new")) })
	add(t, s, frame(3, "a"))
	storetest.Equal(t, "what was rolled back must never be shown", read(t, s, "a"), []string{`{"n":1}`, `{"n":3}`})
	storetest.Equal(t, "what was rolled back must never be shown", read(t, s, "new"), []string{})
}

func concurrentAppend(t *testing.T, h Harness) {
	s := h.Open(t)
	const writers, each = 6, 15
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			var err error
			for n := 0; n < each && err == nil; n++ {
				err = storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
					return s.Feed().Append(ctx, tx, frame(n, fmt.Sprint(w)))
				})
			}
			errs <- err
		}()
	}
	// A reader that follows must not be overtaken by a frame that shows up behind its position.
	var followed []int64
	storetest.Eventually(t, "all frames are read", func() bool {
		from := int64(0)
		if n := len(followed); n > 0 {
			from = followed[n-1]
		}
		for _, f := range after(t, s, "", from, 50) {
			followed = append(followed, f.Position)
		}
		return len(followed) >= writers*each
	})
	for range writers {
		if err := <-errs; err != nil {
			t.Fatalf("append: %v", err)
		}
	}
	for w := range writers {
		got := read(t, s, fmt.Sprint(w))
		for n := range each {
			if want := fmt.Sprintf(`{"n":%d}`, n); len(got) != each || got[n] != want {
				t.Fatalf("a writer's frames must keep their order: %v", got)
			}
		}
	}
}

func trimKeepsTheNewest(t *testing.T, h Harness) {
	s := h.Open(t)
	for n := 1; n <= 7; n++ {
		add(t, s, frame(n, "a"))
	}
	all := after(t, s, "", 0, 10)
	for _, want := range []int{3, 2, 0} {
		n, err := s.Feed().Trim(t.Context(), 2, 3)
		if err != nil || n != want {
			t.Fatalf("trim must delete what is older than the newest 2, up to its limit of 3: %d, want %d, %v", n, want, err)
		}
	}
	storetest.Equal(t, "trim must keep the newest frames in every feed", read(t, s, "a"), []string{`{"n":6}`, `{"n":7}`})
	storetest.Equal(t, "trim must keep the newest frames", read(t, s, ""), []string{`{"n":6}`, `{"n":7}`})
	_, first, last := bounds(t, s)
	if first != all[5].Position || last != all[6].Position {
		t.Fatalf("bounds must tell a resuming browser what is gone: %d-%d, want %d-%d", first, last, all[5].Position, all[6].Position)
	}
}

func trimOfEverything(t *testing.T, h Harness) {
	s := h.Open(t)
	add(t, s, frame(1, "a"), frame(2, "a"))
	_, _, before := bounds(t, s)
	if n, err := s.Feed().Trim(t.Context(), 0, 100); err != nil || n != 2 {
		t.Fatalf("trim: %d, %v", n, err)
	}
	if _, _, last := bounds(t, s); last != before {
		t.Fatalf("an emptied log must remember its last position: %d, want %d", last, before)
	}
	add(t, s, frame(3, "a"))
	if got := after(t, s, "a", before, 10); len(got) != 1 || string(got[0].Data) != `{"n":3}` {
		t.Fatalf("a position must never be given again: a browser that resumes would miss a frame: %+v", got)
	}
}

func epochs(t *testing.T, h Harness) {
	s, other := h.Open(t), h.Open(t)
	epoch, _, last := bounds(t, s)
	if epoch == "" || last != 0 {
		t.Fatalf("a new log must have an epoch and no frames: %q, %d", epoch, last)
	}
	add(t, s, frame(1, "a"))
	if again, _, _ := bounds(t, s); again != epoch {
		t.Fatalf("an epoch must last as long as its log: %q became %q", epoch, again)
	}
	if e, _, _ := bounds(t, other); e == epoch {
		t.Fatalf("another log must have another epoch: both have %q", e)
	}
}

func bellRings(t *testing.T, h Harness) {
	s := h.Open(t)
	ring, stop := s.Feed().Listen()
	defer stop()
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error { return s.Feed().Append(ctx, tx, frame(1, "a")) })
	storetest.Silent(t, ring, "a transaction that was rolled back")
	add(t, s, frame(2, "a"))
	storetest.Rings(t, ring, "a commit that appended a frame")
	storetest.Equal(t, "what rang the bell must be there to be read", read(t, s, "a"), []string{`{"n":2}`})
}

func reopened(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s := h.Open(t)
	add(t, s, frame(1, "a"), frame(2, "a"))
	epoch, first, last := bounds(t, s)
	s = h.Reopen(t, s)
	if e, f, l := bounds(t, s); e != epoch || f != first || l != last {
		t.Fatalf("a log must survive a crash with its epoch: %q %d-%d, before it %q %d-%d", e, f, l, epoch, first, last)
	}
	add(t, s, frame(3, "a"))
	storetest.Equal(t, "frames must go on where they were", read(t, s, "a"), []string{`{"n":1}`, `{"n":2}`, `{"n":3}`})
}
