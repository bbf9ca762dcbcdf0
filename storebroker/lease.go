package storebroker

import (
	"context"
	"errors"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/lock"
)

// lease lets this member hold a lease for each partition that it reads, so that no other process reads it
// in vain. What keeps a late reader from storing anything is the fence of the consumer's position.
func (m *membership) lease() {
	ctx, stop := context.WithCancel(context.Background())
	m.leased, m.stop = make(chan *partition), stop
	m.ended.Go(func() {
		for {
			claim, err := m.member.Next(ctx)
			if err != nil {
				return
			}
			m.ended.Go(func() { m.hold(ctx, claim) })
		}
	})
}

func (m *membership) nextLeased(ctx context.Context) (broker.Partition, error) {
	select {
	case p := <-m.leased:
		return p, nil
	case <-m.member.Left():
		return nil, m.ending(assign.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hold waits for the partition's lease, hands the partition out, and takes it back when the lease is lost.
func (m *membership) hold(ctx context.Context, claim *assign.Claim) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer claim.Release()
	cfg := lock.Config{TTL: m.broker.cfg.LeaseTTL, Logger: m.broker.cfg.Logger}
	for claim.Live() && ctx.Err() == nil {
		err := lock.Hold(ctx, m.broker.cfg.Leases, "partition/"+m.group+"/"+claim.Name, cfg, func(ctx context.Context, _ lock.Lease) error {
			p := m.partition(claim)
			p.lapsed = make(chan struct{})
			defer close(p.lapsed)
			select {
			case m.leased <- p:
			case <-claim.Revoked():
				return nil
			case <-ctx.Done():
				return nil
			}
			select {
			case <-claim.Revoked(): // Also when its reader has released it.
			case <-ctx.Done():
			}
			return nil
		})
		if err != nil && !errors.Is(err, lock.ErrHeld) && ctx.Err() == nil {
			m.broker.cfg.Logger.Warn("partition cannot be leased, trying again", "group", m.group, "partition", claim.Name, "err", err)
		}
		select {
		case <-claim.Revoked():
		case <-ctx.Done():
		case <-time.After(m.broker.cfg.LeaseTTL / 5):
		}
	}
}
