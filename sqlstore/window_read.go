package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

const (
	// ticksMax bounds the windows that one statement looks through.
	ticksMax = 256
	// headFor is how long an owner believes that nobody else has ended a window. It is an owner's right; this
	// is for one who has lost it and does not know.
	headFor = time.Second
	// tickGap is the least time between the beginnings of two windows. Without it there was a window, and so a
	// commit, for nearly each of 1,000 events a second: from commit to handler took 5 to 7 ms for 90 % of them,
	// now 4, and 11 to 19 for 99 %, now 8 to 13; the median was 0.6 ms shorter (docs/benchmarks.md).
	tickGap = 2 * time.Millisecond
)

// windowHead is where an owner stands who has read everything that is in windows.
type windowHead struct {
	fence int64
	at    outbox.Position
	tick  int64 // the last one
	seen  time.Time
}

// windowBounds is what there is to be read.
type windowBounds struct {
	floor outbox.Position // up to it something may have been purged
	fence int64
	last  int64 // the last tick, -1 when there is none
	next  int64 // the first tick behind the one asked about, -1 when there is none
	known bool  // the owner has seen the timeline
}

// Next implements [relay.Source]. The owner of the shard ends a window when there is something new;
// anybody else reads those that have ended. ErrRetention says that events after a position that is not zero
// have been purged, or that the position was given by a database that is not this one any more; the latter is
// ErrFenced for an owner.
func (w *windowLog) Next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if limit = min(limit, listMax); limit <= 0 {
		return nil, nil
	}
	records, err := w.nextRecords(ctx, lease, after, limit)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: next after %s: %w", after, err)
	}
	return records, nil
}

func (w *windowLog) nextRecords(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if l := w.knownLarge(lease.Shard, after.Tick); l != nil {
		if records, err := w.fromLarge(ctx, l, after, limit); err != nil || len(records) > 0 {
			return records, err
		}
	}
	head, ok := w.headOf(lease, after)
	if !ok {
		records, bounds, err := w.ended(ctx, lease, after, limit)
		if err != nil || len(records) > 0 || bounds.last < 0 {
			return records, err
		}
		if err := bounds.owned(lease); err != nil {
			return nil, err
		}
		head = windowHead{fence: lease.Fence, at: after, tick: bounds.last, seen: time.Now()}
		w.setHead(lease.Shard, head)
	}
	if lease.Fence == 0 {
		return nil, nil
	}
	records, err := w.endWindow(ctx, lease, head.tick, after.Epoch, limit)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	if len(records) < limit {
		w.setHead(lease.Shard, windowHead{fence: lease.Fence, at: records[len(records)-1].Position, tick: head.tick + 1, seen: time.Now()})
	}
	return records, nil
}

func (w *windowLog) headOf(lease relay.Lease, after outbox.Position) (windowHead, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h, ok := w.heads[lease.Shard]
	return h, ok && lease.Fence > 0 && h.fence == lease.Fence && h.at == after && time.Since(h.seen) < headFor
}

// setHead is for an owner; anybody else's is nothing to go by.
func (w *windowLog) setHead(shard int, h windowHead) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.fence > 0 {
		w.heads[shard] = h
	}
}

// ended returns what follows in windows that have ended. With none it says how far they go.
func (w *windowLog) ended(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) (records []outbox.Record, b windowBounds, err error) {
	shard := lease.Shard
	from := after
	for {
		records, large, err := w.page(ctx, shard, from, limit)
		if err != nil {
			return nil, b, err
		}
		if len(records) > 0 {
			return records, b, nil
		}
		if large > 0 {
			if from.Tick < large {
				from.Tick, from.ID = large, 0
			}
			if records, err = w.fromLarge(ctx, w.largeWindow(shard, large), from, limit); err != nil || len(records) > 0 {
				return records, b, err
			}
			from.Tick, from.ID = large+1, 0
			continue
		}
		// Asked after the rows: what was purged before them is known now.
		if b, err = w.boundsOf(ctx, shard, from.Tick+ticksMax); err != nil || b.last < 0 {
			return nil, b, err
		}
		if err = kept(after, b.floor); err != nil {
			return nil, b, err
		}
		if after.Tick > b.last {
			return nil, b, unknownWindow(lease, b.last)
		}
		// There is a gap before the windows of a new timeline, and before those of a rebase.
		if from.Tick = max(max(from.Tick, b.floor.Tick)+ticksMax, b.next-1); from.Tick >= b.last {
			return nil, b, nil
		}
		from.ID = 0
	}
}

// owned returns nil for the owner, who is to claim the shard again when another server was promoted, and for who only
// follows.
func (b windowBounds) owned(lease relay.Lease) error {
	switch {
	case lease.Fence == 0:
		return nil
	case b.fence != lease.Fence:
		return fmt.Errorf("fence is %d, not %d: %w", b.fence, lease.Fence, relay.ErrFenced)
	case !b.known:
		return fmt.Errorf("another server was promoted: %w", relay.ErrFenced)
	}
	return nil
}

// unknownWindow is the answer to who has read a window behind the last one. An owner ends, and begins where the
// database says; whoever only follows has lost its place.
func unknownWindow(lease relay.Lease, last int64) error {
	err := relay.ErrRetention
	if lease.Fence > 0 {
		err = relay.ErrFenced
	}
	return fmt.Errorf("the last window is %d: the database has lost what it had, or is another one: %w", last, err)
}

