package settlepgx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// A standby that is promoted begins a new timeline, where the log of the server before ended as far as it knew. What
// that one had besides, and we may have read, is gone, and its places in the log are given to other commits. So
// positions in our memory are worth nothing on another timeline than that on which they were read: they would have
// the first commits of the new primary passed over. What the database itself has for a position it also has events
// for. Therefore a promotion ends an ownership, as a newer owner does, and the next one begins where the database says.

// timelineSQL is the timeline that a primary writes, as the names of its files begin; a standby refuses to say.
const timelineSQL = "left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"

func (w *WAL) timelineNow(ctx context.Context) (timeline string, err error) {
	err = w.store.QueryRow(ctx, "SELECT "+timelineSQL, nil, &timeline)
	return timeline, err
}

func sameTimeline(now, then string) error {
	if now == then {
		return nil
	}
	return fmt.Errorf("another server was promoted, timeline %s is now %s: %w", then, now, relay.ErrFenced)
}

// promoted reports whether a lease that was renewed is one of another timeline.
func (w *WAL) promoted(lease relay.Lease, timeline string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lease.Fence == lease.Fence && w.timeline != timeline
}

// move persists a position unless it is of another timeline. The server that is asked for that is the one that
// writes, so it is one transaction.
func (w *WAL) move(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	w.mu.Lock()
	then := w.timeline
	w.mu.Unlock()
	err := w.store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		var owner, now string
		var fence int64
		var at outbox.Position
		err := tx.QueryRow(ctx, "SELECT owner, fence, epoch, tick, id, "+timelineSQL+" FROM settle_relay WHERE shard = $1 FOR UPDATE",
			[]any{int64(lease.Shard)}, &owner, &fence, &at.Epoch, &at.Tick, &at.ID, &now)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if fence != lease.Fence || owner != lease.Owner {
			return fmt.Errorf("fence is %d of %q, not %d: %w", fence, owner, lease.Fence, relay.ErrFenced)
		}
		if err := sameTimeline(now, then); err != nil {
			return err
		}
		if to.Compare(at) <= 0 {
			return nil
		}
		_, err = tx.Exec(ctx, "UPDATE settle_relay SET epoch = $2, tick = $3, id = $4 WHERE shard = $1",
			int64(lease.Shard), to.Epoch, to.Tick, to.ID)
		return err
	})
	if err != nil {
		return fmt.Errorf("settlepgx: advance to %s with fence %d: %w", to, lease.Fence, err)
	}
	return nil
}
