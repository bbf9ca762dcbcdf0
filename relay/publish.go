package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
)

// route is what order is kept for: events of one key on two topics are independent.
type route struct{ topic, key string }

// item is an event between being read and being settled.
type item struct {
	record outbox.Record
	lane   *lane
	behind *item // next event of the lane
	later  *item // next event of the window
	cause  string
	done   bool // acknowledged or parked
}

func (it *item) route() route {
	return route{it.record.Event.Topic, it.record.Event.AggregateID}
}

// lane holds the unsettled events of one route, in order. Its first is either ready or in flight.
type lane struct {
	first, last *item
	sent        bool
}

// window holds all that is read and not settled, in order, and what of it may be published now: the
// first event of each lane that has none in flight.
type window struct {
	first, last *item
	count       int
	bytes       int
	lanes       map[route]*lane
	ready       []*item
	batched     bool // followers of a key may share a call with it
}

func (w *window) push(it *item) {
	if w.last == nil {
		w.first = it
	} else {
		w.last.later = it
	}
	w.last = it
	w.count++
	w.bytes += len(it.record.Event.Data)
}

// pop takes the settled events off the front, and returns the position of the last one, or from.
func (w *window) pop(from outbox.Position) outbox.Position {
	for w.first != nil && w.first.done {
		from = w.first.record.Position
		w.count--
		w.bytes -= len(w.first.record.Event.Data)
		w.first = w.first.later
	}
	if w.first == nil {
		w.last = nil
	}
	return from
}

// enqueue puts an event behind those of its lane.
func (w *window) enqueue(it *item) {
	key := it.route()
	l := w.lanes[key]
	if l == nil {
		l = &lane{first: it, last: it}
		w.lanes[key] = l
		w.ready = append(w.ready, it)
	} else {
		l.last.behind = it
		l.last = it
	}
	it.lane = l
}

// take returns what one call may carry: first events of lanes, each with its followers when the
// publisher keeps their order by itself. A lane is in one call at a time also then, because two calls
// reach a broker in any order.
func (w *window) take(limit int) []*item {
	items := make([]*item, 0, min(limit, len(w.ready)))
	n := 0
	for n < len(w.ready) && len(items) < limit {
		it := w.ready[n]
		w.ready[n] = nil
		n++
		it.lane.sent = true
		items = append(items, it)
		if !w.batched {
			continue
		}
		for f := it.behind; f != nil && len(items) < limit; f = f.behind {
			if !f.done {
				items = append(items, f)
			}
		}
	}
	w.ready = w.ready[n:]
	return items
}

// returned makes the next event of a lane ready after a call.
func (w *window) returned(l *lane) {
	l.sent = false
	for l.first != nil && l.first.done {
		l.first = l.first.behind
	}
	if l.first == nil {
		l.last = nil
		return
	}
	w.ready = append(w.ready, l.first)
}

func (p *pump) hasRoom() bool {
	return p.count+p.page <= p.r.cfg.WindowMax && p.bytes <= p.r.cfg.WindowBytesMax
}

// call publishes items in a goroutine.
func (p *pump) call(held context.Context, items []*item) {
	p.calls++
	p.running++
	go func() {
		began := time.Now()
		results := p.r.publish(held, p.k, items)
		took := time.Since(began)
		p.report(func() {
			p.calls--
			p.running--
			p.settle(items, results, took)
		})
	}()
}

// publish returns one result for each item.
func (r *Relay) publish(held context.Context, k *keeper, items []*item) []error {
	messages := make([]broker.Message, len(items))
	for i, it := range items {
		messages[i] = broker.Message{Event: it.record.Event, Origin: it.record.Position.String()}
	}
	return r.send(held, k, messages)
}

func (r *Relay) send(held context.Context, k *keeper, messages []broker.Message) []error {
	ctx, cancel := context.WithTimeout(held, r.cfg.PublishTimeout)
	defer cancel()
	r.point(PointBeforePublish)
	if !k.holds() {
		return repeat(fmt.Errorf("%w: lease has run out", broker.ErrUnavailable), len(messages))
	}
	results := r.pub.Publish(ctx, messages)
	r.point(PointAfterPublish)
	if len(results) != len(messages) {
		// Which result belongs to which message is unknown, so none counts.
		return repeat(fmt.Errorf("publisher gave %d results for %d messages", len(results), len(messages)), len(messages))
	}
	return results
}

