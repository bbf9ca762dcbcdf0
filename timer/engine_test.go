package timer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

var deadline = event.Define("DeadlinePassed", 1, event.Spec[string]{
	Topic: "deadlines", Aggregate: "order", Key: func(s string) string { return s },
})

// service binds a producer and listeners, as a settle.Service does.
type service struct {
	store     *memory.Store
	listeners txn.Listeners

	mu   sync.Mutex
	fail error
}

func (s *service) Run(ctx context.Context, fn func(context.Context, *txn.Tx) error) error {
	s.mu.Lock()
	err := s.fail
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("order", &s.listeners)
		return fn(ctx, tx)
	})
}

func (s *service) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func newService() *service { return &service{store: memory.New()} }

func (s *service) set(t *testing.T, key string, after time.Duration) {
	t.Helper()
	err := s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		return timer.Set(ctx, tx, key, tx.Now().Add(after), deadline.New(key))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *service) cancel(t *testing.T, key string) (ok bool) {
	t.Helper()
	err := s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) (err error) {
		ok, err = timer.Cancel(ctx, tx, key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func (s *service) fired(t *testing.T) []event.Envelope {
	t.Helper()
	l, err := s.store.Outbox().Claim(t.Context(), 0, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.store.Outbox().Next(t.Context(), l, outbox.Position{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	events := make([]event.Envelope, len(all))
	for i, r := range all {
		events[i] = r.Event
	}
	return events
}

func start(t *testing.T, s *service, cfg timer.Config) (stop func() error) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	e, err := timer.NewEngine(s, s.store.Timers(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() { cancel(); result = <-done })
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestFiresOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		var mu sync.Mutex
		late := map[string]time.Duration{}
		start(t, s, timer.Config{Hooks: timer.Hooks{Fired: func(tm timer.Timer, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			late[tm.Key] = d
		}}})
		pass(time.Second)
		began := time.Now()
		s.set(t, "far", 2*time.Minute)
		s.set(t, "near", 5*time.Second)
		pass(5*time.Second - 2*time.Millisecond)
		if got := s.fired(t); len(got) != 0 {
			t.Fatalf("fired before its time: %v", got)
		}
		pass(10 * time.Millisecond)
		got := s.fired(t)
		if len(got) != 1 || got[0].AggregateID != "near" || got[0].OccurredAt.Before(began.Add(5*time.Second)) ||
			got[0].OccurredAt.After(began.Add(5*time.Second+5*time.Millisecond)) || got[0].Producer != "order" {
			t.Fatalf("fired: %+v", got)
		}
		pass(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if got := s.fired(t); len(got) != 2 || late["far"] > 5*time.Millisecond || late["near"] > 5*time.Millisecond {
			t.Errorf("%d fired, late by %v", len(got), late)
		}
	})
}

func TestIdentitiesStayInThePresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.set(t, "far", 365*24*time.Hour)
		id := event.NewID(time.Now())
		ms := int64(id[0])<<40 | int64(id[1])<<32 | int64(id[2])<<24 | int64(id[3])<<16 | int64(id[4])<<8 | int64(id[5])
		if ahead := time.Until(time.UnixMilli(ms)); ahead > time.Hour {
			t.Errorf("identities are %s ahead", ahead)
		}
	})
}

func TestCancelAndReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		start(t, s, timer.Config{})
		s.set(t, "a", time.Second)
		s.set(t, "b", time.Second)
		s.set(t, "b", 10*time.Second)
		if !s.cancel(t, "a") || s.cancel(t, "a") {
			t.Error("cancelling twice: want true, then false")
		}
		pass(9 * time.Second)
		if got := s.fired(t); len(got) != 0 {
			t.Errorf("fired: %+v", got)
		}
		pass(2 * time.Second)
		if got := s.fired(t); len(got) != 1 || got[0].AggregateID != "b" {
			t.Errorf("fired: %+v", got)
		}
		if s.cancel(t, "b") {
			t.Error("cancelled what had fired")
		}
	})
}

