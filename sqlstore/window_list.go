package sqlstore

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// countMax bounds the events that Stats counts; beyond it estimates.
const countMax = 100_000

// Stats implements [relay.Observer]. Beyond a hundred thousand events, Pending is estimated by the numbers of
// rows and Sent by what the server's own statistics say.
func (w *windowLog) Stats(ctx context.Context) (relay.Stats, error) {
	var st relay.Stats
	for shard := range w.s.cfg.Shards {
		if err := w.shardStats(ctx, shard, &st); err != nil {
			return st, fmt.Errorf("sqlstore: stats: %w", err)
		}
	}
	return st, nil
}

func (w *windowLog) shardStats(ctx context.Context, shard int, st *relay.Stats) error {
	at, err := w.windowOf(ctx, shard)
	if err != nil {
		return err
	}
	key := int64(shard)
	var pending, oldest, total, known, parked int64
	if err := w.s.row(ctx, w.q.pending, []any{key, at.Tick, at.ID, int64(countMax)}, &pending, &oldest); err != nil {
		return err
	}
	if err := w.s.row(ctx, w.q.total, []any{key, int64(countMax)}, &total, &known, &parked); err != nil {
		return err
	}
	if total == countMax {
		total = max(total, known/int64(w.s.cfg.Shards))
	}
	st.Pending, st.Parked, st.Sent = st.Pending+pending, st.Parked+parked, st.Sent+max(0, total-pending)
	if oldest > 0 {
		st.Age = max(st.Age, time.Since(timeOf(oldest)))
	}
	return nil
}

// List implements [relay.Lister] for the first shard. What is in no window yet is listed as if one ended now.
func (w *windowLog) List(ctx context.Context, status relay.Status, after outbox.Position, limit int) ([]relay.Entry, error) {
	entries, err := w.entries(ctx, status, after, page(limit))
	if err != nil {
		return nil, fmt.Errorf("sqlstore: list: %w", err)
	}
	return entries, nil
}

func (w *windowLog) entries(ctx context.Context, status relay.Status, after outbox.Position, limit int) ([]relay.Entry, error) {
	at, err := w.windowOf(ctx, 0)
	if err != nil {
		return nil, err
	}
	at.Epoch &^= 1 // Windows are listed, also while the log is read.
	if after.IsZero() {
		if after, err = w.oldestKept(ctx, w.s, 0, at.Epoch); err != nil {
			return nil, err
		}
	}
	return w.view(ctx, status, after, at, limit, w.peek)
}

// peek reads like a follower, and past the last window too.
func (w *windowLog) peek(ctx context.Context, after outbox.Position, limit int) ([]outbox.Record, error) {
	b, err := w.boundsOf(ctx, 0, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	if after.Tick <= b.last {
		records, err := w.nextRecords(ctx, relay.Lease{}, after, limit)
		if err != nil || len(records) > 0 {
			return records, err
		}
		after.ID = 0
	}
	return w.openWindow(ctx, after, limit)
}

// openWindow reads what is in no window yet.
func (w *windowLog) openWindow(ctx context.Context, after outbox.Position, limit int) ([]outbox.Record, error) {
	var records []outbox.Record
	scan := newTickedScan(after.Epoch)
	err := w.s.each(ctx, w.q.open, []any{int64(0), after.ID, int64(limit)}, func(rows txn.Rows) error {
		r, err := scan.read(rows)
		records = append(records, r)
		return err
	})
	return records, err
}
