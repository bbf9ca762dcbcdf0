package retry_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"github.com/settledev/settle/retry"
)

func defaults(t *testing.T, p retry.Policy) retry.Policy {
	t.Helper()
	p, err := p.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaults(t *testing.T) {
	got := defaults(t, retry.Policy{})
	want := retry.Policy{Initial: time.Second, Multiplier: 2, WaitMax: time.Minute, TotalMax: 5 * time.Minute, Jitter: 0.2}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if again := defaults(t, got); again != got {
		t.Errorf("defaults of a whole policy must change nothing: %+v", again)
	}
	if p := defaults(t, retry.Policy{NoJitter: true, Jitter: 0.5}); p.Jitter != 0 {
		t.Errorf("NoJitter must turn jitter off: %g", p.Jitter)
	}
}

func TestContradictions(t *testing.T) {
	for name, p := range map[string]retry.Policy{
		"negative initial":          {Initial: -1},
		"initial above the longest": {Initial: time.Hour},
		"shrinking":                 {Multiplier: 0.5},
		"negative multiplier":       {Multiplier: -2},
		"negative jitter":           {Jitter: -0.1},
		"jitter of all":             {Jitter: 1},
		"negative total":            {TotalMax: -1},
		"negative longest":          {WaitMax: -1},
	} {
		if _, err := p.WithDefaults(); err == nil {
			t.Errorf("%s: %+v must be refused", name, p)
		}
	}
}

func TestWaitGrowsToItsCap(t *testing.T) {
	p := defaults(t, retry.Policy{NoJitter: true})
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		if got := p.Wait(i + 1); got != want*time.Second {
			t.Errorf("after attempt %d: %s, want %s", i+1, got, want*time.Second)
		}
	}
	for _, attempt := range []int{64, 1000, 100_000, math.MaxInt32} {
		if got := p.Wait(attempt); got != time.Minute {
			t.Errorf("after attempt %d: %s, want the cap", attempt, got)
		}
	}
}

func TestJitterStaysWithinItsBounds(t *testing.T) {
	p := defaults(t, retry.Policy{Initial: time.Second, Jitter: 0.25})
	low, high := time.Hour, time.Duration(0)
	for range 2000 {
		w := p.Wait(1)
		low, high = min(low, w), max(high, w)
	}
	if low < 750*time.Millisecond || high > 1250*time.Millisecond {
		t.Errorf("a jitter of 0.25 around 1s gave %s to %s", low, high)
	}
	if high-low < 100*time.Millisecond {
		t.Errorf("jitter must spread: %s to %s", low, high)
	}
}

func TestNextEndsWithTheTotal(t *testing.T) {
	p := defaults(t, retry.Policy{NoJitter: true, TotalMax: 10 * time.Second})
	first := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	now := first
	var attempts []time.Duration
	for attempt := 1; ; attempt++ {
		at, ok := p.Next(attempt, first, now)
		if !ok {
			break
		}
		attempts, now = append(attempts, at.Sub(first)), at
	}
	if fmt.Sprint(attempts) != "[1s 3s 7s]" {
		t.Errorf("attempts at %v, want 1s, 3s and 7s: the next would be at 15s", attempts)
	}
	p.TotalMax = 15 * time.Second
	if _, ok := p.Next(4, first, now); !ok {
		t.Error("an attempt at the very end of the total time is allowed")
	}
	p.TotalMax, p.Forever = time.Second, true
	if _, ok := p.Next(1000, first, now.Add(time.Hour)); !ok {
		t.Error("Forever must never end")
	}
}

func TestPermanent(t *testing.T) {
	if retry.Permanent(nil) != nil {
		t.Error("Permanent(nil) must be nil")
	}
	err := fmt.Errorf("authorize: %w", retry.Permanent(io.ErrUnexpectedEOF))
	if !retry.IsPermanent(err) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a permanent error must be found through wrapping, and keep its cause: %v", err)
	}
	if err.Error() != "authorize: unexpected EOF" {
		t.Errorf("the mark must not show in the text: %v", err)
	}
	if retry.IsPermanent(io.EOF) || retry.IsPermanent(nil) {
		t.Error("other errors are not permanent")
	}
}

func TestAfter(t *testing.T) {
	if retry.After(time.Second, nil) != nil {
		t.Error("After with a nil error must be nil")
	}
	err := fmt.Errorf("send: %w", retry.After(time.Minute, io.ErrShortWrite))
	wait, ok := retry.IsAfter(err)
	if !ok || wait != time.Minute || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a wait must be found through wrapping, and keep its cause: %s %t %v", wait, ok, err)
	}
	if err.Error() != "send: short write (again in 1m0s)" {
		t.Errorf("text: %v", err)
	}
	if _, ok := retry.IsAfter(io.EOF); ok {
		t.Error("other errors ask for no wait")
	}
	if both := retry.Permanent(err); !retry.IsPermanent(both) {
		t.Error("Permanent around After is permanent")
	}
}
