package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/internal/jsonhttp"
)

const ms = faults.Duration(time.Millisecond)

// Pinned, because a change of the hash would change what every recorded seed means.
func TestHitIsPinned(t *testing.T) {
	var got []int
	for i := range 60 {
		if faults.Hit(7, 10, "decline", fmt.Sprintf("order-%d", i)) {
			got = append(got, i)
		}
	}
	if want := []int{18, 24, 40, 45}; !slices.Equal(got, want) {
		t.Errorf("declined %v, want %v", got, want)
	}
}

func TestHitIsUniformAndNested(t *testing.T) {
	const n = 20_000
	count := func(seed uint64, percent float64, what string) (k int) {
		for i := range n {
			ref := fmt.Sprintf("order-%d", i)
			hit := faults.Hit(seed, percent, what, ref)
			if hit {
				k++
			}
			if hit && !faults.Hit(seed, percent+5, what, ref) {
				t.Fatalf("%s is hit by %g %%, but not by more", ref, percent)
			}
		}
		return k
	}
	for _, seed := range []uint64{0, 1, math.MaxUint64} {
		for _, what := range []string{"decline", "late"} {
			if k := count(seed, 7, what); math.Abs(float64(k)/n-0.07) > 0.01 {
				t.Errorf("seed %d %s: %d of %d hit by 7 %%", seed, what, k, n)
			}
		}
	}
	for i := range 1000 {
		ref := fmt.Sprint(i)
		if faults.Hit(1, 0, "x", ref) || !faults.Hit(1, 100, "x", ref) {
			t.Fatalf("%s: 0 %% hits or 100 %% does not", ref)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		t    faults.Transport
		ok   bool
	}{
		{"none", faults.Transport{}, true},
		{"all", faults.Transport{SilencePercent: 100, ErrorBeforePercent: 0.5, ErrorAfterPercent: 100, Latency: faults.Latency{Min: 1, Median: 2, P99: 3}}, true},
		{"constant latency", faults.Transport{Latency: faults.Latency{Min: 5, Median: 5, P99: 5}}, true},
		{"below 0", faults.Transport{SilencePercent: -1}, false},
		{"above 100", faults.Transport{ErrorBeforePercent: 100.1}, false},
		{"not a number", faults.Transport{ErrorAfterPercent: math.NaN()}, false},
		{"falling latency", faults.Transport{Latency: faults.Latency{Min: 3, Median: 2, P99: 4}}, false},
		{"falling p99", faults.Transport{Latency: faults.Latency{Min: 1, Median: 2, P99: 1}}, false},
		{"p99 without median", faults.Transport{Latency: faults.Latency{P99: 1}}, false},
		{"days", faults.Transport{Latency: faults.Latency{Min: 1, Median: 2, P99: faults.Duration(25 * time.Hour)}}, false},
	} {
		if err := tt.t.Check(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestTransportJSON(t *testing.T) {
	want := faults.Transport{Seed: 7, Down: true, SilencePercent: 2.5, Latency: faults.Latency{Min: ms, Median: 20 * ms, P99: 250 * ms}}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"seed":7,"down":true,"latency":{"min":"1ms","median":"20ms","p99":"250ms"},"silencePercent":2.5,"errorBeforePercent":0,"errorAfterPercent":0}`
	if string(b) != text {
		t.Errorf("got %s", b)
	}
	var got faults.Transport
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{`{"latency":{"min":5}}`, `{"latency":{"min":"5"}}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// call serves one attempt and returns its status, 0 for a connection that was cut.
func call(t *testing.T, g *faults.Gate, ctx context.Context, reference string, effect func()) (status int) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
		}
	}()
	w := httptest.NewRecorder()
	g.Serve(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil), "op", reference, func(ctx context.Context) jsonhttp.Answer {
		if err := ctx.Err(); err != nil {
			t.Errorf("the effect's context: %v", err)
		}
		effect()
		return jsonhttp.Answer{Status: http.StatusOK}
	})
	return w.Code
}

