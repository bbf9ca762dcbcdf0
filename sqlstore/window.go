package sqlstore

import (
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

	mu     sync.Mutex
	stream *windowStream // of the owner, in a window larger than a page
	head   map[int]tick  // by shard, as the owner wrote it
}

type windowSQL struct {
	add, news, head, tick, baseline, ticks, tickAt, window, windowEnd, now, pending, total, purgeable, keepFrom, purgeTicks, cluster string

	slotRows, slotLock, slotEmpty [slots]string
}

// slots is how many partitions the log has.
const slots = 4

var (
	_ eventLog        = (*windowLog)(nil)
	_ eventWriter     = (*windowLog)(nil)
	_ relay.Sequencer = (*windowLog)(nil)
)

func newWindowLog(s *Store, q *statements) *windowLog {
	w := &windowLog{leasedLog: newLeasedLog(s, q), head: map[int]tick{}}
	w.q = windowSQL{
		add: q.text("outbox.add"), news: q.text("outbox.news"), head: q.text("outbox.head"), tick: q.text("outbox.tick"),
		baseline: q.text("outbox.baseline"), ticks: q.text("outbox.ticks"), tickAt: q.text("outbox.tick_at"), window: q.text("outbox.window"),
		windowEnd: q.text("outbox.window_end"), now: q.text("outbox.now"), pending: q.text("outbox.pending"), total: q.text("outbox.total"),
		purgeable: q.text("outbox.purgeable"), keepFrom: q.text("outbox.keep_from"), purgeTicks: q.text("outbox.purge_ticks"),
		cluster: q.text("relay.cluster"),
	}
	for i := range slots {
		w.q.slotRows[i] = q.text(fmt.Sprintf("outbox.slot_rows_%d", i))
		w.q.slotLock[i] = q.text(fmt.Sprintf("outbox.slot_lock_%d", i))
		w.q.slotEmpty[i] = q.text(fmt.Sprintf("outbox.slot_empty_%d", i))
	}
	w.leasedLog.oldest, w.leasedLog.begin = w.oldestKept, w.beginShard
	return w
}

// write adds a transaction's events in one statement, its last.
func (w *windowLog) write(ctx context.Context, tx *txn.Tx, events []event.Envelope) error {
	n := len(events)
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

// snapshot is a pg_snapshot: what is visible is below xmax and not in xip.
type snapshot struct {
	text string
	xmax string
	xip  []string
}

func parseSnapshot(text string) (snapshot, error) {
	_, rest, ok := strings.Cut(text, ":")
	xmax, xip, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return snapshot{}, fmt.Errorf("snapshot %.60q: %w", text, ErrCorrupt)
	}
	s := snapshot{text: text, xmax: xmax, xip: []string{}}
	if xip != "" {
		s.xip = strings.Split(xip, ",")
	}
	return s, nil
}

// tick is a window's end.
type tick struct {
	n      int64
	snap   snapshot
	lastID int64 // of its window, when what came before has been purged; else -1
	lsn    int64 // behind every commit that the snapshot shows
}

// beginShard makes the first tick, and refuses the ticks of another cluster: its transactions have numbers
// of their own.
func (w *windowLog) beginShard(ctx context.Context, tx *txn.Tx, shard int, row *shardRow) error {
	var cluster string
	if err := tx.QueryRow(ctx, w.q.cluster, nil, &cluster); err != nil {
		return err
	}
	if row.cluster != "" && row.cluster != cluster {
		return fmt.Errorf("the outbox was written in database cluster %s, this is %s: %w", row.cluster, cluster, ErrRebase)
	}
	row.cluster = cluster
	_, err := tx.Exec(ctx, w.q.baseline, int64(shard), int64(0))
	return err
}

// readTicks returns up to limit ticks from one on, in order.
func (w *windowLog) readTicks(ctx context.Context, shard int, from int64, limit int) ([]tick, error) {
	var out []tick
	err := w.s.each(ctx, w.q.ticks, []any{int64(shard), from, int64(limit)}, func(rows txn.Rows) error {
		var t tick
		var text string
		err := rows.Scan(&t.n, &text, &t.lastID, &t.lsn)
		if err == nil {
			t.snap, err = parseSnapshot(text)
		}
		out = append(out, t)
		return err
	})
	return out, err
}

