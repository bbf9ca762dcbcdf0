package locktest

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/lock"
)

// HintsHarness is one keeper of hints under test.
type HintsHarness struct {
	// Open returns an empty keeper of hints and closes it when the test ends. Required.
	Open func(t *testing.T) lock.Hints
	// Around runs each test, for those that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
}

// RunHints runs the suite of lock.Hints.
func RunHints(t *testing.T, h HintsHarness) {
	t.Helper()
	storetest.Run(t, h, h.Around, []storetest.Case[HintsHarness]{
		{Name: "OneOfMany", Test: oneOfMany},
		{Name: "NamesAreExact", Test: hintNamesAreExact},
		{Name: "RunsOut", Test: hintRunsOut},
		{Name: "DropLetsTheNextIn", Test: dropLetsTheNextIn},
		{Name: "DropSparesAnothers", Test: dropSparesAnothers},
		{Name: "DropNeedsTheToken", Test: dropNeedsTheToken},
		{Name: "TokensDiffer", Test: tokensDiffer},
		{Name: "Limits", Test: hintLimits},
		{Name: "Cancelled", Test: hintCancelled},
	})
}

func try(t *testing.T, hs lock.Hints, name string, ttl time.Duration) (lock.Hint, bool) {
	t.Helper()
	h, ok, err := hs.TryOnce(t.Context(), name, ttl)
	must(t, "try "+name, err)
	if ok && (h.Name != name || h.Token == "") {
		t.Fatalf("a hint must have its name and a token: got %+v", h)
	}
	return h, ok
}

// leave leaves a hint that nobody else has left.
func leave(t *testing.T, hs lock.Hints, name string, ttl time.Duration) lock.Hint {
	t.Helper()
	h, ok := try(t, hs, name, ttl)
	if !ok {
		t.Fatalf("%s: nobody has left a hint, it must be given", name)
	}
	return h
}

func wantTaken(t *testing.T, guarantee string, hs lock.Hints) {
	t.Helper()
	if h, ok := try(t, hs, "a", ttl); ok {
		t.Fatalf("%s: got hint %+v", guarantee, h)
	}
}

func oneOfMany(t *testing.T, h HintsHarness) {
	hs := h.Open(t)
	var given atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if _, ok, err := hs.TryOnce(t.Context(), "a", ttl); err != nil {
				t.Errorf("try: %v", err)
			} else if ok {
				given.Add(1)
			}
		})
	}
	all.Wait()
	if n := given.Load(); n != 1 {
		t.Fatalf("of many at once one must be told to go ahead: %d were", n)
	}
}

func hintNamesAreExact(t *testing.T, h HintsHarness) {
	hs := h.Open(t)
	for _, name := range alike() {
		leave(t, hs, name, ttl)
	}
}

func hintRunsOut(t *testing.T, h HintsHarness) {
	hs, began := h.Open(t), time.Now()
	old := leave(t, hs, "a", short)
	wantTaken(t, "a hint must last its time to live", hs)
	next := leaveEventually(t, hs, "a")
	if took := time.Since(began); took < short-time.Millisecond {
		t.Fatalf("a hint of %s was given away after %s", short, took)
	}
	if next.Token == old.Token {
		t.Fatalf("each hint must have its own token: %s twice", old.Token)
	}
}

func leaveEventually(t *testing.T, hs lock.Hints, name string) (next lock.Hint) {
	t.Helper()
	storetest.Eventually(t, "a hint runs out", func() (ok bool) {
		next, ok = try(t, hs, name, ttl)
		return ok
	})
	return next
}

func dropLetsTheNextIn(t *testing.T, h HintsHarness) {
	hs := h.Open(t)
	first := leave(t, hs, "a", ttl)
	must(t, "drop", hs.Drop(t.Context(), first))
	leave(t, hs, "a", ttl)
}

// dropSparesAnothers is the paused one that wakes up late and drops what it takes for its own.
func dropSparesAnothers(t *testing.T, h HintsHarness) {
	hs := h.Open(t)
	late := leave(t, hs, "a", short)
	next := leaveEventually(t, hs, "a")
	must(t, "drop of a hint that ran out", hs.Drop(t.Context(), late))
	wantTaken(t, "dropping one's own late hint must spare another's", hs)
	must(t, "drop", hs.Drop(t.Context(), next))
	leave(t, hs, "a", ttl)
}

func dropNeedsTheToken(t *testing.T, h HintsHarness) {
	hs := h.Open(t)
	first := leave(t, hs, "a", ttl)
	for _, forged := range []string{"", "*", first.Token + " ", strings.ToUpper(first.Token) + "x"} {
		_ = hs.Drop(t.Context(), lock.Hint{Name: "a", Token: forged}) // An error is as good as no effect.
		wantTaken(t, "a hint must stay when the token is another one", hs)
	}
	must(t, "drop of a name without a hint", hs.Drop(t.Context(), lock.Hint{Name: "b", Token: first.Token}))
	wantTaken(t, "a hint must stay when another name is dropped", hs)
}

func tokensDiffer(t *testing.T, h HintsHarness) {
	hs := h.Open(t)
	seen := map[string]bool{}
	for range 20 {
		next := leave(t, hs, "a", ttl)
		if seen[next.Token] || len(next.Token) < 16 {
			t.Fatalf("a token must be long and of one hint only: %q", next.Token)
		}
		seen[next.Token] = true
		must(t, "drop", hs.Drop(t.Context(), next))
	}
}

func hintLimits(t *testing.T, h HintsHarness) {
	hs := h.Open(t)
	for _, c := range outOfBounds() {
		if c.owner == fits {
			_, _, err := hs.TryOnce(t.Context(), c.name, c.ttl)
			wantErr(t, "try: "+c.what, err, lock.ErrLimit)
		}
	}
	leave(t, hs, strings.Repeat("n", lock.NameBytesMax), ttl)
}

func hintCancelled(t *testing.T, h HintsHarness) {
	hs := h.Open(t)
	ctx := cancelled(t)
	if _, ok, err := hs.TryOnce(ctx, "a", ttl); err == nil || ok {
		t.Fatalf("a cancelled attempt must fail: %t, %v", ok, err)
	}
	leave(t, hs, "a", ttl)
}
