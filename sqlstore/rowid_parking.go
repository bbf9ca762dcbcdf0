package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// Park implements [relay.Parking]. An event that is parked again counts an attempt.
func (o *rowidLog) Park(ctx context.Context, lease relay.Lease, cause string, records ...outbox.Record) error {
	err := o.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx) error {
		for i := range records {
			if err := o.park(ctx, tx, cause, &records[i]); err != nil {
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

func (o *rowidLog) park(ctx context.Context, tx *txn.Tx, cause string, r *outbox.Record) error {
	var replay bool
	err := tx.QueryRow(ctx, o.q.parkAgain, []any{r.Position.ID, cause, nanos(tx.Now())}, &replay)
	if errors.Is(err, sql.ErrNoRows) {
		args := append(eventArgs([]any{r.Position.ID}, &r.Event), nanos(r.CreatedAt), cause, nanos(tx.Now()))
		_, err = tx.Exec(ctx, o.q.park, args...)
		return err
	}
	if err == nil && replay {
		_, err = tx.Exec(ctx, o.q.unmark, r.Event.Topic, r.Event.AggregateID)
	}
	return err
}

// Parked implements [relay.Parking].
func (o *rowidLog) Parked(ctx context.Context, q relay.ParkedQuery) ([]relay.Parked, error) {
	args := []any{q.After.ID, int64(page(q.Limit)), q.Topic, q.Key}
	query := o.q.parkedSome
	switch {
	case q.ReplayOnly:
		query = o.q.parkedReplay
	case q.Topic != "" && q.Key != "":
		query = o.q.parkedKey
	case q.Topic == "" && q.Key == "":
		query, args = o.q.parked, args[:2]
	}
	var out []relay.Parked
	var p relay.Parked
	var at int64
	scan := newRecordScan(&p.Cause, &at, &p.Replay)
	err := o.s.each(ctx, query, args, func(rows txn.Rows) (err error) {
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
func (o *rowidLog) Unpark(ctx context.Context, lease relay.Lease, records ...outbox.Record) error {
	err := o.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx) error {
		for i := range records {
			if _, err := tx.Exec(ctx, o.q.unpark, records[i].Position.ID); err != nil {
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
func (o *rowidLog) Replay(ctx context.Context, topic, key string) (int, error) {
	query, args := o.q.replay, []any{topic, key}
	if key == "" {
		query, args = o.q.replayOfTopic, args[:1]
	}
	var n int64
	err := o.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		n, err = tx.Exec(ctx, query, args...)
		tx.AfterCommit(o.s.outboxBell.ring)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqlstore: replay %s %s: %w", topic, key, err)
	}
	return int(n), nil
}

// List implements [relay.Lister]. Attempts of an event that was sent is 1, though a relay that repeated
// after a crash may have sent it more often: nothing is written for each event.
func (o *rowidLog) List(ctx context.Context, status relay.Status, after outbox.Position, limit int) ([]relay.Entry, error) {
	var fence, position int64
	err := o.s.row(ctx, o.q.position, []any{int64(0)}, &fence, &position)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("sqlstore: list: %w", err)
	}
	query, from, to := o.q.list, after.ID, int64(math.MaxInt64)
	switch status {
	case relay.StatusPending:
		query, from = o.q.listSent, max(from, position) // The same rows, on the other side of the position.
	case relay.StatusSent:
		query, to = o.q.listSent, position
	case relay.StatusFailed:
		query = o.q.listFailed
	case "":
	default:
		return nil, fmt.Errorf("sqlstore: list: status %.20q is none", status)
	}
	var out []relay.Entry
	var e relay.Entry
	var at int64
	scan := newRecordScan(&e.Attempts, &at, &e.LastError)
	err = o.s.each(ctx, query, []any{from, to, int64(page(limit))}, func(rows txn.Rows) (err error) {
		e.Record, err = scan.read(rows)
		e.LastAttemptAt = timeOf(at)
		switch {
		case e.Attempts > 0:
			e.Status = relay.StatusFailed
		case e.Record.Position.ID <= position:
			e.Status, e.Attempts = relay.StatusSent, 1
		default:
			e.Status = relay.StatusPending
		}
		out = append(out, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: list: %w", err)
	}
	return out, nil
}

// page bounds a caller's limit; none means the most.
func page(limit int) int {
	if limit <= 0 || limit > listMax {
		return listMax
	}
	return limit
}
