package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// place is a position as arguments of a statement.
func place(p outbox.Position) []any { return []any{p.Epoch, p.Tick, p.ID} }

// placedScan reads records with their whole position, and what else a statement selects after them.
type placedScan struct {
	ev      eventScan
	at      outbox.Position
	created int64
	dest    []any
}

func newPlacedScan(more ...any) *placedScan {
	p := &placedScan{}
	p.dest = append(p.ev.dest([]any{&p.at.Epoch, &p.at.Tick, &p.at.ID, &p.created}), more...)
	return p
}

func (p *placedScan) read(rows txn.Rows) (outbox.Record, error) {
	p.ev.e.Data = nil // Scan would write into what the row before was given.
	if err := rows.Scan(p.dest...); err != nil {
		return outbox.Record{}, err
	}
	e, err := p.ev.envelope()
	return outbox.Record{Position: p.at, CreatedAt: timeOf(p.created), Event: e}, err
}

// Park implements [relay.Parking]. An event that is parked again counts an attempt.
func (l *leasedLog) Park(ctx context.Context, lease relay.Lease, cause string, records ...outbox.Record) error {
	err := l.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx, _ shardRow) error {
		for i := range records {
			if err := l.park(ctx, tx, lease.Shard, cause, &records[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sqlstore: park %d events: %w", len(records), err)
	}
	return nil
}

func (l *leasedLog) park(ctx context.Context, tx *txn.Tx, shard int, cause string, r *outbox.Record) error {
	var replay bool
	key := append(place(r.Position), int64(shard))
	err := tx.QueryRow(ctx, l.q.parkedOne, key, &replay)
	if errors.Is(err, sql.ErrNoRows) {
		args := append(eventArgs(append([]any{int64(shard)}, place(r.Position)...), &r.Event), nanos(r.CreatedAt), cause, nanos(tx.Now()))
		_, err = tx.Exec(ctx, l.q.park, args...)
		return err
	}
	if err == nil {
		_, err = tx.Exec(ctx, l.q.parkAgain, append(key, cause, nanos(tx.Now()))...)
	}
	if err == nil && replay {
		_, err = tx.Exec(ctx, l.q.unmark, r.Event.Topic, r.Event.AggregateID)
	}
	return err
}

// Parked implements [relay.Parking].
func (l *leasedLog) Parked(ctx context.Context, q relay.ParkedQuery) ([]relay.Parked, error) {
	shard := int64(-1)
	if q.OfShard {
		shard = int64(q.Shard)
	}
	args := append(place(q.After), int64(page(q.Limit)), shard, q.Topic, q.Key)
	query := l.q.parkedSome
	switch {
	case q.ReplayOnly:
		query = l.q.parkedReplay
	case q.Topic != "" && q.Key != "":
		query = l.q.parkedKey
	case q.Topic == "" && q.Key == "":
		query, args = l.q.parked, args[:5]
	}
	var out []relay.Parked
	var p relay.Parked
	var at int64
	scan := newPlacedScan(&p.Cause, &at, &p.Replay)
	err := l.s.each(ctx, query, args, func(rows txn.Rows) (err error) {
		p.Record, err = scan.read(rows)
		p.ParkedAt = timeOf(at)
		out = append(out, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: parked: %w", err)
	}
	return out, nil
}

// Unpark implements [relay.Parking].
func (l *leasedLog) Unpark(ctx context.Context, lease relay.Lease, records ...outbox.Record) error {
	err := l.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx, _ shardRow) error {
		for i := range records {
			if _, err := tx.Exec(ctx, l.q.unpark, append(place(records[i].Position), int64(lease.Shard))...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sqlstore: unpark %d events: %w", len(records), err)
	}
	return nil
}

// Replay implements [relay.Parking].
func (l *leasedLog) Replay(ctx context.Context, topic, key string) (int, error) {
	query, args := l.q.replay, []any{topic, key}
	if key == "" {
		query, args = l.q.replayOfTopic, args[:1]
	}
	var n int64
	err := l.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		n, err = tx.Exec(ctx, query, args...)
		tx.AfterCommit(l.s.outboxBell.ring)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqlstore: replay %s %s: %w", topic, key, err)
	}
	return int(n), nil
}

// view returns an operator's page of the first shard, carried up to at: of one status, or of all. peek reads
// records after a position, also those that are not for readers yet.
func (l *leasedLog) view(
	ctx context.Context, status relay.Status, after, at outbox.Position, limit int,
	peek func(ctx context.Context, after outbox.Position, limit int) ([]outbox.Record, error),
) ([]relay.Entry, error) {
	switch status {
	case relay.StatusFailed:
		return l.failures(ctx, after, limit)
	case relay.StatusPending:
		if after.Compare(at) < 0 {
			after = at
		}
	case "", relay.StatusSent:
	default:
		return nil, fmt.Errorf("status %.20q is none", status)
	}
	var out []relay.Entry
	for len(out) < limit && (status != relay.StatusSent || after.Compare(at) < 0) {
		records, err := peek(ctx, after, limit)
		if err != nil || len(records) == 0 {
			return out, err
		}
		after = records[len(records)-1].Position
		entries, err := l.list(ctx, 0, records, at)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if (status == "" || e.Status == status) && len(out) < limit {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// list makes an operator's page of records that were read in order: what is parked of them is FAILED,
// what lies up to a position SENT, the rest PENDING.
func (l *leasedLog) list(ctx context.Context, shard int, records []outbox.Record, at outbox.Position) ([]relay.Entry, error) {
	if len(records) == 0 {
		return nil, nil
	}
	failed := map[outbox.Position]relay.Entry{}
	first, last := records[0].Position, records[len(records)-1].Position
	first.ID--
	err := l.s.each(ctx, l.q.failed, append(append([]any{int64(shard)}, place(first)...), place(last)...), func(rows txn.Rows) error {
		var p outbox.Position
		var e relay.Entry
		var parked int64
		err := rows.Scan(&p.Epoch, &p.Tick, &p.ID, &e.Attempts, &parked, &e.LastError)
		e.LastAttemptAt = timeOf(parked)
		failed[p] = e
		return err
	})
	if err != nil {
		return nil, err
	}
	entries := make([]relay.Entry, len(records))
	for i, r := range records {
		e, ok := failed[r.Position]
		switch e.Record = r; {
		case ok:
			e.Status = relay.StatusFailed
		case r.Position.Compare(at) <= 0:
			e.Status, e.Attempts = relay.StatusSent, 1
		default:
			e.Status = relay.StatusPending
		}
		entries[i] = e
	}
	return entries, nil
}

// failures returns an operator's page of what is parked.
func (l *leasedLog) failures(ctx context.Context, after outbox.Position, limit int) ([]relay.Entry, error) {
	var out []relay.Entry
	e := relay.Entry{Status: relay.StatusFailed}
	var at int64
	scan := newPlacedScan(&e.Attempts, &at, &e.LastError)
	err := l.s.each(ctx, l.q.listFailed, append(place(after), int64(page(limit))), func(rows txn.Rows) (err error) {
		e.Record, err = scan.read(rows)
		e.LastAttemptAt = timeOf(at)
		out = append(out, e)
		return err
	})
	return out, err
}

// shardOf is the shard of an aggregate's events: FNV-1a of its id, the same in every process.
func shardOf(e *event.Envelope, shards int) int64 {
	if shards == 1 {
		return 0
	}
	h := uint32(2166136261)
	for i := range len(e.AggregateID) {
		h = (h ^ uint32(e.AggregateID[i])) * 16777619
	}
	return int64(h % uint32(shards))
}