// last returns the shard's last tick; ok is false when there is none yet.
func (w *windowLog) last(ctx context.Context, shard int) (t tick, ok bool, err error) {
	var text string
	var at int64
	err = w.s.row(ctx, w.q.head, []any{int64(shard)}, &t.n, &text, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return t, false, nil
	}
	if err == nil {
		t.snap, err = parseSnapshot(text)
	}
	return t, err == nil, err
}

// oldestKept implements leasedLog.oldest.
func (w *windowLog) oldestKept(ctx context.Context, shard int, epoch int64) (outbox.Position, error) {
	ticks, err := w.readTicks(ctx, shard, 0, 1)
	if err != nil || len(ticks) == 0 || ticks[0].lastID < 0 {
		return outbox.Position{Epoch: epoch}, err
	}
	if epoch%2 == 1 {
		return outbox.Position{Epoch: epoch, Tick: ticks[0].lsn}, nil
	}
	return outbox.Position{Epoch: epoch, Tick: ticks[0].n, ID: ticks[0].lastID}, nil
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

// Sequence implements [relay.Sequencer].
func (w *windowLog) Sequence(ctx context.Context, lease relay.Lease) (outbox.Position, error) {
	t, _, err := w.advanceHead(ctx, lease)
	if err != nil {
		return outbox.Position{}, fmt.Errorf("sqlstore: sequence shard %d: %w", lease.Shard, err)
	}
	return outbox.Position{Epoch: lease.Position.Epoch, Tick: t.n, ID: math.MaxInt64}, nil
}

// advanceHead ends a window when something is visible that is in none yet, and returns the last tick.
func (w *windowLog) advanceHead(ctx context.Context, lease relay.Lease) (t tick, fresh bool, err error) {
	w.mu.Lock()
	t, known := w.head[lease.Shard]
	w.mu.Unlock()
	if !known {
		var ok bool
		if t, ok, err = w.last(ctx, lease.Shard); err != nil || !ok {
			return t, false, err
		}
	}
	var news bool
	if err := w.s.row(ctx, w.q.news, []any{int64(lease.Shard), t.snap.xmax, t.snap.xip}, &news); err != nil {
		return t, false, err
	}
	if news {
		if t, err = w.makeTick(ctx, lease); err != nil {
			return t, false, err
		}
	}
	w.mu.Lock()
	w.head[lease.Shard] = t
	w.mu.Unlock()
	return t, news, nil
}

// makeTick writes the next tick down. Nobody reads its window before it is committed.
func (w *windowLog) makeTick(ctx context.Context, lease relay.Lease) (t tick, err error) {
	err = w.fenced(ctx, lease, func(ctx context.Context, tx *txn.Tx, _ shardRow) error {
		var text string
		var at int64
		if err := tx.QueryRow(ctx, w.q.head, []any{int64(lease.Shard)}, &t.n, &text, &at); err != nil {
			return err
		}
		t.n++
		if _, err := tx.Exec(ctx, w.q.tick, int64(lease.Shard), t.n); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, w.q.head, []any{int64(lease.Shard)}, &t.n, &text, &at); err != nil {
			return err
		}
		t.snap, err = parseSnapshot(text)
		return err
	})
	return t, err
}

// Next implements [relay.Source]. The owner of the shard ends a window when there is something new;
// anybody else reads those that have ended.
func (w *windowLog) Next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if limit = min(limit, listMax); limit <= 0 {
		return nil, nil
	}
	records, err := w.next(ctx, lease, after, limit)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: next after %s: %w", after, err)
	}
	return records, nil
}

// ticksMax bounds the windows that one Next reads.
const ticksMax = 64

func (w *windowLog) next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if records, ok, err := w.fromStream(lease, after, limit); ok || err != nil {
		return records, err
	}
	ticks, err := w.ticksAfter(ctx, lease.Shard, after)
	if err != nil {
		return nil, err
	}
	records, err := w.readTicked(ctx, lease, after, ticks, limit)
	if err != nil || len(records) > 0 || lease.Fence == 0 || len(ticks) > ticksMax {
		return records, err
	}
	// At the head: with one tick nothing has ever followed, with more the last window has been read to its end.
	if _, fresh, err := w.advanceHead(ctx, lease); err != nil || !fresh {
		return nil, err
	}
	if ticks, err = w.ticksAfter(ctx, lease.Shard, after); err != nil {
		return nil, err
	}
	return w.readTicked(ctx, lease, after, ticks, limit)
}

