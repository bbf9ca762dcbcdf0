package consumer_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/retry"
)

func TestPoisonStopsOnlyItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail("a/2", retry.Permanent(errBroken))
		keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		r.add(5, keys...)
		c, _ := r.start(nil)
		pass(2 * time.Second)
		for _, k := range keys[1:] {
			r.wantDone(k, 5)
		}
		r.wantDone("a", 1)
		r.wantStates("a/2 DEAD 1; a/3 WAITING 0; a/4 WAITING 0; a/5 WAITING 0; ")
		pass(10 * time.Minute) // Nothing happens to it without a person.
		if n := r.tried("a/2"); n != 2 {
			t.Errorf("poison event was tried %d times, want 2: in the batch and by itself", n)
		}
		r.add(1, "a", "b")
		pass(time.Second)
		r.wantDone("a", 1)
		r.wantDone("b", 6)
		s, err := c.Stats(t.Context())
		if err != nil || s.Letters[deadletter.StateDead] != 1 || s.Letters[deadletter.StateWaiting] != 4 {
			t.Errorf("stats: %+v, %v", s, err)
		}
		r.mend("a/2")
		q := r.queue()
		letters := r.letters(deadletter.Query{})
		if err := q.Replay(t.Context(), "ann", letters[1].ID()); !errors.Is(err, deadletter.ErrNotHead) || !strings.Contains(err.Error(), letters[0].ID()) {
			t.Errorf("replay of a follower: %v", err)
		}
		if err := q.Replay(t.Context(), "ann", letters[0].ID()); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		r.wantDone("a", 6)
		r.wantStates("")
		r.add(2, "a") // The key flows again, past no letter.
		pass(time.Second)
		r.wantDone("a", 8)
		r.wantStates("")
	})
}

// TestParkedKeyMovesToAnotherMember has a key parked by one member, and its next events read by others.
func TestParkedKeyMovesToAnotherMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		_, stopA := r.start(nil)
		r.start(nil) // It joins, and has half of the partitions.
		pass(time.Second)
		for _, k := range keys {
			r.fail(k+"/1", retry.Permanent(errBroken))
		}
		r.add(1, keys...)
		pass(time.Second)
		r.broker.SetDown(true) // Nothing is read while A's partitions move to the other one.
		if err := stopA(); err != nil {
			t.Errorf("Run: %v", err)
		}
		r.broker.SetDown(false)
		r.add(1, keys...)
		pass(15 * time.Second)
		if got := r.done(); len(got) != 0 {
			t.Errorf("effects before their head was replayed: %v", got)
		}
		for _, k := range keys {
			r.mend(k + "/1")
		}
		if n, err := r.queue().ReplayBatch(t.Context(), "ann", topic, 100); n != len(keys) || err != nil {
			t.Errorf("replay: %d, %v", n, err)
		}
		pass(5 * time.Second)
		r.add(1, keys...)
		pass(time.Second)
		for _, k := range keys {
			r.wantDone(k, 3)
		}
	})
}

func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail("a/1", errBroken)
		e := r.event("a")
		r.publish(e)
		began := time.Now()
		r.start(func(cfg *consumer.Config) {
			cfg.Retry = retry.Policy{NoJitter: true}
		})
		pass(500 * time.Millisecond)
		r.wantStates("a/1 RETRYING 1; ")
		// 1 2 4 8 16 32 60 60 60: the tenth attempt is after 243 s, the next would be past 300.
		pass(242 * time.Second)
		r.wantStates("a/1 RETRYING 9; ")
		pass(10 * time.Second)
		r.wantStates("a/1 DEAD 10; ")
		l := r.letters(deadletter.Query{})[0]
		if l.Cause != "broken" || l.Permanent || l.Partition == "" || l.Position == "" || l.FirstAt.Sub(began) > time.Second ||
			l.LastAt.Sub(l.FirstAt) < 243*time.Second || l.LastAt.Sub(l.FirstAt) > 245*time.Second {
			t.Errorf("letter: %+v", l)
		}
		got := r.outbox()
		if len(got) != 1 || r.deaths() != 1 {
			t.Fatalf("%d copies, %d hooks, want 1 and 1", len(got), r.deaths())
		}
		if m := got[0]; m.Topic != "orders.DLQ" || m.CausationID != e.ID || m.ID == e.ID || m.Type != e.Type || string(m.Data) != "1" || m.AggregateID != "a" {
			t.Errorf("copy: %+v", m)
		}
		r.mend("a/1")
		if n, err := r.queue().ReplayBatch(t.Context(), "ann", topic, 10); n != 1 || err != nil {
			t.Errorf("replay a batch: %d, %v", n, err)
		}
		pass(2 * time.Second)
		r.wantDone("a", 1)
		entries, err := r.queue().Audit(t.Context(), 10)
		if err != nil || len(entries) != 2 || entries[0].Action != deadletter.ActionReplayed || entries[1].Operator != "ann" {
			t.Errorf("audit: %+v, %v", entries, err)
		}
	})
}

func TestAfterIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail("a/1", retry.After(10*time.Minute, errBroken))
		r.add(2, "a")
		r.start(nil)
		pass(35 * time.Minute)
		r.wantStates("a/1 RETRYING 0; a/2 WAITING 0; ")
		if n := r.tried("a/1"); n != 5 { // batch, alone, and three waits
			t.Errorf("%d tries, want 5", n)
		}
		r.fail("a/1", errBroken) // The policy is as fresh as on the first day.
		pass(5*time.Minute + 500*time.Millisecond)
		r.wantStates("a/1 RETRYING 1; a/2 WAITING 0; ")
		r.mend("a/1")
		pass(10 * time.Second)
		r.wantDone("a", 2)
		r.wantStates("")
	})
}

func TestPanicIsAnOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail("a/1", errPanic)
		r.add(2, "a", "b")
		r.start(nil)
		pass(500 * time.Millisecond)
		r.wantDone("b", 2)
		l := r.letters(deadletter.Query{})[0]
		if !strings.Contains(l.Cause, "handler went mad") || !strings.Contains(l.Stack, "handle") || l.State != deadletter.StateRetrying {
			t.Errorf("letter: %+v", l)
		}
		r.mend("a/1")
		pass(3 * time.Second)
		r.wantDone("a", 2)
	})
}

func TestUnknownAndMalformedAreParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(func(cfg *consumer.Config) { cfg.Known = []string{"OrderPlaced", "OrderShipped"} })
		known, unknown := r.event("a"), r.event("b")
		known.Type, unknown.Type = "OrderShipped", "OrderMisspelt"
		id := r.broker.Garble(topic, "c")
		r.publish(known, unknown, r.event("a"), r.event("b"), r.event("c"))
		pass(time.Second)
		letters := r.letters(deadletter.Query{})
		if len(letters) != 4 {
			t.Fatalf("letters: %s", r.states())
		}
		for _, l := range letters {
			switch {
			case l.Event.ID == id:
				if l.State != deadletter.StateDead || !strings.Contains(l.Cause, "malformed") || string(l.Event.Data) != "garbled" {
					t.Errorf("malformed: %+v", l)
				}
			case l.Event.ID == unknown.ID:
				if l.State != deadletter.StateDead || !strings.Contains(l.Cause, `"OrderMisspelt"`) {
					t.Errorf("unknown: %+v", l)
				}
			case l.State != deadletter.StateWaiting:
				t.Errorf("follower: %+v", l)
			}
		}
		if got := r.done(); !slices.Equal(got, []string{"a/2"}) {
			t.Errorf("effects %v, want a/2", got)
		}
		for _, l := range letters { // Replaying does not make them better, and loses nothing.
			if l.State == deadletter.StateDead {
				if err := r.queue().Replay(t.Context(), "ann", l.ID()); err != nil {
					t.Error(err)
				}
			}
		}
		pass(3 * time.Second)
		if n := len(r.letters(deadletter.Query{State: deadletter.StateDead})); n != 2 {
			t.Errorf("after replay: %s", r.states())
		}
		for _, l := range letters {
			if l.State == deadletter.StateDead {
				if err := r.queue().Discard(t.Context(), "ann", l.ID()); err != nil {
					t.Error(err)
				}
			}
		}
		pass(3 * time.Second)
		r.wantStates("")
	})
}

func TestFullPausesThePartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for i := range 40 {
			r.fail("bad"+strconv.Itoa(i), retry.Permanent(errBroken))
			r.add(1, "bad"+strconv.Itoa(i))
		}
		c, _ := r.start(func(cfg *consumer.Config) { cfg.LettersMax = 10 })
		pass(time.Minute)
		if n := len(r.letters(deadletter.Query{})); n > 13 || n < 10 { // Four partitions may look at the same moment.
			t.Errorf("%d letters, 10 allowed", n)
		}
		s, err := c.Stats(t.Context())
		if err != nil || s.Lag == 0 || !strings.Contains(fmt.Sprint(s.Partitions), "too many dead letters") {
			t.Errorf("stats: %+v, %v", s, err)
		}
		for i := range 40 {
			r.mend("bad" + strconv.Itoa(i))
		}
		if _, err := r.queue().ReplayCause(t.Context(), "ann", "", "broken"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		r.wantStates("")
		if n := len(r.done()); n != 40 {
			t.Errorf("%d effects, want 40", n)
		}
	})
}
