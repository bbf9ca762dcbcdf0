package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/txn"
)

// Rebase makes an outbox usable again that was copied from another database cluster, where transactions had
// other numbers; see [ErrRebase]. Everything that was not settled is published again, in the order of its row
// numbers, as one window: that is the order of each aggregate. It returns how many events that are. Whoever
// owns a shard is fenced. A log that has no transaction numbers returns [errors.ErrUnsupported].
func (s *Store) Rebase(ctx context.Context) (int, error) {
	w, ok := s.outbox.(*windowLog)
	if !ok {
		return 0, fmt.Errorf("sqlstore: rebase on %s: %w", s.Dialect(), errors.ErrUnsupported)
	}
	n, err := w.rebase(ctx)
	if err != nil {
		return 0, fmt.Errorf("sqlstore: rebase: %w", err)
	}
	return n, nil
}

func (w *windowLog) rebase(ctx context.Context) (events int, err error) {
	cluster, err := w.clusterNow(ctx)
	if err != nil {
		return 0, err
	}
	err = w.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		events = 0
		if _, err := tx.Exec(ctx, w.q.rebaseLock); err != nil {
			return err
		}
		shards, err := rebased(tx.Query(ctx, w.q.rebaseShards))
		if err != nil {
			return err
		}
		for _, shard := range shards {
			n, err := w.rebaseShard(ctx, tx, shard, cluster)
			if err != nil {
				return fmt.Errorf("shard %d: %w", shard, err)
			}
			events += n
		}
		return nil
	})
	w.mu.Lock()
	clear(w.heads)
	w.mu.Unlock()
	return events, err
}

func rebased(rows txn.Rows, err error) (shards []int, _ error) {
	if err != nil {
		return nil, err
	}
	for rows.Next() && err == nil {
		var shard int
		err = rows.Scan(&shard)
		shards = append(shards, shard)
	}
	return shards, errors.Join(err, rows.Err(), rows.Close())
}

func (w *windowLog) rebaseShard(ctx context.Context, tx *txn.Tx, shard int, cluster string) (events int, err error) {
	key := int64(shard)
	if _, err := tx.Exec(ctx, w.leasedLog.q.add, key); err != nil {
		return 0, err
	}
	row, err := w.hold(ctx, tx, shard)
	if err != nil {
		return 0, err
	}
	at, err := w.windowIn(ctx, tx.QueryRow, shard)
	if err != nil {
		return 0, err
	}
	b, err := w.boundsIn(ctx, tx.QueryRow, shard, math.MaxInt64)
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, w.q.rebaseRows, key, at.Tick, at.ID); err != nil {
		return 0, err
	}
	if err := tx.QueryRow(ctx, w.q.rebaseCount, []any{key}, &events); err != nil {
		return 0, err
	}
	// The first tick shows what was settled. Positions go on rising, also for who has read windows that are not in this
	// database, because it is an earlier copy, or a standby that lacked them: microseconds outrun every counter.
	first := outbox.Position{Epoch: row.at.Epoch + row.at.Epoch%2, Tick: max(b.last+1, tx.Now().UnixMicro()), ID: math.MaxInt64}
	if _, err := tx.Exec(ctx, w.q.rebaseTicks, key); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, w.q.rebaseTick, key, first.Tick); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, w.q.rebaseParked, key, first.Epoch, first.Tick+1); err != nil {
		return 0, err
	}
	// Whoever claims it says on which timeline.
	_, err = tx.Exec(ctx, w.q.rebaseRelay, key, first.Epoch, first.Tick, first.ID, at.Tick, at.ID, cluster)
	return events, err
}
