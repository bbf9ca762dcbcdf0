package settletest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/retry"
)

// producer is who adds the events of Given and When.
const producer = "settletest"

// pollEvery is how often a rig looks whether it is quiet, and so how much time of a bubble a look costs.
const pollEvery = time.Millisecond

// TB is the part of *testing.T and its kin that a rig needs.
type TB interface {
	Helper()
	Context() context.Context
	Cleanup(fn func())
	Fatalf(format string, args ...any)
}

// Config is what a test may decide. The zero Config is ready to use.
type Config struct {
	// Service is the service's configuration. Two defaults are a test's own: a zero Consumer.Retry has
	// milliseconds where production has seconds (1ms x2 up to 60ms, 300ms in all), and a nil Logger
	// discards.
	Service settle.Config
	// Broker is one that several rigs share. Default: a new one.
	Broker *memory.Broker
	// Patience bounds how long Given, When, WhenDo and Settle wait for quiet, in the bubble's time if there
	// is one. Default 10s.
	Patience time.Duration
}

// Rig is one service on a memory store and broker. Register handlers on Service; the first use starts
// it, and the end of the test stops it. A rig belongs to the test's goroutine.
type Rig struct {
	Service *settle.Service
	Store   *memory.Store
	Broker  *memory.Broker

	t        TB
	watch    *watch
	patience time.Duration
	cancel   context.CancelFunc
	done     chan struct{} // closed when the service has ended; err is then its result
	err      error
	story    story
}

