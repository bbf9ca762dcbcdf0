package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestCarries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		for i := range 3000 {
			src.add(fmt.Sprintf("t%d", i%3), fmt.Sprintf("k%d", i%700), 1)
		}
		stop := start(t, src, sink, Config{Logger: quiet()})
		pass(time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		checkComplete(t, src, sink.first())
		if len(sink.stored) != 3000 {
			t.Errorf("stored %d, want each of 3000 once", len(sink.stored))
		}
		if pos, last, _ := src.state(); pos.ID != last || src.owner != "" {
			t.Errorf("position %s, last %d, owner %q", pos, last, src.owner)
		}
	})
}

// TestOrder is the property that the package stands for: whatever fails, first deliveries of a key are in
// order and complete.
func TestOrder(t *testing.T) {
	seed := rand.Uint64()
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for i := range uint64(rounds) {
		for _, ordered := range []bool{false, true} {
			if !orderRun(t, seed+i, ordered) {
				t.Fatalf("seed %d, ordered %v", seed+i, ordered)
			}
		}
	}
}

func orderRun(t *testing.T, seed uint64, ordered bool) bool {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		src, sink := newSource(), newSink(t)
		sink.latency, sink.ordered = time.Duration(rnd.IntN(3))*time.Millisecond, ordered
		trouble := true
		sink.answer = func(broker.Message) (bool, error) { // Under the sink's lock.
			switch n := rnd.IntN(1000); {
			case !trouble || n > 30:
				return true, nil
			case n < 10:
				return false, errDown
			case n < 15:
				return true, errDown // stored, acknowledgement lost
			case n < 18:
				return false, errors.New("fake: something else")
			default:
				return false, &broker.RejectedError{Reason: "no"}
			}
		}
		random := func(n int) int {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			return rnd.IntN(n)
		}
		src.fail = func(_ context.Context, _, _ string) error {
			if random(100) == 0 && trouble {
				return errBroken
			}
			return nil
		}
		cfg := Config{
			Logger: quiet(), BatchMax: 1 + rnd.IntN(20), InFlight: 1 + rnd.IntN(4),
			RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond,
			Failpoint: func(name string) {
				if name != PointBeforePublish && trouble && random(40) == 0 {
					src.crash()
				}
			},
		}
		for range 8 {
			cfg.Owner = fmt.Sprintf("o%d", random(1000))
			stop := start(t, src, sink, cfg)
			for range 10 {
				for range 10 {
					src.add(fmt.Sprintf("t%d", random(2)), fmt.Sprintf("k%d", random(6)), 1+random(3))
				}
				pass(time.Duration(random(100)) * time.Millisecond)
				if random(2) == 0 {
					_, _ = src.Replay(t.Context(), "t0", "")
					_, _ = src.Replay(t.Context(), "t1", "")
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			src.crash()
		}
		sink.mu.Lock()
		trouble = false
		sink.mu.Unlock()
		stop := start(t, src, sink, cfg)
		for range 10 {
			pass(3 * time.Second)
			_, _ = src.Replay(t.Context(), "t0", "")
			_, _ = src.Replay(t.Context(), "t1", "")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		checkComplete(t, src, sink.first())
		if pos, last, parked := src.state(); pos.ID != last || parked != 0 {
			t.Errorf("position %s of %d, %d parked", pos, last, parked)
		}
	})
	return !t.Failed()
}

func TestOutageBurnsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		sink.latency = time.Millisecond
		var log bytes.Buffer
		var hooks []bool
		down := true
		sink.answer = func(broker.Message) (bool, error) {
			if down {
				return false, errDown
			}
			return true, nil
		}
		for i := range 2000 {
			src.add("t", fmt.Sprintf("k%d", i%100), 1)
		}
		start(t, src, sink, Config{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Hooks:  Hooks{Outage: func(down bool, _ error) { hooks = append(hooks, down) }},
		})
		pass(time.Hour)
		sink.mu.Lock()
		// The first calls, and then one event at a time.
		if sink.attempts > 100+3600/7 {
			t.Errorf("%d attempts in an hour", sink.attempts)
		}
		down = false
		sink.mu.Unlock()
		pass(11 * time.Second)
		checkComplete(t, src, sink.first())
		if _, _, parked := src.state(); parked != 0 {
			t.Errorf("%d parked", parked)
		}
		if !slices.Equal(hooks, []bool{true, false}) {
			t.Errorf("hooks saw %v", hooks)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "broker is available again") {
			t.Error("recovery is not logged")
		}
	})
}

func TestFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		sink.latency = 10 * time.Millisecond
		var paused bool
		src.fail = func(ctx context.Context, _, owner string) error {
			src.mu.Lock()
			p := paused
			src.mu.Unlock()
			if p && owner == "a" { // No call of a returns: its store is out of reach.
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		var lost []error
		stopA := start(t, src, sink, Config{Logger: quiet(), Owner: "a", Hooks: Hooks{Lost: func(_ Lease, err error) { lost = append(lost, err) }}})
		src.add("t", "k", 50)
		pass(105 * time.Millisecond)
		src.mu.Lock()
		paused = true
		src.mu.Unlock()
		published := func() int {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			return len(sink.stored)
		}
		pass(13 * time.Second)
		atDeadline := published()
		src.add("t", "k", 50)
		startedB := time.Now()
		stopB := start(t, src, sink, Config{Logger: quiet(), Owner: "b"})
		pass(time.Second)
		if n := published(); n != atDeadline {
			t.Errorf("a published %d events after its lease", n-atDeadline)
		}
		if len(lost) != 1 || !errors.Is(lost[0], errLost) {
			t.Errorf("a lost %v", lost)
		}
		pass(20 * time.Second)
		src.mu.Lock()
		paused = false
		if src.owner != "b" {
			t.Errorf("owner is %q after %s", src.owner, time.Since(startedB))
		}
		src.mu.Unlock()
		pass(time.Minute)
		checkComplete(t, src, sink.first())
		if err := errors.Join(stopA(), stopB()); err != nil {
			t.Error(err)
		}
	})
}

func TestFencedByNewerOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		claims := 0
		start(t, src, sink, Config{Logger: quiet(), Hooks: Hooks{Claimed: func(Lease) { claims++ }}})
		src.add("t", "k", 3)
		pass(time.Second)
		src.crash()
		src.add("t", "k", 3)
		pass(time.Minute)
		if claims != 2 {
			t.Errorf("claimed %d times, want 2", claims)
		}
		checkComplete(t, src, sink.first())
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		sink.latency = 2 * time.Second
		src.add("t", "k", 10)
		stop := start(t, src, sink, Config{Logger: quiet()})
		pass(time.Second)
		began := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("drain took %s, want the second that the call had left", took)
		}
		if pos, _, _ := src.state(); pos.ID != 1 || len(sink.stored) != 1 || src.owner != "" {
			t.Errorf("position %s, %d stored, owner %q", pos, len(sink.stored), src.owner)
		}
	})
}

// stuckSink does not even end with its context.
type stuckSink struct{ release chan struct{} }

func (s stuckSink) Publish(_ context.Context, m []broker.Message) []error {
	<-s.release
	return make([]error, len(m))
}

func TestDrainTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), stuckSink{make(chan struct{})}
		src.add("t", "k", 1)
		stop := start(t, src, sink, Config{Logger: quiet()})
		pass(time.Second)
		if err := stop(); !errors.Is(err, ErrDrain) {
			t.Errorf("err = %v, want ErrDrain", err)
		}
		if src.owner == "" {
			t.Error("the shard was released while something may still publish")
		}
		close(sink.release)
	})
}

func TestPollAndBell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		start(t, src, sink, Config{Logger: quiet()})
		pass(time.Minute)
		idle := src.count("next")
		if idle < 60 || idle > 75 {
			t.Errorf("%d looks at an idle outbox in a minute, want about one a second", idle)
		}
		began := time.Now()
		synctest.Wait()
		src.add("t", "k", 1)
		synctest.Wait()
		if len(sink.first()) != 1 || time.Since(began) != 0 {
			t.Error("the doorbell was not heard at once")
		}
		// A storm of rings costs few looks: they are coalesced while one is going on.
		before := src.count("next")
		for range 1000 {
			src.add("t", "k", 1)
		}
		pass(time.Second)
		if n := src.count("next") - before; n > 40 {
			t.Errorf("%d looks for a storm of rings", n)
		}
		checkComplete(t, src, sink.first())
	})
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		start(t, bareSource{src}, sink, Config{Logger: quiet()})
		pass(time.Minute)
		src.add("t", "k", 1)
		pass(time.Second)
		checkComplete(t, src, sink.first())
	})
}

func TestAdvanceIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		start(t, src, sink, Config{Logger: quiet()})
		for range 1000 {
			src.add("t", "k", 1)
			pass(time.Millisecond)
		}
		pass(time.Second)
		if n := len(src.advances); n > 21 {
			t.Errorf("%d writes of a position in a second, want one in 50ms", n)
		}
		if pos, last, _ := src.state(); pos.ID != last {
			t.Errorf("position %s, last %d", pos, last)
		}
	})
}

func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		var purged atomic.Int64
		start(t, src, sink, Config{Logger: quiet(), Hooks: Hooks{Purged: func(n int) { purged.Add(int64(n)) }}})
		src.add("t", "k", 2500)
		pass(24 * time.Hour)
		if purged := purged.Load(); purged != 0 {
			t.Errorf("%d purged within retention", purged)
		}
		pass(2 * time.Minute)
		if purged := purged.Load(); purged != 2500 {
			t.Errorf("%d purged after retention, want 2500", purged)
		}
	})
}

func TestSourceFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		broken := true
		src.fail = func(_ context.Context, call, _ string) error {
			src.mu.Lock()
			defer src.mu.Unlock()
			if broken && call != "claim" {
				return errBroken
			}
			return nil
		}
		start(t, src, sink, Config{Logger: quiet()})
		src.add("t", "k", 10)
		pass(time.Hour)
		src.mu.Lock()
		broken = false
		src.mu.Unlock()
		pass(time.Minute)
		checkComplete(t, src, sink.first())
	})
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{LeaseTTL: 5 * time.Second}, "lease 5s must exceed publish timeout 10s"},
		{Config{BatchMax: 2000}, "batch 2000 exceeds the 1000 messages"},
		{Config{BatchMax: 100, WindowMax: 50}, "window 50 is smaller than batch 100"},
		{Config{PollMin: time.Second, PollMax: time.Millisecond}, "longest poll 1ms is shorter than shortest poll 1s"},
		{Config{RetryMin: time.Second, RetryMax: time.Millisecond}, "longest retry 1ms is shorter than shortest retry 1s"},
		{Config{Shard: -1}, "shard -1 is negative"},
		{Config{InFlight: -2}, "calls in flight -2 is negative"},
		{Config{Retention: time.Second}, "retention 1s must be at least twice the mark interval 1s"},
		{Config{DrainTimeout: time.Second}, "drain timeout 1s is shorter than publish timeout 10s"},
	} {
		_, err := New(newSource(), newSink(t), c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", c.cfg, err, c.want)
		}
	}
	if _, err := New(bareSource{newSource()}, &lostSink{}, Config{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a source without marks for a broker that loses: %v", err)
	}
	r, err := New(bareSource{newSource()}, newSink(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stats(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("stats: %v", err)
	}
	if r.cfg.Owner == "" || r.cfg.Owner == defaultOwner() {
		t.Errorf("owner %q is not its own", r.cfg.Owner)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := r.Run(ctx); err == nil {
		t.Error("a second Run is accepted")
	}
}

// memorySource hands out prebuilt records.
type memorySource struct {
	Source
	records []outbox.Record
	done    chan struct{}
}

func (m *memorySource) Claim(context.Context, int, string, time.Duration) (Lease, error) {
	return Lease{Fence: 1}, nil
}

func (m *memorySource) Next(_ context.Context, _ Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	from := int(after.ID)
	return m.records[from:min(from+limit, len(m.records))], nil
}

func (m *memorySource) Advance(_ context.Context, _ Lease, to outbox.Position) error {
	if int(to.ID) == len(m.records) {
		close(m.done)
	}
	return nil
}

func (m *memorySource) Release(context.Context, Lease) error { return nil }

type nullSink struct{}

func (nullSink) Publish(_ context.Context, m []broker.Message) []error { return make([]error, len(m)) }

// BenchmarkNullSink drains a backlog in which each order has ten events of one key on three topics.
func BenchmarkNullSink(b *testing.B) {
	src := newSource()
	for i := range b.N {
		src.add(fmt.Sprintf("t%d", i%3), fmt.Sprintf("k%d", i/10), 1)
	}
	m := &memorySource{records: src.records, done: make(chan struct{})}
	r, err := New(m, nullSink{}, Config{Logger: quiet(), NoPurge: true, AdvanceEvery: time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { ended <- r.Run(ctx) }()
	<-m.done
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
