package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/txn"
)

const (
	// halfDay is how long rows go to one slot.
	halfDay = 12 * time.Hour
	// ticksPurged bounds the ticks that one purge deletes.
	ticksPurged = 20_000
)

// Purge implements [relay.Purger]. A slot in which everything is settled and older than the retention is
// emptied by TRUNCATE, whatever is in it: that leaves nothing to vacuum, and limit does not apply. Rows are
// deleted one by one, up to limit, only where that cannot happen: in the slot in use, when the retention is
// shorter than half a day, and in a slot that came into use again before its rows were old enough, when it is
// longer than a day and a half. So the best retention is one day.
func (w *windowLog) Purge(ctx context.Context, before time.Time, limit int) (gone int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("sqlstore: purge: %w", err)
		}
	}()
	var now int64
	if err := w.s.row(ctx, w.q.halfDay, nil, &now); err != nil {
		return 0, err
	}
	for slot := range slots {
		if end := lastUse(now, slot) + 1; int64(slot) == now%slots || nanos(before) < end*int64(halfDay) {
			continue
		}
		n, err := w.emptySlot(ctx, slot)
		if err != nil && !errors.Is(err, ErrConflict) { // Somebody uses it: the next purge will do.
			return gone, err
		}
		gone += n
	}
	for shard := 0; shard < w.s.cfg.Shards; shard++ {
		n, err := w.purgeRows(ctx, shard, now, before, max(0, limit-gone))
		if err != nil {
			return gone, err
		}
		gone += n
		if _, err := w.s.delete(ctx, w.q.purgeTicks, int64(shard), int64(ticksPurged)); err != nil {
			return gone, err
		}
	}
	return gone, nil
}

// lastUse returns the last half day, up to now, whose rows went to a slot.
func lastUse(now int64, slot int) int64 { return now - (now-int64(slot))%slots }

// emptySlot empties a partition in which everything is settled.
func (w *windowLog) emptySlot(ctx context.Context, slot int) (gone int, err error) {
	// What takes long is looked at before anybody has to wait: a row that is not seen here has a number that is
	// seen then, below.
	shards := map[int]int64{}
	if settled, err := w.slotSettled(ctx, w.s.row, slot, nil); err != nil || !settled {
		return 0, err
	}
	err = w.s.each(ctx, w.q.slotShards, []any{int64(slot)}, func(rows txn.Rows) error {
		var shard int
		var n int64
		err := rows.Scan(&shard, &n)
		shards[shard] = n
		gone += int(n)
		return err
	})
	if err != nil || gone == 0 {
		return 0, err
	}
	for shard := range shards {
		if shard >= w.s.cfg.Shards {
			return 0, nil // Nobody carries it. It is kept.
		}
	}
	truncated := false
	err = w.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		truncated = false
		for shard := range w.s.cfg.Shards {
			// So that nobody rewinds meanwhile.
			if _, err := w.hold(ctx, tx, shard); err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		if _, err := tx.Exec(ctx, w.q.slotLock[slot]); err != nil {
			return err
		}
		last := map[int]int64{}
		settled, err := w.slotSettled(ctx, tx.QueryRow, slot, last)
		if err != nil || !settled {
			return err
		}
		for shard, xid := range last {
			if err := w.raiseOver(ctx, tx, shard, xid); err != nil {
				return err
			}
		}
		truncated = true
		_, err = tx.Exec(ctx, w.q.slotEmpty[slot])
		return err
	})
	if err != nil || !truncated {
		return 0, err
	}
	return gone, nil
}

// slotSettled reports whether every transaction in a slot was settled, and fills in the last of each shard.
func (w *windowLog) slotSettled(
	ctx context.Context, row func(ctx context.Context, query string, args []any, dest ...any) error, slot int, last map[int]int64,
) (bool, error) {
	for shard := range w.s.cfg.Shards {
		at, err := w.windowIn(ctx, row, shard)
		if err != nil {
			return false, err
		}
		var xid, below int64
		if err := row(ctx, w.q.slotLast, []any{int64(slot), int64(shard)}, &xid); err != nil {
			return false, err
		}
		if xid == 0 {
			continue
		}
		whole := at.Tick - 1 // What is in it stands before at as a whole.
		if at.ID == math.MaxInt64 {
			whole = at.Tick
		}
		if err := row(ctx, w.q.settledBelow, []any{int64(shard), whole}, &below); err != nil {
			return false, err
		}
		if xid >= below {
			return false, nil
		}
		if last != nil {
			last[shard] = xid
		}
	}
	return true, nil
}

