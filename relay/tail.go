package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
)

// tailState is what a pump knows of a broker that can lose its tail.
type tailState struct {
	last   broker.Tail
	marked outbox.Position // position of the newest mark
}

// markData is how a mark's tail is encoded.
type markData struct {
	broker.Tail
	// Replayed is where parked events begin that were published after this tail was taken, although
	// their positions lie before the mark's.
	Replayed *outbox.Position `json:"replayed,omitempty"`
}

// awayError is a failure of the broker, where the source can fail too.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// covers reports whether logs that reach as far as have hold all that logs which reached as far as want held.
func covers(have, want map[string]uint64) bool {
	for log, offset := range want {
		if have[log] < offset {
			return false
		}
	}
	return true
}

// reliable returns the offsets up to which now still has what an earlier tail of the same incarnation
// had: since the server was started again, others may have filled what was lost.
func reliable(now, then broker.Tail) map[string]uint64 {
	if now.Opened != nil && now.Life != then.Life {
		return now.Opened
	}
	return now.Offsets
}

// unbroken reports whether the broker cannot have lost anything between two tails.
func unbroken(then, now broker.Tail) bool {
	return then.Incarnation == now.Incarnation && now.Life != "" && then.Life == now.Life && covers(now.Offsets, then.Offsets)
}

func (r *Relay) tailNow(ctx context.Context) (broker.Tail, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.PublishTimeout)
	defer cancel()
	t, err := r.tailer.Tail(ctx)
	if err != nil {
		return t, &awayError{err}
	}
	return t, nil
}

// mark looks at the broker's tail, and remembers it with the settled position.
//
// The position is taken first, the tail after it. A mark says "everything up to the position was stored
// at offsets up to the tail", and that holds only in this order: whatever is settled when the position is
// taken was acknowledged before, so its offset is not beyond a tail that is read later. The other way
// round, an event acknowledged between the two would be counted as settled and lie beyond the tail; were
// the broker to lose exactly that event, the mark would call it safe.
func (p *pump) mark(held context.Context) {
	position, known := p.settled, p.tail
	p.begin(held, &p.marking, func(ctx context.Context) (func(), error) {
		state, err := p.r.lookAndMark(ctx, p.lease, known, position)
		if away, ok := errors.AsType[*awayError](err); ok {
			return func() { p.markFailed(away.err) }, nil
		}
		if err != nil {
			return nil, err
		}
		return func() {
			p.tail = state
			p.marking.due = p.now.Add(p.r.cfg.MarkEvery)
		}, nil
	})
}

// errTailChanged says that the broker's logs are not the ones that were seen before.
var errTailChanged = fmt.Errorf("broker's logs are not what they were: %w", broker.ErrUnavailable)

func (p *pump) markFailed(err error) {
	if p.stopping() {
		return
	}
	p.marking.due = time.Time{} // Until the outage is over.
	p.unavailable(err)
	if errors.Is(err, errTailChanged) {
		p.outage.retry = p.now // The broker is there. What it lost must not wait.
	}
}

func (r *Relay) lookAndMark(ctx context.Context, lease Lease, known tailState, position outbox.Position) (tailState, error) {
	tail, err := r.tailNow(ctx)
	if err != nil {
		return known, err
	}
	if tail.Incarnation != known.last.Incarnation || tail.Life != known.last.Life || !covers(tail.Offsets, known.last.Offsets) {
		return known, &awayError{errTailChanged}
	}
	known.last = tail
	if known.marked == position {
		return known, nil
	}
	if err := r.addMark(ctx, lease, position, markData{Tail: tail}); err != nil {
		return known, err
	}
	known.marked = position
	return known, nil
}

func (r *Relay) addMark(ctx context.Context, lease Lease, position outbox.Position, d markData) error {
	d.Opened = nil // It says nothing about a later life.
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode mark: %w", err)
	}
	return r.marks.AddMark(ctx, lease, Mark{Position: position, At: time.Now(), Tail: b})
}

