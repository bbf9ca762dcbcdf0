package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// leasedLog is what the logs of database servers have in common: a row for each shard with its owner,
// fence and position; parked events; marks. Its clock is the database's.
type leasedLog struct {
	s *Store
	q leasedSQL
	// oldest returns the position before the first one of an epoch that can still be read.
	oldest func(ctx context.Context, from querier, shard int, epoch int64) (outbox.Position, error)
	// begin makes what a shard needs, in the transaction of a claim, and checks what its past was.
	begin func(ctx context.Context, tx *txn.Tx, shard int, row *shardRow) error
}

// querier is a transaction, or a store.
type querier interface {
	QueryRow(ctx context.Context, query string, args []any, dest ...any) error
}

type leasedSQL struct {
	clock, add, hold, position, claim, move, mark, markDrop, marks string
	park, parkedOne, parkAgain, unmark, unpark, replay, replayOfTopic, failed, listFailed,
	parked, parkedReplay, parkedKey, parkedSome string
}

// shardRow is a shard's row of settle_relay.
type shardRow struct {
	owner   string
	fence   int64
	expires time.Time
	at      outbox.Position
	cluster string
}

func newLeasedLog(s *Store, q *statements) leasedLog {
	return leasedLog{s: s, q: leasedSQL{
		clock: q.text("relay.clock"), add: q.text("relay.add"), hold: q.text("relay.hold"),
		position: q.text("relay.position"), claim: q.text("relay.claim"), move: q.text("relay.move"),
		mark: q.text("relay.mark"), markDrop: q.text("relay.mark_drop"), marks: q.text("relay.marks"),
		park: q.text("relay.park"), parkedOne: q.text("relay.parked_one"), parkAgain: q.text("relay.park_again"),
		unmark: q.text("relay.unmark"), unpark: q.text("relay.unpark"),
		replay: q.text("relay.replay"), replayOfTopic: q.text("relay.replay_topic"),
		failed: q.text("relay.failed"), listFailed: q.text("relay.list_failed"),
		parked: q.text("relay.parked"), parkedReplay: q.text("relay.parked_replay"),
		parkedKey: q.text("relay.parked_key"), parkedSome: q.text("relay.parked_some"),
	}}
}

// Claim implements [relay.Source].
func (l *leasedLog) Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (relay.Lease, error) {
	if shard < 0 || shard >= l.s.cfg.Shards {
		return relay.Lease{}, fmt.Errorf("sqlstore: claim shard %d: there are %d", shard, l.s.cfg.Shards)
	}
	// Counted from before the database is asked: our clock may only say too early that it is over.
	lease := relay.Lease{Shard: shard, Owner: owner, Expires: time.Now().Add(ttl)}
	err := l.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		if _, err := tx.Exec(ctx, l.q.add, int64(shard)); err != nil {
			return err
		}
		row, err := l.hold(ctx, tx, shard)
		if err != nil {
			return err
		}
		var clock int64
		if err := tx.QueryRow(ctx, l.q.clock, nil, &clock); err != nil {
			return err
		}
		now := timeOf(clock)
		running := row.owner != "" && now.Before(row.expires)
		if running && row.owner != owner {
			return fmt.Errorf("%s has it for %s: %w", row.owner, row.expires.Sub(now), relay.ErrHeld)
		}
		if !running {
			row.fence++
		}
		if err := l.begin(ctx, tx, shard, &row); err != nil {
			return err
		}
		lease.Fence, lease.Position = row.fence, row.at
		_, err = tx.Exec(ctx, l.q.claim, int64(shard), owner, row.fence, nanos(now.Add(ttl)), row.cluster)
		return err
	})
	if err != nil {
		return relay.Lease{}, fmt.Errorf("sqlstore: claim shard %d: %w", shard, err)
	}
	return lease, nil
}

// hold reads the shard's row and keeps it until the transaction is over.
func (l *leasedLog) hold(ctx context.Context, tx *txn.Tx, shard int) (row shardRow, err error) {
	var expires int64
	err = tx.QueryRow(ctx, l.q.hold, []any{int64(shard)},
		&row.owner, &row.fence, &expires, &row.at.Epoch, &row.at.Tick, &row.at.ID, &row.cluster)
	row.expires = timeOf(expires)
	return row, err
}