// windowIn is windowOf by a statement of the caller's.
func (w *windowLog) windowIn(
	ctx context.Context, row func(ctx context.Context, query string, args []any, dest ...any) error, shard int,
) (p outbox.Position, err error) {
	err = row(ctx, w.leasedLog.q.position, []any{int64(shard)}, &p.Epoch, &p.Tick, &p.ID)
	if errors.Is(err, sql.ErrNoRows) {
		return outbox.Position{}, nil // Nobody has claimed it yet.
	}
	if err == nil && p.Epoch%2 == 1 {
		err = row(ctx, w.q.tickAt, []any{int64(shard), p.Tick}, &p.Tick)
		p.ID = math.MaxInt64
	}
	return p, err
}

// raiseOver raises the floor to the first window whose snapshot shows every transaction up to one. Snapshots
// grow with their ticks, so it is found by halving.
func (w *windowLog) raiseOver(ctx context.Context, tx *txn.Tx, shard int, xid int64) error {
	b, err := w.boundsIn(ctx, tx.QueryRow, shard, math.MaxInt64)
	if err != nil {
		return err
	}
	low, high := b.floor.Tick, b.last
	for low < high {
		mid := low + (high-low)/2
		var below int64
		if err := tx.QueryRow(ctx, w.q.settledBelow, []any{int64(shard), mid}, &below); err != nil {
			return err
		}
		if below > xid {
			high = mid
		} else {
			low = mid + 1
		}
	}
	_, err = tx.Exec(ctx, w.q.raiseFloor, int64(shard), high, int64(math.MaxInt64))
	return err
}

// oldRow is a row that may go.
type oldRow struct {
	tick, id, created int64
	xid               string
	slot              int
}

// purgeRows deletes the oldest rows, in the order of positions, up to the first one that has to stay.
func (w *windowLog) purgeRows(ctx context.Context, shard int, now int64, before time.Time, limit int) (gone int, err error) {
	if limit <= 0 {
		return 0, nil
	}
	err = w.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		gone = 0
		if _, err := w.hold(ctx, tx, shard); err != nil { // So that nobody rewinds meanwhile.
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			return err
		}
		at, err := w.windowIn(ctx, tx.QueryRow, shard)
		if err != nil {
			return err
		}
		old, err := w.oldRows(ctx, tx, shard, at, now, before, min(limit, listMax))
		if err != nil || len(old) == 0 {
			return err
		}
		return w.deleteRows(ctx, tx, shard, old, &gone)
	})
	return gone, err
}

func (w *windowLog) oldRows(
	ctx context.Context, tx *txn.Tx, shard int, at outbox.Position, now int64, before time.Time, limit int,
) (old []oldRow, err error) {
	rows, err := tx.Query(ctx, w.q.oldest, int64(shard), at.Tick, at.ID, int64(limit))
	if err != nil {
		return nil, err
	}
	stays := false
	for rows.Next() && err == nil && !stays {
		var r oldRow
		err = rows.Scan(&r.tick, &r.id, &r.xid, &r.slot, &r.created)
		rotates := int64(r.slot) != now%slots && r.created/int64(halfDay) == lastUse(now, r.slot)
		if stays = rotates || r.created >= nanos(before); !stays {
			old = append(old, r)
		}
	}
	return old, errors.Join(err, rows.Err(), rows.Close())
}

func (w *windowLog) deleteRows(ctx context.Context, tx *txn.Tx, shard int, old []oldRow, gone *int) error {
	inSlots, xids, ids := make([]int32, len(old)), make([]string, len(old)), make([]int64, len(old))
	for i, r := range old {
		inSlots[i], xids[i], ids[i] = int32(r.slot), r.xid, r.id
	}
	n, err := tx.Exec(ctx, w.q.purge, int64(shard), inSlots, xids, ids)
	if err == nil && n != int64(len(old)) {
		err = fmt.Errorf("%d of %d rows deleted: %w", n, len(old), ErrConflict)
	}
	if err != nil {
		return err
	}
	*gone = int(n)
	last := old[len(old)-1]
	_, err = tx.Exec(ctx, w.q.raiseFloor, int64(shard), last.tick, last.id)
	return err
}
