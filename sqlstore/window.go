package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// windowLog is the outbox on Postgres: an insert-only log, read in windows between two snapshots. Numbers
// of rows and of transactions are given out before commit, so neither orders commits; but Postgres ends a
// transaction before it lets go of its locks, so a transaction that waited for an aggregate's row is never
// in an earlier window than the one it waited for, and within one window its ids are higher, as a
// transaction writes its events last. (PgQ, Skype 2007; measured in this form: 0 lost, 0 inverted.)
//
// The owner of the shard writes each window down (a tick) before anybody reads it: then everybody reads
// the same events in the same order, also after a crash, and (tick, id) is a position.
type windowLog struct {
	leasedLog

	q windowSQL

	mu      sync.Mutex
	cluster string             // the server's system identifier, as the last claim saw it
	heads   map[int]windowHead // by shard, of the owner
	ticked  map[int]time.Time  // by shard: when its last window began
	large   []*largeWindow
}

type windowSQL struct {
	add, addOne, baseline, foreign, next, parts, part, bounds, tick, open, tickAt, floor, pending, total, cluster, jump string

	halfDay, oldest, purge, raiseFloor, purgeTicks, slotShards, slotLast, settledBelow                    string
	rebaseLock, rebaseShards, rebaseRows, rebaseCount, rebaseTicks, rebaseTick, rebaseRelay, rebaseParked string

	slotLock, slotEmpty [slots]string
}

// slots is how many partitions the log has.
const slots = 4

var (
	_ eventLog        = (*windowLog)(nil)
	_ eventWriter     = (*windowLog)(nil)
	_ relay.Sequencer = (*windowLog)(nil)
)

func newWindowLog(s *Store, q *statements) *windowLog {
	w := &windowLog{leasedLog: newLeasedLog(s, q), heads: map[int]windowHead{}, ticked: map[int]time.Time{}}
	w.q = windowSQL{
		add: q.text("outbox.add"), addOne: q.text("outbox.add_one"), baseline: q.text("outbox.baseline"), foreign: q.text("outbox.foreign"),
		next: q.text("outbox.next"), parts: q.text("outbox.parts"), part: q.text("outbox.part"), bounds: q.text("outbox.bounds"), tick: q.text("outbox.tick"),
		open: q.text("outbox.open"), tickAt: q.text("outbox.tick_at"), floor: q.text("outbox.floor"),
		pending: q.text("outbox.pending"), total: q.text("outbox.total"), cluster: q.text("relay.cluster"), jump: q.text("outbox.jump"),
		halfDay: q.text("outbox.half_day"), oldest: q.text("outbox.oldest"), purge: q.text("outbox.purge"),
		raiseFloor: q.text("outbox.raise_floor"), purgeTicks: q.text("outbox.purge_ticks"),
		slotShards: q.text("outbox.slot_shards"), slotLast: q.text("outbox.slot_last"), settledBelow: q.text("outbox.settled_below"),
		rebaseLock: q.text("outbox.rebase_lock"), rebaseShards: q.text("outbox.rebase_shards"),
		rebaseRows: q.text("outbox.rebase_rows"), rebaseCount: q.text("outbox.rebase_count"),
		rebaseTicks: q.text("outbox.rebase_ticks"), rebaseTick: q.text("outbox.rebase_tick"),
		rebaseRelay: q.text("outbox.rebase_relay"), rebaseParked: q.text("outbox.rebase_parked"),
	}
	for i := range slots {
		w.q.slotLock[i] = q.text(fmt.Sprintf("outbox.slot_lock_%d", i))
		w.q.slotEmpty[i] = q.text(fmt.Sprintf("outbox.slot_empty_%d", i))
	}
	w.oldest, w.begin = w.oldestKept, w.beginShard
	return w
}

