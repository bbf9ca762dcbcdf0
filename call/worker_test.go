package call_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

type request struct {
	Order string `json:"order"`
}

type answer struct {
	Reference string
}

var errDown = errors.New("gateway is down")

// world is a store and a gateway that knows idempotency keys.
type world struct {
	t     *testing.T
	store *memory.Store
	run   txn.Runner

	mu       sync.Mutex
	down     error
	takes    time.Duration
	attempts map[string]int
	charged  map[string]int // by key: what the remote side did
	running  int
	peak     int
	outcomes []call.Outcome[request, answer] // recorded for good
	refuse   error                           // by Record
	mad      bool
	causes   []event.Cause
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(), attempts: map[string]int{}, charged: map[string]int{}}
	w.run = w.store
	return w
}

func (w *world) locked(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

func (w *world) do(ctx context.Context, key string, req request) (answer, error) {
	var err error
	var takes time.Duration
	var mad bool
	w.locked(func() {
		w.attempts[key]++
		w.running++
		w.peak = max(w.peak, w.running)
		err, takes, mad = w.down, w.takes, w.mad
		w.causes = append(w.causes, event.CauseFrom(ctx))
	})
	defer w.locked(func() { w.running-- })
	if mad {
		panic("client went mad")
	}
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
	if err != nil {
		return answer{}, err
	}
	w.locked(func() { w.charged[key] = 1 }) // The same key again is the same charge.
	return answer{"ref-" + req.Order}, nil
}

func (w *world) record(_ context.Context, tx *txn.Tx, o call.Outcome[request, answer]) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		if w.refuse.Error() == "panic" {
			panic("record went mad")
		}
		return w.refuse
	}
	tx.AfterCommit(func() { w.locked(func() { w.outcomes = append(w.outcomes, o) }) })
	return nil
}

func (w *world) tried(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.attempts[key]
}

func (w *world) read(n *int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *n
}

func (w *world) recorded() []call.Outcome[request, answer] {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.outcomes)
}

func (w *world) define(change func(*call.Spec[request, answer])) *call.Def[request, answer] {
	s := call.Spec[request, answer]{Do: w.do, Record: w.record}
	if change != nil {
		change(&s)
	}
	return call.Define("authorize", s)
}

func (w *world) prepare(d *call.Def[request, answer], keys ...string) {
	w.t.Helper()
	err := w.store.Run(w.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		for _, k := range keys {
			if err := call.Prepare(event.WithCause(ctx, event.Cause{CorrelationID: "c-" + k}), tx, d, k, request{k}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) start(d call.Definition, cfg call.Config) (stop func() error) {
	w.t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	worker, err := call.NewWorker(w.run, w.store.Calls(), d, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() { cancel(); result = <-done })
		return result
	}
	w.t.Cleanup(func() { _ = stop() })
	return stop
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// wantOnce checks that each key has one recorded answer.
func (w *world) wantOnce(keys ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	count := map[string]int{}
	for _, o := range w.outcomes {
		count[o.Key]++
		if o.Err != nil || o.Response.Reference != "ref-"+o.Request.Order {
			w.t.Errorf("outcome %+v", o)
		}
	}
	for _, k := range keys {
		if count[k] != 1 || w.charged[k] != 1 {
			w.t.Errorf("%s: recorded %d times, charged %d times, want 1 and 1", k, count[k], w.charged[k])
		}
	}
	if len(count) != len(keys) {
		w.t.Errorf("%d keys recorded, want %d", len(count), len(keys))
	}
}

func names(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "order-" + strconv.Itoa(i)
	}
	return keys
}

func TestPerformsAndRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(func(s *call.Spec[request, answer]) { s.InFlight = 7 })
		w.takes = 50 * time.Millisecond
		keys := names(100)
		w.prepare(d, keys[:50]...)
		stop := w.start(d, call.Config{})
		pass(time.Millisecond)
		w.prepare(d, keys...) // The first half again changes nothing.
		pass(2 * time.Second)
		w.wantOnce(keys...)
		for _, k := range keys {
			if w.tried(k) != 1 {
				t.Errorf("%s was tried %d times", k, w.tried(k))
			}
		}
		if peak := w.read(&w.peak); peak != 7 {
			t.Errorf("%d calls at the same time, want 7", peak)
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if c := w.causes[0]; !strings.HasPrefix(c.CorrelationID, "c-order-") {
			t.Errorf("cause %+v", c)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestStartsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(nil)
		w.start(d, call.Config{})
		pass(time.Minute) // An idle worker polls slowly.
		w.prepare(d, "a")
		limit := 5 * time.Millisecond
		if _, ok := w.store.Calls().(call.Bell); !ok {
			limit = time.Second
		}
		pass(limit)
		w.wantOnce("a")
	})
}

func TestGatewayDownForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(nil)
		w.start(d, call.Config{})
		w.locked(func() { w.down = errDown })
		keys := names(200)
		w.prepare(d, keys...)
		pass(time.Minute)
		w.locked(func() { w.down = nil })
		pass(13 * time.Second) // The longest wait is 10 s.
		w.wantOnce(keys...)
		o, ok := w.store.Calls().(call.Observer)
		if !ok {
			t.Fatal("store cannot count calls")
		}
		p, err := o.Pending(t.Context())
		if err != nil || len(p) != 0 {
			t.Errorf("pending: %+v, %v", p, err)
		}
	})
}

func TestTimeoutRepeatsUnderTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(func(s *call.Spec[request, answer]) { s.Timeout = time.Second })
		w.takes = time.Hour
		w.prepare(d, "a")
		w.start(d, call.Config{})
		pass(10 * time.Second)
		w.locked(func() { w.takes = 0 })
		pass(15 * time.Second)
		w.wantOnce("a")
		if n := w.tried("a"); n < 4 {
			t.Errorf("%d attempts", n)
		}
	})
}

func TestRefusalIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(nil)
		w.down = retry.Permanent(errors.New("card declined"))
		w.prepare(d, "a")
		w.start(d, call.Config{})
		pass(time.Minute)
		if len(w.recorded()) != 1 || w.recorded()[0].Err == nil || w.recorded()[0].Err.Error() != "card declined" || w.tried("a") != 1 ||
			w.recorded()[0].Request.Order != "a" {
			t.Errorf("outcomes %+v after %d attempts", w.recorded(), w.tried("a"))
		}
	})
}

func TestExhaustedPolicyIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(func(s *call.Spec[request, answer]) {
			s.Retry = retry.Policy{NoJitter: true, TotalMax: 10 * time.Second}
		})
		w.prepare(d, "a")
		pass(time.Hour) // Nobody was there: waiting for a worker is no failure.
		w.locked(func() { w.down = errDown })
		w.start(d, call.Config{})
		pass(6 * time.Second) // Attempts at 0, 1, 3 s.
		if len(w.recorded()) != 0 || w.tried("a") != 3 {
			t.Errorf("outcomes %+v after %d attempts", w.recorded(), w.tried("a"))
		}
		pass(2 * time.Second) // The next would be at 15 s.
		if len(w.recorded()) != 1 || !errors.Is(w.recorded()[0].Err, errDown) || w.tried("a") != 4 {
			t.Errorf("outcomes %+v after %d attempts", w.recorded(), w.tried("a"))
		}
	})
}

func TestAfterIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(func(s *call.Spec[request, answer]) { s.Retry = retry.Policy{TotalMax: 10 * time.Second} })
		w.down = retry.After(time.Minute, errors.New("rate limit"))
		w.prepare(d, "a")
		w.start(d, call.Config{})
		pass(10*time.Minute + 30*time.Second)
		if w.tried("a") != 11 || len(w.recorded()) != 0 {
			t.Errorf("%d attempts, outcomes %+v", w.tried("a"), w.recorded())
		}
		w.locked(func() { w.down = nil })
		pass(time.Minute)
		w.wantOnce("a")
	})
}

func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(nil)
		w.mad = true
		w.prepare(d, "a")
		w.start(d, call.Config{})
		pass(time.Second)
		w.locked(func() { w.mad, w.refuse = false, errors.New("panic") })
		pass(time.Minute)
		if len(w.recorded()) != 0 {
			t.Errorf("outcomes %+v", w.recorded())
		}
		w.locked(func() { w.refuse = nil })
		pass(time.Minute)
		w.wantOnce("a")
	})
}