// TestRace lets cancels race with two engines: each timer either fires once or was cancelled.
func TestRace(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		start(t, s, timer.Config{BatchMax: 3})
		start(t, s, timer.Config{BatchMax: 7})
		const n = 300
		for i := range n {
			s.set(t, strconv.Itoa(i), time.Duration(rnd.IntN(1000))*time.Millisecond)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		cancelled := map[string]bool{}
		for i := range n {
			wait := time.Duration(rnd.IntN(1000)) * time.Millisecond
			wg.Go(func() {
				<-time.After(wait)
				if s.cancel(t, strconv.Itoa(i)) {
					mu.Lock()
					defer mu.Unlock()
					cancelled[strconv.Itoa(i)] = true
				}
			})
		}
		wg.Wait()
		pass(5 * time.Second)
		count := map[string]int{}
		for _, e := range s.fired(t) {
			count[e.AggregateID]++
		}
		for i := range n {
			key := strconv.Itoa(i)
			if want := 1; cancelled[key] && count[key] != 0 || !cancelled[key] && count[key] != want {
				t.Errorf("timer %s: cancelled %v, fired %d times", key, cancelled[key], count[key])
			}
		}
	})
}

func TestRefusedTimerStopsOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		var refuse atomic.Bool
		refuse.Store(true)
		txn.Within(&s.listeners, deadline, func(_ context.Context, _ *txn.Tx, e event.Of[string]) error {
			if e.Data == "bad" && refuse.Load() {
				return errors.New("no")
			}
			if e.Data == "mad" && refuse.Load() {
				panic("mad")
			}
			return nil
		})
		var mu sync.Mutex
		var postponed []string
		start(t, s, timer.Config{Hooks: timer.Hooks{Postponed: func(tm timer.Timer, _ time.Time, _ error) {
			mu.Lock()
			defer mu.Unlock()
			if len(postponed) < 2 {
				postponed = append(postponed, tm.Key)
			}
		}}})
		for i, key := range []string{"a", "bad", "b", "mad", "c"} {
			s.set(t, key, time.Second+time.Duration(i)*time.Microsecond)
		}
		pass(1500 * time.Millisecond)
		mu.Lock()
		first := fmt.Sprint(postponed)
		mu.Unlock()
		if got := s.fired(t); len(got) != 3 || first != "[bad mad]" {
			t.Errorf("%d fired, postponed %s", len(got), first)
		}
		pass(time.Hour)
		refuse.Store(false)
		pass(2 * time.Minute)
		if got := s.fired(t); len(got) != 5 {
			t.Errorf("%d fired, want all 5", len(got))
		}
	})
}

func TestStoreOutageLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		stop := start(t, s, timer.Config{BatchMax: 10})
		for i := range 55 {
			s.set(t, strconv.Itoa(i), time.Minute)
		}
		s.setFail(errors.New("disk full"))
		pass(time.Hour)
		s.setFail(nil)
		pass(10 * time.Second)
		if got := s.fired(t); len(got) != 55 {
			t.Errorf("%d fired, want 55", len(got))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestDrainFinishesTheTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		gate := make(chan struct{})
		stop := start(t, s, timer.Config{Failpoint: func(name string) {
			if name == "timer.before-commit" {
				<-gate
			}
		}})
		s.set(t, "a", time.Second)
		pass(2 * time.Second)
		time.AfterFunc(time.Second, func() { close(gate) })
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := s.fired(t); len(got) != 1 {
			t.Errorf("%d fired, want 1", len(got))
		}
	})
}

func TestNewEngineRefuses(t *testing.T) {
	s := newService()
	for _, cfg := range []timer.Config{{BatchMax: -1}, {BatchMax: txn.EventsPerTxMax + 1}, {PollMax: -1}, {DrainTimeout: -1}} {
		if _, err := timer.NewEngine(s, s.store.Timers(), cfg); err == nil {
			t.Errorf("accepted %+v", cfg)
		}
	}
}
