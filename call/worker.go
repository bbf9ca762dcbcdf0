package call

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

// ErrDrain says that DrainTimeout passed with calls in flight: they are made again under the same key
// when their lease has run out.
var ErrDrain = errors.New("drain timed out with work in flight")

var errRan = errors.New("call: Run was called twice")

// Bell is a store that says when calls were prepared. Without it a worker polls, ever more slowly up to
// Config.PollMax.
type Bell interface {
	// Listen returns a channel that receives after commits that prepared calls, and a function that ends
	// it. Rings are coalesced.
	Listen() (ring <-chan struct{}, stop func())
}

// Config is what a worker may decide. The zero Config is ready for use; what belongs to one definition is
// in its Spec.
type Config struct {
	// LeaseMargin is what a claim's lease has beyond twice the definition's Timeout (once to wait for its
	// turn, once for the attempt): the time to record. A crashed worker's calls are made again after the
	// lease, or at once by a store that voids the leases of a process that it knows to be dead. Default 10s.
	LeaseMargin time.Duration
	// PollMin and PollMax bound the wait between two looks at the store; it grows while there is nothing.
	// Default 5ms and 1s.
	PollMin, PollMax time.Duration
	// Recording bounds the answers that are recorded at the same time: a store that commits in groups
	// is fast only with many. Default 4 times the definition's InFlight.
	Recording int
	// DrainTimeout bounds the end of calls in flight after Run's context is done; it should exceed the
	// definition's Timeout. Default 30s.
	DrainTimeout time.Duration
	// Logger receives life cycle and failures. Default slog.Default().
	Logger *slog.Logger
	// Hooks are called for metrics. Default none.
	Hooks Hooks
	// Failpoint is called at "call.before-perform", "call.after-perform", "call.before-commit" and
	// "call.after-record", for crash tests. Default none.
	Failpoint func(name string)
}

// Hooks are called by the goroutine that did the work; they must not block.
type Hooks struct {
	// Performed has an attempt, how long it took, and its error.
	Performed func(w Work, took time.Duration, err error)
	// Recorded has a call whose outcome is durable; err is set when it was refused or given up.
	Recorded func(w Work, at time.Time, err error)
	// Deferred has a call that is made again, and when.
	Deferred func(w Work, due time.Time, err error)
	// LeaseLost has a call whose answer came after the lease: another worker has it.
	LeaseLost func(w Work)
}

const (
	backoffShortest = 50 * time.Millisecond
	backoffLongest  = 5 * time.Second
	// queued is how many calls wait for each one in flight: claiming is a commit, during which many fast
	// calls end.
	queued = 4
	// errorBytesMax bounds the text kept of an error.
	errorBytesMax = 4096
)

// Worker performs the prepared calls of one definition. Several workers on one store are safe: they lease.
type Worker struct {
	run   txn.Runner
	store Store
	def   Definition
	cfg   Config
	ran   atomic.Bool

	timeout  time.Duration
	inFlight int
	policy   retry.Policy
	past     histories

	queue   chan claimed
	answers chan answered
	freed   chan struct{} // rings when the queue has become shorter
}

type claimed struct {
	Work

	until time.Time // end of the lease
}

type answered struct {
	claimed

	answer any
	err    error
}

