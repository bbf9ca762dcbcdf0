package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

func records(t *testing.T, s *memory.Store) []outbox.Record {
	t.Helper()
	l, err := s.Outbox().Claim(t.Context(), 0, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Outbox().Next(t.Context(), l, outbox.Position{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestHandlesInOrderOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		keys := []string{"a", "b", "c", "d", "e", "f", "g"}
		r.add(100, keys...)
		c, stop := r.start(nil)
		pass(time.Second)
		r.add(50, keys...)
		pass(time.Second)
		for _, k := range keys {
			r.wantDone(k, 150)
		}
		s, err := c.Stats(t.Context())
		if err != nil || s.Lag != 0 || len(s.Partitions) != 4 {
			t.Errorf("stats: %+v, %v", s, err)
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		// Nothing comes again to the next process: the position was stored with the effects.
		r.start(nil)
		pass(time.Second)
		if n := r.count(&r.dups); n != 0 {
			t.Errorf("%d duplicates", n)
		}
	})
}

func TestDuplicateHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		one, two := r.event("a"), r.event("a")
		r.publish(one, one, two, one) // A relay that crashed sends again at a new offset, also in one batch.
		_, stop := r.start(nil)
		pass(time.Second)
		r.publish(two, one)
		pass(time.Second)
		r.wantDone("a", 2)
		if r.count(&r.dups) != 4 {
			t.Errorf("%d duplicates, want 4", r.count(&r.dups))
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		// A new process knows what the old one did.
		r.start(nil)
		r.publish(one, r.event("a"))
		pass(time.Second)
		r.wantDone("a", 3)
	})
}

func TestCauseIsInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		def := event.Define("Billed", 1, event.Spec[string]{Topic: "bills", Aggregate: "bill", Key: func(s string) string { return s }})
		r.start(func(cfg *consumer.Config) {
			cfg.Handlers["OrderPlaced"] = func(ctx context.Context, tx *txn.Tx, e event.Envelope) error {
				tx.Bind("billing", nil)
				return outbox.Add(ctx, tx, def.New(e.AggregateID))
			}
		})
		e := r.event("a")
		r.publish(e)
		pass(time.Second)
		got := r.outbox()
		if len(got) != 1 || got[0].CausationID != e.ID || got[0].CorrelationID != e.CorrelationID {
			t.Errorf("got %+v, want one event caused by %s", got, e.ID)
		}
	})
}

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

func TestOutagesBurnNothing(t *testing.T) {
	tests := map[string]func(r *rig, f *faulty) (end func()){
		"broker": func(r *rig, _ *faulty) func() {
			r.broker.SetDown(true)
			return func() { r.broker.SetDown(false) }
		},
		"store": func(_ *rig, f *faulty) func() {
			f.set(errBroken, nil)
			return func() { f.set(nil, nil) }
		},
		"commit": func(_ *rig, f *faulty) func() {
			f.set(nil, func() error { return errBroken })
			return func() { f.set(nil, nil) }
		},
		"store, as a handler sees it": func(r *rig, f *faulty) func() {
			f.set(nil, func() error { return errBroken })
			r.fail("a", fmt.Errorf("disk full: %w", errBroken))
			return func() { f.set(nil, nil); r.mend("a") }
		},
		"handler that says so": func(r *rig, _ *faulty) func() {
			r.fail("a", fmt.Errorf("query: %w", errTransient))
			return func() { r.mend("a") }
		},
	}
	for name, begin := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				f := &faulty{Runner: r.store}
				r.run = f
				r.start(func(cfg *consumer.Config) {
					cfg.Transient = func(err error) bool { return errors.Is(err, errTransient) }
				})
				r.add(3, "a", "b")
				pass(time.Second)
				if name == "broker" {
					r.add(3, "a", "b")
				}
				end := begin(r, f)
				if name != "broker" {
					r.add(3, "a", "b")
				}
				pass(time.Hour)
				if got := r.states(); got != "" || r.count(&r.paused) == 0 {
					t.Errorf("letters %q, paused %d times", got, r.count(&r.paused))
				}
				end()
				pass(15 * time.Second)
				r.wantDone("a", 6)
				r.wantDone("b", 6)
				r.wantStates("")
			})
		})
	}
}

var errTransient = errors.New("connection lost")

func TestParkedLetterSurvivesOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		f := &faulty{Runner: r.store}
		r.run = f
		r.start(func(cfg *consumer.Config) { cfg.Retry = retry.Policy{NoJitter: true} })
		r.fail("a/1", errBroken)
		r.add(1, "a")
		pass(500 * time.Millisecond)
		r.wantStates("a/1 RETRYING 1; ")
		f.set(errors.New("disk full"), nil)
		r.mend("a/1")
		pass(time.Hour)
		r.wantStates("a/1 RETRYING 1; ")
		f.set(nil, nil)
		pass(2 * time.Second)
		r.wantDone("a", 1)
	})
}

// TestTransactionAtFault has an event whose handler returns nil and whose transaction cannot commit, as
// a queued statement can bring about: it is the event's own fault, and must not block its partition.
func TestTransactionAtFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		f := &faulty{Runner: r.store}
		r.run = f
		bad := false
		f.set(nil, func() error {
			if bad {
				bad = false
				return errors.New("unique constraint")
			}
			return nil
		})
		r.start(func(cfg *consumer.Config) {
			cfg.InFlight = 1
			cfg.Handlers["OrderPlaced"] = func(ctx context.Context, tx *txn.Tx, e event.Envelope) error {
				bad = bad || (e.AggregateID == "a" && string(e.Data) == "1")
				return r.handle(ctx, tx, e)
			}
		})
		r.add(3, "a", "b", "c", "d", "e")
		pass(5 * time.Second)
		for _, k := range []string{"b", "c", "d", "e"} {
			r.wantDone(k, 3)
		}
		r.wantDone("a", 0)
		pass(10 * time.Minute)
		if l := r.letters(deadletter.Query{}); len(l) != 3 || l[0].State != deadletter.StateDead || l[0].Cause != "unique constraint" {
			t.Errorf("letters: %+v", l)
		}
	})
}

// TestCrashBetweenCommitAndAck freezes a member at each named point, as a process that hangs or dies, and
// lets another take over: every event has one effect.
func TestCrashAtEachPoint(t *testing.T) {
	for _, point := range []string{"consumer.before-commit", "consumer.after-commit", "consumer.after-ack"} {
		t.Run(point, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				frozen := make(chan struct{})
				old := &rig{}
				*old = rig{t: t, store: r.store, broker: r.broker, run: r.store, seq: r.seq, fails: r.fails, tries: r.tries}
				if point == "consumer.before-commit" {
					// A transaction cannot be left open in RAM without blocking all others: it fails, like one
					// whose connection died, and the member is frozen then.
					old.run = &faulty{Runner: r.store, commit: func() error { return errBroken }}
				}
				_, stopOld := old.start(func(cfg *consumer.Config) {
					cfg.Handlers["OrderPlaced"] = r.handle
					cfg.Hooks.Paused = func(string, error, time.Duration) { <-frozen }
					cfg.Failpoint = func(name string) {
						if name == point && point != "consumer.before-commit" {
							<-frozen
						}
					}
				})
				keys := []string{"a", "b", "c", "d", "e"}
				r.add(20, keys...)
				pass(time.Second)
				r.broker.Revoke(group) // The group notices that the member is gone.
				r.start(nil)           // Both are members: some partitions stay with the frozen one.
				pass(time.Second)
				r.broker.Revoke(group)
				close(frozen)
				pass(5 * time.Second)
				if err := stopOld(); err != nil {
					t.Errorf("old member: %v", err)
				}
				r.broker.Revoke(group)
				pass(5 * time.Second)
				for _, k := range keys {
					r.wantDone(k, 20)
				}
				r.wantStates("")
			})
		})
	}
}

// TestFencedReaderIsRefused has another process take the partitions that the broker still leaves to this
// one.
func TestFencedReaderIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var dropped []error
		_, stop := r.start(func(cfg *consumer.Config) {
			cfg.Hooks.Dropped = func(_ string, err error) { r.locked(func() { dropped = append(dropped, err) }) }
		})
		r.add(1, "a")
		pass(time.Second)
		for i := range 4 {
			if _, _, err := r.store.Positions().Take(t.Context(), group, topic+"/"+strconv.Itoa(i)); err != nil {
				t.Fatal(err)
			}
		}
		r.add(1, "a")
		pass(10 * time.Millisecond)
		r.wantDone("a", 1) // What the fenced reader did was rolled back.
		if n := r.tried("a/2"); n != 1 {
			t.Errorf("%d tries of a/2, want 1", n)
		}
		pass(5 * time.Second) // The broker still says that the partition is ours: it is taken again.
		r.wantDone("a", 2)
		r.locked(func() {
			if len(dropped) != 1 || !errors.Is(dropped[0], consumer.ErrFenced) {
				t.Errorf("dropped: %v", dropped)
			}
		})
		if err := stop(); err != nil {
			t.Error(err)
		}
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

func TestModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail("a/2", errBroken)
		_, stop := r.start(func(cfg *consumer.Config) { cfg.Mode = consumer.AtMostOnce })
		r.add(3, "a")
		pass(time.Minute)
		if got := r.done(); !slices.Equal(got, []string{"a/1", "a/3"}) || r.count(&r.lost) != 1 || r.tried("a/2") != 1 {
			t.Errorf("at most once: %v, %d lost", got, r.count(&r.lost))
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_, stop := r.start(func(cfg *consumer.Config) { cfg.Mode = consumer.AtLeastOnce })
		e := r.event("a")
		r.publish(e, e)
		r.fail("b/1", errBroken)
		r.add(2, "b")
		pass(500 * time.Millisecond)
		if got := r.doneOf("a"); len(got) != 2 {
			t.Errorf("at least once: %v, want both copies", got)
		}
		r.mend("b/1")
		pass(5 * time.Second)
		r.wantDone("b", 2)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestPositionOfUnhandledIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		f := &faulty{Runner: r.store}
		r.run = f
		_, stop := r.start(nil)
		pass(time.Second)
		before := f.count()
		for range 100 {
			e := r.event("a")
			e.Type = "OrderSeen"
			r.publish(e)
			pass(20 * time.Millisecond)
		}
		pass(3 * time.Second)
		if n := f.count() - before; n < 1 || n > 4 {
			t.Errorf("%d transactions for 2 s of events that nobody handles, want 1 to 4", n)
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		all, err := r.store.Positions().All(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		var sum uint64
		for _, p := range all {
			sum += p.Offset
		}
		if sum != 100 {
			t.Errorf("positions %v, want 100 in all", all)
		}
	})
}

func TestPositionLostReadsWhatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_, stop := r.start(nil)
		r.add(2, "a")
		pass(time.Second)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		r.add(6, "a")
		r.broker.Expire(5)
		r.start(nil)
		pass(5 * time.Second)
		if got := r.done(); !slices.Equal(got, []string{"a/1", "a/2", "a/6", "a/7", "a/8"}) {
			t.Errorf("effects %v", got)
		}
	})
}

func TestLostTailIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(nil)
		events := []event.Envelope{r.event("a"), r.event("a"), r.event("a")}
		r.publish(events...)
		pass(time.Second)
		r.broker.LoseTail(2)
		tail, err := r.broker.Tail(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.broker.Incarnate(t.Context(), tail); err != nil {
			t.Fatal(err)
		}
		r.publish(events[1:]...)
		r.add(1, "a")
		pass(2 * time.Second)
		r.wantDone("a", 4)
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.gate = make(chan struct{})
		_, stop := r.start(nil)
		r.add(3, "a")
		pass(time.Second)
		time.AfterFunc(5*time.Second, func() { close(r.gate) })
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		r.wantDone("a", 3)
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.gate = make(chan struct{})
		_, stop := r.start(func(cfg *consumer.Config) { cfg.DrainTimeout = 2 * time.Second })
		r.add(1, "a")
		pass(time.Second)
		if err := stop(); !errors.Is(err, consumer.ErrDrain) {
			t.Errorf("Run: %v, want ErrDrain", err)
		}
		close(r.gate)
		synctest.Wait()
	})
}

