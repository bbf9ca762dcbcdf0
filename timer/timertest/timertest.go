// Package timertest is the conformance suite of timer.Store. Every store runs it.
package timertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	timer.Provider
}

// Harness is one store under test.
type Harness struct {
	// Open returns an empty store and closes it when the test ends. Required.
	Open func(t *testing.T) Store
	// Reopen gives up a store as a crash does and opens its data again.
	Reopen func(t *testing.T, s Store) Store
	// Around runs each test, for stores that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
	// Lacks names what the store cannot do, which is then skipped and printed: Reopen, Bell.
	Lacks []string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	storetest.Run(t, h, h.Around, []storetest.Case[Harness]{
		{Name: "ComesBackWhole", Test: comesBackWhole},
		{Name: "NotBeforeItsTime", Test: notBeforeItsTime},
		{Name: "OldestFirst", Test: oldestFirst},
		{Name: "SetAgainReplaces", Test: setAgainReplaces},
		{Name: "Cancel", Test: cancels},
		{Name: "Rollback", Test: rollback},
		{Name: "SetAndTakenInOneTransaction", Test: setAndTakenInOne},
		{Name: "TakenOnce", Test: takenOnce},
		{Name: "ConcurrentTake", Test: concurrentTake},
		{Name: "CancelRacesTake", Test: cancelRacesTake},
		{Name: "NextAndCount", Test: nextAndCount},
		{Name: "BellRings", Test: bellRings},
		{Name: "Reopened", Test: reopened},
	})
}

// base is the time that the suite's timers are set around.
func base() time.Time { return storetest.Now().Add(-time.Hour) }

func set(t *testing.T, s Store, key string, at time.Time) {
	t.Helper()
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return setIn(ctx, tx, key, at) })
}

func setIn(ctx context.Context, tx *txn.Tx, key string, at time.Time) error {
	return timer.Set(ctx, tx, key, at, storetest.Happened().New(storetest.Thing{Key: key}))
}

// take takes in a committed transaction, and returns the keys in order.
func take(t *testing.T, s Store, now time.Time, limit int) []string {
	t.Helper()
	var keys []string
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
		keys, err = takeIn(ctx, tx, s, now, limit)
		return err
	})
	return keys
}

func takeIn(ctx context.Context, tx *txn.Tx, s Store, now time.Time, limit int) ([]string, error) {
	taken, err := s.Timers().Take(ctx, tx, now, limit)
	keys := []string{}
	for _, tm := range taken {
		keys = append(keys, tm.Key)
	}
	return keys, err
}

func comesBackWhole(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	want := timer.Timer{Key: "order-42/payment", At: at, Event: storetest.Envelope(t, "order-42", 7)}
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error { return s.Timers().Set(ctx, tx, want) })
	var taken []timer.Timer
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
		taken, err = s.Timers().Take(ctx, tx, at, 10)
		return err
	})
	if len(taken) != 1 || taken[0].Key != want.Key {
		t.Fatalf("a timer must fire at its time: took %v", taken)
	}
	storetest.SameTime(t, "a timer's time", taken[0].At, at)
	storetest.SameEvent(t, taken[0].Event, want.Event)
}

func notBeforeItsTime(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	set(t, s, "a", at)
	storetest.Equal(t, "a timer must not fire before its time", take(t, s, at.Add(-time.Millisecond), 10), []string{})
	storetest.Equal(t, "a timer must fire at its time", take(t, s, at, 10), []string{"a"})
}

func oldestFirst(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	for i, key := range []string{"c", "a", "d", "b"} {
		set(t, s, key, at.Add([]time.Duration{3, 1, 4, 2}[i]*time.Second))
	}
	storetest.Equal(t, "the oldest timers must fire first, up to the limit", take(t, s, at.Add(time.Minute), 3), []string{"a", "b", "c"})
	storetest.Equal(t, "what the limit left must fire next", take(t, s, at.Add(time.Minute), 3), []string{"d"})
}

func setAgainReplaces(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	set(t, s, "a", at)
	set(t, s, "b", at.Add(time.Second))
	set(t, s, "a", at.Add(2*time.Second))
	storetest.Equal(t, "a timer that was set again must not fire at its old time", take(t, s, at, 10), []string{})
	storetest.Equal(t, "a timer that was set again must fire once, at its new time",
		take(t, s, at.Add(time.Minute), 10), []string{"b", "a"})
}

func cancels(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	set(t, s, "a", at)
	set(t, s, "b", at)
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		for _, c := range []struct {
			key  string
			want bool
		}{{"a", true}, {"a", false}, {"never set", false}} {
			got, err := timer.Cancel(ctx, tx, c.key)
			if err != nil {
				return err
			}
			if got != c.want {
				t.Errorf("cancel must report whether the timer was there: %s %t, want %t", c.key, got, c.want)
			}
		}
		return nil
	})
	storetest.Equal(t, "a cancelled timer must never fire, others must", take(t, s, at, 10), []string{"b"})
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		if got, err := timer.Cancel(ctx, tx, "b"); got || err != nil {
			t.Errorf("cancel must report false for a timer that has fired: %t, %v", got, err)
		}
		return nil
	})
}