func repeat(err error, n int) []error { return slices.Repeat([]error{err}, n) }

// settle sorts the results of a call: acknowledged, refused, or to be repeated.
func (p *pump) settle(items []*item, results []error, took time.Duration) {
	var failed error
	acked, oldest := 0, p.now
	for i, it := range items {
		err := results[i]
		rejected, isRejected := errors.AsType[*broker.RejectedError](err)
		switch {
		case err == nil:
			it.done = true
			acked++
			if it.record.CreatedAt.Before(oldest) {
				oldest = it.record.CreatedAt
			}
		case isRejected:
			p.refuse(it, rejected.Reason)
		case failed == nil:
			failed = err
		}
	}
	for _, it := range items {
		if l := it.lane; l.sent {
			p.settleLane(l, it.route())
		}
	}
	p.progress()
	if h := p.r.cfg.Hooks.Published; h != nil && acked > 0 {
		h(acked, p.now.Sub(oldest), took)
	}
	switch {
	case failed != nil && !p.stopping():
		p.unavailable(failed)
	case failed == nil && p.outage.asking:
		p.available()
	}
}

func (p *pump) settleLane(l *lane, key route) {
	if p.parked[key] {
		for it := l.first; it != nil; it = it.behind {
			if !it.done {
				p.putAside(it)
			}
		}
		l.sent, l.first = false, nil
	} else {
		p.returned(l)
	}
	if l.first == nil {
		delete(p.lanes, key)
	}
}

// outage is a time in which nothing is published but a question now and then.
type outage struct {
	down     bool
	logged   bool
	asking   bool // a check or a single event is on its way
	checked  bool // the tail is as it should be
	failures int
	since    time.Time
	retry    time.Time
}

// unavailable stops publishing. Nothing is counted against an event: it waits for as long as it takes.
func (p *pump) unavailable(err error) {
	o := &p.outage
	if o.down && !o.asking {
		return // Another call of the same time.
	}
	o.down, o.asking, o.checked = true, false, false
	o.failures++
	o.retry = p.now.Add(p.r.backoff(o.failures))
	if o.logged {
		return
	}
	o.logged, o.since = true, p.now
	if errors.Is(err, broker.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		p.r.log.Warn("broker is unavailable; the relay waits for it", "err", err)
	} else {
		p.r.log.Warn("broker gave an error of no known kind; the relay takes it as unavailable", "err", err)
	}
	if h := p.r.cfg.Hooks.Outage; h != nil {
		h(true, err)
	}
}

// available ends an outage, or the check with which an ownership begins.
func (p *pump) available() {
	o := p.outage
	p.outage = outage{}
	p.reading.due = p.now
	if p.r.tailer != nil {
		p.marking.due = p.now // At once, so that the next outage repeats little.
	}
	if !o.logged {
		return
	}
	p.r.log.Info("broker is available again", "after", p.now.Sub(o.since), "attempt", o.failures)
	if h := p.r.cfg.Hooks.Outage; h != nil {
		h(false, nil)
	}
}

// recover waits for all that is in flight, persists what it settled, and then asks the broker: for its
// tail when it can lose that, and to take the first event that failed.
func (p *pump) recover(held context.Context) {
	o := &p.outage
	if p.isDue(&p.advancing) && !p.checking.busy {
		p.advance(held)
	}
	if p.running > 0 || o.retry.After(p.now) || p.checking.due.After(p.now) {
		return
	}
	o.asking = true
	if p.r.tailer != nil && !o.checked {
		p.check(held)
		return
	}
	o.checked = false
	if len(p.ready) == 0 {
		p.available() // Nothing to ask with; the next event will tell.
		return
	}
	slices.SortFunc(p.ready, func(a, b *item) int { return a.record.Position.Compare(b.record.Position) })
	p.call(held, p.take(1))
}
