package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// listMax bounds one page of records, parked events or entries.
const listMax = 10_000

// rowidLog is the relay's source on SQLite: a rowid reader. There is one writer, so the order of row
// numbers is the order of commits.
type rowidLog struct {
	s *Store
	q rowidSQL

	claims chan struct{} // has one token: the right to decide about the lease
	mu     sync.Mutex
	lease  relay.Lease // of shard 0, as this process gave it; the file's lock is the ownership
}

type rowidSQL struct {
	add, after, bounds, list, listSent, listFailed, purge, oldest, stats                                string
	claim, position, fence, advance, rewind, mark, markDrop, marks                                      string
	park, parkAgain, unmark, parked, parkedReplay, parkedKey, parkedSome, unpark, replay, replayOfTopic string
}

var _ eventLog = (*rowidLog)(nil)

func newRowidLog(s *Store, q *statements) *rowidLog {
	o := &rowidLog{s: s, claims: make(chan struct{}, 1)}
	o.claims <- struct{}{}
	o.q = rowidSQL{
		add: q.text("outbox.add"), after: q.text("outbox.after"), bounds: q.text("outbox.bounds"),
		list: q.text("outbox.list"), listSent: q.text("outbox.list_sent"), listFailed: q.text("outbox.list_failed"),
		purge: q.text("outbox.purge"), oldest: q.text("outbox.oldest"), stats: q.text("outbox.stats"),
		claim: q.text("relay.claim"), position: q.text("relay.position"), fence: q.text("relay.fence"),
		advance: q.text("relay.advance"), rewind: q.text("relay.rewind"),
		mark: q.text("relay.mark"), markDrop: q.text("relay.mark_drop"), marks: q.text("relay.marks"),
		park: q.text("relay.park"), parkAgain: q.text("relay.park_again"), unmark: q.text("relay.unmark"),
		parked: q.text("relay.parked"), parkedReplay: q.text("relay.parked_replay"),
		parkedKey: q.text("relay.parked_key"), parkedSome: q.text("relay.parked_some"),
		unpark: q.text("relay.unpark"), replay: q.text("relay.replay"), replayOfTopic: q.text("relay.replay_topic"),
	}
	return o
}

// addEvents writes the member's events: its last statement, prepared once, repeated for each further
// event. (One statement with many rows, or json_each, saves nothing here: mechanisms 10c, measured again.)
func (w *writer) addEvents(m *member, c *conn) error {
	events := m.tx.Events()
	if len(events) == 0 {
		return nil
	}
	ctx := context.Background()
	created := nanos(m.tx.Now())
	for i := range events {
		w.args = append(eventArgs(w.args[:0], &events[i]), created)
		res, err := c.result(ctx, w.store.rowid.q.add, w.args)
		if err != nil {
			return fmt.Errorf("sqlstore: add %s: %w", events[i].Type, err)
		}
		id, err := res.LastInsertId()
		if err != nil {
			return fmt.Errorf("sqlstore: add %s: %w", events[i].Type, err)
		}
		if i == 0 {
			m.first = id
		} else if id != m.first+int64(i) {
			return fmt.Errorf("sqlstore: add %s: row %d does not follow %d: %w", events[i].Type, id, m.first+int64(i)-1, ErrCorrupt)
		}
	}
	return nil
}

// bounds returns the oldest row number kept and the newest ever given.
func (o *rowidLog) bounds(ctx context.Context) (first, last int64, err error) {
	err = o.s.row(ctx, o.q.bounds, nil, &first, &last)
	return first, last, err
}

