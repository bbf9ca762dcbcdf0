package settleredis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
)

// Compile-time proof of what a Filter is.
var _ consumer.Filter = (*Filter)(nil)

// FilterConfig says how a filter remembers. The zero FilterConfig is ready to use.
type FilterConfig struct {
	// Prefix begins the name of every key: [A-Za-z0-9._-]. Default "settle".
	Prefix string
	// TTL is how long an event is remembered. Longer is never wrong, nor is shorter. Default 24h.
	TTL time.Duration
}

// Filter remembers in Redis which events are settled; see [consumer.Filter] for what it is good for. It is
// never the truth: whatever is lost, flushed or evicted here is for the inbox to know. One event costs the
// server some 150 bytes for the TTL.
type Filter struct {
	db    redis.UniversalClient
	cfg   FilterConfig
	close func() error
}

// OpenFilter returns a filter with a client of its own, of the same URLs as [Open]. It is an error when the server
// refuses us, and none when it is away. Close it in the end.
func OpenFilter(ctx context.Context, url string, cfg FilterConfig) (*Filter, error) {
	db, err := newClient(url, func(*redis.Options) {})
	if err != nil {
		return nil, err
	}
	f, err := NewFilter(db, cfg)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := db.Ping(ctx).Err(); err != nil {
		if err = openError(redact(url), err); !errors.Is(err, broker.ErrUnavailable) {
			return nil, errors.Join(err, db.Close())
		}
	}
	f.close = db.Close
	return f, nil
}

// Close ends the client of a filter that has its own.
func (f *Filter) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close()
}

// NewFilter returns a filter over a client, which stays the caller's. Give the client short timeouts.
func NewFilter(db redis.UniversalClient, cfg FilterConfig) (*Filter, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "settle"
	}
	if cfg.TTL == 0 {
		cfg.TTL = 24 * time.Hour
	}
	if err := event.CheckName(cfg.Prefix); err != nil {
		return nil, fmt.Errorf("settleredis: filter: prefix: %w", err)
	}
	if cfg.TTL < time.Second {
		return nil, fmt.Errorf("settleredis: filter: ttl %s is below 1s", cfg.TTL)
	}
	return &Filter{db: db, cfg: cfg}, nil
}

func (f *Filter) key(scope string, id event.ID) string {
	return f.cfg.Prefix + ":settled:" + scope + ":" + id.String()
}

// Seen implements [consumer.Filter].
func (f *Filter) Seen(ctx context.Context, scope string, ids []event.ID) ([]bool, error) {
	results, err := f.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, id := range ids {
			p.Exists(ctx, f.key(scope, id))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("settleredis: filter: %w", err)
	}
	seen := make([]bool, len(ids))
	for i, r := range results {
		n, ok := r.(*redis.IntCmd)
		seen[i] = ok && n.Val() == 1
	}
	return seen, nil
}

// Remember implements [consumer.Filter]: SET NX for each, so that one that comes again lives no longer.
func (f *Filter) Remember(ctx context.Context, scope string, ids []event.ID) error {
	_, err := f.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, id := range ids {
			p.SetArgs(ctx, f.key(scope, id), "1", redis.SetArgs{Mode: "NX", TTL: f.cfg.TTL})
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) { // Nil: it was known already.
		return fmt.Errorf("settleredis: filter: %w", err)
	}
	return nil
}
