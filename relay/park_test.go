package relay

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
)

// refuser makes a sink refuse the events whose position is in the set.
func refuser(sink *fakeSink, ids ...string) (allow func()) {
	sink.answer = func(m broker.Message) (bool, error) {
		if slices.Contains(ids, m.Origin) {
			return false, &broker.RejectedError{Reason: "too large"}
		}
		return true, nil
	}
	return func() {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		ids = nil
	}
}

func TestParkFollowersReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		sink.latency = time.Millisecond
		allow := refuser(sink, "0.0.2")
		causes := map[int64]string{}
		var replayed []int64
		cfg := Config{Logger: quiet(), Owner: "o", Hooks: Hooks{
			Parked: func(r outbox.Record, cause string) {
				sink.mu.Lock()
				defer sink.mu.Unlock()
				causes[r.Position.ID] = cause
			},
			Replayed: func(r outbox.Record) {
				sink.mu.Lock()
				defer sink.mu.Unlock()
				replayed = append(replayed, r.Position.ID)
			},
		}}
		src.add("t", "k", 3)     // 1 2 3: 2 is refused, 3 follows it
		src.add("t", "other", 2) // 4 5
		src.add("u", "k", 2)     // 6 7: another topic
		stop := start(t, src, sink, cfg)
		pass(time.Second)
		got := sink.first()
		if !slices.Equal(got[route{"t", "k"}], []int64{1}) || len(got[route{"t", "other"}]) != 2 || len(got[route{"u", "k"}]) != 2 {
			t.Errorf("stored %v", got)
		}
		sink.mu.Lock()
		if len(causes) != 2 || causes[2] != "too large" || causes[3] != causeFollows {
			t.Errorf("causes %v", causes)
		}
		sink.mu.Unlock()
		if pos, last, _ := src.state(); pos.ID != last {
			t.Errorf("position %s, want %d: parked is settled", pos, last)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}

		// The next owner knows the key.
		src.add("t", "k", 2) // 8 9
		stop = start(t, src, sink, cfg)
		pass(time.Minute)
		if _, _, parked := src.state(); parked != 4 {
			t.Errorf("%d parked, want 4", parked)
		}

		// A replay that is refused again ends, and asks the operator anew.
		if n, _ := src.Replay(t.Context(), "t", "k"); n != 4 {
			t.Errorf("%d marked", n)
		}
		attempts := func() int {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			return sink.attempts + 1000*len(replayed)
		}
		before := attempts()
		pass(time.Minute)
		if n := attempts() - before; n != 1 {
			t.Errorf("%d attempts and thousand replays", n)
		}

		// A replay that is accepted, with followers arriving all the time.
		allow()
		_, _ = src.Replay(t.Context(), "t", "k")
		for range 3000 {
			src.add("t", "k", 1)
			pass(time.Millisecond)
		}
		pass(10 * time.Second)
		checkComplete(t, src, sink.first())
		if err := stop(); err != nil {
			t.Error(err)
		}
		if len(replayed) < 4 || !slices.IsSorted(replayed) {
			t.Errorf("replayed %v", replayed)
		}
		if _, _, parked := src.state(); parked != 0 {
			t.Errorf("%d parked", parked)
		}
	})
}

func TestReplayOfManyPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		allow := refuser(sink, "0.0.1", "0.0.2001")
		src.add("t", "a", 2000)
		src.add("t", "b", 30)
		start(t, src, sink, Config{Logger: quiet(), BatchMax: 50})
		pass(time.Second)
		if _, _, parked := src.state(); parked != 2030 {
			t.Fatalf("%d parked", parked)
		}
		allow()
		_, _ = src.Replay(t.Context(), "t", "")
		pass(5 * time.Second)
		src.add("t", "a", 3)
		pass(5 * time.Second)
		checkComplete(t, src, sink.first())
	})
}

// TestParkedOnceAcrossCrash: events that are parked already and read again after a crash are not parked
// again, which would take away the mark that an operator may have set in between.
func TestParkedOnceAcrossCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		allow := refuser(sink, "0.0.1")
		src.add("t", "k", 3)
		crashed := false
		stop := start(t, src, sink, Config{Logger: quiet(), Failpoint: func(name string) {
			if name == PointBeforeAdvance && !crashed {
				crashed = true
				src.crash()
			}
		}})
		pass(10 * time.Second)
		if pos, _, parked := src.state(); parked != 3 || pos.ID != 3 {
			t.Errorf("%d parked, position %s", parked, pos)
		}
		if n := src.count("park"); n != 2 { // the refused one, and its followers
			t.Errorf("%d calls of Park", n)
		}
		allow()
		_, _ = src.Replay(t.Context(), "t", "k")
		pass(10 * time.Second)
		if err := stop(); err != nil || !crashed {
			t.Errorf("err %v, crashed %v", err, crashed)
		}
		checkComplete(t, src, sink.first())
	})
}

func TestReplayWhileBrokerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		refuser(sink, "0.0.1")
		src.add("t", "k", 5)
		start(t, src, sink, Config{Logger: quiet()})
		pass(time.Second)
		sink.mu.Lock()
		sink.answer = func(broker.Message) (bool, error) { return false, errDown }
		sink.mu.Unlock()
		_, _ = src.Replay(t.Context(), "t", "k")
		pass(time.Hour)
		sink.mu.Lock()
		sink.answer = nil
		sink.mu.Unlock()
		pass(time.Minute)
		checkComplete(t, src, sink.first())
	})
}

func TestNoParking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		refuser(sink, "0.0.2")
		src.add("t", "a", 1)
		src.add("t", "b", 1)
		r, err := New(bareSource{src}, sink, Config{Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("err = %v", err)
		}
		if pos, _, _ := src.state(); pos.ID != 1 || src.owner != "" {
			t.Errorf("position %s, owner %q: what was published is settled and the shard is free", pos, src.owner)
		}
	})
}

// A replay of more than one round parks followers between its rounds. They are not marked, and go with it
// all the same: nobody would ask for them again.
func TestReplayTakesFollowersAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newSink(t)
		sink.latency = time.Millisecond
		allow := refuser(sink, "0.0.1")
		cfg := Config{Logger: quiet(), Owner: "o", BatchMax: 10}
		src.add("t", "k", 12)
		stop := start(t, src, sink, cfg)
		pass(time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		allow()
		if n, _ := src.Replay(t.Context(), "t", "k"); n != 12 {
			t.Fatalf("%d marked, want 12", n)
		}
		src.add("t", "k", 15)
		stop = start(t, src, sink, cfg)
		pass(time.Minute)
		if _, _, parked := src.state(); parked != 0 {
			t.Errorf("%d parked, want none: the operator replayed the key", parked)
		}
		checkComplete(t, src, sink.first())
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