// New returns a rig with a service of that name.
func New(t TB, name string, cfg Config) *Rig {
	t.Helper()
	if cfg.Broker == nil {
		cfg.Broker = memory.NewBroker(memory.BrokerConfig{})
	}
	if cfg.Patience == 0 {
		cfg.Patience = 10 * time.Second
	}
	if cfg.Service.Logger == nil {
		cfg.Service.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Service.Consumer.Retry == (retry.Policy{}) {
		cfg.Service.Consumer.Retry = retry.Policy{
			Initial: time.Millisecond, WaitMax: 60 * time.Millisecond, TotalMax: 300 * time.Millisecond,
		}
	}
	r := &Rig{Store: memory.New(), Broker: cfg.Broker, t: t, watch: newWatch(cfg.Broker), patience: cfg.Patience}
	r.Service = settle.NewService(name, r.Store, r.watch, cfg.Service)
	return r
}

// Start runs the service and returns when its engines do. A service that cannot run fails the test.
// Starting a rig again changes nothing.
func (r *Rig) Start() {
	r.t.Helper()
	if r.done != nil {
		return
	}
	// Not the test's context: that one ends before the cleanup that drains the service.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	r.cancel, r.done = cancel, make(chan struct{})
	r.t.Cleanup(r.Stop)
	go func() {
		defer close(r.done)
		r.err = r.Service.Run(ctx)
	}()
	select {
	case <-r.watch.begun:
	case <-r.done:
		r.t.Fatalf("settletest: start: %v", r.err)
	}
}

// Stop drains the service. A service that ended with an error fails the test. What the rig's store and
// broker hold stays readable.
func (r *Rig) Stop() {
	r.t.Helper()
	if r.done == nil || r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	<-r.done
	if r.err != nil {
		r.t.Fatalf("settletest: stop: %v", r.err)
	}
}

// Settle runs fn, waits until the service is quiet, and returns the events that it has added since fn
// began, in commit order. An error of fn, or no quiet within the rig's patience, fails the test.
func (r *Rig) Settle(fn func(ctx context.Context) error) []event.Envelope {
	r.t.Helper()
	r.Start()
	from := r.last()
	if err := fn(r.t.Context()); err != nil {
		r.t.Fatalf("settletest: %s: settle: %v", r.Service.Name(), err)
	}
	r.settle()
	return r.since(from)
}

// Events returns all that the service has ever added, in commit order.
func (r *Rig) Events() []event.Envelope {
	r.t.Helper()
	return r.since(outbox.Position{})
}

// Publish puts events on their topics as if another service had added them.
func (r *Rig) Publish(drafts ...event.Draft) {
	r.t.Helper()
	r.Start()
	if err := publish(r.t.Context(), r.Broker, drafts); err != nil {
		r.t.Fatalf("settletest: publish: %v", err)
	}
}

// Quiet waits until all of the service's work is done, or returns an error that says what is left.
func (r *Rig) Quiet(ctx context.Context) error {
	r.t.Helper()
	return Quiet(ctx, r)
}

// Quiet waits until all of the rigs, which share a broker, have done their work at once. Its error says
// what is left when ctx is done, or that a service has ended.
func Quiet(ctx context.Context, rigs ...*Rig) error {
	for _, r := range rigs {
		r.Start()
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		// Memory answers at once: a look that has begun is finished, so that there is always something to say.
		left, err := busy(context.WithoutCancel(ctx), rigs)
		if err != nil || left == "" {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("settletest: not quiet: %s: %w", left, context.Cause(ctx))
		}
	}
}

func (r *Rig) settle() {
	r.t.Helper()
	ctx, cancel := context.WithTimeoutCause(r.t.Context(), r.patience, fmt.Errorf("%s have passed", r.patience))
	defer cancel()
	if err := r.Quiet(ctx); err != nil {
		r.t.Fatalf("%v", err)
	}
}

// busy says what is left to do, or nothing. Work moves from outbox to broker to handlers to letters and
// calls, and back only by a new event: seen in this order, with no event added meanwhile, none is missed.
func busy(ctx context.Context, rigs []*Rig) (string, error) {
	before := make([]outbox.Position, len(rigs))
	for i, r := range rigs {
		before[i] = r.last()
	}
	for _, look := range []func(*Rig, context.Context) (string, error){
		(*Rig).carrying, (*Rig).handling, (*Rig).retrying, (*Rig).calling, (*Rig).waking,
	} {
		for _, r := range rigs {
			select {
			case <-r.done:
				return "", fmt.Errorf("settletest: %s has ended: %w", r.Service.Name(), errors.Join(errEnded, r.err))
			default:
			}
			left, err := look(r, ctx)
			if err != nil {
				return "", fmt.Errorf("settletest: %s: %w", r.Service.Name(), err)
			}
			if left != "" {
				return r.Service.Name() + ": " + left, nil
			}
		}
	}
	for i, r := range rigs {
		if r.last() != before[i] {
			return r.Service.Name() + ": new events", nil
		}
	}
	return "", nil
}

var errEnded = errors.New("nobody is left to do its work")

func (r *Rig) carrying(ctx context.Context) (string, error) {
	stats, err := r.Service.Stats(ctx)
	if err != nil || stats.Outbox.Pending == 0 {
		return "", err
	}
	return fmt.Sprintf("%d events in the outbox", stats.Outbox.Pending), nil
}

func (r *Rig) handling(ctx context.Context) (string, error) {
	stats, err := r.Service.Stats(ctx)
	if err != nil {
		return "", err
	}
	ends, err := r.Broker.Tail(ctx)
	if err != nil {
		return "", err
	}
	for _, g := range stats.Groups {
		if n := r.watch.behind(g.Group, ends.Offsets); n > 0 {
			return fmt.Sprintf("group %s is %d messages behind", g.Group, n), nil
		}
	}
	return "", nil
}

func (r *Rig) retrying(ctx context.Context) (string, error) {
	letters, err := r.Store.Letters().Select(ctx, deadletter.Query{State: deadletter.StateRetrying, Limit: 1})
	if err != nil || len(letters) == 0 {
		return "", err
	}
	return "letter " + letterText(&letters[0]), nil
}

func (r *Rig) calling(ctx context.Context) (string, error) {
	stats, err := r.Service.Stats(ctx)
	if err != nil || len(stats.Calls) == 0 {
		return "", err
	}
	c := stats.Calls[0]
	return fmt.Sprintf("%d calls %s not answered, tried up to %d times", c.Count, c.Call, c.Attempts), nil
}

func (r *Rig) waking(ctx context.Context) (string, error) {
	at, ok, err := r.Store.Timers().Next(ctx)
	if err != nil || !ok || at.After(time.Now()) {
		return "", err
	}
	return "a timer is due", nil
}

// since returns what the service added after a position.
func (r *Rig) since(from outbox.Position) []event.Envelope {
	r.t.Helper()
	var events []event.Envelope
	for {
		page, err := r.list(from)
		if err != nil {
			r.t.Fatalf("settletest: list events: %v", err)
		}
		if len(page) == 0 {
			return events
		}
		for _, e := range page {
			events = append(events, e.Record.Event)
		}
		from = page[len(page)-1].Record.Position
	}
}

// last returns the position of the newest event, and remembers it as where to look from next time.
func (r *Rig) last() outbox.Position {
	for {
		page, err := r.list(r.story.newest)
		if err != nil || len(page) == 0 {
			return r.story.newest
		}
		r.story.newest = page[len(page)-1].Record.Position
	}
}

func (r *Rig) list(after outbox.Position) ([]relay.Entry, error) {
	lister, ok := r.Store.Outbox().(relay.Lister)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return lister.List(context.WithoutCancel(r.t.Context()), "", after, 0)
}

func letterText(l *deadletter.Letter) string {
	cause, _, _ := strings.Cut(l.Cause, "\n")
	return fmt.Sprintf("%s %s %s after %d attempts in group %s: %s",
		l.Event.Type, l.Event.AggregateID, l.State, l.Attempts, l.Group, cause)
}
