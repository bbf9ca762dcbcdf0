package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/broker"
)

// ErrDrain says that Run returned before its work in flight had ended. What was not settled is published
// again by the next owner, once the lease has run out.
var ErrDrain = errors.New("drain timed out")

// Relay carries one shard of an outbox to a publisher while it owns the shard. Call Run once.
type Relay struct {
	src    Source
	pub    broker.Publisher
	cfg    Config
	log    *slog.Logger
	ran    atomic.Bool
	keyed  bool // the publisher needs at most one unacknowledged message per key
	tailer broker.Tailer
	marks  Marks   // set when tailer is
	lot    Parking // nil when the source cannot park
}

// New returns a relay that carries events from src to pub. It refuses a configuration that contradicts
// itself, and a publisher that can lose what it acknowledged (a [broker.Tailer]) with a source that
// keeps no [Marks]: the error then is errors.ErrUnsupported.
func New(src Source, pub broker.Publisher, cfg Config) (*Relay, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Relay{src: src, pub: pub, cfg: cfg, log: cfg.Logger.With("shard", cfg.Shard), keyed: true}
	if o, ok := pub.(broker.Ordered); ok {
		r.keyed = !o.Ordered()
	}
	r.lot, _ = src.(Parking)
	if t, ok := pub.(broker.Tailer); ok {
		r.tailer = t
		if r.marks, ok = src.(Marks); !ok {
			return nil, fmt.Errorf("relay: publisher %T can lose what it acknowledged, and source %T keeps no marks: %w",
				pub, src, errors.ErrUnsupported)
		}
	}
	return r, nil
}

// Stats returns the source's state: what is pending, parked and sent. It is errors.ErrUnsupported when
// the source cannot tell.
func (r *Relay) Stats(ctx context.Context) (Stats, error) {
	o, ok := r.src.(Observer)
	if !ok {
		return Stats{}, fmt.Errorf("relay: stats of source %T: %w", r.src, errors.ErrUnsupported)
	}
	return o.Stats(ctx)
}

// Run claims the shard, carries its events for as long as it owns it, and claims it again after a loss,
// until ctx is done. It then lets calls in flight end, persists what is settled, releases the shard and
// returns nil. ErrDrain says that this took longer than DrainTimeout. Any other error needs a person: a
// refused event that the source cannot park.
func (r *Relay) Run(ctx context.Context) error {
	if r.ran.Swap(true) {
		return errors.New("relay: run was called before")
	}
	for {
		lease, began, err := r.claim(ctx)
		if err != nil {
			return nil //nolint:nilerr // Claim ends with an error only when ctx is done, and nothing is in flight.
		}
		if err := r.own(ctx, lease, began); !errors.Is(err, errLost) {
			return err
		}
		if !wait(ctx, r.cfg.RetryMin) {
			return nil
		}
	}
}

// claim waits until the shard is ours. It returns when the successful attempt began, from which the
// lease counts, and an error only when ctx is done.
func (r *Relay) claim(ctx context.Context) (Lease, time.Time, error) {
	for failures := 0; ; {
		began := time.Now()
		lease, err := r.tryClaim(ctx)
		pause := r.cfg.LeaseTTL / 3
		switch {
		case err == nil:
			return lease, began, nil
		case ctx.Err() != nil:
			return Lease{}, began, ctx.Err()
		case errors.Is(err, ErrHeld) || errors.Is(err, ErrFenced):
			failures = 0
		default:
			if failures++; failures == 1 {
				r.log.Warn("relay cannot claim its shard", "err", err)
			}
			pause = r.backoff(failures)
		}
		if !wait(ctx, pause) {
			return Lease{}, began, ctx.Err()
		}
	}
}

func (r *Relay) tryClaim(ctx context.Context) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, r.usable())
	defer cancel()
	return r.src.Claim(ctx, r.cfg.Shard, r.cfg.Owner, r.cfg.LeaseTTL)
}

// own carries the shard during one ownership. errLost tells Run to claim again.
func (r *Relay) own(ctx context.Context, lease Lease, began time.Time) error {
	r.log.Info("relay claimed its shard", "fence", lease.Fence, "position", lease.Position.String())
	if h := r.cfg.Hooks.Claimed; h != nil {
		h(lease)
	}
	// Work in flight outlives ctx: whoever abandons a published event between acknowledgement and
	// settlement publishes it twice. It ends with the lease, or with the drain.
	held, end := context.WithCancelCause(context.WithoutCancel(ctx))
	k := &keeper{r: r, lease: lease}
	k.extend(began)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		k.run(held, end)
	}()
	err := r.carry(ctx, held, end, k)
	end(context.Canceled)
	<-kept
	if errors.Is(err, errLost) {
		r.log.Warn("relay lost its shard", "fence", lease.Fence, "err", err)
		if h := r.cfg.Hooks.Lost; h != nil {
			h(lease, err)
		}
	}
	return err
}

// carry runs a pump, and after it persists what is settled and releases the shard, unless it was lost or
// something may still be publishing.
func (r *Relay) carry(ctx, held context.Context, end context.CancelCauseFunc, k *keeper) error {
	p := newPump(r, k, end)
	defer p.close()
	err := p.run(ctx, held)
	if errors.Is(err, errLost) || errors.Is(err, ErrDrain) {
		return err
	}
	last, cancel := context.WithDeadline(held, p.drainBy)
	defer cancel()
	p.settleLast(last)
	if e := r.src.Release(last, k.lease); e != nil {
		r.log.Warn("relay could not release its shard; its lease runs out by itself", "err", e)
	}
	return err
}

// usable is how long a lease may be worked under after the claim or renewal began. The margin is for a
// clock of the store that runs faster than ours, and for a publish that is already on its way.
func (r *Relay) usable() time.Duration { return r.cfg.LeaseTTL - r.cfg.LeaseTTL/5 }

// backoff is the wait after a number of failures in a row, from 1.
func (r *Relay) backoff(failures int) time.Duration {
	d := r.cfg.RetryMin << min(failures-1, 20)
	if d <= 0 || d > r.cfg.RetryMax {
		d = r.cfg.RetryMax
	}
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

func (r *Relay) point(name string) {
	if r.cfg.Failpoint != nil {
		r.cfg.Failpoint(name)
	}
}

// wait returns false when ctx is done first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
