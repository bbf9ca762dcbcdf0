package settlerabbit

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

const (
	// headerRoom is what attributes may need beside the largest data.
	headerRoom = 64 << 10
	// partitionsMax bounds the partitions of one topic.
	partitionsMax = 256
	// prefetch is how many messages of a partition may be under way to its owner or in its hands. Every owner
	// must have the same: what one gives back stands in the queue before all else, and if the next one
	// cannot take all of it at once, and gives back what it took, that stands behind the rest. So this is no
	// setting, and another number needs other queues.
	prefetch = 1000
	// waitMax bounds Config.Wait: a fetch that waits for long hides a server that went silent.
	waitMax = 5 * time.Second
)

// Config says how events are carried. The zero Config is ready to use.
type Config struct {
	// Prefix begins the name of every exchange and queue: [A-Za-z0-9._-]. Default "settle".
	Prefix string
	// Partitions of every topic. All processes must agree; a topic that has another number is refused.
	// Default 4.
	Partitions int
	// Groups are declared with their topics before anything is published to these. Default none.
	Groups []broker.Subscription
	// MaxAge is how long an event is kept that no group is bound for. Default 72h.
	MaxAge time.Duration
	// DeliveryLimit is how often a message may come back unacknowledged before it goes to the .DLQ. Each
	// owner that dies sends back all that it had fetched. Default 1000.
	DeliveryLimit int
	// BytesMax is the largest data of an event. Default 1 MiB and 64 KiB.
	BytesMax int

	// AckWait is how long Publish waits for confirms, and how long the server may take to answer anything
	// else. Default 5s.
	AckWait time.Duration
	// Wait is how long a Fetch waits for the first message: at most 5s. Default 250ms.
	Wait time.Duration
	// CheckEvery is how often a member looks how many there are. Default 1s.
	CheckEvery time.Duration
	// Heartbeat is how often each side gives a sign of life. An owner that goes silent loses its partitions
	// after about two of them. Default 5s.
	Heartbeat time.Duration

	// TLS is used with amqps URLs. Default the system's roots.
	TLS *tls.Config
	// Logger takes what the connections and the groups have to say. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field *time.Duration
		name  string
		value time.Duration
	}{
		{&c.MaxAge, "max age", 72 * time.Hour},
		{&c.AckWait, "ack wait", 5 * time.Second},
		{&c.Wait, "wait", 250 * time.Millisecond},
		{&c.CheckEvery, "check every", time.Second},
		{&c.Heartbeat, "heartbeat", 5 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return c, fmt.Errorf("settlerabbit: %s %s is negative", d.name, *d.field)
		}
	}
	for _, n := range []struct {
		field *int
		name  string
		value int
		most  int
	}{
		{&c.Partitions, "partitions", 4, partitionsMax},
		{&c.DeliveryLimit, "delivery limit", 1000, 1 << 20},
		{&c.BytesMax, "bytes max", event.DataBytesMax + headerRoom, 128 << 20},
	} {
		if *n.field == 0 {
			*n.field = n.value
		}
		if *n.field < 1 || *n.field > n.most {
			return c, fmt.Errorf("settlerabbit: %s %d: 1 to %d allowed", n.name, *n.field, n.most)
		}
	}
	if c.Prefix == "" {
		c.Prefix = "settle"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, c.check()
}

func (c Config) check() error {
	if err := event.CheckName(c.Prefix); err != nil {
		return fmt.Errorf("settlerabbit: prefix: %w", err)
	}
	switch {
	case strings.HasPrefix(c.Prefix, "amq."):
		return fmt.Errorf("settlerabbit: prefix %q is the server's own", c.Prefix)
	case c.Wait > waitMax:
		return fmt.Errorf("settlerabbit: wait %s exceeds %s", c.Wait, waitMax)
	case c.Heartbeat < time.Second:
		return fmt.Errorf("settlerabbit: heartbeat %s is below 1s", c.Heartbeat)
	}
	for _, s := range c.Groups {
		if err := c.checkSubscription(s); err != nil {
			return fmt.Errorf("settlerabbit: groups: %w", err)
		}
	}
	return nil
}

func (c *Config) checkSubscription(s broker.Subscription) error {
	if err := event.CheckName(s.Group); err != nil {
		return fmt.Errorf("group: %w", err)
	}
	for _, t := range s.Topics {
		if err := event.CheckName(t); err != nil {
			return fmt.Errorf("topic of %s: %w", s.Group, err)
		}
		if name := c.deadQueue(s.Group, t, c.Partitions-1); len(name) > nameBytesMax {
			return fmt.Errorf("queue %s has a name of %d bytes, %d allowed", name, len(name), nameBytesMax)
		}
	}
	return nil
}