func TestInboxIsPurged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(func(cfg *consumer.Config) {
			cfg.InboxRetention = 10 * time.Minute
			cfg.RelayRewind, cfg.BrokerRetention, cfg.DeadLetterRetention = time.Minute, time.Minute, time.Minute
		})
		e := r.event("a")
		r.publish(e)
		pass(9 * time.Minute)
		r.publish(e)
		pass(time.Second)
		r.wantDone("a", 1)
		pass(3 * time.Minute)
		r.publish(e) // Impossible by the retention rule; it shows that the row is gone.
		pass(time.Second)
		if got := r.done(); len(got) != 2 {
			t.Errorf("effects %v", got)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := newRig(t).config()
	tests := map[string]struct {
		change func(*consumer.Config)
		want   []string
	}{
		"group":     {func(c *consumer.Config) { c.Group = "a b" }, []string{"group"}},
		"topics":    {func(c *consumer.Config) { c.Topics = nil }, []string{"no topics"}},
		"batch":     {func(c *consumer.Config) { c.BatchMax = 1001 }, []string{"1001", "1000"}},
		"mode":      {func(c *consumer.Config) { c.Mode = 7 }, []string{"mode 7"}},
		"in flight": {func(c *consumer.Config) { c.InFlight = -1 }, []string{"-1"}},
		"retry":     {func(c *consumer.Config) { c.Retry.Multiplier = 0.5 }, []string{"0.5"}},
		"retention": {func(c *consumer.Config) { c.InboxRetention = 24 * time.Hour }, []string{"24h0m0s", "144h5m0s", "72h0m0s", "48h0m0s", "5m0s"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			cfg := good
			tt.change(&cfg)
			_, err := consumer.New(r.store, r.store, r.broker, cfg)
			for _, w := range tt.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("got %v, want %q in it", err, w)
				}
			}
		})
	}
	if _, err := consumer.New(nil, struct{}{}, nil, good); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("store that can do nothing: %v", err)
	}
}

// TestRandomFaults runs three members under rebalances, outages, failing and panicking handlers, repeated
// messages and an operator, and checks that every event took effect once and in its key's order.
func TestRandomFaults(t *testing.T) {
	seeds := []uint64{1, 2, 3, rand.Uint64()}
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{n}
	}
	for _, seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Logf("SEED=%d", seed)
			synctest.Test(t, func(t *testing.T) { randomFaults(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func randomFaults(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	r := newRig(t)
	f := &faulty{Runner: r.store}
	r.run = f
	keys := make([]string, 24)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%02d", i)
	}
	member := func() (stop func() error) {
		_, stop = r.start(func(cfg *consumer.Config) {
			cfg.BatchMax = 1 + rnd.IntN(20)
			cfg.Retry.TotalMax = 20 * time.Second
		})
		return stop
	}
	members := []func() error{member(), member(), member()}
	var sent []event.Envelope
	for range 150 {
		switch rnd.IntN(14) {
		case 13:
			i := rnd.IntN(len(members))
			if err := members[i](); err != nil {
				t.Errorf("Run: %v", err)
			}
			members[i] = member()
		case 0:
			r.broker.Revoke(group)
		case 1:
			r.broker.SetDown(true)
		case 2:
			f.set(errBroken, nil)
		case 3:
			errs := []error{errBroken, retry.Permanent(errBroken), errPanic, retry.After(3*time.Second, errBroken)}
			r.fail(fmt.Sprintf("%s/%d", keys[rnd.IntN(len(keys))], 1+rnd.IntN(20)), errs[rnd.IntN(len(errs))])
		case 4:
			r.locked(func() { clear(r.fails) })
			if _, err := r.queue().ReplayBatch(t.Context(), "ann", "", 5); err != nil {
				t.Fatal(err)
			}
		case 5:
			if len(sent) > 0 {
				r.broker.SetDown(false)
				i := rnd.IntN(len(sent))
				r.publish(sent[i:min(len(sent), i+5)]...)
			}
		default:
			r.broker.SetDown(false)
			f.set(nil, nil)
			var events []event.Envelope
			for range 1 + rnd.IntN(20) {
				events = append(events, r.event(keys[rnd.IntN(len(keys))]))
			}
			r.publish(events...)
			sent = append(sent, events...)
		}
		pass(time.Duration(rnd.IntN(1500)) * time.Millisecond)
	}
	r.broker.SetDown(false)
	f.set(nil, nil)
	r.locked(func() { clear(r.fails) })
	for range 10 {
		pass(30 * time.Second)
		if _, err := r.queue().ReplayBatch(t.Context(), "ann", "", 1000); err != nil {
			t.Fatal(err)
		}
	}
	r.wantStates("")
	for _, k := range keys {
		r.wantDone(k, r.seq[k])
	}
}
