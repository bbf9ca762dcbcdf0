package relayd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/driver/settleprom"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

// persist opens something, however long its server is away. An error says what to do about it.
func persist(ctx context.Context, log *slog.Logger, what string, open func(context.Context) error) error {
	err := app.Await(ctx, app.Wait{What: what, Logger: log}, open)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	if do := app.Fault(err); do != "" {
		return fmt.Errorf("%w: %s", err, do)
	}
	return fmt.Errorf("%w: settle relay check says more", err)
}

// sink is one broker, which sources share.
type sink struct {
	cfg    Sink
	log    *slog.Logger
	opened chan struct{} // closed when the publisher is there
	pub    broker.Publisher
}

// run opens the broker and closes it when ctx is done.
func (s *sink) run(ctx context.Context) error {
	var b broker.Broker
	c := s.cfg.carrier()
	c.Logger = s.log
	err := persist(ctx, s.log, "broker", func(ctx context.Context) (err error) {
		b, err = app.OpenBroker(ctx, s.cfg.Broker, c)
		return err
	})
	if err != nil {
		return unlessDone(ctx, err)
	}
	pub, ok := b.(broker.Publisher)
	if !ok {
		return errors.Join(fmt.Errorf("broker %T publishes nothing: %w", b, errors.ErrUnsupported), b.Close())
	}
	s.pub = pub
	close(s.opened)
	<-ctx.Done()
	return b.Close()
}

func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// source is one shard on its way.
type source struct {
	cfg     Source
	sink    *sink
	shards  int // of the outbox, as far as this file knows
	metrics *settleprom.Metrics
	log     *slog.Logger

	down atomic.Bool // the broker, says the relay
	kept atomic.Int64
	wal  atomic.Bool

	mu       sync.Mutex
	observer relay.Observer // nil until the store is open
	claim    error          // of the last attempt; errWaiting before
	fatal    error
	giveUp   context.CancelFunc
}

var errWaiting = errors.New("starting")

func newSource(cfg Source, to *sink, shards int, metrics *settleprom.Metrics, logger *slog.Logger) *source {
	return &source{cfg: cfg, sink: to, shards: shards, metrics: metrics, log: logger.With("source", cfg.Name), claim: errWaiting}
}

// state says what the source does, and whether that is what it should.
func (s *source) state() (why string, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.sink.opened:
	default:
		return "waits for its broker", false
	}
	switch {
	case s.observer == nil:
		return "waits for its database", false
	case s.down.Load():
		return "broker is unavailable", false
	case errors.Is(s.claim, relay.ErrHeld):
		return "standby", true
	case errors.Is(s.claim, errWaiting):
		return "claims its shard", false
	case s.claim != nil:
		return "cannot claim its shard", false // Why is in the log: an error may name what is nobody's business.
	}
	return "carries", true
}

// run opens the store and carries its events until ctx is done.
func (s *source) run(ctx context.Context) error {
	store, err := s.open(ctx)
	if err != nil {
		return unlessDone(ctx, err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			s.log.Warn("store did not close", "err", err)
		}
	}()
	src, err := s.outbox(store)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.observer = src
	s.mu.Unlock()
	select {
	case <-s.sink.opened:
	case <-ctx.Done():
		return nil
	}
	cfg := s.metrics.Instrument(s.cfg.Name, settle.Config{Relay: relay.Config{Shard: s.cfg.Shard, Logger: s.log}}).Relay
	cfg.Hooks.Outage = func(down bool, _ error) { s.down.Store(down) }
	cfg.Hooks.Lost = func(relay.Lease, error) { s.claimed(errWaiting) }
	r, err := relay.New(&watched{src, s}, s.sink.pub, cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.giveUp = cancel
	s.mu.Unlock()
	err = r.Run(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.fatal, err)
}

// connsMax is more than one relay needs: it reads, settles and renews at the same time.
const connsMax = 8

func (s *source) open(ctx context.Context) (store *sqlstore.Store, err error) {
	d, err := s.cfg.database()
	if err != nil {
		return nil, err
	}
	err = persist(ctx, s.log, "database", func(ctx context.Context) (err error) {
		store, err = d.Open(ctx, app.DatabaseConfig{
			ConnsMax: connsMax, Pooler: s.cfg.Pooler, Store: sqlstore.Config{Logger: s.log, Shards: s.shards},
		})
		return err
	})
	return store, err
}

// eventLog is everything that a relay asks of a store's outbox.
type eventLog interface { //nolint:interfacebloat // It is the sum of small ones.
	relay.Source
	relay.Parking
	relay.Bell
	relay.Marks
	relay.Observer
	relay.Purger
}

func (s *source) outbox(store *sqlstore.Store) (eventLog, error) {
	src := store.Outbox()
	if s.cfg.Mode == "wal" {
		cfg := settlepgx.WALConfig{
			Slot: s.cfg.Slot, Publication: s.cfg.Publication, Failover: true, Logger: s.log,
			Hooks: settlepgx.WALHooks{
				Mode: func(mode, _ string) { s.wal.Store(mode == "wal") },
				Slot: func(kept, _ int64) { s.kept.Store(kept) },
			},
		}
		if s.cfg.Layout == "debezium" {
			var err error
			if cfg.Layout, err = settlepgx.DebeziumLayout(s.cfg.Table, s.cfg.TopicSuffix, s.cfg.Producer); err != nil {
				return nil, err
			}
		}
		wal, err := settlepgx.NewWAL(store, s.cfg.Store, cfg)
		if err != nil {
			return nil, err
		}
		src = wal
	}
	all, ok := src.(eventLog)
	if !ok {
		return nil, fmt.Errorf("outbox %T: %w", src, errors.ErrUnsupported)
	}
	return all, nil
}

// claimed notes how the last attempt to own the shard ended.
func (s *source) claimed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claim = err
	s.giveUpOn(err)
}

// giveUpOn ends the source when only a person can mend an error. s.mu is held.
func (s *source) giveUpOn(err error) {
	if err == nil || app.IsOutage(err) || s.fatal != nil || s.giveUp == nil {
		return
	}
	if do := app.Fault(err); do != "" {
		s.fatal = fmt.Errorf("%w: %s", err, do)
		s.giveUp()
	}
}

// watched is a source that tells what becomes of its shard. A relay repeats for ever; an outbox of another
// cluster, or a role without rights, are no outage.
type watched struct {
	eventLog

	s *source
}

// Claim implements [relay.Source].
func (w *watched) Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (relay.Lease, error) {
	lease, err := w.eventLog.Claim(ctx, shard, owner, ttl)
	if ctx.Err() == nil {
		w.s.claimed(err)
	}
	return lease, err
}

// Next implements [relay.Source].
func (w *watched) Next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	records, err := w.eventLog.Next(ctx, lease, after, limit)
	if err != nil && ctx.Err() == nil {
		w.s.mu.Lock()
		w.s.giveUpOn(err)
		w.s.mu.Unlock()
	}
	return records, err
}
