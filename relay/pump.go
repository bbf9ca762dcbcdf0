package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/outbox"
)

// pump is one ownership at work. All of its state belongs to the goroutine of run. Whatever waits for a
// store or a broker does so in a goroutine of its own, and reports by a func that run calls.
type pump struct {
	r     *Relay
	k     *keeper
	lease Lease
	end   context.CancelCauseFunc // ends the ownership

	events  chan func()
	gone    chan struct{} // closed when nobody receives events any more
	running int           // goroutines that have not reported yet
	now     time.Time
	drainBy time.Time // set when no work may begin any more
	lost    bool
	fatal   error

	window
	// after is the last position read, settled the last one up to which all is acknowledged or parked,
	// advanced the last one persisted.
	after, settled, advanced outbox.Position

	calls  int // publish calls in flight
	outage outage

	loaded bool                     // parked and known are
	parked map[route]bool           // keys with parked events
	known  map[outbox.Position]bool // parked events that will be read again
	aside  []*item                  // events to park, in order
	open   []route                  // keys whose replay has to be looked at again

	tail tailState

	page int           // events of the next read
	idle time.Duration // the last poll interval
	ring <-chan struct{}
	stop func()

	loading, reading, advancing, parking, replaying, checking, marking, purging task
}

// task is something that a pump does beside publishing: one run at a time, and again after a failure.
type task struct {
	name     string
	due      time.Time // zero when there is no need
	busy     bool
	failures int
}

func newPump(r *Relay, k *keeper, end context.CancelCauseFunc) *pump {
	from := k.lease.Position
	p := &pump{
		r: r, k: k, lease: k.lease, end: end, now: time.Now(),
		events: make(chan func()), gone: make(chan struct{}), page: r.cfg.BatchMax,
		after: from, settled: from, advanced: from,
		loading:   task{name: "load parked keys"},
		reading:   task{name: "read"},
		advancing: task{name: "advance"},
		parking:   task{name: "park"},
		replaying: task{name: "replay"},
		checking:  task{name: "check tail"},
		marking:   task{name: "mark tail"},
		purging:   task{name: "purge"},
	}
	p.reset(from)
	if r.tailer != nil {
		// What the broker has kept decides where to begin, as after an outage.
		p.outage.down, p.outage.retry = true, p.now
	}
	if _, ok := r.src.(Purger); ok && !r.cfg.NoPurge {
		p.purging.due = p.now
	}
	if b, ok := r.src.(Bell); ok {
		p.ring, p.stop = b.Listen()
	}
	return p
}

// reset drops all that was read and begins after a position. Nothing is running then.
func (p *pump) reset(to outbox.Position) {
	p.window = window{lanes: map[route]*lane{}, batched: !p.r.keyed}
	p.after, p.settled, p.advanced = to, to, to
	p.parked, p.known = map[route]bool{}, map[outbox.Position]bool{}
	p.aside, p.open = nil, nil
	p.loaded = p.r.lot == nil
	p.loading.due, p.reading.due = p.now, p.now
	p.advancing.due, p.parking.due, p.replaying.due = time.Time{}, time.Time{}, time.Time{}
}

// close lets go of goroutines that still run when a drain has timed out.
func (p *pump) close() {
	if p.stop != nil {
		p.stop()
	}
	close(p.gone)
}

// run works until ctx is done, the ownership ends, or something needs a person; then it waits for what
// it has begun.
func (p *pump) run(ctx, held context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ending, lost := ctx.Done(), held.Done()
	for {
		if !p.stopping() {
			p.step(held)
		}
		if p.stopping() && p.running == 0 {
			if p.lost {
				return context.Cause(held)
			}
			return p.fatal
		}
		timer.Reset(p.wake())
		ring := p.ring
		if p.reading.busy {
			ring = nil // It stays pending, for what is being read may have missed it.
		}
		var apply func()
		select {
		case apply = <-p.events:
		case <-ring:
			p.idle, p.reading.due = 0, time.Now()
		case <-timer.C:
		case <-ending:
			ending = nil
			p.drain()
		case <-lost:
			lost, p.lost = nil, true
		}
		p.now = time.Now()
		if apply != nil {
			apply()
		}
		if !p.drainBy.IsZero() && !p.now.Before(p.drainBy) && p.running > 0 {
			err := fmt.Errorf("relay: %d calls still running after %s: %w", p.running, p.r.cfg.DrainTimeout, ErrDrain)
			p.end(err)
			return err
		}
	}
}