// readTicked returns up to limit records of the windows between ticks.
func (w *windowLog) readTicked(ctx context.Context, lease relay.Lease, after outbox.Position, ticks []tick, limit int) ([]outbox.Record, error) {
	var records []outbox.Record
	for i := 1; i < len(ticks); i++ {
		prev, cur := ticks[i-1], ticks[i]
		from := int64(0)
		if cur.n == after.Tick {
			from = after.ID
		}
		page := limit - len(records)
		if lease.Fence > 0 && page == limit {
			page++ // One more tells a window that is larger than the page.
		}
		more, err := w.readWindow(ctx, lease.Shard, after.Epoch, prev, cur, from, page)
		if err != nil {
			return nil, err
		}
		if len(more) > limit {
			return more[:limit], w.openStream(lease, after.Epoch, prev, cur, more[limit-1].Position.ID)
		}
		if records = append(records, more...); len(records) >= limit {
			break
		}
	}
	return records, nil
}

// ticksAfter returns the ticks whose windows follow a position: the first is the snapshot before the first
// of them.
func (w *windowLog) ticksAfter(ctx context.Context, shard int, after outbox.Position) ([]tick, error) {
	ticks, err := w.readTicks(ctx, shard, max(0, after.Tick-1), ticksMax+1)
	if err != nil || len(ticks) == 0 {
		return nil, err
	}
	first := ticks[0]
	switch {
	case after.Tick == 0 || first.n == after.Tick-1:
		return ticks, nil
	case first.n == after.Tick && first.lastID >= 0 && after.ID >= first.lastID:
		return ticks, nil // What is purged ends where the reader is.
	}
	return nil, fmt.Errorf("those that followed are purged up to window %d: %w", first.n, relay.ErrRetention)
}

func (w *windowLog) readWindow(ctx context.Context, shard int, epoch int64, prev, cur tick, from int64, limit int) ([]outbox.Record, error) {
	var records []outbox.Record
	scan := newRecordScan()
	err := w.s.each(ctx, w.q.window, windowArgs(shard, prev, cur, from, limit), func(rows txn.Rows) error {
		r, err := scan.read(rows)
		r.Position = outbox.Position{Epoch: epoch, Tick: cur.n, ID: r.Position.ID}
		records = append(records, r)
		return err
	})
	return records, err
}

func windowArgs(shard int, prev, cur tick, from int64, limit int) []any {
	return []any{int64(shard), prev.snap.xmax, prev.snap.xip, cur.snap.text, from, int64(limit)}
}

// windowStream is a large window on its way: sorting it again for each page would cost its square.
type windowStream struct {
	lease relay.Lease
	at    outbox.Position // the last one returned
	rows  txn.Rows
	scan  *recordScan
	end   context.CancelFunc
}

