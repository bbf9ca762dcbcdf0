package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// timerStore keeps events that wait for their time.
type timerStore struct {
	s *Store
	q struct{ set, cancel, due, take, next, count string }
}

var (
	_ timer.Store = (*timerStore)(nil)
	_ timer.Bell  = (*timerStore)(nil)
)

func (s *Store) initTimers(q *statements) {
	t := &s.timers
	t.s = s
	t.q.set, t.q.cancel = q.text("timer.set"), q.text("timer.cancel")
	t.q.due, t.q.take = q.text("timer.due"), q.text("timer.take")
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
	taken, ids, err := t.due(ctx, tx, now, limit)
	if err == nil && len(ids) > 0 {
		var n int64
		if n, err = tx.Exec(ctx, t.q.take, idList(ids)); err == nil && n != int64(len(ids)) {
			err = fmt.Errorf("%d of %d rows deleted: %w", n, len(ids), ErrCorrupt)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sqlstore: take timers: %w", err)
	}
	return taken, nil
}

// due reads timers that are due, and locks their rows where there are other writers.
func (t *timerStore) due(ctx context.Context, tx *txn.Tx, now time.Time, limit int) ([]timer.Timer, []int64, error) {
	rows, err := tx.Query(ctx, t.q.due, nanos(now), int64(limit))
	if err != nil {
		return nil, nil, err
	}
	var timers []timer.Timer
	var ids []int64
	var scan eventScan
	var id, at int64
	var key string
	dest := scan.dest([]any{&id, &key, &at})
	for rows.Next() && err == nil {
		scan.e.Data = nil
		if err = rows.Scan(dest...); err == nil {
			var e event.Envelope
			e, err = scan.envelope()
			timers, ids = append(timers, timer.Timer{Key: key, At: timeOf(at), Event: e}), append(ids, id)
		}
	}
	return timers, ids, errors.Join(err, rows.Err(), rows.Close())
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
