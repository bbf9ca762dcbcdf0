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

// Purge implements [relay.Purger]: in the order of positions, up to the first event that is too young.
func (l *shardLog) Purge(ctx context.Context, before time.Time, limit int) (gone int, err error) {
	for shard := 0; shard < l.s.cfg.Shards && gone < limit; shard++ {
		n, err := l.purge(ctx, shard, before, limit-gone)
		gone += n
		if err != nil {
			return gone, fmt.Errorf("sqlstore: purge: %w", err)
		}
	}
	return gone, nil
}

func (l *shardLog) purge(ctx context.Context, shard int, before time.Time, limit int) (gone int, err error) {
	key := int64(shard)
	err = l.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		row, err := l.hold(ctx, tx, shard) // So that nobody rewinds meanwhile.
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		var first, young int64
		if err := tx.QueryRow(ctx, l.q.first, []any{key}, &first); err != nil || first == 0 {
			return err
		}
		to := min(row.at.ID, first+int64(limit)-1)
		if err := tx.QueryRow(ctx, l.q.young, []any{key, first, to, nanos(before)}, &young); err != nil {
			return err
		}
		if young > 0 {
			to = young - 1
		}
		if to < first {
			return nil
		}
		n, err := tx.Exec(ctx, l.q.purge, key, first, to)
		gone = int(n)
		return err
	})
	return gone, err
}

// beforeFirst implements leasedLog.oldest: the position before the oldest event kept.
func (l *shardLog) beforeFirst(ctx context.Context, from querier, shard int, _ int64) (outbox.Position, error) {
	var first, seq, shown int64
	err := from.QueryRow(ctx, l.q.first, []any{int64(shard)}, &first)
	if err == nil && first == 0 {
		err = from.QueryRow(ctx, l.q.last, []any{int64(shard)}, &seq, &shown)
		if first = seq + 1; errors.Is(err, sql.ErrNoRows) {
			err = nil // Nobody has owned it yet.
		}
	}
	return outbox.Position{ID: first - 1}, err
}

// Stats implements [relay.Observer]. It counts what has no position yet, and so costs what is new.
func (l *shardLog) Stats(ctx context.Context) (relay.Stats, error) {
	var st relay.Stats
	for shard := range l.s.cfg.Shards {
		if err := l.shardStats(ctx, shard, &st); err != nil {
			return st, fmt.Errorf("sqlstore: stats: %w", err)
		}
	}
	return st, nil
}

func (l *shardLog) shardStats(ctx context.Context, shard int, st *relay.Stats) error {
	var position, seq, first, fresh, next, nextFresh, parked int64
	err := l.s.row(ctx, l.q.stats, []any{int64(shard)}, &position, &seq, &first, &fresh, &next, &nextFresh, &parked)
	st.Pending, st.Parked = st.Pending+max(0, seq-position)+fresh, st.Parked+parked
	if first > 0 {
		st.Sent += max(0, position-first+1)
	}
	for _, created := range []int64{next, nextFresh} {
		if created > 0 {
			st.Age = max(st.Age, time.Since(timeOf(created)))
		}
	}
	return err
}

// freshTick is where the list shows events that have no position yet: behind all others, by their identities.
// It leads nowhere, the owner gives them other ones.
const freshTick = math.MaxInt64

// List implements [relay.Lister] for the first shard.
func (l *shardLog) List(ctx context.Context, status relay.Status, after outbox.Position, limit int) ([]relay.Entry, error) {
	at, err := l.at(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: list: %w", err)
	}
	entries, err := l.view(ctx, status, after, at, page(limit), l.peek)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: list: %w", err)
	}
	return entries, nil
}

// peek reads what is numbered, and then what is not.
func (l *shardLog) peek(ctx context.Context, after outbox.Position, limit int) (records []outbox.Record, err error) {
	if after.Tick != freshTick {
		records, err = l.read(ctx, l.q.after, []any{int64(0), after.ID, int64(math.MaxInt64), int64(limit)})
		if err != nil || len(records) > 0 {
			return records, err
		}
		after.ID = 0
	}
	records, err = l.read(ctx, l.q.afterNew, []any{int64(0), after.ID, int64(limit)})
	for i := range records {
		records[i].Position.Tick = freshTick
	}
	return records, err
}
