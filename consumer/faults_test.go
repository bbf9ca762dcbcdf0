package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

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
