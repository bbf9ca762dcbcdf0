package settlepgx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

// ErrSlotLost says that the server has thrown away log that the slot needed (max_slot_wal_keep_size), or that
// somebody has dropped the slot. A [WAL] over settle's own table goes on by the window reader, with nothing
// lost; over another table nothing can be read again.
var ErrSlotLost = errors.New("replication slot is lost")

// WALConfig is what may be decided about reading the write-ahead log. The zero WALConfig is ready for use.
type WALConfig struct {
	// Slot names the replication slot; names are of the whole cluster. Default settle_<database>_<shard>.
	Slot string
	// Publication names the publication, which is made when it is missing. Default settle_outbox.
	Publication string
	// Failover makes a slot that a standby takes along (PostgreSQL 17 and newer; no matter before).
	Failover bool
	// Layout is how the table's rows become events. Default settle's own outbox.
	Layout Layout
	// WatchEvery is how often the slot is looked at, and a place to fall back to is written down. Default 1s.
	WatchEvery time.Duration
	// Logger receives changes of mode and alarms of the slot. Default slog.Default().
	Logger *slog.Logger
	// Hooks observe the source.
	Hooks WALHooks
}

// WALHooks must not block.
type WALHooks struct {
	// Mode is called with "wal" or "window" when the source changes to it, and why.
	Mode func(mode, why string)
	// Slot has how many bytes of log the slot keeps, and how many it may keep (0: without bound).
	Slot func(kept, keptMax int64)
}

// windowReader is the log that WAL reads faster: everything but the order in which it hears is the log's.
type windowReader interface {
	relay.Source
	relay.Parking
	relay.Bell
	relay.Marks
	windowKeeper
}

// windowKeeper is what else the log is: see [windowReader].
type windowKeeper interface {
	relay.Observer
	relay.Lister
	relay.Purger
	relay.Sequencer
}

// WAL is a source that hears of events from the write-ahead log, by logical replication (pgoutput), some
// milliseconds after their commit and without polling. The table stays the truth: whenever the slot is
// missing, lost or behind, events are read from it in windows, and the log takes over again when that has
// caught up. Positions of windows have an even epoch, those of the log an odd one: (epoch, LSN of the commit,
// number of the row in it). What both have read is published twice, which the inboxes absorb.
//
// A commit is confirmed to the server only when everything in it was settled.
type WAL struct {
	windowReader

	store *sqlstore.Store
	cc    *pgx.ConnConfig
	cfg   WALConfig

	mu       sync.Mutex
	rings    map[chan struct{}]struct{}
	stream   *stream
	lease    relay.Lease     // of the stream
	timeline string          // of the server when the lease was claimed; see timeline.go
	last     outbox.Position // the last one that was taken from the stream
	floor    outbox.Position // where reading goes on after a change of mode
	slot     bool            // it has been seen or made in this ownership
	looked   time.Time
	warned   time.Time
}

// NewWAL returns a source over a store's outbox. The URL is the store's: replication needs connections of
// its own, a role with REPLICATION, and wal_level=logical; it must not lead to a pooler. One source is for
// one relay.
func NewWAL(store *sqlstore.Store, target string, cfg WALConfig) (*WAL, error) {
	base, ok := store.Outbox().(windowReader)
	if !ok || store.Dialect() != "postgres" {
		return nil, fmt.Errorf("settlepgx: write-ahead log of a store on %s: %w", store.Dialect(), errors.ErrUnsupported)
	}
	cc, err := pgx.ParseConfig(target)
	if err != nil {
		return nil, fmt.Errorf("settlepgx: write-ahead log of %s: the URL is not usable", redact(target))
	}
	if cfg.Publication == "" {
		cfg.Publication = "settle_outbox"
	}
	if cfg.WatchEvery == 0 {
		cfg.WatchEvery = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Layout.Table == "" {
		cfg.Layout = settleLayout()
	}
	for _, name := range []string{cfg.Publication, cfg.Slot} {
		if name != "" && !plainName.MatchString(name) {
			return nil, fmt.Errorf("settlepgx: name %.80q: 1 to 63 of a-z, 0-9 and _ allowed", name)
		}
	}
	return &WAL{windowReader: base, store: store, cc: cc, cfg: cfg, rings: map[chan struct{}]struct{}{}}, nil
}

var (
	plainName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	otherChar = regexp.MustCompile(`[^a-z0-9_]`)
)

// slotName names a shard's slot.
func (w *WAL) slotName(shard int) string {
	if w.cfg.Slot != "" {
		return w.cfg.Slot
	}
	return fmt.Sprintf("settle_%.40s_%d", otherChar.ReplaceAllString(w.cc.Database, "_"), shard)
}

func ofLog(p outbox.Position) bool { return p.Epoch%2 == 1 }

// Listen implements [relay.Bell]: it rings for what the log brings, and for commits of this process.
func (w *WAL) Listen() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	base, stopBase := w.windowReader.Listen()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-base:
				w.mu.Lock()
				if w.stream == nil { // Else the log will bring it.
					ringOne(c)
				}
				w.mu.Unlock()
			case <-done:
				return
			}
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rings[c] = struct{}{}
	var once sync.Once
	return c, func() {
		once.Do(func() {
			stopBase()
			close(done)
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.rings, c)
		})
	}
}