func (p *pump) stopping() bool { return p.lost || !p.drainBy.IsZero() }

// drain lets what is in flight end, and begins nothing more.
func (p *pump) drain() {
	if p.drainBy.IsZero() {
		p.drainBy = time.Now().Add(p.r.cfg.DrainTimeout)
	}
}

// fail ends the relay with an error that needs a person.
func (p *pump) fail(err error) {
	if p.fatal == nil {
		p.fatal = err
	}
	p.drain()
}

// step begins all that may begin now.
func (p *pump) step(held context.Context) {
	if !p.loaded {
		if p.isDue(&p.loading) {
			p.load(held)
		}
		return
	}
	if p.outage.down {
		if p.recover(held); p.outage.down {
			return
		}
	}
	for len(p.ready) > 0 && p.calls < p.r.cfg.InFlight {
		p.call(held, p.take(p.r.cfg.BatchMax))
	}
	if p.isDue(&p.reading) && p.hasRoom() {
		p.read(held)
	}
	if p.isDue(&p.advancing) {
		p.advance(held)
	}
	// Parking and replaying exclude each other, so that a key is seen empty only when it is. Marking
	// waits for a replay, see replay.
	if p.isDue(&p.parking) && !p.replaying.busy {
		p.park(held)
	}
	if p.isDue(&p.replaying) && !p.parking.busy && !p.marking.busy {
		p.replay(held)
	}
	if p.isDue(&p.marking) && !p.replaying.busy {
		p.mark(held)
	}
	if p.isDue(&p.purging) {
		p.purge(held)
	}
}

func (p *pump) isDue(t *task) bool { return !t.busy && !t.due.IsZero() && !t.due.After(p.now) }

// wake is how long nothing needs to be looked at. What is due already waits for an event, not for time.
func (p *pump) wake() time.Duration {
	next := p.now.Add(time.Hour)
	for _, t := range [...]time.Time{
		p.loading.due, p.reading.due, p.advancing.due, p.parking.due, p.replaying.due,
		p.checking.due, p.marking.due, p.purging.due, p.outage.retry, p.drainBy,
	} {
		if t.After(p.now) && t.Before(next) {
			next = t
		}
	}
	return next.Sub(p.now)
}

// begin runs work in a goroutine. apply is called in run with what it found, also beside an error.
func (p *pump) begin(held context.Context, t *task, work func(context.Context) (apply func(), err error)) {
	t.busy, t.due = true, time.Time{}
	p.running++
	go func() {
		apply, err := work(held)
		p.report(func() {
			p.running--
			t.busy = false
			if apply != nil {
				apply()
			}
			p.finished(t, err)
		})
	}()
}

func (p *pump) report(apply func()) {
	select {
	case p.events <- apply:
	case <-p.gone:
	}
}

func (p *pump) finished(t *task, err error) {
	switch {
	case err == nil:
		if t.failures > 0 {
			p.r.log.Info("relay reached its source again", "task", t.name, "attempt", t.failures)
		}
		t.failures = 0
	case errors.Is(err, ErrFenced):
		p.end(fmt.Errorf("%w: %w", errLost, err))
		p.lost = true
	case p.stopping():
	default:
		if t.failures++; t.failures == 1 {
			p.r.log.Warn("relay cannot use its source; it tries again without end", "task", t.name, "err", err)
		}
		t.due = p.now.Add(p.r.backoff(t.failures))
	}
}

// read looks for the next events, ahead of what is published.
func (p *pump) read(held context.Context) {
	after, limit := p.after, p.page
	p.begin(held, &p.reading, func(ctx context.Context) (func(), error) {
		records, err := p.r.src.Next(ctx, p.lease, after, limit)
		if err != nil {
			return nil, err
		}
		return func() { p.admit(records, limit) }, nil
	})
}