// markReplay remembers, before parked events are published, that a rewind to the marks so far has to go
// back to them: they are stored beyond those tails, yet their positions are older.
func (r *Relay) markReplay(ctx context.Context, lease Lease, first outbox.Position) error {
	if r.tailer == nil {
		return nil
	}
	marks, err := r.loadMarks(ctx)
	if err != nil {
		return err
	}
	var newest loadedMark
	if len(marks) > 0 {
		newest = marks[0]
	}
	if newest.data.Replayed != nil && newest.data.Replayed.Compare(first) <= 0 {
		return nil
	}
	newest.data.Replayed = &first
	return r.addMark(ctx, lease, newest.position, newest.data)
}

type loadedMark struct {
	position outbox.Position
	data     markData
}

func (r *Relay) loadMarks(ctx context.Context) ([]loadedMark, error) {
	marks, err := r.marks.Marks(ctx, r.cfg.Shard)
	if err != nil {
		return nil, err
	}
	loaded := make([]loadedMark, 0, len(marks))
	for _, m := range marks {
		l := loadedMark{position: m.Position}
		if err := json.Unmarshal(m.Tail, &l.data); err != nil {
			// An unreadable mark is one that cannot be relied on: an older one is.
			r.log.Error("relay cannot read a mark", "position", m.Position.String(), "err", err)
			continue
		}
		loaded = append(loaded, l)
	}
	return loaded, nil
}

// check compares the broker's tail with the marks, at claim and after each outage, while nothing is in
// flight.
func (p *pump) check(held context.Context) {
	settled := p.settled
	p.begin(held, &p.checking, func(ctx context.Context) (func(), error) {
		tail, to, err := p.r.reconcile(ctx, p.lease, settled)
		if away, ok := errors.AsType[*awayError](err); ok {
			return func() { p.unavailable(away.err) }, nil
		}
		if err != nil {
			return nil, err
		}
		return func() {
			p.outage.checked = true
			p.tail = tailState{last: tail, marked: to}
			if to != settled {
				p.reset(to)
				if h := p.r.cfg.Hooks.Rewound; h != nil {
					h(settled, to)
				}
			}
		}, nil
	})
}

// reconcile returns the broker's tail and the position to go on from: settled when the broker has kept
// everything, an older one after a rewind.
//
// What was settled after the newest mark is published again too, unless the broker is in the life in
// which that mark was made: a loss of exactly those events leaves no other trace. A restart within
// MarkEvery costs repetitions, never an event.
func (r *Relay) reconcile(ctx context.Context, lease Lease, settled outbox.Position) (broker.Tail, outbox.Position, error) {
	marks, err := r.loadMarks(ctx)
	if err != nil {
		return broker.Tail{}, settled, err
	}
	tail, err := r.tailNow(ctx)
	if err != nil {
		return tail, settled, err
	}
	if len(marks) > 0 && unbroken(marks[0].data.Tail, tail) {
		return tail, settled, r.addMark(ctx, lease, settled, markData{Tail: tail})
	}
	ends, err := r.ends(ctx, marks, tail)
	if err != nil {
		return tail, settled, err
	}
	next, err := r.incarnate(ctx, marks, ends, tail, settled)
	if err != nil {
		return tail, settled, err
	}
	if next.Incarnation != tail.Incarnation {
		tail = next
		if ends, err = r.ends(ctx, marks, tail); err != nil {
			return tail, settled, err
		}
	}
	to := safe(marks, ends, tail)
	if to.Compare(settled) < 0 {
		r.log.Warn("relay publishes again what the broker may have lost", "from", settled.String(), "to", to.String())
		if to, err = r.rewind(ctx, lease, settled, to); err != nil {
			return tail, settled, err
		}
	} else {
		to = settled
	}
	return tail, to, r.addMark(ctx, lease, to, markData{Tail: tail})
}

