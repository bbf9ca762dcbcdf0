package relay

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
)

func newLostSink(t *testing.T, life string) *lostSink {
	t.Helper()
	l := &lostSink{fakeSink: fakeSink{t: t, active: map[route]bool{}}, life: life}
	if life != "" {
		l.opened = map[string]uint64{}
	}
	return l
}

func (l *lostSink) now() (incarnation string, stored int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.name(), len(l.stored)
}

// TestLostBetweenRuns loses different amounts while no relay runs.
func TestLostBetweenRuns(t *testing.T) {
	for _, c := range []struct {
		name      string
		life      bool
		clean     bool // the relay drained
		keep      int  // of 90
		others    int  // what others publish after the loss, before the relay looks
		incarnate bool
	}{
		{name: "nothing lost after a clean end", clean: true, keep: 90},
		{name: "nothing lost after a crash in the same life", life: true, keep: -1},
		{name: "in doubt after a crash", keep: 90, incarnate: true},
		{name: "half lost", clean: true, keep: 50, incarnate: true},
		{name: "half lost in a crash", keep: 50, incarnate: true},
		{name: "all lost", clean: true, keep: 0, incarnate: true},
		{name: "lost since the last mark", keep: 87, incarnate: true},
		{name: "filled up by others", life: true, clean: true, keep: 50, others: 200, incarnate: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				life := ""
				if c.life {
					life = "one"
				}
				src, sink := newSource(), newLostSink(t, life)
				cfg := Config{Logger: quiet(), Owner: "o"}
				stop := start(t, src, sink, cfg)
				for i := range 90 {
					src.add("t", fmt.Sprintf("k%d", i%7), 1)
					pass(30 * time.Millisecond)
				}
				pass(100 * time.Millisecond) // settled, and not marked yet
				if !c.clean {
					src.crash() // Its last mark is refused.
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if c.keep >= 0 {
					next := ""
					if c.life {
						next = "two"
					}
					sink.lose(c.keep, next)
				}
				for range c.others {
					sink.stored = append(sink.stored, broker.Message{Origin: "0.0.0"})
				}
				was, _ := sink.now()
				src.crash()
				stop = start(t, src, sink, cfg)
				pass(time.Second)
				src.add("t", "k1", 5)
				pass(3 * time.Second)
				if err := stop(); err != nil {
					t.Error(err)
				}
				got := sink.first()
				delete(got, route{})
				checkComplete(t, src, got)
				if is, n := sink.now(); (is != was) != c.incarnate {
					t.Errorf("incarnation %s after %s, %d stored", is, was, n)
				}
			})
		})
	}
}

// TestLostInOperation restarts the broker under a running relay, at random, with and without knowledge
// of its lives. The restart is told by failing calls, as a driver does.
func TestLostInOperation(t *testing.T) {
	seed, rounds := rand.Uint64(), 15
	for i := range uint64(rounds) {
		for _, knows := range []bool{false, true} {
			t.Run("", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { lossRun(t, seed+i, knows) }) })
			if t.Failed() {
				t.Fatalf("seed %d, knows its life %v", seed+i, knows)
			}
		}
	}
}

func lossRun(t *testing.T, seed uint64, knows bool) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 2))
	src, sink := newSource(), newLostSink(t, "")
	sink.latency = time.Duration(rnd.IntN(4)) * time.Millisecond
	life, tell := 0, false
	restart := func(keep func(n int) int) {
		sink.mu.Lock()
		tell, sink.down = true, !knows // Who does not know its life has to tell at every call.
		sink.mu.Unlock()
		_, n := sink.now()
		if life++; knows {
			sink.lose(keep(n), fmt.Sprint(life))
		} else {
			sink.lose(keep(n), "")
		}
	}
	sink.answer = func(broker.Message) (bool, error) {
		if tell {
			return false, errDown
		}
		return true, nil
	}
	restart(func(n int) int { return n })
	tell, sink.down = false, false
	cfg := Config{Logger: quiet(), Owner: "o", BatchMax: 20, RetryMin: time.Millisecond, RetryMax: 10 * time.Millisecond}
	stop := start(t, src, sink, cfg)
	for range 15 {
		for range 1 + rnd.IntN(200) {
			src.add("t", fmt.Sprintf("k%d", rnd.IntN(9)), 1+rnd.IntN(2))
			pass(time.Duration(rnd.IntN(20)) * time.Millisecond)
		}
		restart(func(n int) int { return n - rnd.IntN(min(n, 300)+1) })
		src.add("t", "k0", 1) // so that somebody is told
		pass(10 * time.Millisecond)
		sink.mu.Lock()
		tell, sink.down = false, false
		sink.mu.Unlock()
		if rnd.IntN(3) == 0 {
			pass(100 * time.Millisecond)
			src.crash()
		}
	}
	pass(time.Minute)
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkComplete(t, src, sink.first())
}

// TestLostReplay: parked events that were replayed lie before the marks and are lost all the same.
func TestLostReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newLostSink(t, "one")
		allow := refuser(&sink.fakeSink, "0.0.1")
		cfg := Config{Logger: quiet(), Owner: "o"}
		src.add("t", "k", 2)
		src.add("t", "other", 100)
		stop := start(t, src, sink, cfg)
		pass(10 * time.Second)
		allow()
		_, before := sink.now()
		_, _ = src.Replay(t.Context(), "t", "k")
		pass(10 * time.Second)
		if _, n := sink.now(); n != before+2 {
			t.Fatalf("%d replayed", n-before)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		sink.lose(before, "two")
		stop = start(t, src, sink, cfg)
		pass(10 * time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		checkComplete(t, src, sink.first())
	})
}

func TestLostBeyondRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newLostSink(t, "")
		var log bytes.Buffer
		var from, to outbox.Position
		cfg := Config{
			Owner: "o", Retention: time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Hooks: Hooks{Rewound: func(f, t outbox.Position) { from, to = f, t }},
		}
		stop := start(t, src, sink, cfg)
		src.add("t", "k", 10)
		pass(90 * time.Minute)
		src.add("t", "k", 10)
		pass(30*time.Minute + 2*time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		src.mu.Lock()
		src.marks = nil
		src.mu.Unlock()
		sink.lose(0, "")
		start(t, src, sink, cfg)
		pass(time.Minute)
		if from.ID != 20 || to.ID != 10 {
			t.Errorf("rewound from %s to %s", from, to)
		}
		if !strings.Contains(log.String(), "level=ERROR") {
			t.Error("nothing tells a person")
		}
		checkComplete(t, src, sink.first())
	})
}

// TestTailCheckFails: a broker that is away when the shard is claimed is waited for.
func TestTailCheckFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, sink := newSource(), newLostSink(t, "one")
		sink.down = true
		src.add("t", "k", 10)
		start(t, src, sink, Config{Logger: quiet()})
		pass(time.Hour)
		if _, n := sink.now(); n != 0 {
			t.Errorf("%d published without a look at the tail", n)
		}
		sink.mu.Lock()
		sink.down = false
		sink.mu.Unlock()
		pass(11 * time.Second)
		checkComplete(t, src, sink.first())
	})
}
