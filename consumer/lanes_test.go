package consumer

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/settledev/settle/deadletter"
)

// TestLanesNeverMissALetter lets readers park in their own lanes while others remove letters and drop
// lanes: a reader that finds its lane absent must find no letter of it in the store.
func TestLanesNeverMissALetter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const readers, rounds = 4, 10_000
	var (
		s     = newLanes()
		mu    sync.Mutex
		store = map[deadletter.Lane]int{}
		done  atomic.Bool
		work  sync.WaitGroup
		drops sync.WaitGroup
		seen  atomic.Int64
	)
	letters := func(l deadletter.Lane) int {
		mu.Lock()
		defer mu.Unlock()
		return store[l]
	}
	change := func(l deadletter.Lane, by int) {
		mu.Lock()
		defer mu.Unlock()
		store[l] = max(0, store[l]+by)
	}
	lane := func(i int) deadletter.Lane { return deadletter.Lane{Topic: "t", Key: fmt.Sprint(i)} }
	for i := range readers {
		work.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			l := lane(i)
			for range rounds {
				present := s.has(l)
				if !present {
					seen.Add(1)
					if n := letters(l); n > 0 {
						t.Errorf("lane %s is absent and has %d letters", l.Key, n)
						return
					}
				}
				if present || rnd.IntN(4) == 0 {
					s.begin(l)
					for range rnd.IntN(3) {
						runtime.Gosched()
					}
					if rnd.IntN(8) > 0 { // Else the transaction fails.
						runtime.Gosched()
						change(l, 1)
						s.end([]deadletter.Lane{l}, 1)
					} else {
						s.end([]deadletter.Lane{l}, 0)
					}
				}
			}
		})
	}
	for i := range 3 {
		drops.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for !done.Load() {
				l := lane(rnd.IntN(readers))
				change(l, -1-rnd.IntN(3))
				asked := map[deadletter.Lane]uint64{}
				if i == 0 {
					asked = s.questions()
				} else if gen, ok := s.question(l); ok {
					asked[l] = gen
				}
				for l, gen := range asked {
					if letters(l) == 0 {
						for range rnd.IntN(3) {
							runtime.Gosched()
						}
						s.drop(l, gen)
					}
				}
			}
		})
	}
	work.Wait()
	done.Store(true)
	drops.Wait()
	if seen.Load() == 0 {
		t.Error("no lane was ever dropped: the test showed nothing")
	}
	if n, _ := s.size(); int64(n) != s.any.Load() {
		t.Errorf("%d lanes, counted as %d", n, s.any.Load())
	}
}

func TestLoadedLaneIsNotDroppedByAnOldQuestion(t *testing.T) {
	s := newLanes()
	l := deadletter.Lane{Topic: "t", Key: "k"}
	s.load([]deadletter.Lane{l})
	gen, ok := s.question(l)
	if !ok {
		t.Fatal("no question allowed")
	}
	s.load([]deadletter.Lane{l}) // Another process has parked in between, and lost the partition to this one.
	s.drop(l, gen)
	if !s.has(l) {
		t.Error("the lane is gone")
	}
}

func TestLaneParkedMeanwhileIsNotDropped(t *testing.T) {
	s := newLanes()
	l := deadletter.Lane{Topic: "t", Key: "k"}
	s.begin(l)
	if _, ok := s.question(l); ok {
		t.Error("a question is allowed while a park is open: its answer could be too old")
	}
	s.end([]deadletter.Lane{l}, 1)
	gen, ok := s.question(l)
	if !ok {
		t.Fatal("no question allowed")
	}
	s.begin(l)
	s.drop(l, gen)
	s.end([]deadletter.Lane{l}, 1)
	s.drop(l, gen)
	if !s.has(l) {
		t.Error("the lane is gone")
	}
	if gen, ok = s.question(l); !ok {
		t.Fatal("no question allowed")
	}
	if s.drop(l, gen); s.has(l) {
		t.Error("the lane is still there")
	}
}
