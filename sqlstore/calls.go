package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/txn"
)

// callStore keeps prepared calls.
type callStore struct {
	s *Store
	q struct{ prepare, due, claim, finish, deferral, reclaim, next, pending string }
}

var (
	_ call.Store    = (*callStore)(nil)
	_ call.Bell     = (*callStore)(nil)
	_ call.Observer = (*callStore)(nil)
)

func (s *Store) initCalls(q *statements) {
	c := &s.calls
	c.s = s
	c.q.prepare, c.q.finish = q.text("call.prepare"), q.text("call.finish")
	c.q.due, c.q.claim, c.q.deferral = q.text("call.due"), q.text("call.claim"), q.text("call.defer")
	c.q.next, c.q.pending = q.text("call.next"), q.text("call.pending")
	if q.dialect == sqliteName {
		c.q.reclaim = q.text("call.reclaim")
	}
}

// reclaim ends the leases of whoever had the file before.
func (c *callStore) reclaim(ctx context.Context, now time.Time) error {
	_, err := c.s.delete(ctx, c.q.reclaim, nanos(now))
	return err
}

// Listen implements [call.Bell].
func (c *callStore) Listen() (<-chan struct{}, func()) { return c.s.callBell.listen() }

// Prepare implements [call.Store].
func (c *callStore) Prepare(ctx context.Context, tx *txn.Tx, w call.Work) error {
	_, err := tx.Exec(ctx, c.q.prepare, w.Call, w.Key, w.Request, w.Cause.TraceParent, w.Cause.CorrelationID,
		idArg(&w.Cause.CausationID), nanos(w.Due), nanos(w.CreatedAt))
	if err != nil {
		return err
	}
	tx.AfterCommit(c.s.callBell.ring)
	return nil
}

// Claim implements [call.Store].
func (c *callStore) Claim(ctx context.Context, name string, now, until time.Time, limit int) ([]call.Work, error) {
	// Workers ask often: look before taking a turn of the writer.
	if at, ok, err := c.Next(ctx, name); err != nil || !ok || at.After(now) {
		return nil, err
	}
	var taken []call.Work
	err := c.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		var ids []int64
		var err error
		if taken, ids, err = c.due(ctx, tx, name, now, limit); err != nil || len(ids) == 0 {
			return err
		}
		for i := range taken {
			taken[i].Attempts++
			taken[i].Due, taken[i].Fence = until, int64(taken[i].Attempts)
		}
		n, err := tx.Exec(ctx, c.q.claim, idList(ids), nanos(until))
		if err == nil && n != int64(len(ids)) {
			err = fmt.Errorf("%d of %d rows claimed: %w", n, len(ids), ErrCorrupt)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: claim calls of %s: %w", name, err)
	}
	return taken, nil
}

// due reads calls that are due, and locks their rows where there are other writers.
func (c *callStore) due(ctx context.Context, tx *txn.Tx, name string, now time.Time, limit int) ([]call.Work, []int64, error) {
	rows, err := tx.Query(ctx, c.q.due, name, nanos(now), int64(limit))
	if err != nil {
		return nil, nil, err
	}
	var works []call.Work
	var ids []int64
	for rows.Next() && err == nil {
		w := call.Work{Call: name}
		var id, created int64
		var causation []byte
		err = rows.Scan(&id, &w.Key, &w.Request, &w.Cause.TraceParent, &w.Cause.CorrelationID, &causation,
			&created, &w.Attempts, &w.LastError)
		if err == nil {
			w.Cause.CausationID, err = idOf(causation)
		}
		w.CreatedAt = timeOf(created)
		works, ids = append(works, w), append(ids, id)
	}
	return works, ids, errors.Join(err, rows.Err(), rows.Close())
}

// idList is row numbers as a JSON array, which every dialect can take as one argument.
func idList(ids []int64) string {
	b := []byte{'['}
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id, 10)
	}
	return string(append(b, ']'))
}

// Finish implements [call.Store].
func (c *callStore) Finish(ctx context.Context, tx *txn.Tx, w call.Work) (bool, error) {
	n, err := tx.Exec(ctx, c.q.finish, w.Call, w.Key, w.Fence)
	if err != nil {
		return false, fmt.Errorf("sqlstore: finish call %s %s: %w", w.Call, w.Key, err)
	}
	return n == 1, nil
}

// Defer implements [call.Store]. A lease that was lost is no error: the call is in other hands.
func (c *callStore) Defer(ctx context.Context, w call.Work, due time.Time, lastError string) error {
	err := c.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		_, err := tx.Exec(ctx, c.q.deferral, w.Call, w.Key, w.Fence, nanos(due), lastError)
		tx.AfterCommit(c.s.callBell.ring)
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlstore: defer call %s %s: %w", w.Call, w.Key, err)
	}
	return nil
}

// Next implements [call.Store]. A call that is in a worker's hands is due when its lease ends.
func (c *callStore) Next(ctx context.Context, name string) (time.Time, bool, error) {
	var due int64
	err := c.s.row(ctx, c.q.next, []any{name}, &due)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("sqlstore: next call of %s: %w", name, err)
	}
	return timeOf(due), true, nil
}

// Pending implements [call.Observer].
func (c *callStore) Pending(ctx context.Context) ([]call.Pending, error) {
	var out []call.Pending
	err := c.s.each(ctx, c.q.pending, nil, func(rows txn.Rows) error {
		var p call.Pending
		var oldest int64
		err := rows.Scan(&p.Call, &p.Count, &oldest, &p.Attempts)
		p.Oldest = timeOf(oldest)
		out = append(out, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: pending calls: %w", err)
	}
	return out, nil
}
