package settleredis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/lock"
)

// Compile-time proof of what Hints are.
var _ lock.Hints = (*Hints)(nil)

// HintsConfig says where hints are kept. The zero HintsConfig is ready to use.
type HintsConfig struct {
	// Prefix begins the name of every key: [A-Za-z0-9._-]. Default "settle".
	Prefix string
}

// Hints saves work and makes nothing safe: see [lock.Hints]. Two may go ahead at once, after a failover, a
// restart that lost the last second, or a pause longer than the time to live. For safety there is
// [lock.Leases].
type Hints struct {
	db           redis.UniversalClient
	prefix       string
	drop, extend *redis.Script
}

// NewHints returns a keeper of hints over a client, which stays the caller's.
func NewHints(db redis.UniversalClient, cfg HintsConfig) (*Hints, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "settle"
	}
	if err := event.CheckName(cfg.Prefix); err != nil {
		return nil, fmt.Errorf("settleredis: hints: prefix: %w", err)
	}
	return &Hints{
		db: db, prefix: cfg.Prefix + ":hint:", drop: redis.NewScript(dropSource), extend: redis.NewScript(extendSource),
	}, nil
}

// TryOnce implements [lock.Hints].
func (h *Hints) TryOnce(ctx context.Context, name string, ttl time.Duration) (lock.Hint, bool, error) {
	if err := lock.CheckHint(name, ttl); err != nil {
		return lock.Hint{}, false, fmt.Errorf("settleredis: hint: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return lock.Hint{}, false, err
	}
	hint := lock.Hint{Name: name, Token: rand.Text()}
	err := h.db.SetArgs(ctx, h.prefix+name, hint.Token, redis.SetArgs{Mode: "NX", TTL: ttl}).Err()
	switch {
	case errors.Is(err, redis.Nil):
		return lock.Hint{}, false, nil
	case err != nil:
		return lock.Hint{}, false, fmt.Errorf("settleredis: hint %s: %w", name, err)
	}
	return hint, true, nil
}

// Drop implements [lock.Hints].
func (h *Hints) Drop(ctx context.Context, hint lock.Hint) error {
	if err := h.drop.Run(ctx, h.db, []string{h.prefix + hint.Name}, hint.Token).Err(); err != nil {
		return fmt.Errorf("settleredis: drop hint %s: %w", hint.Name, err)
	}
	return nil
}

// Extend lets a hint last ttl from now. It reports false when the hint is over, or another's by now.
func (h *Hints) Extend(ctx context.Context, hint lock.Hint, ttl time.Duration) (bool, error) {
	if err := lock.CheckHint(hint.Name, ttl); err != nil {
		return false, fmt.Errorf("settleredis: hint: %w", err)
	}
	n, err := h.extend.Run(ctx, h.db, []string{h.prefix + hint.Name}, hint.Token, ttl.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("settleredis: extend hint %s: %w", hint.Name, err)
	}
	return n == 1, nil
}
