package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// numberMax bounds the events that get their positions in one transaction.
const numberMax = 1000

// shardLog is the relay's source on MySQL, which cannot say what one snapshot shows more than another: the
// shard's owner numbers what it sees, and the number (seq) is the position. It looks at committed rows only,
// in one snapshot, by their identities. A transaction writes its events last, after its rows are locked; so an
// aggregate's event is seen with all those before it, which have smaller identities.
//
// InnoDB shows a commit before it is on disk. Numbers that a crash takes back would be given to other events,
// so nobody reads further than what is known to be on disk: the owner after its own commit, others to where
// the transaction after that one says (shown).
type shardLog struct {
	leasedLog

	q    shardSQL
	turn chan struct{} // has one token: the right to number

	mu    sync.Mutex
	known map[int]int64 // by shard, the last number that this process knows to be on disk
}

type shardSQL struct {
	add, addEight, news, last, fresh, number, numbered, after, afterNew, first, young, purge, stats string
}

var (
	_ eventLog        = (*shardLog)(nil)
	_ eventWriter     = (*shardLog)(nil)
	_ relay.Sequencer = (*shardLog)(nil)
)

func newShardLog(s *Store, q *statements) *shardLog {
	l := &shardLog{leasedLog: newLeasedLog(s, q), turn: make(chan struct{}, 1), known: map[int]int64{}}
	l.turn <- struct{}{}
	l.oldest = l.beforeFirst
	l.begin = func(context.Context, *txn.Tx, int, *shardRow) error { return nil }
	l.q = shardSQL{
		add: q.text("outbox.add"), addEight: q.text("outbox.add_eight"), news: q.text("outbox.news"), last: q.text("outbox.last"), fresh: q.text("outbox.new"),
		number: q.text("outbox.number"), numbered: q.text("outbox.numbered"), after: q.text("outbox.after"),
		afterNew: q.text("outbox.after_new"), first: q.text("outbox.first"), young: q.text("outbox.young"),
		purge: q.text("outbox.purge"), stats: q.text("outbox.stats"),
	}
	return l
}

// addRows is how many events one statement adds, if there are so many.
const addRows = 8

// write implements [eventWriter].
func (l *shardLog) write(ctx context.Context, tx *txn.Tx, events []event.Envelope) error {
	created := nanos(tx.Now())
	args := make([]any, 0, addRows*(2+eventColumns))
	for len(events) > 0 {
		query, n := l.q.add, 1
		if len(events) >= addRows {
			query, n = l.q.addEight, addRows
		}
		args = args[:0]
		for i := range events[:n] {
			args = append(eventArgs(append(args, shardOf(&events[i], l.s.cfg.Shards)), &events[i]), created)
		}
		added, err := tx.Exec(ctx, query, args...)
		if err != nil {
			return err
		}
		if added != int64(n) {
			return fmt.Errorf("%d of %d rows added: %w", added, n, ErrCorrupt)
		}
		events = events[n:]
	}
	return nil
}

// know remembers that the numbers up to last are on disk.
func (l *shardLog) know(shard int, last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[shard] = max(l.known[shard], last)
}

// check tells a server whose last number is below one that this process knew of before it asked: it was promoted, and
// lacks the last ones. What is known ends with that. An owner ends too, and begins where the database says; whoever only
// follows has lost its place.
func (l *shardLog) check(lease relay.Lease, seq, shown, before int64) error {
	if seq >= before {
		return nil
	}
	l.mu.Lock()
	l.known[lease.Shard] = shown
	l.mu.Unlock()
	err := relay.ErrRetention
	if lease.Fence > 0 {
		err = relay.ErrFenced
	}
	return fmt.Errorf("the last number is %d: the database has lost what it had, or is another one: %w", seq, err)
}

func (l *shardLog) knows(shard int) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[shard]
}

// Next implements [relay.Source]. An owner at the head numbers what is new. ErrRetention says that events
// after a position that is not zero have been purged.
func (l *shardLog) Next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if limit = min(limit, listMax); limit <= 0 {
		return nil, nil
	}
	records, err := l.next(ctx, lease, after, limit)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: next after %s: %w", after, err)
	}
	return records, nil
}

func (l *shardLog) next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	to, err := l.head(ctx, lease, after.ID)
	if err != nil || to <= after.ID {
		return nil, err
	}
	records, err := l.read(ctx, l.q.after, []any{int64(lease.Shard), after.ID, to, int64(limit)})
	if err != nil {
		return nil, err
	}
	if after.ID > 0 && (len(records) == 0 || records[0].Position.ID != after.ID+1) {
		if _, err := l.shown(ctx, lease, after.ID); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("those that followed are purged: %w", relay.ErrRetention)
	}
	return records, nil
}

