package txn

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/settledev/settle/event"
)

// AfterQueueMax bounds the events that wait for one after-commit handler. A handler that falls
// further behind misses events, each counted and logged: it can slow nobody.
const AfterQueueMax = 1024

// Listeners are a service's in-process event handlers. Register all of them before the first
// transaction; the zero value is ready and a nil *Listeners has none.
type Listeners struct {
	// Logger receives failures of after-commit handlers. Default slog.Default().
	Logger *slog.Logger

	inside map[string][]func(context.Context, *Tx, event.Envelope) error
	after  []*afterHandler
}

type afterHandler struct {
	name      string
	eventType string
	topic     string
	handle    func(context.Context, event.Envelope) error
	queue     chan event.Envelope
}

// Within registers a handler that runs inside the transaction whenever an event of type t is added.
// Its error fails the transaction. It may add further events.
func Within[T any](l *Listeners, t event.Type[T], h func(context.Context, *Tx, event.Of[T]) error) {
	if l.inside == nil {
		l.inside = map[string][]func(context.Context, *Tx, event.Envelope) error{}
	}
	l.inside[t.Name()] = append(l.inside[t.Name()], func(ctx context.Context, tx *Tx, e event.Envelope) error {
		if e.Topic != t.Topic() {
			return nil // A copy on another topic (a dead letter's) is not the event itself.
		}
		of, err := t.Decode(e)
		if err != nil {
			return err
		}
		return h(ctx, tx, of)
	})
}

// After registers a handler, named in logs, that runs after the commit of each transaction that added
// an event of type t. Handlers run beside one another, each in order, while Run runs. An error or a
// panic is logged and goes no further.
func After[T any](l *Listeners, name string, t event.Type[T], h func(context.Context, event.Of[T]) error) {
	l.after = append(l.after, &afterHandler{
		name: name, eventType: t.Name(), topic: t.Topic(), queue: make(chan event.Envelope, AfterQueueMax),
		handle: func(ctx context.Context, e event.Envelope) error {
			of, err := t.Decode(e)
			if err != nil {
				return err
			}
			return h(ctx, of)
		},
	})
}

// Run serves the after-commit handlers until ctx is done and their queues are empty.
func (l *Listeners) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, h := range l.after {
		wg.Go(func() { l.serve(ctx, h) })
	}
	wg.Wait()
	return nil
}

func (l *Listeners) serve(ctx context.Context, h *afterHandler) {
	work := context.WithoutCancel(ctx) // What is queued is finished; see house-style, section 10.
	for {
		select {
		case e := <-h.queue:
			l.one(work, h, e)
			continue
		default:
		}
		select {
		case e := <-h.queue:
			l.one(work, h, e)
		case <-ctx.Done():
			return
		}
	}
}

func (l *Listeners) one(ctx context.Context, h *afterHandler, e event.Envelope) {
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		return h.handle(event.WithCause(ctx, e.Cause()), e)
	}()
	if err != nil {
		l.logger().Warn("after-commit handler failed", "handler", h.name, "event_type", e.Type, "event_id", e.ID, "err", err)
	}
}

func (l *Listeners) within(ctx context.Context, tx *Tx, e event.Envelope) error {
	if l == nil {
		return nil
	}
	for _, h := range l.inside[e.Type] {
		if err := h(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

func (l *Listeners) committed(events []event.Envelope) {
	if l == nil || len(l.after) == 0 {
		return
	}
	for _, e := range events {
		for _, h := range l.after {
			if h.eventType != e.Type || h.topic != e.Topic {
				continue
			}
			select {
			case h.queue <- e:
			default:
				l.logger().Warn("after-commit handler is too slow, event missed", "handler", h.name, "event_type", e.Type, "event_id", e.ID)
			}
		}
	}
}

func (l *Listeners) logger() *slog.Logger {
	if l != nil && l.Logger != nil {
		return l.Logger
	}
	return slog.Default()
}
