package timer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// ErrDrain says that DrainTimeout passed with a transaction open. It was cut off; its timers fire later.
var ErrDrain = errors.New("drain timed out with work in flight")

var errRan = errors.New("timer: Run was called twice")

// Bell is a store that says when timers were set: an engine that waits looks again. Without it a timer
// whose time is earlier than all others may fire late by Config.PollMax.
type Bell interface {
	// Listen returns a channel that receives after commits that set timers, and a function that ends it.
	// Rings are coalesced.
	Listen() (ring <-chan struct{}, stop func())
}

// Config is what an engine may decide. The zero Config is ready for use.
type Config struct {
	// BatchMax bounds the timers that fire in one transaction, up to txn.EventsPerTxMax. Default 100.
	BatchMax int
	// PollMax bounds the wait between two looks at the store. Default 1s.
	PollMax time.Duration
	// DrainTimeout bounds the end of an open transaction after Run's context is done. Default 30s.
	DrainTimeout time.Duration
	// Logger receives life cycle and failures. Default slog.Default().
	Logger *slog.Logger
	// Hooks are called for metrics. Default none.
	Hooks Hooks
	// Failpoint is called at "timer.before-commit" and "timer.after-commit", for crash tests. Default none.
	Failpoint func(name string)
}

// Hooks are called by the engine after a commit; they must not block.
type Hooks struct {
	// Fired has a timer whose event was added, and how late it was.
	Fired func(t Timer, late time.Duration)
	// Postponed has a timer whose event was refused by the service's own listeners, and when it is tried
	// again.
	Postponed func(t Timer, at time.Time, err error)
	// Failed has an error of the store, and how long the engine waits.
	Failed func(err error, wait time.Duration)
}

const (
	backoffShortest = 50 * time.Millisecond
	backoffLongest  = 5 * time.Second
	// postponeShortest and postponeLongest bound how far a refused timer is put off.
	postponeShortest = time.Second
	postponeLongest  = time.Minute
)

// Engine fires timers. Several engines on one store are safe: the transaction that deletes a timer's row
// fires it.
type Engine struct {
	run   txn.Runner
	store Store
	cfg   Config
	ran   atomic.Bool
	// refused counts in a row how often a timer's event was refused.
	refused map[string]int
}