// fenced runs fn in a transaction of the shard's owner.
func (l *leasedLog) fenced(ctx context.Context, lease relay.Lease, fn func(ctx context.Context, tx *txn.Tx, row shardRow) error) error {
	return l.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		row, err := l.hold(ctx, tx, lease.Shard)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if row.fence != lease.Fence || row.owner != lease.Owner {
			return fmt.Errorf("fence is %d of %q, not %d: %w", row.fence, row.owner, lease.Fence, relay.ErrFenced)
		}
		return fn(ctx, tx, row)
	})
}

// moveTo is for a position that is not the shard's. A log refuses one that it has not given out: its owner has read it
// from a server that was lost, and has to begin again with what this one knows.
func (l *leasedLog) moveTo(ctx context.Context, tx *txn.Tx, shard int, to outbox.Position) error {
	n, err := tx.Exec(ctx, l.q.move, int64(shard), to.Epoch, to.Tick, to.ID)
	if err == nil && n == 0 {
		err = fmt.Errorf("the database has not come to %s, it has lost what it had: %w", to, relay.ErrFenced)
	}
	return err
}

// Advance implements [relay.Source].
func (l *leasedLog) Advance(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	err := l.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx, row shardRow) error {
		if to.Compare(row.at) <= 0 {
			return nil
		}
		return l.moveTo(ctx, tx, lease.Shard, to)
	})
	if err != nil {
		return fmt.Errorf("sqlstore: advance to %s with fence %d: %w", to, lease.Fence, err)
	}
	return nil
}

// Rewind implements [relay.Source].
func (l *leasedLog) Rewind(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	err := l.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx, row shardRow) error {
		oldest, err := l.oldest(ctx, tx, lease.Shard, to.Epoch) // While the row is held, nobody purges.
		switch {
		case err != nil:
			return err
		case to.Compare(oldest) < 0:
			return fmt.Errorf("the oldest is %s: %w", oldest, relay.ErrRetention)
		case to.Compare(row.at) >= 0:
			return nil
		}
		return l.moveTo(ctx, tx, lease.Shard, to)
	})
	if err != nil {
		return fmt.Errorf("sqlstore: rewind to %s with fence %d: %w", to, lease.Fence, err)
	}
	return nil
}

// Release implements [relay.Source]. A lease that is over is what was asked for.
func (l *leasedLog) Release(ctx context.Context, lease relay.Lease) error {
	err := l.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx, row shardRow) error {
		_, err := tx.Exec(ctx, l.q.claim, int64(lease.Shard), "", row.fence, int64(0), row.cluster)
		return err
	})
	if err != nil && !errors.Is(err, relay.ErrFenced) {
		return fmt.Errorf("sqlstore: release shard %d: %w", lease.Shard, err)
	}
	return nil
}

// at returns how far the shard has been carried.
func (l *leasedLog) at(ctx context.Context, shard int) (p outbox.Position, err error) {
	err = l.s.row(ctx, l.q.position, []any{int64(shard)}, &p.Epoch, &p.Tick, &p.ID)
	if errors.Is(err, sql.ErrNoRows) {
		return outbox.Position{}, nil // Nobody has claimed it yet.
	}
	return p, err
}

// Listen implements [relay.Bell]: commits of this process ring, and those of others by the doorbell.
func (l *leasedLog) Listen() (<-chan struct{}, func()) { return l.s.outboxBell.listen() }

// AddMark implements [relay.Marks].
func (l *leasedLog) AddMark(ctx context.Context, lease relay.Lease, m relay.Mark) error {
	err := l.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx, _ shardRow) error {
		oldest, err := l.oldest(ctx, tx, lease.Shard, m.Position.Epoch)
		if err != nil {
			return err
		}
		p, shard := m.Position, int64(lease.Shard)
		if _, err := tx.Exec(ctx, l.q.mark, shard, p.Epoch, p.Tick, p.ID, nanos(m.At), m.Tail); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, l.q.markDrop, shard, oldest.Epoch, oldest.Tick, oldest.ID)
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlstore: mark %s: %w", m.Position, err)
	}
	return nil
}

// Marks implements [relay.Marks].
func (l *leasedLog) Marks(ctx context.Context, shard int) ([]relay.Mark, error) {
	var marks []relay.Mark
	err := l.s.each(ctx, l.q.marks, []any{int64(shard)}, func(rows txn.Rows) error {
		var m relay.Mark
		var at int64
		err := rows.Scan(&m.Position.Epoch, &m.Position.Tick, &m.Position.ID, &at, &m.Tail)
		m.At = timeOf(at)
		marks = append(marks, m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: marks: %w", err)
	}
	return marks, nil
}