// write adds a transaction's events in one statement, its last.
func (w *windowLog) write(ctx context.Context, tx *txn.Tx, events []event.Envelope) error {
	n := len(events)
	if n == 1 {
		args := make([]any, 0, 2+eventColumns)
		args = append(args, shardOf(&events[0], w.s.cfg.Shards))
		tx.Queue(w.q.addOne, append(eventArgs(args, &events[0]), nanos(tx.Now()))...)
		return ctx.Err()
	}
	var (
		shards, versions                                                 = make([]int32, n), make([]int32, n)
		ids, causes, data                                                = make([][]byte, n), make([][]byte, n), make([][]byte, n)
		types, topics, kinds, keys, traces, correlations, once, producer = make([]string, n), make([]string, n), make([]string, n),
			make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
		occurred = make([]int64, n)
	)
	for i := range events {
		e := &events[i]
		shards[i], versions[i] = int32(shardOf(e, w.s.cfg.Shards)), int32(e.Version)
		ids[i], data[i] = e.ID[:], e.Data
		if !e.CausationID.IsZero() {
			causes[i] = e.CausationID[:]
		}
		types[i], topics[i], kinds[i], keys[i] = e.Type, e.Topic, e.AggregateType, e.AggregateID
		traces[i], correlations[i], once[i], producer[i] = e.TraceParent, e.CorrelationID, e.IdempotencyKey, e.Producer
		occurred[i] = nanos(e.OccurredAt)
	}
	// It travels with the COMMIT, and its error fails the transaction.
	tx.Queue(w.q.add, shards, ids, types, versions, topics, kinds, keys, occurred, traces, correlations, causes,
		once, producer, data, nanos(tx.Now()))
	return ctx.Err()
}

// Claim implements [relay.Source].
func (w *windowLog) Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (relay.Lease, error) {
	cluster, err := w.clusterNow(ctx)
	if err != nil {
		return relay.Lease{}, fmt.Errorf("sqlstore: claim shard %d: %w", shard, err)
	}
	w.mu.Lock()
	w.cluster = cluster
	w.mu.Unlock()
	return w.leasedLog.Claim(ctx, shard, owner, ttl)
}

// clusterNow returns the system identifier of the database cluster, "" on a server that keeps it secret.
func (w *windowLog) clusterNow(ctx context.Context) (cluster string, err error) {
	err = w.s.row(ctx, w.q.cluster, nil, &cluster)
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrClosed) {
		return cluster, err
	}
	return "", nil // What numbers say of themselves has to do; see beginShard.
}

// beginShard makes the first tick, and refuses the ticks of another cluster: its transactions have numbers
// of their own.
//
// A standby that is promoted, or a server that is restored to an earlier time, has the same cluster and a timeline of
// its own. It may lack the last windows of the one before, which followers elsewhere have read, and would give their
// numbers to others. So each timeline's windows begin far behind the numbers of those before; the first one has
// everything that is in none. The shard's row has both, parted by a slash.
func (w *windowLog) beginShard(ctx context.Context, tx *txn.Tx, shard int, row *shardRow) error {
	w.mu.Lock()
	cluster := w.cluster
	w.mu.Unlock()
	was, then, _ := strings.Cut(row.cluster, "/")
	if was != "" && cluster != "" && was != cluster {
		return fmt.Errorf("the outbox was written in database cluster %s, this is %s: %w", was, cluster, ErrRebase)
	}
	var foreign bool
	var timeline string
	if err := tx.QueryRow(ctx, w.q.foreign, []any{int64(shard)}, &foreign, &timeline); err != nil {
		return err
	}
	if foreign {
		return fmt.Errorf("the outbox has transactions that this database cluster has not come to: %w", ErrRebase)
	}
	if then != "" && then != timeline {
		if _, err := tx.Exec(ctx, w.q.jump, int64(shard)); err != nil {
			return err
		}
	}
	row.cluster = cmp.Or(cluster, was) + "/" + timeline
	_, err := tx.Exec(ctx, w.q.baseline, int64(shard))
	return err
}

// oldestKept implements leasedLog.oldest.
func (w *windowLog) oldestKept(ctx context.Context, from querier, shard int, epoch int64) (outbox.Position, error) {
	p := outbox.Position{Epoch: epoch}
	var lsn int64
	err := from.QueryRow(ctx, w.q.floor, []any{int64(shard)}, &p.Tick, &p.ID, &lsn)
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil // Nobody has claimed it yet.
	}
	if err == nil && epoch%2 == 1 {
		p.Tick, p.ID = lsn, 0
	}
	return p, err
}

// windowOf returns the position in windows of how far the shard has been carried. In an odd epoch the
// write-ahead log is read (see package settlepgx) and the position has a place in it: the windows up to it
// are those whose snapshot shows nothing that was committed behind it.
func (w *windowLog) windowOf(ctx context.Context, shard int) (outbox.Position, error) {
	at, err := w.at(ctx, shard)
	if err != nil || at.Epoch%2 == 0 {
		return at, err
	}
	var n int64
	err = w.s.row(ctx, w.q.tickAt, []any{int64(shard), at.Tick}, &n)
	return outbox.Position{Epoch: at.Epoch, Tick: n, ID: math.MaxInt64}, err
}
