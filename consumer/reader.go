package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

var errStopped = errors.New("reader was stopped")

// reader reads one partition for as long as it is this member's.
type reader struct {
	c     *Consumer
	p     broker.Partition
	name  string
	seeks bool // the stored position is where it begins again
	fence int64

	// pos is how far the reader has settled; stored is how far the store knows, passed counts the
	// unhandled messages in between and storedAt is when it was told.
	pos, stored broker.Position
	passed      int
	storedAt    time.Time

	// behind is the broker's account of what is left after the last message fetched, sampled by the reader
	// because a partition belongs to one goroutine. inHand is what was fetched and not settled; it stays 1 until the
	// next Fetch has returned, so that a burst is never taken for silence between two batches.
	behind, inHand atomic.Int64
	sampledAt      time.Time
	paused         atomic.Pointer[string]

	// scope is what the filter remembers under; empty until it is needed.
	scope string

	// The rest belongs to the batch at hand and is used again for the next one.
	batch batch
}

func newReader(c *Consumer, p broker.Partition) *reader {
	r := &reader{c: c, p: p, name: p.Name()}
	_, r.seeks = p.(broker.Seeker)
	r.inHand.Store(1)
	return r
}

func (r *reader) run(ctx, work context.Context) {
	c := r.c
	log := c.cfg.Logger.With("partition", r.name)
	c.add(r)
	defer c.forget(r)
	err := r.begin(ctx, work)
	if err == nil {
		log.Info("partition assigned", "position", r.pos.String(), "fence", r.fence)
		if c.cfg.Hooks.Assigned != nil {
			c.cfg.Hooks.Assigned(r.name)
		}
		err = r.loop(ctx, work)
		if err == nil || errors.Is(err, errStopped) {
			err = r.storePosition(work)
		}
	}
	switch {
	case errors.Is(err, broker.ErrPositionLost):
		c.setLost(r.name, true)
		log.Error("the broker no longer keeps the position, events may be missing: reading all that it keeps", "position", r.pos.String(), "err", err)
	case errors.Is(err, ErrFenced):
		log.Warn("partition was taken by a newer reader", "err", err)
		sleep(ctx, backoffShortest, nil) // The broker gave it to two members: do not race for it.
	case err != nil && !errors.Is(err, errStopped) && !errors.Is(err, broker.ErrRevoked):
		log.Warn("partition dropped", "err", err)
	}
	if err := r.p.Release(); err != nil && !errors.Is(err, broker.ErrRevoked) {
		log.Warn("releasing the partition failed", "err", err)
	}
	if c.cfg.Hooks.Dropped != nil {
		c.cfg.Hooks.Dropped(r.name, err)
	}
}

// begin takes the partition: raise the fence, then load the lanes (see [lanes]), then seek.
func (r *reader) begin(ctx, work context.Context) error {
	c := r.c
	r.storedAt = time.Now()
	err := r.patiently(ctx, func() (err error) {
		r.pos, r.fence, err = c.positions.Take(work, c.cfg.Group, r.name)
		r.stored = r.pos
		return err
	})
	if err == nil && c.letters != nil {
		err = r.patiently(ctx, func() error {
			all, err := c.letters.Lanes(work, c.cfg.Group)
			c.lanes.load(all)
			return err
		})
	}
	s, ok := r.p.(broker.Seeker)
	if err != nil || !ok {
		return err
	}
	return r.patiently(ctx, func() error {
		from := r.pos
		if c.isLost(r.name) {
			from = broker.Position{} // The inbox absorbs what comes again.
		}
		return s.Seek(ctx, from)
	})
}

// patiently repeats fn until it succeeds or the partition is lost.
func (r *reader) patiently(ctx context.Context, fn func() error) error {
	for n := 1; ; n++ {
		err := fn()
		if err == nil {
			return nil
		}
		if dropped(err) {
			return err
		}
		if err := r.pause(ctx, err, n); err != nil {
			return err
		}
	}
}

