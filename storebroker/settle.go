package storebroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

// Bounds of a keeper's work.
const (
	pollShortest = 5 * time.Millisecond
	purgeEvery   = time.Minute
	purgeMax     = 1000
	walkMax      = 100
)

// Run keeps the outboxes that are this process's own, in place of the relay that a real broker has: it gives
// events their positions where the outbox does not by itself, tells each outbox what is settled, and purges
// what is older than the retention. It blocks until ctx ends, tells the last state then, and returns nil.
// Several processes may run it for one outbox: the one with the lease works.
func (b *Broker) Run(ctx context.Context) error {
	errs := make([]error, len(b.cfg.Own))
	var wg sync.WaitGroup
	for i, producer := range b.cfg.Own {
		wg.Go(func() {
			k := &keeper{b: b, producer: producer, source: b.sources[producer], owner: "storebroker-" + rand.Text()}
			k.sequencer, _ = k.source.(relay.Sequencer)
			errs[i] = k.run(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// keeper keeps one outbox.
type keeper struct {
	b         *Broker
	producer  string
	source    relay.Source
	sequencer relay.Sequencer // nil when the outbox needs none
	owner     string

	lease   relay.Lease
	held    bool
	head    outbox.Position // the last one that was given
	told    outbox.Position
	settled time.Time
	purged  time.Time
}

func (k *keeper) run(ctx context.Context) error {
	var ring <-chan struct{}
	if bell, ok := k.source.(relay.Bell); ok && k.sequencer != nil {
		r, stop := bell.Listen()
		defer stop()
		ring = r
	}
	pause := k.b.cfg.SettleEvery
	if k.sequencer != nil {
		pause = 0 // What has gathered waits for its positions.
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ring:
			pause = 0
		case <-timer.C:
		case <-ctx.Done():
			return k.end(ctx)
		}
		news, err := k.step(ctx)
		if err != nil {
			// It is of the store and passes, or is a newer owner's lease: both are asked again.
			k.held, news = false, false
		}
		switch {
		case k.sequencer == nil || err != nil:
			pause = k.b.cfg.SettleEvery
		case news:
			pause = pollShortest
		default:
			pause = min(max(2*pause, pollShortest), k.b.cfg.SettleEvery)
		}
		timer.Reset(pause)
	}
}

// step does what is due and reports whether events got positions.
func (k *keeper) step(ctx context.Context) (news bool, err error) {
	if k.sequencer != nil {
		if err := k.claim(ctx); err != nil {
			return false, err
		}
		head, err := k.sequencer.Sequence(ctx, k.lease)
		if err != nil {
			return false, err
		}
		news, k.head = head.Compare(k.head) > 0, head
	}
	if time.Since(k.settled) < k.b.cfg.SettleEvery {
		return news, nil
	}
	k.settled = time.Now()
	if err := k.settle(ctx); err != nil {
		return news, err
	}
	return news, k.purge(ctx)
}

// settle advances the outbox to where every group is that this process knows of, or, when other processes
// follow too, to its head: the retention is what they can rely on.
func (k *keeper) settle(ctx context.Context) error {
	to, ok := k.b.Settled(k.producer)
	if k.b.cfg.Shared {
		if k.sequencer == nil {
			if err := k.walk(ctx); err != nil {
				return err
			}
		}
		to, ok = k.head, true
	}
	if !ok || to.Compare(k.told) <= 0 {
		return nil
	}
	if err := k.claim(ctx); err != nil {
		return err
	}
	if to.Compare(k.lease.Position) > 0 {
		if err := k.source.Advance(ctx, k.lease, to); err != nil {
			return err
		}
	}
	k.told = to
	return nil
}

// walk goes to the head of an outbox that gives positions by itself.
func (k *keeper) walk(ctx context.Context) error {
	if err := k.claim(ctx); err != nil {
		return err
	}
	if k.lease.Position.Compare(k.head) > 0 {
		k.head = k.lease.Position
	}
	for {
		records, err := k.source.Next(ctx, k.lease, k.head, walkMax)
		if err != nil || len(records) == 0 {
			return err
		}
		k.head = records[len(records)-1].Position
	}
}

func (k *keeper) purge(ctx context.Context) error {
	purger, ok := k.source.(relay.Purger)
	if !ok || !k.held || time.Since(k.purged) < purgeEvery {
		return nil
	}
	k.purged = time.Now()
	for n := purgeMax; n == purgeMax && ctx.Err() == nil; {
		var err error
		if n, err = purger.Purge(ctx, time.Now().Add(-k.b.cfg.Retention), purgeMax); err != nil {
			return err
		}
	}
	return nil
}

// claim takes the outbox's lease, or renews it in time.
func (k *keeper) claim(ctx context.Context) error {
	if k.held && time.Until(k.lease.Expires) >= k.b.cfg.SettleLease/2 {
		return nil
	}
	lease, err := k.source.Claim(ctx, 0, k.owner, k.b.cfg.SettleLease)
	if err != nil {
		return err
	}
	k.lease, k.held = lease, true
	return nil
}

// end tells the last state and gives the lease back.
func (k *keeper) end(ctx context.Context) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.b.cfg.SettleLease)
	defer cancel()
	k.settled = time.Time{}
	_, err := k.step(last)
	if err != nil && !errors.Is(err, relay.ErrHeld) && !errors.Is(err, relay.ErrFenced) {
		return fmt.Errorf("storebroker: settle %s at the end: %w", k.producer, err)
	}
	if !k.held {
		return nil
	}
	if err := k.source.Release(last, k.lease); err != nil && !errors.Is(err, relay.ErrFenced) {
		return fmt.Errorf("storebroker: release %s: %w", k.producer, err)
	}
	return nil
}