// NewWorker returns a worker for the calls of a definition in a store.
func NewWorker(run txn.Runner, store Store, def Definition, cfg Config) (*Worker, error) {
	timeout, inFlight, policy := def.limits()
	fill(&cfg.LeaseMargin, 10*time.Second)
	fill(&cfg.PollMin, 5*time.Millisecond)
	fill(&cfg.PollMax, time.Second)
	fill(&cfg.Recording, min(InFlightMax, 4*inFlight))
	fill(&cfg.DrainTimeout, 30*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Logger = cfg.Logger.With("call", def.Name())
	if cfg.Failpoint == nil {
		cfg.Failpoint = func(string) {}
	}
	switch {
	case cfg.PollMin < 0 || cfg.PollMax < cfg.PollMin:
		return nil, fmt.Errorf("call: %s: poll from %s to %s", def.Name(), cfg.PollMin, cfg.PollMax)
	case cfg.LeaseMargin < 0 || cfg.DrainTimeout < 0:
		return nil, fmt.Errorf("call: %s: lease margin %s, drain timeout %s: must not be negative", def.Name(), cfg.LeaseMargin, cfg.DrainTimeout)
	case cfg.Recording < 1 || cfg.Recording > InFlightMax:
		return nil, fmt.Errorf("call: %s: %d recording, 1 to %d allowed", def.Name(), cfg.Recording, InFlightMax)
	}
	return &Worker{
		run: run, store: store, def: def, cfg: cfg, timeout: timeout, inFlight: inFlight, policy: policy,
		queue: make(chan claimed, queued*inFlight), answers: make(chan answered, inFlight), freed: make(chan struct{}, 1),
	}, nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Run performs calls until ctx is done and those in flight are recorded, then returns nil. An error of the
// store makes it wait for as long as it takes. ErrDrain says that DrainTimeout passed. Call it once.
func (w *Worker) Run(ctx context.Context) error {
	if !w.ran.CompareAndSwap(false, true) {
		return errRan
	}
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	done := make(chan struct{})
	go func() { w.serve(ctx, work); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	limit := time.NewTimer(w.cfg.DrainTimeout)
	defer limit.Stop()
	select {
	case <-done:
		return nil
	case <-limit.C:
		return fmt.Errorf("call: %s: %s: %w", w.def.Name(), w.cfg.DrainTimeout, ErrDrain)
	}
}

// serve is a pipeline: one goroutine claims, InFlight perform, Recording record. A slot of the remote
// side is not held by a commit of ours.
func (w *Worker) serve(ctx, work context.Context) {
	var performers, recorders sync.WaitGroup
	for range w.cfg.Recording {
		recorders.Go(func() {
			for a := range w.answers {
				w.settle(work, a)
			}
		})
	}
	for range w.inFlight {
		performers.Go(func() {
			for c := range w.queue {
				select {
				case w.freed <- struct{}{}:
				default:
				}
				if ctx.Err() != nil {
					w.giveBack(work, c)
					continue
				}
				if a, ok := w.attempt(work, c); ok {
					w.answers <- a
				}
			}
		})
	}
	w.claim(ctx)
	close(w.queue)
	performers.Wait()
	close(w.answers)
	recorders.Wait()
}

// claim keeps the queue filled. It claims again when half of it is free, so that one statement leases many.
func (w *Worker) claim(ctx context.Context) {
	var ring <-chan struct{}
	if b, ok := w.store.(Bell); ok {
		var stop func()
		ring, stop = b.Listen()
		defer stop()
	}
	idle, failures := w.cfg.PollMin, 0
	for ctx.Err() == nil {
		free := cap(w.queue) - len(w.queue)
		if free < (cap(w.queue)+1)/2 {
			sleep(ctx, w.cfg.PollMax, w.freed)
			continue
		}
		n, wait, err := w.claimUpTo(ctx, free)
		switch {
		case err != nil && ctx.Err() == nil:
			wait = min(backoffLongest, backoffShortest<<min(failures, 10))
			failures++
			w.cfg.Logger.Warn("claiming calls failed, trying again", "attempt", failures, "wait", wait, "err", err)
			sleep(ctx, wait, nil)
		case n > 0:
			idle, failures = w.cfg.PollMin, 0
		default:
			failures = 0
			sleep(ctx, min(wait, idle), ring)
			if ring != nil {
				idle = w.cfg.PollMax // The bell is faster than any poll; the poll is for other processes.
			}
			idle = min(w.cfg.PollMax, 2*idle)
		}
	}
}

// claimUpTo leases due calls into the queue. When there are none, it returns how long that will last.
func (w *Worker) claimUpTo(ctx context.Context, limit int) (n int, wait time.Duration, err error) {
	at, ok, err := w.store.Next(ctx, w.def.Name())
	if err != nil || !ok {
		return 0, w.cfg.PollMax, err
	}
	now := time.Now()
	if wait := at.Sub(now); wait > 0 {
		return 0, wait, nil
	}
	until := now.Add(2*w.timeout + w.cfg.LeaseMargin)
	works, err := w.store.Claim(ctx, w.def.Name(), now, until, limit)
	if err != nil {
		return 0, 0, err
	}
	for _, work := range works {
		w.queue <- claimed{work, until}
	}
	return len(works), w.cfg.PollMin, nil
}

func sleep(ctx context.Context, d time.Duration, ring <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ring:
	case <-ctx.Done():
	}
}

// attempt makes one attempt; ok is false when there is nothing to record.
func (w *Worker) attempt(work context.Context, c claimed) (answered, bool) {
	if time.Until(c.until) < w.timeout+w.cfg.LeaseMargin/2 {
		w.giveBack(work, c) // It waited too long for its turn: the lease might end before the answer is recorded.
		return answered{}, false
	}
	w.cfg.Failpoint("call.before-perform")
	began := time.Now()
	ctx, cancel := context.WithTimeout(event.WithCause(work, c.Cause), w.timeout)
	answer, err := w.perform(ctx, &c.Work)
	cancel()
	w.cfg.Failpoint("call.after-perform")
	if w.cfg.Hooks.Performed != nil {
		w.cfg.Hooks.Performed(c.Work, time.Since(began), err)
	}
	if err == nil || retry.IsPermanent(err) {
		return answered{c, answer, err}, true
	}
	if work.Err() != nil {
		return answered{}, false // Cut off by DrainTimeout: the lease runs out.
	}
	now := time.Now()
	if wait, ok := retry.IsAfter(err); ok {
		w.putOff(work, c, now.Add(max(wait, time.Millisecond)), err)
		return answered{}, false
	}
	first, count := w.past.failed(c.Key, c.Attempts, now)
	due, again := w.policy.Next(count, first, now)
	if again {
		w.putOff(work, c, due, err)
		return answered{}, false
	}
	return answered{c, nil, err}, true
}

func (w *Worker) perform(ctx context.Context, work *Work) (answer any, err error) {
	defer func() {
		if p := recover(); p != nil {
			answer, err = nil, panicked(p)
		}
	}()
	return w.def.perform(ctx, work)
}

// errLeaseLost rolls a recording back.
var errLeaseLost = errors.New("lease was lost")

// settle records an outcome. When Record itself refuses, the answer is lost and the call is made again
// under the same key; when the store fails, the answer is kept and recorded while the lease lasts.
func (w *Worker) settle(work context.Context, a answered) {
	for n := 0; ; n++ {
		var refused error
		err := w.run.Run(work, func(ctx context.Context, tx *txn.Tx) error {
			refused = nil
			ok, err := w.store.Finish(ctx, tx, a.Work)
			if err != nil {
				return fmt.Errorf("finish: %w", err)
			}
			if !ok {
				return errLeaseLost
			}
			if refused = w.record(event.WithCause(ctx, a.Cause), tx, &a); refused != nil {
				return refused
			}
			w.cfg.Failpoint("call.before-commit")
			return nil
		})
		wait := min(backoffLongest, backoffShortest<<min(n, 10))
		switch {
		case err == nil:
			w.recorded(a)
			return
		case errors.Is(err, errLeaseLost):
			w.cfg.Logger.Warn("answer came after the lease, another worker has the call", "key", a.Key, "attempt", a.Attempts)
			if w.cfg.Hooks.LeaseLost != nil {
				w.cfg.Hooks.LeaseLost(a.Work)
			}
			return
		case work.Err() != nil:
			return
		case refused != nil:
			w.cfg.Logger.Error("recording was refused, the call is made again", "key", a.Key, "attempt", a.Attempts, "err", refused)
			now := time.Now()
			_, count := w.past.failed(a.Key, a.Attempts, now)
			w.putOff(work, a.claimed, now.Add(w.policy.Wait(count)), fmt.Errorf("record: %w", refused))
			return
		case time.Until(a.until) < wait:
			w.cfg.Logger.Warn("store did not take the answer in time, the call is made again", "key", a.Key, "err", err)
			return
		}
		w.cfg.Logger.Warn("store did not take the answer, trying again", "key", a.Key, "attempt", n+1, "err", err)
		sleep(work, wait, nil)
	}
}

func (w *Worker) record(ctx context.Context, tx *txn.Tx, a *answered) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
	}()
	return w.def.record(ctx, tx, &a.Work, a.answer, a.err)
}