func (l *shardLog) read(ctx context.Context, query string, args []any) ([]outbox.Record, error) {
	var records []outbox.Record
	scan := newRecordScan()
	err := l.s.each(ctx, query, args, func(rows txn.Rows) error {
		r, err := scan.read(rows)
		records = append(records, r)
		return err
	})
	return records, err
}

// head returns how far one may read who is after a number.
func (l *shardLog) head(ctx context.Context, lease relay.Lease, after int64) (int64, error) {
	known := l.knows(lease.Shard)
	switch {
	case after < known:
		return known, nil
	case lease.Fence > 0:
		_, err := l.sequence(ctx, lease, after)
		return l.knows(lease.Shard), err
	}
	shown, err := l.shown(ctx, lease, after)
	return max(known, shown), err
}

// shown returns the last number that everybody may read.
func (l *shardLog) shown(ctx context.Context, lease relay.Lease, after int64) (shown int64, err error) {
	var seq int64
	before := max(l.knows(lease.Shard), after)
	err = l.s.row(ctx, l.q.last, []any{int64(lease.Shard)}, &seq, &shown)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil // Nobody has owned it yet.
	}
	if err == nil {
		err = l.check(lease, seq, shown, before)
	}
	if err != nil {
		return 0, err
	}
	l.know(lease.Shard, shown)
	return shown, nil
}

// Sequence implements [relay.Sequencer].
func (l *shardLog) Sequence(ctx context.Context, lease relay.Lease) (outbox.Position, error) {
	for {
		n, err := l.sequence(ctx, lease, 0)
		if err == nil && n == numberMax {
			continue
		}
		to := l.knows(lease.Shard)
		if err == nil && n > 0 {
			_, err = l.sequence(ctx, lease, 0) // It shows them to everybody.
			l.s.ringOutbox()
		}
		if err != nil {
			return outbox.Position{}, fmt.Errorf("sqlstore: sequence shard %d: %w", lease.Shard, err)
		}
		return outbox.Position{ID: to}, nil
	}
}

// sequence numbers what is new, at most numberMax events, and returns how many those were. Its owner is after a number.
func (l *shardLog) sequence(ctx context.Context, lease relay.Lease, after int64) (n int, err error) {
	select {
	case <-l.turn:
		defer func() { l.turn <- struct{}{} }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	var fence, seq, shown int64
	var news bool
	before := max(l.knows(lease.Shard), after)
	err = l.s.row(ctx, l.q.news, []any{int64(lease.Shard)}, &fence, &seq, &shown, &news)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	if fence != lease.Fence {
		return 0, fmt.Errorf("fence is %d, not %d: %w", fence, lease.Fence, relay.ErrFenced)
	}
	if err := l.check(lease, seq, shown, before); err != nil {
		return 0, err
	}
	l.know(lease.Shard, shown)
	if !news && seq == shown {
		return 0, nil
	}
	err = l.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx, _ shardRow) error {
		if err := tx.QueryRow(ctx, l.q.last, []any{int64(lease.Shard)}, &seq, &shown); err != nil {
			return err
		}
		var err error
		if n, err = l.numberNew(ctx, tx, lease.Shard, seq); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, l.q.numbered, int64(lease.Shard), seq+int64(n), seq)
		return err
	})
	if err != nil {
		return 0, err
	}
	l.know(lease.Shard, seq+int64(n))
	return n, nil
}

// numberNew gives the numbers after seq.
func (l *shardLog) numberNew(ctx context.Context, tx *txn.Tx, shard int, seq int64) (int, error) {
	rows, err := tx.Query(ctx, l.q.fresh, int64(shard), int64(numberMax))
	if err != nil {
		return 0, err
	}
	var ids []int64
	for rows.Next() && err == nil {
		var id int64
		err = rows.Scan(&id)
		ids = append(ids, id)
	}
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil || len(ids) == 0 {
		return 0, err
	}
	n, err := tx.Exec(ctx, l.q.number, idList(ids), seq)
	if err == nil && n != int64(len(ids)) {
		err = fmt.Errorf("%d of %d events numbered, who deletes the others? %w", n, len(ids), ErrConflict)
	}
	return len(ids), err
}