func TestLatencyDistribution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := faults.NewGate(faults.Transport{Seed: 3, Latency: faults.Latency{Min: 5 * ms, Median: 20 * ms, P99: 200 * ms}})
		var all []time.Duration
		for i := range 4000 {
			start := time.Now()
			call(t, g, t.Context(), fmt.Sprint(i), func() {})
			all = append(all, time.Since(start))
		}
		slices.Sort(all)
		for _, tt := range []struct {
			at        int
			low, high time.Duration
		}{
			{0, 5 * time.Millisecond, 8 * time.Millisecond},
			{2000, 19 * time.Millisecond, 21 * time.Millisecond},
			{3960, 150 * time.Millisecond, 260 * time.Millisecond},
			{3999, 200 * time.Millisecond, 1200 * time.Millisecond},
		} {
			if d := all[tt.at]; d < tt.low || d > tt.high {
				t.Errorf("delay %d of 4000 is %s, want %s to %s", tt.at, d, tt.low, tt.high)
			}
		}
	})
}

func TestLatencyOutlivesTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := faults.NewGate(faults.Transport{Latency: faults.Latency{Min: 100 * ms, Median: 100 * ms, P99: 100 * ms}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		start, done := time.Now(), false
		call(t, g, ctx, "a", func() { done = true })
		if d := time.Since(start); !done || d != 100*time.Millisecond {
			t.Errorf("effect %v after %s, want true after 100ms", done, d)
		}
	})
}

func TestSilenceEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := faults.NewGate(faults.Transport{Seed: 1, SilencePercent: 100})
		effects := 0
		for i := range 200 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			call(t, g, ctx, fmt.Sprint(i), func() { effects++ })
			if d := time.Since(start); d != time.Second {
				t.Fatalf("call %d ended after %s, want 1s", i, d)
			}
			cancel()
		}
		if effects < 70 || effects > 130 {
			t.Errorf("%d of 200 silent calls had their effect, want about half", effects)
		}
	})
}

func TestCloseEndsSilenceAndDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := faults.NewGate(faults.Transport{SilencePercent: 100, Latency: faults.Latency{Min: 1000 * ms, Median: 1000 * ms, P99: 1000 * ms}})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { call(t, g, t.Context(), fmt.Sprint(i), func() {}) })
		}
		synctest.Wait()
		g.Close()
		g.Close()
		wg.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("calls ended %s after the gate", d)
		}
	})
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name    string
		t       faults.Transport
		status  int
		effects int
	}{
		{"calm", faults.Transport{}, 200, 1},
		{"before", faults.Transport{ErrorBeforePercent: 100}, 503, 0},
		{"after", faults.Transport{ErrorAfterPercent: 100}, 500, 1},
		{"both", faults.Transport{ErrorBeforePercent: 100, ErrorAfterPercent: 100}, 503, 0},
	} {
		effects := 0
		if status := call(t, faults.NewGate(tt.t), t.Context(), "a", func() { effects++ }); status != tt.status || effects != tt.effects {
			t.Errorf("%s: %d with %d effects, want %d with %d", tt.name, status, effects, tt.status, tt.effects)
		}
	}
}

// TestRepeats: the same calls meet the same faults, in whatever order and however many at once.
func TestRepeats(t *testing.T) {
	run := func(workers int) map[string][]int {
		g := faults.NewGate(faults.Transport{Seed: 9, ErrorBeforePercent: 30, ErrorAfterPercent: 30})
		var mu sync.Mutex
		got := map[string][]int{}
		var next atomic.Int64
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := next.Add(1); i <= 200; i = next.Add(1) {
					ref := fmt.Sprint(i)
					for range 5 {
						status := call(t, g, t.Context(), ref, func() {})
						mu.Lock()
						got[ref] = append(got[ref], status)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		return got
	}
	one, many := run(1), run(8)
	differ := 0
	for ref, statuses := range one {
		if !slices.Equal(statuses, many[ref]) {
			t.Errorf("%s: %v alone, %v among others", ref, statuses, many[ref])
		}
		if slices.Min(statuses) != slices.Max(statuses) {
			differ++
		}
	}
	if differ < 100 {
		t.Errorf("only %d of 200 references met different answers in 5 attempts", differ)
	}
}

func TestDown(t *testing.T) {
	g := faults.NewGate(faults.Transport{Down: true})
	w := httptest.NewRecorder()
	if g.Up(w) || w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("down: %d %v", w.Code, w.Header())
	}
	g.Set(faults.Transport{})
	if !g.Up(httptest.NewRecorder()) {
		t.Error("it stays down")
	}
}
