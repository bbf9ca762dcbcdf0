package settleredis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/event"
)

const (
	// cacheBytesMax bounds one value of a cache.
	cacheBytesMax = 8 << 20
	versionDigits = 20
	// What stands after the version: a value, or that there is none.
	kindValue = 'v'
	kindGone  = 'x'
)

// CacheConfig says how a cache keeps values. The zero CacheConfig is ready to use.
type CacheConfig struct {
	// Prefix begins the name of every key: [A-Za-z0-9._-]. Default "settle".
	Prefix string
	// TTL is how long a value is kept, and so how old a stale one can get. Default 10m.
	TTL time.Duration
	// Logger takes the begin of an outage. Default slog.Default().
	Logger *slog.Logger
}

// Cache keeps copies of rows of read models. A copy has its row's version, and an older one never takes
// the place of a newer one while that is kept: a reader that was slow cannot undo a projection. An outage
// is a miss.
//
// It does not make reads current: a copy is stale from the commit of its row until Put or the TTL. A copy
// that has run out is forgotten with its version, so an older one put after that stays for one TTL.
type Cache struct {
	db   redis.UniversalClient
	cfg  CacheConfig
	put  *redis.Script
	down atomic.Bool
}

// NewCache returns a cache over a client, which stays the caller's. Give the client short timeouts.
func NewCache(db redis.UniversalClient, cfg CacheConfig) (*Cache, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "settle"
	}
	if cfg.TTL == 0 {
		cfg.TTL = 10 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := event.CheckName(cfg.Prefix); err != nil {
		return nil, fmt.Errorf("settleredis: cache: prefix: %w", err)
	}
	if cfg.TTL < time.Millisecond {
		return nil, fmt.Errorf("settleredis: cache: ttl %s is below 1ms", cfg.TTL)
	}
	return &Cache{db: db, cfg: cfg, put: redis.NewScript(putSource)}, nil
}

func (c *Cache) key(name string) string { return c.cfg.Prefix + ":cache:" + name }

// Get returns a copy and its version. It reports false on a miss, and when Redis does not answer.
func (c *Cache) Get(ctx context.Context, name string) (value []byte, version uint64, ok bool) {
	stored, err := c.db.Get(ctx, c.key(name)).Bytes()
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	c.answered(err)
	if err != nil || len(stored) <= versionDigits || stored[versionDigits] != kindValue {
		return nil, 0, false
	}
	version, err = strconv.ParseUint(string(stored[:versionDigits]), 10, 64)
	if err != nil {
		return nil, 0, false
	}
	return stored[versionDigits+1:], version, true
}

// Put keeps a copy, unless one of a newer version is there. Its error costs a later miss or a stale read
// within the TTL: log it and go on.
func (c *Cache) Put(ctx context.Context, name string, version uint64, value []byte) error {
	if len(value) > cacheBytesMax {
		return fmt.Errorf("settleredis: cache: put %s: value of %d bytes exceeds %d", name, len(value), cacheBytesMax)
	}
	return c.store(ctx, name, version, kindValue, value)
}

// Delete makes a name a miss, also for copies of version or older that are put later. Version is that of
// the row's deletion.
func (c *Cache) Delete(ctx context.Context, name string, version uint64) error {
	return c.store(ctx, name, version, kindGone, nil)
}

func (c *Cache) store(ctx context.Context, name string, version uint64, kind byte, value []byte) error {
	content := append([]byte{kind}, value...)
	err := c.put.Run(ctx, c.db, []string{c.key(name)},
		fmt.Sprintf("%0*d", versionDigits, version), content, c.cfg.TTL.Milliseconds()).Err()
	c.answered(err)
	if err != nil {
		return fmt.Errorf("settleredis: cache: store %s: %w", name, err)
	}
	return nil
}

// Load returns a copy, or what load returns, which is put for the next reader. load gives the version
// that it has read together with the value.
func (c *Cache) Load(
	ctx context.Context, name string, load func(ctx context.Context) (value []byte, version uint64, err error),
) ([]byte, error) {
	if value, _, ok := c.Get(ctx, name); ok {
		return value, nil
	}
	value, version, err := load(ctx)
	if err == nil && len(value) <= cacheBytesMax {
		_ = c.Put(ctx, name, version, value) // The value is right with or without it.
	}
	return value, err
}

// answered logs the begin of an outage.
func (c *Cache) answered(err error) {
	if errors.Is(err, context.Canceled) {
		return // The caller's, and says nothing about the server.
	}
	if was := c.down.Swap(err != nil); err != nil && !was {
		c.cfg.Logger.Warn("cache does not answer, reads go to the database", "err", err)
	}
}
