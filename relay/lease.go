package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// errLost ends an ownership; the relay claims anew.
var errLost = errors.New("relay no longer owns its shard")

// keeper renews a lease, and ends the work under it before it runs out.
type keeper struct {
	r     *Relay
	lease Lease
	// until is on the monotonic clock: setting the wall clock neither stretches nor ends a lease.
	until atomic.Pointer[time.Time]
}

// extend counts the lease from when its claim began, which is before the store wrote it.
func (k *keeper) extend(began time.Time) {
	until := began.Add(k.r.usable())
	k.until.Store(&until)
}

// holds reports whether work may begin. It is asked right before each publish, because a process that
// was paused wakes up anywhere.
func (k *keeper) holds() bool { return time.Now().Before(*k.until.Load()) }

// run renews until held is done, and ends held when the lease is lost.
func (k *keeper) run(held context.Context, end context.CancelCauseFunc) {
	due := k.r.cfg.LeaseTTL / 3
	for failures := 0; ; {
		left := time.Until(*k.until.Load())
		if !wait(held, min(due, left)) {
			return
		}
		if !k.holds() {
			end(fmt.Errorf("%w: not renewed within %s", errLost, k.r.usable()))
			return
		}
		began := time.Now()
		lease, err := k.renew(held)
		switch {
		case err == nil && lease.Fence == k.lease.Fence:
			k.extend(began)
			failures, due = 0, k.r.cfg.LeaseTTL/3
		case err == nil:
			// The lease had lapsed and was claimed anew: someone may have owned the shard in between.
			end(fmt.Errorf("%w: fence rose from %d to %d", errLost, k.lease.Fence, lease.Fence))
			return
		case errors.Is(err, ErrFenced) || errors.Is(err, ErrHeld):
			end(fmt.Errorf("%w: %w", errLost, err))
			return
		case held.Err() != nil:
			return
		default:
			if failures++; failures == 1 {
				k.r.log.Warn("relay cannot renew its lease", "err", err)
			}
			due = k.r.cfg.LeaseTTL / 15
		}
	}
}

func (k *keeper) renew(held context.Context) (Lease, error) {
	ctx, cancel := context.WithDeadline(held, *k.until.Load())
	defer cancel()
	return k.r.src.Claim(ctx, k.r.cfg.Shard, k.r.cfg.Owner, k.r.cfg.LeaseTTL)
}