// NewEngine returns an engine that fires the timers of a store through run.
func NewEngine(run txn.Runner, store Store, cfg Config) (*Engine, error) {
	if cfg.BatchMax == 0 {
		cfg.BatchMax = 100
	}
	if cfg.PollMax == 0 {
		cfg.PollMax = time.Second
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 30 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Failpoint == nil {
		cfg.Failpoint = func(string) {}
	}
	switch {
	case cfg.BatchMax < 1 || cfg.BatchMax > txn.EventsPerTxMax:
		return nil, fmt.Errorf("timer: batch of %d timers, 1 to %d allowed", cfg.BatchMax, txn.EventsPerTxMax)
	case cfg.PollMax < 0 || cfg.DrainTimeout < 0:
		return nil, fmt.Errorf("timer: poll %s, drain timeout %s: must not be negative", cfg.PollMax, cfg.DrainTimeout)
	}
	return &Engine{run: run, store: store, cfg: cfg, refused: map[string]int{}}, nil
}

// Run fires timers until ctx is done and the open transaction has ended, then returns nil. An error of the
// store makes it wait for as long as it takes. ErrDrain says that DrainTimeout passed. Call it once.
func (e *Engine) Run(ctx context.Context) error {
	if !e.ran.CompareAndSwap(false, true) {
		return errRan
	}
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	done := make(chan struct{})
	go func() { e.serve(ctx, work); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	limit := time.NewTimer(e.cfg.DrainTimeout)
	defer limit.Stop()
	select {
	case <-done:
		return nil
	case <-limit.C:
		return fmt.Errorf("timer: %s: %w", e.cfg.DrainTimeout, ErrDrain)
	}
}

func (e *Engine) serve(ctx, work context.Context) {
	var ring <-chan struct{}
	if b, ok := e.store.(Bell); ok {
		var stop func()
		ring, stop = b.Listen()
		defer stop()
	}
	failures := 0
	for ctx.Err() == nil {
		wait, err := e.turn(ctx, work)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			wait = min(backoffLongest, backoffShortest<<min(failures, 10))
			failures++
			e.cfg.Logger.Warn("firing timers failed, trying again", "attempt", failures, "wait", wait, "err", err)
			if e.cfg.Hooks.Failed != nil {
				e.cfg.Hooks.Failed(err, wait)
			}
			sleep(ctx, wait, nil)
			continue
		}
		failures = 0
		if wait > 0 {
			sleep(ctx, wait, ring)
		}
	}
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

// turn fires what is due and returns how long nothing will be.
func (e *Engine) turn(ctx, work context.Context) (time.Duration, error) {
	at, ok, err := e.store.Next(ctx)
	if err != nil {
		return 0, fmt.Errorf("next timer: %w", err)
	}
	if !ok {
		return e.cfg.PollMax, nil
	}
	if wait := time.Until(at); wait > 0 {
		return min(wait, e.cfg.PollMax), nil
	}
	_, err = e.fire(work, e.cfg.BatchMax)
	if _, ok := errors.AsType[*refusedError](err); !ok {
		return 0, err
	}
	// One of them is refused: fire one by one, so that only that one waits.
	for range e.cfg.BatchMax {
		if n, err := e.fireOne(work); err != nil || n == 0 {
			return 0, err
		}
	}
	return 0, nil
}

// refusedError says that an in-transaction listener or a limit refused a timer's event.
type refusedError struct {
	timer Timer
	err   error
}

func (e *refusedError) Error() string { return "timer " + e.timer.Key + ": " + e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// fire takes up to limit due timers and adds their events, in one transaction. It returns how many fired.
func (e *Engine) fire(work context.Context, limit int) (int, error) {
	var (
		taken   []Timer
		refused *refusedError
		now     time.Time
	)
	err := e.run.Run(work, func(ctx context.Context, tx *txn.Tx) (err error) {
		refused, now = nil, tx.Now()
		if taken, err = e.store.Take(ctx, tx, now, limit); err != nil {
			return err
		}
		for _, t := range taken {
			t.Event.OccurredAt = now.UTC()
			if err := add(ctx, tx, t.Event); err != nil {
				refused = &refusedError{t, err}
				return refused
			}
		}
		e.cfg.Failpoint("timer.before-commit")
		return nil
	})
	switch {
	case err != nil && refused != nil:
		return 0, refused
	case err != nil:
		return 0, err
	}
	e.cfg.Failpoint("timer.after-commit")
	for _, t := range taken {
		delete(e.refused, t.Key)
		if e.cfg.Hooks.Fired != nil {
			e.cfg.Hooks.Fired(t, now.Sub(t.At))
		}
	}
	return len(taken), nil
}

// add adds the event; a listener that panics refuses it.
func add(ctx context.Context, tx *txn.Tx, ev event.Envelope) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return tx.Append(event.WithCause(ctx, ev.Cause()), ev)
}

// fireOne fires the oldest due timer, or puts it off when its event is refused again.
func (e *Engine) fireOne(work context.Context) (int, error) {
	n, err := e.fire(work, 1)
	r, ok := errors.AsType[*refusedError](err)
	if !ok {
		return n, err
	}
	e.refused[r.timer.Key]++
	count := e.refused[r.timer.Key]
	wait := min(postponeLongest, postponeShortest<<min(count-1, 10))
	var at time.Time
	err = e.run.Run(work, func(ctx context.Context, tx *txn.Tx) error {
		at = tx.Now().Add(wait)
		// Only if it still is there and first: it may have been cancelled or replaced meanwhile.
		taken, err := e.store.Take(ctx, tx, tx.Now(), 1)
		if err != nil || len(taken) == 0 {
			return err
		}
		if taken[0].Event.ID != r.timer.Event.ID {
			return errChanged
		}
		taken[0].At = at
		return e.store.Set(ctx, tx, taken[0])
	})
	switch {
	case errors.Is(err, errChanged):
		return 1, nil // Rolled back; the next turn sees what is there now.
	case err != nil:
		return 0, err
	}
	e.cfg.Logger.Error("timer's event is refused, trying again later", "timer", r.timer.Key,
		"event_id", r.timer.Event.ID, "event_type", r.timer.Event.Type, "attempt", count, "wait", wait, "err", r.err)
	if e.cfg.Hooks.Postponed != nil {
		e.cfg.Hooks.Postponed(r.timer, at, r.err)
	}
	return 1, nil
}

var errChanged = errors.New("timer was changed meanwhile")