func ringOne(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (w *WAL) ring() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.rings {
		ringOne(c)
	}
}

// Claim implements [relay.Source].
func (w *WAL) Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (relay.Lease, error) {
	timeline, err := w.timelineNow(ctx) // Before the position is read, which a later timeline may not have.
	if err != nil {
		return relay.Lease{}, fmt.Errorf("settlepgx: claim shard %d: %w", shard, classified(err))
	}
	lease, err := w.windowReader.Claim(ctx, shard, owner, ttl)
	if err == nil && w.promoted(lease, timeline) {
		// What is in flight has positions of the server before. A new fence keeps them out.
		if err = w.windowReader.Release(ctx, lease); err == nil {
			lease, err = w.windowReader.Claim(ctx, shard, owner, ttl)
		}
	}
	if err != nil {
		return relay.Lease{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lease.Fence != lease.Fence {
		w.drop()
		w.lease, w.timeline = lease, timeline
		w.floor, w.slot, w.last = outbox.Position{}, false, outbox.Position{}
	}
	return lease, nil
}

// drop ends the stream. What it had read comes again.
func (w *WAL) drop() {
	if w.stream != nil {
		s := w.stream
		w.stream = nil
		go s.close() // It may be ringing, and wait for the lock.
	}
}

// Release implements [relay.Source].
func (w *WAL) Release(ctx context.Context, lease relay.Lease) error {
	w.mu.Lock()
	s := w.stream
	if w.lease.Fence == lease.Fence {
		w.stream = nil
	} else {
		s = nil
	}
	w.mu.Unlock()
	if s != nil {
		s.close() // The slot is free before the lease is.
	}
	return w.windowReader.Release(ctx, lease)
}

// Next implements [relay.Source]. Without a lease it reads the windows that have ended, as a follower does.
func (w *WAL) Next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if lease.Fence == 0 {
		return w.windowReader.Next(ctx, lease, after, limit)
	}
	w.mu.Lock()
	if w.floor.Compare(after) > 0 {
		after = w.floor
	}
	w.mu.Unlock()
	if !ofLog(after) {
		return w.fromWindows(ctx, lease, after, limit)
	}
	records, err := w.fromLog(ctx, lease, after, limit)
	if err == nil {
		return records, nil
	}
	if lost := w.slotLost(ctx, lease.Shard, err); lost != nil {
		return nil, w.fallBack(ctx, lease, after, lost)
	}
	return nil, fmt.Errorf("settlepgx: next after %s: %w", after, classified(err))
}

// fromWindows reads windows until they have caught up, and then changes over to the log: the slot was made
// before the last look at the table found nothing, so what the slot has is everything that follows.
func (w *WAL) fromWindows(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	w.mu.Lock()
	seen := w.slot
	w.mu.Unlock()
	if !seen {
		if err := w.ensureSlot(ctx, lease.Shard); err != nil {
			if w.cfg.Layout.foreign {
				return nil, fmt.Errorf("settlepgx: slot %s: %w", w.slotName(lease.Shard), classified(err))
			}
			w.warn(err)
			return w.windowReader.Next(ctx, lease, after, limit)
		}
		w.mu.Lock()
		w.slot = true
		w.mu.Unlock()
	}
	if !w.cfg.Layout.foreign {
		records, err := w.windowReader.Next(ctx, lease, after, limit)
		if err != nil || len(records) > 0 {
			return records, err
		}
	}
	floor := outbox.Position{Epoch: after.Epoch + 1}
	if w.cfg.Layout.foreign {
		// On record before anything is read: a slot that is gone later is lost, and not one to be made.
		if err := w.move(ctx, lease, floor); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	w.floor = floor
	w.mu.Unlock()
	w.mode("wal", "caught up")
	return w.fromLog(ctx, lease, floor, limit)
}

// warn tells, not too often, of a slot that cannot be made; the windows do as well.
func (w *WAL) warn(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.warned) < time.Minute {
		return
	}
	w.warned = time.Now()
	w.cfg.Logger.Warn("the write-ahead log cannot be read, events are read from the table", "err", err)
}

func (w *WAL) mode(mode, why string) {
	w.cfg.Logger.Info("outbox is read another way", "mode", mode, "why", why)
	if w.cfg.Hooks.Mode != nil {
		w.cfg.Hooks.Mode(mode, why)
	}
}

func (w *WAL) fromLog(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if err := w.look(ctx, lease); err != nil {
		return nil, err
	}
	s, err := w.open(ctx, lease, after)
	if err != nil {
		return nil, err
	}
	records, err := s.take(after, limit)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.drop()
		return nil, err
	}
	w.last = after
	if n := len(records); n > 0 {
		w.last = records[n-1].Position
	}
	return records, nil
}