// openStream begins to read the rest of a window. Until it is used up it has a connection of its own.
func (w *windowLog) openStream(lease relay.Lease, epoch int64, prev, cur tick, from int64) error {
	ctx, end := context.WithCancel(context.Background())
	rows, err := w.s.engine.query(ctx, w.q.window, windowArgs(lease.Shard, prev, cur, from, math.MaxInt64)...)
	if err != nil {
		end()
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeStream()
	w.stream = &windowStream{
		lease: lease, at: outbox.Position{Epoch: epoch, Tick: cur.n, ID: from}, rows: rows, scan: newRecordScan(), end: end,
	}
	return nil
}

func (w *windowLog) closeStream() {
	if w.stream != nil {
		w.stream.end()
		_ = w.stream.rows.Close() // It was cut off.
		w.stream = nil
	}
}

// fromStream returns what follows a position when the stream stands there; ok is false when it does not, or
// has come to its end.
func (w *windowLog) fromStream(lease relay.Lease, after outbox.Position, limit int) (records []outbox.Record, ok bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stream
	if s == nil {
		return nil, false, nil
	}
	if s.lease.Fence != lease.Fence || s.lease.Shard != lease.Shard || s.at != after {
		if lease.Fence > 0 {
			w.closeStream()
		}
		return nil, false, nil
	}
	for len(records) < limit && s.rows.Next() {
		r, err := s.scan.read(s.rows)
		if err != nil {
			w.closeStream()
			return nil, false, err
		}
		s.at.ID = r.Position.ID
		r.Position = s.at
		records = append(records, r)
	}
	if len(records) == limit {
		return records, true, nil
	}
	err = s.rows.Err()
	w.closeStream()
	if err != nil {
		return nil, false, w.s.backend.classify(err)
	}
	return records, len(records) > 0, nil
}

// around returns the snapshot whose window a position is in, and the one before. A position before
// the first window has none.
func (w *windowLog) around(ctx context.Context, shard int, at outbox.Position) (prev, cur tick, err error) {
	none := snapshot{text: "1:1:", xmax: "1", xip: []string{}}
	prev, cur = tick{snap: none}, tick{snap: none}
	if at.Tick == 0 {
		return prev, cur, nil
	}
	ticks, err := w.readTicks(ctx, shard, at.Tick-1, 2)
	for _, t := range ticks {
		switch t.n {
		case at.Tick - 1:
			prev = t
		case at.Tick:
			cur = t
		}
	}
	if err == nil && prev.n == 0 && at.Tick > 1 {
		prev = cur // What was before is purged, and was settled.
	}
	return prev, cur, err
}

// Stats implements [relay.Observer]. It counts rows, and so costs what the log has.
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
	prev, cur, err := w.around(ctx, shard, at)
	if err != nil {
		return err
	}
	var pending, oldest, total, parked int64
	err = w.s.row(ctx, w.q.pending, []any{int64(shard), prev.snap.xmax, prev.snap.xip, cur.snap.text, at.ID}, &pending, &oldest)
	if err == nil {
		err = w.s.row(ctx, w.q.total, []any{int64(shard)}, &total, &parked)
	}
	st.Pending, st.Parked, st.Sent = st.Pending+pending, st.Parked+parked, st.Sent+max(0, total-pending)
	if oldest > 0 {
		st.Age = max(st.Age, time.Since(timeOf(oldest)))
	}
	return err
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
	switch status {
	case relay.StatusFailed:
		return w.failures(ctx, after, limit)
	case "", relay.StatusSent, relay.StatusPending:
	default:
		return nil, fmt.Errorf("status %.20q is none", status)
	}
	at, err := w.windowOf(ctx, 0)
	if err != nil {
		return nil, err
	}
	if after.IsZero() {
		if after, err = w.oldestKept(ctx, 0, at.Epoch&^1); err != nil {
			return nil, err
		}
	}
	if status == relay.StatusPending && after.Compare(at) < 0 {
		after = at
	}
	var out []relay.Entry
	for len(out) < limit {
		records, err := w.peek(ctx, after, limit)
		if err != nil || len(records) == 0 {
			return out, err
		}
		after = records[len(records)-1].Position
		entries, err := w.list(ctx, 0, records, at)
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

// peek reads like a follower, and past the last window too.
func (w *windowLog) peek(ctx context.Context, after outbox.Position, limit int) ([]outbox.Record, error) {
	records, err := w.next(ctx, relay.Lease{}, after, limit)
	if err != nil || len(records) > 0 {
		return records, err
	}
	last, ok, err := w.last(ctx, 0)
	if err != nil {
		return nil, err
	}
	if !ok {
		last.snap = snapshot{text: "1:1:", xmax: "1", xip: []string{}}
	}
	from := int64(0)
	if after.Tick > last.n {
		from = after.ID
	}
	now := tick{n: last.n + 1}
	if err := w.s.row(ctx, w.q.now, nil, &now.snap.text); err != nil {
		return nil, err
	}
	return w.readWindow(ctx, 0, after.Epoch, last, now, from, limit)
}

// Purge implements [relay.Purger]. What is older than the retention and in windows that are settled as a
// whole is out of reach at once; its rows go when a slot has nothing else: TRUNCATE leaves nothing to
// vacuum. limit does not apply: emptying a slot costs the same whatever is in it.
func (w *windowLog) Purge(ctx context.Context, before time.Time, _ int) (int, error) {
	n := 0
	for shard := range w.s.cfg.Shards {
		if err := w.purgeTicks(ctx, shard, before); err != nil {
			return 0, fmt.Errorf("sqlstore: purge: %w", err)
		}
	}
	for slot := range slots {
		gone, err := w.emptySlot(ctx, slot)
		if err != nil && !errors.Is(err, ErrConflict) { // Somebody uses it: the next purge will do.
			return n, fmt.Errorf("sqlstore: purge: %w", err)
		}
		n += gone
	}
	return n, nil
}

// purgeTicks forgets the windows that are settled and older than a time.
func (w *windowLog) purgeTicks(ctx context.Context, shard int, before time.Time) error {
	return w.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		row, err := w.hold(ctx, tx, shard)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		at := row.at
		if at.Epoch%2 == 1 {
			if at, err = w.windowOf(ctx, shard); err != nil {
				return err
			}
		}
		whole, end, err := w.wholeTick(ctx, shard, at)
		if err != nil {
			return err
		}
		var last tick
		var text string
		err = tx.QueryRow(ctx, w.q.purgeable, []any{int64(shard), whole, nanos(before)}, &last.n, &text)
		if errors.Is(err, sql.ErrNoRows) || last.n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if last.n != whole {
			if end, err = w.endOf(ctx, shard, last.n); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, w.q.keepFrom, int64(shard), last.n, end); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, w.q.purgeTicks, int64(shard), last.n)
		return err
	})
}