func rollback(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	set(t, s, "kept", at)
	set(t, s, "moved", at)
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error {
		if err := setIn(ctx, tx, "new", at); err != nil {
			return err
		}
		if err := setIn(ctx, tx, "moved", at.Add(time.Hour)); err != nil {
			return err
		}
		_, err := timer.Cancel(ctx, tx, "kept")
		return err
	})
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error {
		_, err := takeIn(ctx, tx, s, at, 10)
		return err
	})
	got := map[string]bool{}
	for _, key := range take(t, s, at, 10) {
		got[key] = true
	}
	storetest.Equal(t, "timers must be as before a transaction that was rolled back", got, map[string]bool{"kept": true, "moved": true})
}

func setAndTakenInOne(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	var keys []string
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
		if err := setIn(ctx, tx, "a", at); err != nil {
			return err
		}
		keys, err = takeIn(ctx, tx, s, at, 10)
		return err
	})
	storetest.Equal(t, "a transaction must see its own timers", keys, []string{"a"})
	storetest.Equal(t, "a timer must fire once", take(t, s, at, 10), []string{})
}

func takenOnce(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	set(t, s, "a", at)
	take(t, s, at, 10)
	storetest.Equal(t, "a timer must fire once", take(t, s, at.Add(time.Hour), 10), []string{})
}

func concurrentTake(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	const timers, engines = 60, 5
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) error {
		for n := range timers {
			if err := setIn(ctx, tx, fmt.Sprint(n), at.Add(time.Duration(n)*time.Millisecond)); err != nil {
				return err
			}
		}
		return nil
	})
	type result struct {
		keys []string
		err  error
	}
	results := make(chan result, engines)
	for range engines {
		go func() {
			var all []string
			for {
				var keys []string
				err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) (err error) {
					keys, err = takeIn(ctx, tx, s, at.Add(time.Hour), 7)
					return err
				})
				all = append(all, keys...)
				if err != nil || len(keys) == 0 {
					results <- result{all, err}
					return
				}
			}
		}()
	}
	fired := map[string]int{}
	for range engines {
		r := <-results
		if r.err != nil {
			t.Fatalf("take: %v", r.err)
		}
		for _, key := range r.keys {
			fired[key]++
		}
	}
	for n := range timers {
		if fired[fmt.Sprint(n)] != 1 {
			t.Fatalf("a timer must fire once however many engines run: %d fired %d times", n, fired[fmt.Sprint(n)])
		}
	}
}

func cancelRacesTake(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	for n := range 20 {
		set(t, s, "a", at)
		fired := make(chan bool, 1)
		go func() {
			var keys []string
			err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) (err error) {
				keys, err = takeIn(ctx, tx, s, at, 1)
				return err
			})
			fired <- err == nil && len(keys) == 1
		}()
		var cancelled bool
		storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
			cancelled, err = timer.Cancel(ctx, tx, "a")
			return err
		})
		if f := <-fired; f == cancelled {
			t.Fatalf("round %d: a timer must fire or be cancelled, never both or neither: fired %t, cancelled %t", n, f, cancelled)
		}
	}
}

func nextAndCount(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	check := func(want time.Time, n int64) {
		t.Helper()
		next, ok, err := s.Timers().Next(t.Context())
		if err != nil || ok != !want.IsZero() {
			t.Fatalf("next must tell whether there is a timer: %t, %v", ok, err)
		}
		if ok {
			storetest.SameTime(t, "next must be the earliest time of all", next, want)
		}
		count, err := s.Timers().Count(t.Context())
		if err != nil || count != n {
			t.Fatalf("count must be the number of timers that wait: %d, want %d, %v", count, n, err)
		}
	}
	check(time.Time{}, 0)
	set(t, s, "b", at.Add(time.Second))
	set(t, s, "a", at)
	check(at, 2)
	take(t, s, at, 10)
	check(at.Add(time.Second), 1)
	take(t, s, at.Add(time.Minute), 10)
	check(time.Time{}, 0)
}

func bellRings(t *testing.T, h Harness) {
	s, at := h.Open(t), base()
	bell := storetest.Need[timer.Bell](t, s.Timers(), h.Lacks, "Bell")
	ring, stop := bell.Listen()
	defer stop()
	storetest.RollBack(t, s, func(ctx context.Context, tx *txn.Tx) error { return setIn(ctx, tx, "a", at) })
	storetest.Silent(t, ring, "a transaction that was rolled back")
	set(t, s, "a", at)
	storetest.Rings(t, ring, "a commit that set a timer")
	if _, ok, err := s.Timers().Next(t.Context()); !ok || err != nil {
		t.Fatalf("what rang the bell must be there to be read: %t, %v", ok, err)
	}
}

func reopened(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s, at := h.Open(t), base()
	set(t, s, "a", at)
	set(t, s, "b", at)
	take(t, s, at, 1)
	s = h.Reopen(t, s)
	if n, err := s.Timers().Count(t.Context()); err != nil || n != 1 {
		t.Fatalf("a timer that waits must survive a crash, one that has fired must not: %d, %v", n, err)
	}
	if keys := take(t, s, at, 10); len(keys) != 1 {
		t.Fatalf("a timer must fire after a crash: %v", keys)
	}
}