func dropped(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, broker.ErrRevoked) || errors.Is(err, broker.ErrPositionLost) ||
		errors.Is(err, errStopped)
}

func (r *reader) loop(ctx, work context.Context) error {
	for n := 1; ctx.Err() == nil; {
		select {
		case <-r.p.Revoked():
			return broker.ErrRevoked
		default:
		}
		messages, err := r.p.Fetch(ctx, r.c.cfg.BatchMax)
		if ctx.Err() != nil {
			return nil // Nothing has begun; what was fetched comes again.
		}
		switch {
		case err != nil && dropped(err):
			return err
		case err != nil:
			if err := r.pause(ctx, err, n); err != nil {
				return err
			}
			n++
			continue
		}
		n = 1
		r.sample(ctx, len(messages))
		if len(messages) > 0 {
			err = r.settle(ctx, work, messages)
			r.inHand.Store(1)
		}
		if err == nil && r.passed > 0 && (r.passed >= positionMax || time.Since(r.storedAt) >= positionEvery) {
			err = r.patiently(ctx, func() error { return r.storePosition(work) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle makes the messages durable: all in one transaction, or, when that fails, each in its own. Its
// error drops the partition.
func (r *reader) settle(ctx, work context.Context, messages []broker.Message) error {
	if r.c.cfg.Mode == AtMostOnce {
		return r.handleAtMostOnce(ctx, work, messages)
	}
	err := r.attempt(ctx, work, messages, nil)
	if err == nil || dropped(err) || work.Err() != nil {
		return err
	}
	if len(messages) > 1 {
		r.c.cfg.Logger.Debug("batch failed, repeating one by one", "partition", r.name, "events", len(messages), "err", err)
	}
	for i := range messages {
		if ctx.Err() != nil {
			return errStopped
		}
		if err := r.settleOne(ctx, work, messages[i:i+1]); err != nil {
			return err
		}
		r.inHand.Store(int64(max(1, len(messages)-i-1)))
	}
	return nil
}

// settleOne handles one message, or parks it when its handler fails. Errors that are not the message's
// own pause the partition.
func (r *reader) settleOne(ctx, work context.Context, one []broker.Message) error {
	var fail *failure
	strikes := 0
	for n := 1; ; n++ {
		err := r.attempt(ctx, work, one, fail)
		if err == nil {
			return nil
		}
		if dropped(err) || work.Err() != nil {
			return err
		}
		f, isFailure := errors.AsType[*failure](err)
		switch {
		case isFailure && !r.c.transient(f.err):
			fail = f // The next attempt parks it.
			continue
		case errors.Is(err, ErrFull):
			fail = nil // When there is room again, the handler may have been mended.
		case !isFailure && fail == nil && !r.c.transient(err) && r.probe(work) == nil:
			// The store is well and takes other writes: the transaction of this event is what it refuses.
			if strikes++; strikes == blameAfter {
				fail = &failure{err: err}
				continue
			}
		default:
			// The store is not well, and may be why the handler failed: ask it again.
			strikes, fail = 0, nil
		}
		if err := r.pause(ctx, err, n); err != nil {
			return err
		}
	}
}

func (c *Consumer) transient(err error) bool {
	return c.cfg.Transient != nil && c.cfg.Transient(err) || c.classifier != nil && c.classifier.Transient(err)
}

// probe reports whether the store takes a write that has nothing to do with the message at hand.
func (r *reader) probe(work context.Context) error {
	return r.c.run.Run(work, func(ctx context.Context, tx *txn.Tx) error {
		return r.c.positions.Store(ctx, tx, r.c.cfg.Group, r.name, r.fence, r.pos)
	})
}

// pause waits after the n-th failure in a row of something that is no event's fault.
func (r *reader) pause(ctx context.Context, err error, n int) error {
	r.distrust()
	wait := backoff(n)
	text := err.Error()
	r.paused.Store(&text)
	defer r.paused.Store(nil)
	if errors.Is(err, ErrFull) {
		r.c.cfg.Logger.Error("partition paused, mend the cause and replay or discard dead letters", "partition", r.name, "err", err)
	} else {
		r.c.cfg.Logger.Warn("partition paused", "partition", r.name, "attempt", n, "wait", wait, "err", err)
	}
	if r.c.cfg.Hooks.Paused != nil {
		r.c.cfg.Hooks.Paused(r.name, err, wait)
	}
	if sleep(ctx, wait, r.p.Revoked()) {
		return nil
	}
	if ctx.Err() != nil {
		return errStopped
	}
	return broker.ErrRevoked
}

// storePosition stores and acknowledges a position that only passed unhandled messages. Positions of
// handled ones are stored in their transaction.
func (r *reader) storePosition(work context.Context) error {
	if r.pos == r.stored {
		return nil
	}
	err := r.probe(work)
	if err != nil {
		return fmt.Errorf("store position: %w", err)
	}
	r.settled(r.pos)
	r.ack(work)
	return nil
}

func (r *reader) settled(p broker.Position) {
	r.pos, r.stored, r.passed, r.storedAt = p, p, 0, time.Now()
	if r.c.isLost(r.name) {
		r.c.setLost(r.name, false)
	}
}

// ack tells the broker. It is for the broker's own books: what counts is the stored position.
func (r *reader) ack(work context.Context) {
	if err := r.p.Ack(work, r.pos); err != nil && !errors.Is(err, broker.ErrRevoked) {
		r.c.cfg.Logger.Warn("acknowledging failed, the next one covers it", "partition", r.name, "err", err)
	}
	r.c.cfg.Failpoint("consumer.after-ack")
}

// handleAtMostOnce stores the position first: whatever happens then, nothing is handled again.
func (r *reader) handleAtMostOnce(ctx, work context.Context, messages []broker.Message) error {
	r.pos = messages[len(messages)-1].Position
	if err := r.patiently(ctx, func() error { return r.storePosition(work) }); err != nil {
		return err
	}
	c := r.c
	one := make([]event.Envelope, 1)
	for i := range messages {
		m := &messages[i]
		h, err := c.handler(m)
		if h != nil {
			err = c.run.Run(work, func(ctx context.Context, tx *txn.Tx) error {
				if f := c.invoke(ctx, tx, h, &m.Event); f != nil {
					return f
				}
				c.cfg.Failpoint("consumer.before-commit")
				return nil
			})
		}
		switch {
		case err != nil:
			c.cfg.Logger.Warn("event lost, as at-most-once allows", append(attributes(&m.Event), "err", err)...)
			if c.cfg.Hooks.Lost != nil {
				c.cfg.Hooks.Lost(m.Event, err)
			}
		case h != nil && c.cfg.Hooks.Handled != nil:
			one[0] = m.Event
			c.cfg.Hooks.Handled(one, time.Now())
		}
	}
	return nil
}

func attributes(e *event.Envelope) []any {
	return []any{"event_id", e.ID, "event_type", e.Type, "topic", e.Topic, "aggregate_id", e.AggregateID}
}

// sample keeps the account of the lag after a Fetch of n messages.
func (r *reader) sample(ctx context.Context, n int) {
	r.inHand.Store(int64(n))
	if n == 0 {
		r.behind.Store(0)
		return
	}
	l, ok := r.p.(broker.Laggard)
	if !ok || time.Since(r.sampledAt) < lagEvery {
		return
	}
	if lag, err := l.Lag(ctx); err == nil {
		r.behind.Store(lag)
	}
	r.sampledAt = time.Now()
}

func (r *reader) stats() PartitionStats {
	s := PartitionStats{Name: r.name, Lag: r.behind.Load() + r.inHand.Load()}
	if text := r.paused.Load(); text != nil {
		s.Paused = *text
	}
	return s
}