// page returns what follows a position in windows that are not large, up to the first large one: that one's
// tick when nothing comes before it, else 0.
func (w *windowLog) page(ctx context.Context, shard int, after outbox.Position, limit int) (records []outbox.Record, large int64, err error) {
	var floor outbox.Position
	var events int
	most := largeFrom(limit)
	scan := newTickedScan(after.Epoch, &floor.Tick, &floor.ID, &events)
	args := []any{int64(shard), after.Tick, after.ID, int64(ticksMax), int64(limit), int64(most)}
	err = w.s.each(ctx, w.q.next, args, func(rows txn.Rows) error {
		r, err := scan.read(rows)
		switch {
		case large != 0:
		case events >= most:
			large = r.Position.Tick
		default:
			records = append(records, r)
		}
		return err
	})
	if err != nil || len(records) == 0 {
		return nil, large, err
	}
	return records, 0, kept(after, floor)
}

// kept refuses a position behind which something may be missing.
func kept(after, floor outbox.Position) error {
	floor.Epoch = after.Epoch
	if !after.IsZero() && after.Compare(floor) < 0 {
		return fmt.Errorf("those up to %s are purged: %w", floor, relay.ErrRetention)
	}
	return nil
}

func (w *windowLog) boundsOf(ctx context.Context, shard int, behind int64) (windowBounds, error) {
	return w.boundsIn(ctx, w.s.row, shard, behind)
}

// boundsIn is boundsOf by a statement of the caller's.
func (w *windowLog) boundsIn(
	ctx context.Context, row func(ctx context.Context, query string, args []any, dest ...any) error, shard int, behind int64,
) (b windowBounds, err error) {
	err = row(ctx, w.q.bounds, []any{int64(shard), behind}, &b.floor.Tick, &b.floor.ID, &b.fence, &b.last, &b.next, &b.known)
	if errors.Is(err, sql.ErrNoRows) {
		return windowBounds{last: -1}, nil // Nobody has claimed it yet.
	}
	return b, err
}

// endWindow makes the tick behind the last one when there is something new, and returns what stands in its
// window. The tick is on disk when it returns.
func (w *windowLog) endWindow(ctx context.Context, lease relay.Lease, last, epoch int64, limit int) ([]outbox.Record, error) {
	most := largeFrom(limit)
	records, events, err := w.makeTick(ctx, lease, last, epoch, limit, most)
	if err != nil || events < most {
		return records, err
	}
	return w.fromLarge(ctx, w.largeWindow(lease.Shard, last+1), outbox.Position{Epoch: epoch, Tick: last + 1}, limit)
}

// makeTick returns how many events the new tick's window has, none when there is no new tick, and those of them
// that fit. Of a window of most events or more it is any one.
func (w *windowLog) makeTick(ctx context.Context, lease relay.Lease, last, epoch int64, limit, most int) (records []outbox.Record, events int, err error) {
	began, err := w.awaitGap(ctx, lease.Shard)
	if err != nil {
		return nil, 0, err
	}
	scan := newTickedScan(epoch, &events)
	args := []any{int64(lease.Shard), last, lease.Fence, lease.Owner, int64(limit), int64(most)}
	err = w.s.each(ctx, w.q.tick, args, func(rows txn.Rows) error {
		r, err := scan.read(rows)
		records = append(records, r)
		return err
	})
	if errors.Is(err, ErrDuplicate) || errors.Is(err, ErrConflict) {
		w.forgetHead(lease.Shard) // Somebody else has made this tick: it is there to be read.
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if events > 0 {
		w.mu.Lock()
		w.ticked[lease.Shard] = began
		w.mu.Unlock()
	}
	return records, events, nil
}

// awaitGap returns when the next window may begin, and when that was.
func (w *windowLog) awaitGap(ctx context.Context, shard int) (time.Time, error) {
	w.mu.Lock()
	wait := time.Until(w.ticked[shard].Add(tickGap))
	w.mu.Unlock()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
	return time.Now(), nil
}

func (w *windowLog) forgetHead(shard int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.heads, shard)
}

// Sequence implements [relay.Sequencer].
func (w *windowLog) Sequence(ctx context.Context, lease relay.Lease) (outbox.Position, error) {
	last, err := w.sequence(ctx, lease)
	if err != nil {
		return outbox.Position{}, fmt.Errorf("sqlstore: sequence shard %d: %w", lease.Shard, err)
	}
	return outbox.Position{Epoch: lease.Position.Epoch, Tick: last, ID: math.MaxInt64}, nil
}

func (w *windowLog) sequence(ctx context.Context, lease relay.Lease) (int64, error) {
	b, err := w.boundsOf(ctx, lease.Shard, math.MaxInt64)
	if err == nil {
		err = b.owned(lease)
	}
	if err != nil {
		return 0, err
	}
	_, events, err := w.makeTick(ctx, lease, b.last, lease.Position.Epoch, 1, 1)
	if err != nil || events == 0 {
		return b.last, err
	}
	w.forgetHead(lease.Shard)
	w.s.ringOutbox()
	return b.last + 1, nil
}

// tickedScan reads records with their window.
type tickedScan struct {
	ev      eventScan
	at      outbox.Position
	created int64
	dest    []any
}

func newTickedScan(epoch int64, before ...any) *tickedScan {
	s := &tickedScan{at: outbox.Position{Epoch: epoch}}
	s.dest = s.ev.dest(append(before, &s.at.Tick, &s.at.ID, &s.created))
	return s
}

func (s *tickedScan) read(rows txn.Rows) (outbox.Record, error) {
	s.ev.e.Data = nil // Scan would write into what the row before was given.
	if err := rows.Scan(s.dest...); err != nil {
		return outbox.Record{}, err
	}
	e, err := s.ev.envelope()
	return outbox.Record{Position: s.at, CreatedAt: timeOf(s.created), Event: e}, err
}