// wholeTick returns the last window of which nothing follows a position, and the last id in it.
func (w *windowLog) wholeTick(ctx context.Context, shard int, at outbox.Position) (n, end int64, err error) {
	if at.Tick == 0 {
		return 0, 0, nil
	}
	ticks, err := w.readTicks(ctx, shard, at.Tick-1, 2)
	if err != nil {
		return 0, 0, err
	}
	if len(ticks) < 2 || ticks[0].n != at.Tick-1 {
		return at.Tick - 1, 0, nil // Purged before.
	}
	rest, err := w.readWindow(ctx, shard, at.Epoch, ticks[0], ticks[1], at.ID, 1)
	if err != nil || len(rest) > 0 {
		return at.Tick - 1, 0, err
	}
	end, err = w.endOf(ctx, shard, at.Tick)
	return at.Tick, end, err
}

// endOf returns the last id in a window, 0 when it has none.
func (w *windowLog) endOf(ctx context.Context, shard int, n int64) (end int64, err error) {
	ticks, err := w.readTicks(ctx, shard, n-1, 2)
	if err != nil || len(ticks) < 2 {
		return 0, err
	}
	err = w.s.row(ctx, w.q.windowEnd, windowArgs(shard, ticks[0], ticks[1], 0, 1)[:5], &end)
	return end, err
}

// emptySlot empties a partition in which every row is out of reach.
func (w *windowLog) emptySlot(ctx context.Context, slot int) (int, error) {
	reach, err := w.outOfReach(ctx)
	if err != nil || reach == "" {
		return 0, err
	}
	var rows, inReach int64
	// Looked at without the lock first, which stops the slot's writers.
	if err := w.s.row(ctx, w.q.slotRows[slot], []any{reach}, &rows, &inReach); err != nil || rows == 0 || inReach > 0 {
		return 0, err
	}
	err = w.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		if _, err := tx.Exec(ctx, w.q.slotLock[slot]); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, w.q.slotRows[slot], []any{reach}, &rows, &inReach); err != nil || inReach > 0 {
			rows = 0
			return err
		}
		_, err := tx.Exec(ctx, w.q.slotEmpty[slot])
		return err
	})
	if err != nil {
		return 0, err
	}
	return int(rows), nil
}

// outOfReach returns the snapshot whose rows no window of any shard holds any more, "" when there is none.
func (w *windowLog) outOfReach(ctx context.Context) (string, error) {
	oldest := ""
	var xmax int64
	for shard := range w.s.cfg.Shards {
		ticks, err := w.readTicks(ctx, shard, 0, 1)
		if err != nil || len(ticks) == 0 || ticks[0].n == 0 {
			return "", err
		}
		var x int64
		if _, err := fmt.Sscan(ticks[0].snap.xmax, &x); err != nil {
			return "", fmt.Errorf("snapshot %.60q: %w", ticks[0].snap.text, ErrCorrupt)
		}
		if oldest == "" || x < xmax {
			oldest, xmax = ticks[0].snap.text, x
		}
	}
	return oldest, nil
}
