package lock

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Config is what a holder may decide. The zero Config is ready for use.
type Config struct {
	// Owner names the holder to people. Default DefaultOwner().
	Owner string
	// TTL is how long the lease runs without being renewed: how long nobody gets in after a crash. It is
	// renewed at a third of it. Default 15s.
	TTL time.Duration
	// Margin is how long before its end the lease counts as lost: for a clock of the store that runs faster
	// than ours, and for what takes a moment to stop. Default TTL/5.
	Margin time.Duration
	// Wait tries again while another one holds the name. Default: ErrHeld at once.
	Wait bool
	// RetryEvery is the pause between two attempts when Wait is set. Default 1s.
	RetryEvery time.Duration
	// Logger receives failures to renew and to release. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults(name string) (Config, error) {
	if c.Owner == "" {
		c.Owner = DefaultOwner()
	}
	if c.TTL == 0 {
		c.TTL = 15 * time.Second
	}
	if c.Margin == 0 {
		c.Margin = c.TTL / 5
	}
	if c.RetryEvery == 0 {
		c.RetryEvery = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := CheckLimits(name, c.Owner, c.TTL); err != nil {
		return c, err
	}
	switch {
	case c.Margin < 0 || c.RetryEvery < 0:
		return c, fmt.Errorf("margin %s, retry %s: must not be negative: %w", c.Margin, c.RetryEvery, ErrLimit)
	case c.Margin > c.TTL/2:
		return c, fmt.Errorf("margin %s exceeds half of the time to live %s: %w", c.Margin, c.TTL, ErrLimit)
	}
	return c, nil
}

// DefaultOwner returns a new owner's name: host, process and a random part.
func DefaultOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown" // The random part is what tells owners apart; the rest is for people.
	}
	var b [6]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails since Go 1.24.
	return fmt.Sprintf("%s:%d:%s", host, os.Getpid(), hex.EncodeToString(b[:]))
}

// Hold acquires a name, calls fn, and releases the name when fn has returned. Meanwhile it renews the
// lease, and when it cannot, it ends fn's context Margin before the lease runs out, by the local monotonic
// clock. That saves work that would be refused; it does not replace [Check] in every write that the lease
// guards, as a process that is paused ends nothing in time. fn must return when its context is done.
//
// Hold returns fn's error. When the lease was lost meanwhile it returns ErrFenced or ErrLost with it, also
// when fn returned nil: what fn did outside of checked transactions may have happened beside another.
func Hold(ctx context.Context, leases Leases, name string, cfg Config, fn func(ctx context.Context, l Lease) error) error {
	cfg, err := cfg.withDefaults(name)
	if err != nil {
		return fmt.Errorf("lock: hold: %w", err)
	}
	h := &holder{leases: leases, cfg: cfg, log: cfg.Logger.With("lock", name, "owner", cfg.Owner)}
	began, err := h.acquire(ctx, name)
	if err != nil {
		return fmt.Errorf("lock: hold %s: %w", name, err)
	}
	return h.hold(ctx, began, fn)
}

// holder is one Hold.
type holder struct {
	leases Leases
	cfg    Config
	log    *slog.Logger
	lease  Lease
	until  time.Time // when the lease counts as lost, by the local clock; renew's while it runs
}

// acquire returns when the attempt that succeeded began, which is before the store wrote the lease.
func (h *holder) acquire(ctx context.Context, name string) (began time.Time, err error) {
	for {
		began = time.Now()
		h.lease, err = h.leases.Acquire(ctx, name, h.cfg.Owner, h.cfg.TTL)
		if err == nil || !h.cfg.Wait || !errors.Is(err, ErrHeld) {
			return began, err
		}
		if !pause(ctx, h.cfg.RetryEvery) {
			return began, context.Cause(ctx)
		}
	}
}

// hold calls fn while the lease is renewed.
func (h *holder) hold(ctx context.Context, began time.Time, fn func(context.Context, Lease) error) error {
	held, end := context.WithCancelCause(ctx)
	lost := fmt.Errorf("not renewed within %s: %w", h.usable(), ErrLost)
	h.until = began.Add(h.usable())
	// The deadline is a timer of its own: a renewal that hangs must not delay it.
	deadline := time.AfterFunc(time.Until(h.until), func() { end(lost) })
	var renewing sync.WaitGroup
	renewing.Go(func() { h.renew(held, end, deadline) })
	stop := func() {
		end(context.Canceled)
		renewing.Wait()
		deadline.Stop()
	}
	defer func() { // Deferred, so that a panic of fn does not leave the lease to run out.
		stop()
		h.release(ctx)
	}()
	if time.Since(began) >= h.usable() {
		return fmt.Errorf("lock: hold %s: acquired in %s: %w", h.lease.Name, time.Since(began), lost)
	}
	err := fn(held, h.lease)
	ended := time.Now()
	stop()
	cause := context.Cause(held)
	if !errors.Is(cause, ErrFenced) && !ended.Before(h.until) {
		cause = lost // Of a process that was paused, fn may end before the timer has its turn.
	}
	if errors.Is(cause, ErrLost) || errors.Is(cause, ErrFenced) {
		return fmt.Errorf("lock: hold %s at fence %d: %w", h.lease.Name, h.lease.Fence, errors.Join(cause, err))
	}
	return err
}

// usable is how long a lease may be worked under after its acquisition or renewal began.
func (h *holder) usable() time.Duration { return h.cfg.TTL - h.cfg.Margin }

// renew renews until held is done, and ends held when the store says that the lease is over.
func (h *holder) renew(held context.Context, end context.CancelCauseFunc, deadline *time.Timer) {
	due := h.cfg.TTL / 3
	for failures := 0; pause(held, due); {
		began := time.Now()
		ctx, cancel := context.WithTimeout(held, h.cfg.TTL/3)
		l, err := h.leases.Renew(ctx, h.lease, h.cfg.TTL)
		cancel()
		switch {
		case err == nil && l.Fence != h.lease.Fence:
			end(fmt.Errorf("fence rose from %d to %d: %w", h.lease.Fence, l.Fence, ErrFenced))
		case err == nil:
			h.until = began.Add(h.usable())
			deadline.Reset(time.Until(h.until))
			failures, due = 0, h.cfg.TTL/3
		case errors.Is(err, ErrFenced) || errors.Is(err, ErrLost):
			end(err)
		case held.Err() != nil:
		default:
			if failures++; failures == 1 {
				h.log.Warn("lease cannot be renewed, trying again until it is over", "fence", h.lease.Fence, "err", err)
			}
			due = h.cfg.TTL / 15
		}
	}
}

// release lets the next one in at once. It is tried after a loss too: the store may not know of it.
func (h *holder) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.cfg.TTL/3)
	defer cancel()
	if err := h.leases.Release(ctx, h.lease); err != nil {
		h.log.Warn("lease cannot be released; it runs out by itself", "fence", h.lease.Fence, "err", err)
	}
}

// pause reports false when ctx ended it.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