// Claim implements [relay.Source]. The lock of the file is the ownership, so a lease is only kept in
// memory: none outlives its process, and the fence rises once for each owner.
func (o *rowidLog) Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (relay.Lease, error) {
	if shard != 0 {
		return relay.Lease{}, fmt.Errorf("sqlstore: claim shard %d: there is only shard 0", shard)
	}
	select {
	case <-o.claims:
		defer func() { o.claims <- struct{}{} }()
	case <-ctx.Done():
		return relay.Lease{}, ctx.Err()
	}
	o.mu.Lock()
	held, now := o.lease, time.Now()
	o.mu.Unlock()
	if held.Owner != "" && now.Before(held.Expires) {
		if held.Owner != owner {
			return relay.Lease{}, fmt.Errorf("sqlstore: claim shard %d, %s has it for %s: %w", shard, held.Owner, held.Expires.Sub(now), relay.ErrHeld)
		}
		return o.renew(ctx, held, now.Add(ttl))
	}
	lease := relay.Lease{Shard: shard, Owner: owner, Expires: now.Add(ttl)}
	err := o.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		return tx.QueryRow(ctx, o.q.claim, []any{int64(shard), owner}, &lease.Fence, &lease.Position.ID)
	})
	if err != nil {
		return relay.Lease{}, fmt.Errorf("sqlstore: claim shard %d: %w", shard, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lease = lease
	return lease, nil
}

func (o *rowidLog) renew(ctx context.Context, lease relay.Lease, expires time.Time) (relay.Lease, error) {
	var fence int64
	if err := o.s.row(ctx, o.q.position, []any{int64(lease.Shard)}, &fence, &lease.Position.ID); err != nil {
		return relay.Lease{}, fmt.Errorf("sqlstore: renew shard %d: %w", lease.Shard, err)
	}
	lease.Expires = expires
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lease.Fence == lease.Fence {
		o.lease = lease
	}
	return lease, nil
}

// Next implements [relay.Source]. A reader at the head is served from memory. ErrRetention says that
// events after a position that is not zero have been purged, or that it was given by a file that is not this one any
// more.
func (o *rowidLog) Next(ctx context.Context, _ relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if limit = min(limit, listMax); limit <= 0 {
		return nil, nil
	}
	records, ok := o.s.tail.next(after.ID, limit)
	if !ok {
		var err error
		if records, err = o.read(ctx, after, limit); err != nil {
			return nil, fmt.Errorf("sqlstore: next after %s: %w", after, err)
		}
	}
	if len(records) == 0 {
		if err := o.given(ctx, after); err != nil {
			return nil, fmt.Errorf("sqlstore: next after %s: %w", after, err)
		}
	}
	return records, nil
}

// read is Next by a statement.
func (o *rowidLog) read(ctx context.Context, after outbox.Position, limit int) ([]outbox.Record, error) {
	records := make([]outbox.Record, 0, min(limit, 256))
	scan := newRecordScan()
	err := o.s.each(ctx, o.q.after, []any{after.ID, int64(limit)}, func(rows txn.Rows) error {
		r, err := scan.read(rows)
		records = append(records, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	// In another process all of them may be gone and none be new: the gap then shows with the next event.
	if after.ID > 0 && (len(records) > 0 && records[0].Position.ID != after.ID+1 || len(records) == 0 && o.s.tail.knows()) {
		return nil, fmt.Errorf("those that followed are purged: %w", relay.ErrRetention)
	}
	return records, nil
}

// given refuses a position behind every event that there ever was in this file.
func (o *rowidLog) given(ctx context.Context, after outbox.Position) error {
	if after.IsZero() || o.s.tail.knows() && after.ID <= o.s.tail.newest() {
		return nil
	}
	_, last, err := o.bounds(ctx)
	if err == nil && after.ID > last {
		err = fmt.Errorf("the last event is %d: the file is an older copy, or another one: %w", last, relay.ErrRetention)
	}
	return err
}

// recordScan reads records; it is used again for each row.
type recordScan struct {
	ev          eventScan
	id, created int64
	dest        []any
}

func newRecordScan(more ...any) *recordScan {
	r := &recordScan{}
	r.dest = append(r.ev.dest([]any{&r.id, &r.created}), more...)
	return r
}

func (r *recordScan) read(rows txn.Rows) (outbox.Record, error) {
	r.ev.e.Data = nil // Scan would write into what the row before was given.
	if err := rows.Scan(r.dest...); err != nil {
		return outbox.Record{}, err
	}
	e, err := r.ev.envelope()
	return outbox.Record{Position: outbox.Position{ID: r.id}, CreatedAt: timeOf(r.created), Event: e}, err
}

// Advance implements [relay.Source].
func (o *rowidLog) Advance(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	if last := o.s.tail.newest(); to.ID > last {
		return fmt.Errorf("sqlstore: advance to %s, the last event is %d", to, last)
	}
	return o.move(ctx, "advance", o.q.advance, lease, to)
}

// Rewind implements [relay.Source].
func (o *rowidLog) Rewind(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	first, last, err := o.bounds(ctx)
	if err != nil {
		return fmt.Errorf("sqlstore: rewind to %s: %w", to, err)
	}
	if first == 0 {
		first = last + 1
	}
	if to.ID < first-1 {
		return fmt.Errorf("sqlstore: rewind to %s, oldest is 0.0.%d: %w", to, first, relay.ErrRetention)
	}
	return o.move(ctx, "rewind", o.q.rewind, lease, to)
}

func (o *rowidLog) move(ctx context.Context, verb, query string, lease relay.Lease, to outbox.Position) error {
	err := o.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		n, err := tx.Exec(ctx, query, int64(lease.Shard), lease.Fence, to.ID)
		if err == nil && n == 0 {
			return relay.ErrFenced
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlstore: %s to %s with fence %d: %w", verb, to, lease.Fence, err)
	}
	return nil
}

// Release implements [relay.Source].
func (o *rowidLog) Release(_ context.Context, lease relay.Lease) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lease.Owner == lease.Owner && o.lease.Fence == lease.Fence {
		o.lease.Owner, o.lease.Expires = "", time.Time{}
	}
	return nil
}

// fenced runs fn in a transaction of the shard's owner.
func (o *rowidLog) fenced(ctx context.Context, lease relay.Lease, fn func(context.Context, *txn.Tx) error) error {
	return o.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		var fence int64
		err := tx.QueryRow(ctx, o.q.fence, []any{int64(lease.Shard)}, &fence)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if fence != lease.Fence {
			return fmt.Errorf("fence is %d, not %d: %w", fence, lease.Fence, relay.ErrFenced)
		}
		return fn(ctx, tx)
	})
}

// Listen implements [relay.Bell].
func (o *rowidLog) Listen() (<-chan struct{}, func()) { return o.s.outboxBell.listen() }

// AddMark implements [relay.Marks].
func (o *rowidLog) AddMark(ctx context.Context, lease relay.Lease, m relay.Mark) error {
	err := o.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx) error {
		if _, err := tx.Exec(ctx, o.q.mark, int64(lease.Shard), m.Position.ID, nanos(m.At), m.Tail); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, o.q.markDrop, int64(lease.Shard))
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlstore: mark %s: %w", m.Position, err)
	}
	return nil
}

