package storebroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

// Run tells each outbox, again and again, what every group of this process has settled, in place of
// the relay that a real broker has: so the outbox can say what is pending, and purge the rest. It
// blocks until ctx ends, tells the last state then, and returns nil. Run it in the one process that
// holds every group; where there are several, the one with the lease knows its own groups only, and
// the outbox's retention must outlast the slowest group of the others.
func (b *Broker) Run(ctx context.Context) error {
	ticker := time.NewTicker(b.cfg.SettleEvery)
	defer ticker.Stop()
	s := settler{broker: b, owner: "storebroker-" + rand.Text(), leases: map[string]relay.Lease{}, told: map[string]outbox.Position{}}
	for {
		select {
		case <-ticker.C:
			// An error is of the store and passes, or is a newer owner's lease: both are asked again.
			_ = s.settle(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.SettleLease)
			defer cancel()
			if err := s.settle(last); err != nil && !errors.Is(err, relay.ErrHeld) && !errors.Is(err, relay.ErrFenced) {
				return fmt.Errorf("storebroker: settle at the end: %w", err)
			}
			return s.release(last)
		}
	}
}

// settler is the state of one Run.
type settler struct {
	broker *Broker
	owner  string
	leases map[string]relay.Lease
	told   map[string]outbox.Position
}

// settle advances every outbox that has news. The error is the last one.
func (s *settler) settle(ctx context.Context) error {
	var failed error
	for producer, source := range s.broker.sources {
		to, ok := s.broker.Settled(producer)
		if !ok || to.Compare(s.told[producer]) <= 0 {
			continue
		}
		if err := s.advance(ctx, producer, source, to); err != nil {
			delete(s.leases, producer)
			failed = err
		}
	}
	return failed
}

func (s *settler) advance(ctx context.Context, producer string, source relay.Source, to outbox.Position) error {
	lease, ok := s.leases[producer]
	if !ok || time.Until(lease.Expires) < s.broker.cfg.SettleLease/2 {
		claimed, err := source.Claim(ctx, 0, s.owner, s.broker.cfg.SettleLease)
		if err != nil {
			return err
		}
		lease, s.leases[producer] = claimed, claimed
	}
	if to.Compare(lease.Position) > 0 {
		if err := source.Advance(ctx, lease, to); err != nil {
			return err
		}
	}
	s.told[producer] = to
	return nil
}

func (s *settler) release(ctx context.Context) error {
	var failed error
	for producer, lease := range s.leases {
		if err := s.broker.sources[producer].Release(ctx, lease); err != nil && !errors.Is(err, relay.ErrFenced) {
			failed = fmt.Errorf("storebroker: release %s: %w", producer, err)
		}
	}
	return failed
}
