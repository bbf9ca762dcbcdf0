package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// timerStore keeps events that wait for their time.
type timerStore struct {
	s *Store
	q struct{ set, cancel, take, next, count string }
}

var (
	_ timer.Store = (*timerStore)(nil)
	_ timer.Bell  = (*timerStore)(nil)
)

func (s *Store) initTimers(q *statements) {
	t := &s.timers
	t.s = s
	t.q.set, t.q.cancel, t.q.take = q.text("timer.set"), q.text("timer.cancel"), q.text("timer.take")
	t.q.next, t.q.count = q.text("timer.next"), q.text("timer.count")
}

// Listen implements [timer.Bell].
func (t *timerStore) Listen() (<-chan struct{}, func()) { return t.s.timerBell.listen() }

// Set implements [timer.Store].
func (t *timerStore) Set(ctx context.Context, tx *txn.Tx, x timer.Timer) error {
	args := eventArgs(append(make([]any, 0, 2+eventColumns), x.Key, nanos(x.At)), &x.Event)
	if _, err := tx.Exec(ctx, t.q.set, args...); err != nil {
		return err
	}
	tx.AfterCommit(t.s.timerBell.ring)
	return nil
}

// Cancel implements [timer.Store].
func (t *timerStore) Cancel(ctx context.Context, tx *txn.Tx, key string) (bool, error) {
	n, err := tx.Exec(ctx, t.q.cancel, key)
	return n > 0, err
}

// Take implements [timer.Store].
func (t *timerStore) Take(ctx context.Context, tx *txn.Tx, now time.Time, limit int) ([]timer.Timer, error) {
	rows, err := tx.Query(ctx, t.q.take, nanos(now), int64(limit))
	if err != nil {
		return nil, fmt.Errorf("sqlstore: take timers: %w", err)
	}
	type due struct {
		timer.Timer

		id int64
	}
	var taken []due
	var scan eventScan
	var id, at int64
	var key string
	dest := scan.dest([]any{&id, &key, &at})
	for rows.Next() {
		scan.e.Data = nil
		if err = rows.Scan(dest...); err != nil {
			break
		}
		e, serr := scan.envelope()
		if err = serr; err != nil {
			break
		}
		taken = append(taken, due{timer.Timer{Key: key, At: timeOf(at), Event: e}, id})
	}
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("sqlstore: take timers: %w", err)
	}
	// RETURNING promises no order.
	slices.SortFunc(taken, func(a, b due) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.id, b.id)) })
	out := make([]timer.Timer, len(taken))
	for i := range taken {
		out[i] = taken[i].Timer
	}
	return out, nil
}

// Next implements [timer.Store].
func (t *timerStore) Next(ctx context.Context) (time.Time, bool, error) {
	var at int64
	err := t.s.row(ctx, t.q.next, nil, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("sqlstore: next timer: %w", err)
	}
	return timeOf(at), true, nil
}

// Count implements [timer.Store].
func (t *timerStore) Count(ctx context.Context) (int64, error) {
	var n int64
	if err := t.s.row(ctx, t.q.count, nil, &n); err != nil {
		return 0, fmt.Errorf("sqlstore: count timers: %w", err)
	}
	return n, nil
}