// ends returns, for the incarnations of marks before the present one, the offsets up to which they can be
// relied on; nil for one that the broker does not know.
func (r *Relay) ends(ctx context.Context, marks []loadedMark, tail broker.Tail) (map[string]map[string]uint64, error) {
	ends := map[string]map[string]uint64{}
	for _, m := range marks {
		incarnation := m.data.Incarnation
		if _, seen := ends[incarnation]; seen || incarnation == tail.Incarnation {
			continue
		}
		offsets, ok, err := r.tailer.LostAt(ctx, incarnation)
		if err != nil {
			return nil, &awayError{err}
		}
		if ok && offsets == nil {
			offsets = map[string]uint64{}
		}
		ends[incarnation] = offsets
	}
	return ends, nil
}

// incarnate begins a new incarnation when the broker has less than a mark of its present one says, less
// than what that one began with, or when it cannot be told: something was acknowledged after the newest
// mark, and the server may have been started again since. Without it a consumer could take what is stored
// next for what it has handled, because it stands at the same offsets.
func (r *Relay) incarnate(
	ctx context.Context, marks []loadedMark, ends map[string]map[string]uint64, tail broker.Tail, settled outbox.Position,
) (broker.Tail, error) {
	kept, doubt, known := tail.Offsets, len(marks) == 0 && !settled.IsZero(), false
	for _, m := range marks {
		has, had := reliable(tail, m.data.Tail), m.data.Offsets
		if m.data.Incarnation != tail.Incarnation {
			had = ends[m.data.Incarnation]
		} else if !known {
			known, doubt, kept = true, m.position.Compare(settled) < 0, has
		}
		if !covers(has, had) {
			r.log.Error("broker lost acknowledged events; the relay publishes them again",
				"had", had, "has", has, "incarnation", tail.Incarnation)
			kept, doubt = has, true
			break
		}
	}
	if !doubt {
		return tail, nil
	}
	if err := r.tailer.Incarnate(ctx, broker.Tail{Incarnation: tail.Incarnation, Offsets: kept}); err != nil {
		return tail, &awayError{err}
	}
	next, err := r.tailNow(ctx)
	if err == nil && next.Incarnation == tail.Incarnation {
		err = &awayError{fmt.Errorf("broker did not begin a new incarnation after %s: %w", tail.Incarnation, broker.ErrUnavailable)}
	}
	return next, err
}

// safe returns the newest marked position up to which the broker has kept everything, or the start.
func safe(marks []loadedMark, ends map[string]map[string]uint64, tail broker.Tail) outbox.Position {
	var replayed *outbox.Position
	for _, m := range marks {
		if m.data.Replayed != nil && (replayed == nil || m.data.Replayed.Compare(*replayed) < 0) {
			replayed = m.data.Replayed
		}
		kept := reliable(tail, m.data.Tail)
		if m.data.Incarnation != tail.Incarnation {
			if kept = ends[m.data.Incarnation]; kept == nil {
				continue
			}
		}
		if !covers(kept, m.data.Offsets) {
			continue
		}
		if replayed != nil && before(*replayed).Compare(m.position) < 0 {
			return before(*replayed)
		}
		return m.position
	}
	return outbox.Position{}
}

// before returns the last place before a record's.
func before(p outbox.Position) outbox.Position {
	p.ID--
	return p
}

// rewind goes back to a position, or to the oldest event kept when that is gone.
func (r *Relay) rewind(ctx context.Context, lease Lease, from, to outbox.Position) (outbox.Position, error) {
	err := r.src.Rewind(ctx, lease, to)
	if err == nil || !errors.Is(err, ErrRetention) {
		return to, err
	}
	r.log.Error("broker may have lost events that the outbox no longer keeps; consumers miss them",
		"from", from.String(), "to", to.String(), "err", err)
	oldest, err := r.src.Next(ctx, lease, outbox.Position{}, 1)
	if err != nil {
		return from, err
	}
	if len(oldest) == 0 || oldest[0].Position.Compare(from) > 0 {
		return from, nil
	}
	to = before(oldest[0].Position)
	return to, r.src.Rewind(ctx, lease, to)
}