// Marks implements [relay.Marks].
func (o *rowidLog) Marks(ctx context.Context, shard int) ([]relay.Mark, error) {
	var marks []relay.Mark
	err := o.s.each(ctx, o.q.marks, []any{int64(shard)}, func(rows txn.Rows) error {
		var m relay.Mark
		var at int64
		err := rows.Scan(&m.Position.ID, &at, &m.Tail)
		m.At = timeOf(at)
		marks = append(marks, m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: marks: %w", err)
	}
	return marks, nil
}

// Stats implements [relay.Observer].
func (o *rowidLog) Stats(ctx context.Context) (relay.Stats, error) {
	var st relay.Stats
	var position, oldest, first, last int64
	if err := o.s.row(ctx, o.q.stats, nil, &position, &oldest, &first, &last, &st.Parked); err != nil {
		return st, fmt.Errorf("sqlstore: stats: %w", err)
	}
	st.Pending = max(0, last-position)
	if first > 0 {
		st.Sent = max(0, position-first+1)
	}
	if oldest > 0 {
		st.Age = max(0, time.Since(timeOf(oldest)))
	}
	return st, nil
}

// Purge implements [relay.Purger].
func (o *rowidLog) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	var n, oldest int64
	err := o.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		if n, err = tx.Exec(ctx, o.q.purge, nanos(before), int64(limit)); err != nil || n == 0 {
			return err
		}
		tx.AfterCommit(func() { o.s.tail.forget(oldest) })
		return tx.QueryRow(ctx, o.q.oldest, nil, &oldest)
	})
	if err != nil {
		return 0, fmt.Errorf("sqlstore: purge: %w", err)
	}
	return int(n), nil
}