func (p *pump) admit(records []outbox.Record, limit int) {
	switch n := len(records); {
	case n == limit:
		p.idle, p.reading.due = 0, p.now
	case n > 0:
		p.idle = p.r.cfg.PollMin
		p.reading.due = p.now.Add(p.idle)
	case p.idle == 0:
		p.idle = p.r.cfg.PollMin
		p.reading.due = p.now.Add(p.idle)
	default:
		p.idle = min(2*p.idle, p.r.cfg.PollMax)
		p.reading.due = p.now.Add(p.idle)
	}
	if len(records) == 0 {
		return
	}
	p.after = records[len(records)-1].Position
	items, before := make([]item, len(records)), p.bytes
	for i := range records {
		it := &items[i]
		it.record = records[i]
		p.push(it)
		switch {
		case len(p.parked) == 0 || !p.parked[it.route()]:
			p.enqueue(it)
		case p.known[it.record.Position]:
			it.done = true
			delete(p.known, it.record.Position)
		default:
			it.cause = causeFollows
			p.putAside(it)
		}
	}
	// Pages grow while they are small, so that a page of large events does not fill the memory.
	p.page = min(2*p.page, p.r.cfg.readMax())
	if p.bytes-before > p.r.cfg.WindowBytesMax/16 {
		p.page = p.r.cfg.BatchMax
	}
	p.progress()
}

// progress moves the settled position over all that is done, and sees that it is persisted soon. Not at
// once: a crash in between only repeats, and a write for each event would cost more than the event.
func (p *pump) progress() {
	p.settled = p.pop(p.settled)
	if p.settled != p.advanced && !p.advancing.busy && p.advancing.due.IsZero() {
		p.advancing.due = p.now.Add(p.r.cfg.AdvanceEvery)
	}
}

func (p *pump) advance(held context.Context) {
	to := p.settled
	p.begin(held, &p.advancing, func(ctx context.Context) (func(), error) {
		if err := p.persist(ctx, to); err != nil {
			return nil, err
		}
		return func() {
			p.advanced = to
			p.progress()
		}, nil
	})
}

func (p *pump) persist(ctx context.Context, to outbox.Position) error {
	p.r.point(PointBeforeAdvance)
	if err := p.r.src.Advance(ctx, p.lease, to); err != nil {
		return err
	}
	p.r.point(PointAfterAdvance)
	if h := p.r.cfg.Hooks.Advanced; h != nil {
		h(to)
	}
	return nil
}

// settleLast persists what is settled when nothing runs any more, and marks it.
func (p *pump) settleLast(ctx context.Context) {
	if p.settled != p.advanced {
		if err := p.persist(ctx, p.settled); err != nil {
			p.r.log.Warn("relay could not persist its last position; some events are published again", "err", err)
			return
		}
		p.advanced = p.settled
	}
	if p.r.tailer == nil || p.outage.down || p.tail.marked == p.settled {
		return
	}
	if _, err := p.r.lookAndMark(ctx, p.lease, p.tail, p.settled); err != nil {
		p.r.log.Warn("relay could not mark the broker's tail; some events are published again", "err", err)
	}
}

// Retention is bounded work: a slice, a breath for the writers of the same store, the next slice.
const (
	purgeSlice = 1000
	purgePause = 20 * time.Millisecond
	purgeEvery = time.Minute
)

func (p *pump) purge(held context.Context) {
	purger, _ := p.r.src.(Purger) // The task is due only when it is one.
	before := p.now.Add(-p.r.cfg.Retention)
	p.begin(held, &p.purging, func(ctx context.Context) (func(), error) {
		n, err := purger.Purge(ctx, before, purgeSlice)
		if err != nil {
			return nil, err
		}
		return func() {
			p.purging.due = p.now.Add(purgeEvery)
			if n >= purgeSlice {
				p.purging.due = p.now.Add(purgePause)
			}
			if h := p.r.cfg.Hooks.Purged; h != nil && n > 0 {
				h(n)
			}
		}, nil
	})
}