// open returns the stream, and begins it anew when it does not stand where the reader is.
func (w *WAL) open(ctx context.Context, lease relay.Lease, after outbox.Position) (*stream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stream != nil && w.last == after {
		return w.stream, nil
	}
	w.drop()
	slot := w.slotName(lease.Shard)
	s, err := openStream(ctx, w.cc, streamConfig{
		slot: slot, publication: w.cfg.Publication, timeline: w.timeline, epoch: after.Epoch,
		read: w.cfg.Layout.reader(lease.Shard), ring: w.ring,
	})
	if hasCode(err, "55006") {
		return nil, errors.Join(fmt.Errorf("%w: %w", sqlstore.ErrUnavailable, err), w.endStreams(ctx, slot))
	}
	if err != nil {
		return nil, err
	}
	w.stream, w.last = s, after
	return s, nil
}

// Advance implements [relay.Source], and lets the server forget what is settled.
func (w *WAL) Advance(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	if err := w.move(ctx, lease, to); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stream != nil && ofLog(to) && w.lease.Fence == lease.Fence {
		w.stream.settle(to)
	}
	return nil
}

// Rewind implements [relay.Source]. The log cannot be read again, so it goes by windows.
func (w *WAL) Rewind(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	if !ofLog(to) {
		// Perhaps from the log: its epoch is higher, and reading goes on below it.
		w.mu.Lock()
		defer w.mu.Unlock()
		w.drop()
		w.floor = outbox.Position{}
		return w.windowReader.Rewind(ctx, lease, to)
	}
	return w.toWindows(ctx, lease, to, "rewind to "+to.String())
}

// toWindows goes on by windows after the last one in which everything lies before a place in the log.
func (w *WAL) toWindows(ctx context.Context, lease relay.Lease, from outbox.Position, why string) error {
	if w.cfg.Layout.foreign {
		return fmt.Errorf("settlepgx: table %s cannot be read again from %s: %w", w.cfg.Layout.Table, from, relay.ErrRetention)
	}
	var tick int64
	err := w.store.QueryRow(ctx, `SELECT coalesce(max(tick), -1) FROM settle_tick WHERE shard = $1 AND lsn <= $2::text::pg_lsn`,
		[]any{int64(lease.Shard), lsn(from.Tick).String()}, &tick)
	if err == nil && tick < 0 {
		err = relay.ErrRetention
	}
	if err != nil {
		return fmt.Errorf("settlepgx: windows from %s: %w", from, err)
	}
	to := outbox.Position{Epoch: from.Epoch + 1, Tick: tick, ID: math.MaxInt64}
	w.mu.Lock()
	w.drop()
	w.floor, w.slot = to, false
	w.mu.Unlock()
	w.mode("window", why)
	return w.move(ctx, lease, to)
}

// fallBack answers the loss of the slot. It is told apart from an outage by the caller.
func (w *WAL) fallBack(ctx context.Context, lease relay.Lease, after outbox.Position, lost error) error {
	w.cfg.Logger.Error("replication slot is lost: raise max_slot_wal_keep_size, or see why the relay was behind",
		"slot", w.slotName(lease.Shard), "err", lost)
	if w.cfg.Layout.foreign {
		return fmt.Errorf("settlepgx: slot %s, and table %s cannot be read again: %w", w.slotName(lease.Shard), w.cfg.Layout.Table, lost)
	}
	settled, err := w.settled(ctx, lease.Shard)
	if err != nil {
		return err
	}
	if !ofLog(settled) { // Nothing of the log was settled yet: the windows go on where they were.
		w.mu.Lock()
		w.drop()
		w.floor, w.slot = outbox.Position{}, false
		w.mu.Unlock()
		settled.Epoch = after.Epoch + 1
		w.mode("window", "slot lost")
		w.mu.Lock()
		w.floor = settled
		w.mu.Unlock()
		return w.move(ctx, lease, settled)
	}
	if err := w.dropSlot(ctx, lease.Shard); err != nil {
		return err
	}
	return w.toWindows(ctx, lease, settled, "slot lost")
}

// settled returns how far the shard has been carried.
func (w *WAL) settled(ctx context.Context, shard int) (p outbox.Position, err error) {
	err = w.store.QueryRow(ctx, `SELECT epoch, tick, id FROM settle_relay WHERE shard = $1`, []any{int64(shard)}, &p.Epoch, &p.Tick, &p.ID)
	return p, err
}

func hasCode(err error, code string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == code
}