func (w *Worker) recorded(a answered) {
	w.cfg.Failpoint("call.after-record")
	w.past.forget(a.Key)
	if a.err != nil {
		w.cfg.Logger.Warn("call ended without an answer", "key", a.Key, "attempt", a.Attempts, "err", a.err)
	}
	if w.cfg.Hooks.Recorded != nil {
		w.cfg.Hooks.Recorded(a.Work, time.Now(), a.err)
	}
}

// putOff gives a call back until due. If that fails the lease runs out, which puts it off just the same.
func (w *Worker) putOff(work context.Context, c claimed, due time.Time, cause error) {
	text := cause.Error()
	if len(text) > errorBytesMax {
		text = text[:errorBytesMax]
	}
	if err := w.store.Defer(work, c.Work, due, text); err != nil {
		w.cfg.Logger.Warn("deferring failed, the lease runs out instead", "key", c.Key, "err", err)
	}
	w.cfg.Logger.Warn("call is made again", "key", c.Key, "attempt", c.Attempts, "due", due, "err", cause)
	if w.cfg.Hooks.Deferred != nil {
		w.cfg.Hooks.Deferred(c.Work, due, cause)
	}
}

// giveBack returns a call that was not begun.
func (w *Worker) giveBack(work context.Context, c claimed) {
	if err := w.store.Defer(work, c.Work, time.Now(), c.LastError); err != nil {
		w.cfg.Logger.Warn("giving a call back failed, its lease runs out instead", "key", c.Key, "err", err)
	}
}