// TestRecordRefuses loses the answer: the call is made again under the same key.
func TestRecordRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(nil)
		w.refuse = errors.New("constraint")
		w.prepare(d, "a")
		w.start(d, call.Config{})
		pass(time.Minute)
		before := w.tried("a")
		w.locked(func() { w.refuse = nil })
		pass(time.Minute)
		w.wantOnce("a")
		if before < 5 || before > 20 || w.tried("a") != before+1 {
			t.Errorf("%d attempts, then %d", before, w.tried("a"))
		}
	})
}

// TestCrashRepeatsTheKey freezes a worker at each named point and lets another take over when the lease
// has run out. The frozen one then wakes, and must not record.
func TestCrashRepeatsTheKey(t *testing.T) {
	for _, point := range []string{"call.before-perform", "call.after-perform", "call.after-record"} {
		t.Run(point, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.define(nil)
				keys := names(5)
				w.prepare(d, keys...)
				frozen := make(chan struct{})
				lost := 0
				stop := w.start(d, call.Config{
					DrainTimeout: time.Hour,
					Failpoint: func(name string) {
						if name == point {
							<-frozen
						}
					},
					Hooks: call.Hooks{LeaseLost: func(call.Work) { w.locked(func() { lost++ }) }},
				})
				pass(10 * time.Second)
				stopped := make(chan error, 1)
				go func() { stopped <- stop() }() // It claims no more, and is stuck with what it has.
				w.start(d, call.Config{})
				pass(time.Minute)
				w.wantOnce(keys...)
				close(frozen)
				pass(time.Minute)
				w.wantOnce(keys...)
				want := map[string]int{"call.before-perform": 2, "call.after-perform": 2, "call.after-record": 1}[point]
				for _, k := range keys {
					if w.tried(k) != want {
						t.Errorf("%s was tried %d times, want %d", k, w.tried(k), want)
					}
				}
				if n := w.read(&lost); want == 2 && n != len(keys) {
					t.Errorf("%d leases lost, want %d", n, len(keys))
				}
				if err := <-stopped; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// outage is a runner whose store is away for a while.
type outage struct {
	txn.Runner

	mu  sync.Mutex
	err error
}

func (o *outage) Run(ctx context.Context, fn func(context.Context, *txn.Tx) error) error {
	o.mu.Lock()
	err := o.err
	o.mu.Unlock()
	if err != nil {
		return err
	}
	return o.Runner.Run(ctx, fn)
}

// TestStoreAwayKeepsTheAnswer has the store refuse transactions for less than a lease.
func TestStoreAwayKeepsTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := &outage{Runner: w.store, err: errors.New("busy")}
		w.run = o
		d := w.define(nil)
		w.prepare(d, "a")
		w.start(d, call.Config{})
		pass(2 * time.Second)
		o.mu.Lock()
		o.err = nil
		o.mu.Unlock()
		pass(10 * time.Second)
		w.wantOnce("a")
		if w.tried("a") != 1 {
			t.Errorf("%d attempts, want 1: the answer was in hand", w.tried("a"))
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(func(s *call.Spec[request, answer]) { s.InFlight = 2 })
		w.takes = 3 * time.Second
		keys := names(10)
		w.prepare(d, keys...)
		stop := w.start(d, call.Config{})
		pass(time.Second)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if len(w.recorded()) != 2 {
			t.Errorf("%d recorded, want the 2 in flight", len(w.recorded()))
		}
		w.start(d, call.Config{}) // The rest was given back: no lease is waited out.
		pass(13 * time.Second)
		w.wantOnce(keys...)
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.define(func(s *call.Spec[request, answer]) {
			s.Do = func(context.Context, string, request) (answer, error) {
				<-time.After(time.Hour) // It does not look at its context.
				return answer{}, nil
			}
		})
		w.prepare(d, "a")
		stop := w.start(d, call.Config{DrainTimeout: time.Second})
		pass(time.Second)
		if err := stop(); !errors.Is(err, call.ErrDrain) {
			t.Errorf("Run: %v, want ErrDrain", err)
		}
		pass(2 * time.Hour)
	})
}

func TestNewWorkerRefuses(t *testing.T) {
	w := newWorld(t)
	d := w.define(nil)
	for _, cfg := range []call.Config{{PollMin: time.Minute}, {LeaseMargin: -1}, {Recording: -1}, {Recording: call.InFlightMax + 1}} {
		if _, err := call.NewWorker(w.run, w.store.Calls(), d, cfg); err == nil {
			t.Errorf("accepted %+v", cfg)
		}
	}
}
