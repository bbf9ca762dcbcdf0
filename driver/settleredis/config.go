package settleredis

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/event"
)

const (
	// headerRoom is what attributes may need beside the largest data.
	headerRoom = 64 << 10
	// waitMax bounds Config.Wait: a fetch that waits for long hides a server that went silent.
	waitMax = 5 * time.Second
	// leaseShortest is the shortest lease that can be renewed in time.
	leaseShortest = 300 * time.Millisecond
)

// Config says how events are carried. The zero Config is ready to use.
type Config struct {
	// Prefix begins the name of every key and channel: [A-Za-z0-9._-]. Default "settle".
	Prefix string
	// Partitions of a topic that is new; one that exists keeps the number it was created with.
	// Default 8.
	Partitions int
	// Retention is how long a message is kept at least. One that a group has not acknowledged is kept
	// for longer: see Forget. Default 72h.
	Retention time.Duration
	// TrimEvery is how often messages past their retention are dropped. Default 1m.
	TrimEvery time.Duration
	// BytesMax is the largest message, data and attributes. Default 1 MiB and 64 KiB.
	BytesMax int

	// Wait is how long a Fetch waits for the first message: at most 5s. Default 250ms.
	Wait time.Duration
	// Lease is how long a partition stays with a member that gives no sign of life. Default 10s.
	Lease time.Duration
	// Timeout bounds each command. Default 5s.
	Timeout time.Duration

	// Options changes the client's options before it connects: TLS roots, pools, credentials from
	// elsewhere. Default none.
	Options func(o *redis.Options)
	// Logger takes what the connection and the group have to say. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field *time.Duration
		name  string
		value time.Duration
	}{
		{&c.Retention, "retention", 72 * time.Hour},
		{&c.TrimEvery, "trim every", time.Minute},
		{&c.Wait, "wait", 250 * time.Millisecond},
		{&c.Lease, "lease", 10 * time.Second},
		{&c.Timeout, "timeout", 5 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < time.Millisecond {
			return c, fmt.Errorf("settleredis: %s %s is below 1ms", d.name, *d.field)
		}
	}
	if c.Prefix == "" {
		c.Prefix = "settle"
	}
	if c.Partitions == 0 {
		c.Partitions = 8
	}
	if c.BytesMax == 0 {
		c.BytesMax = event.DataBytesMax + headerRoom
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, c.check()
}

func (c Config) check() error {
	if err := event.CheckName(c.Prefix); err != nil {
		return fmt.Errorf("settleredis: prefix: %w", err)
	}
	switch {
	case c.Partitions < 1 || c.Partitions > partitionsMax:
		return fmt.Errorf("settleredis: %d partitions: 1 to %d allowed", c.Partitions, partitionsMax)
	case c.BytesMax < 1:
		return errors.New("settleredis: bytes max is negative")
	case c.Wait > waitMax:
		return fmt.Errorf("settleredis: wait %s exceeds %s", c.Wait, waitMax)
	case c.Lease < leaseShortest:
		return fmt.Errorf("settleredis: lease %s is below %s", c.Lease, leaseShortest)
	}
	return nil
}
