package relay

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
)

// Named points of the hop, at which a crash test may end the process; see Config.Failpoint.
const (
	PointBeforePublish = "relay.before-publish"
	PointAfterPublish  = "relay.after-publish"
	PointBeforeAdvance = "relay.before-advance"
	PointAfterAdvance  = "relay.after-advance"
)

// Config is what a relay may decide. The zero Config is ready for production.
type Config struct {
	// Shard is the part of the outbox to carry, from 0. Default 0.
	Shard int
	// Owner names this relay in the lease; no two running relays may share it.
	// Default host:pid:random.
	Owner string

	// BatchMax bounds the events of one publish. Default 500.
	BatchMax int
	// InFlight bounds the publish calls that run at the same time. Default 4.
	InFlight int
	// WindowMax bounds the events that are read and not yet settled; up to a quarter of it is
	// read at once. Default 4 x BatchMax x InFlight.
	WindowMax int
	// WindowBytesMax pauses reading while the data of those events exceeds it. Default 64 MiB.
	WindowBytesMax int
	// PublishTimeout bounds one publish call; after it the broker counts as unavailable. Default 10s.
	PublishTimeout time.Duration

	// LeaseTTL is how long the shard stays ours without renewal, and so how long it rests after a crash.
	// It is renewed every third of it; local work ends a fifth before its end. Default 15s.
	LeaseTTL time.Duration
	// AdvanceEvery is how long a settled position may wait to be persisted. Longer costs fewer writes
	// and more repetitions after a crash. Default 50ms.
	AdvanceEvery time.Duration
	// PollMin and PollMax bound the wait between two looks at an outbox that had nothing new; it doubles
	// from one to the other. A doorbell ends it. Default 5ms and 1s.
	PollMin time.Duration
	PollMax time.Duration
	// RetryMin and RetryMax bound the wait between attempts to reach a broker or a source, without end
	// and with jitter. Default 100ms and 10s.
	RetryMin time.Duration
	RetryMax time.Duration
	// MarkEvery is how often a broker that can lose its tail is looked at. Default 1s.
	MarkEvery time.Duration
	// ReplayEvery is how often parked keys are looked at for an operator's replay. Default 1s.
	ReplayEvery time.Duration
	// Retention is how long a settled event is kept. It must exceed what a broker can lose at a crash,
	// twice its sync interval at least. Default 24h. See NoPurge.
	Retention time.Duration
	// NoPurge keeps settled events for ever, or leaves it to someone else to delete them.
	NoPurge bool
	// DrainTimeout bounds the end of work in flight after Run's context is done. Default 20s.
	DrainTimeout time.Duration

	// Logger receives life cycle, outages and parked keys. Default slog.Default().
	Logger *slog.Logger
	// Hooks observe the relay.
	Hooks Hooks
	// Failpoint is called at the named points of the hop, for crash tests. Nil in production.
	Failpoint func(name string)
}

// Hooks are called for metrics and traces, from the relay's goroutines: they must not block.
type Hooks struct {
	// Claimed is called when the relay has become the owner of its shard.
	Claimed func(Lease)
	// Lost is called when it no longer is, against its will.
	Lost func(Lease, error)
	// Published is called after each publish call with the number of events acknowledged, the time since
	// the oldest of them was committed, and how long the call took.
	Published func(events int, age, took time.Duration)
	// Advanced is called when a settled position was persisted.
	Advanced func(outbox.Position)
	// Parked is called for each event parked, whether it was refused itself or follows one that was.
	Parked func(record outbox.Record, cause string)
	// Replayed is called for each parked event that was published after all.
	Replayed func(outbox.Record)
	// Outage is called with true when the broker becomes unavailable, and with false when it is back.
	Outage func(down bool, err error)
	// Rewound is called when events are to be published again because the broker lost them.
	Rewound func(from, to outbox.Position)
	// Purged is called with the number of events that retention deleted.
	Purged func(events int)
}

func (c Config) withDefaults() (Config, error) {
	setDefault(&c.BatchMax, 500)
	setDefault(&c.InFlight, 4)
	setDefault(&c.WindowMax, 4*c.BatchMax*c.InFlight)
	setDefault(&c.WindowBytesMax, 64<<20)
	setDefault(&c.PublishTimeout, 10*time.Second)
	setDefault(&c.LeaseTTL, 15*time.Second)
	setDefault(&c.AdvanceEvery, 50*time.Millisecond)
	setDefault(&c.PollMin, 5*time.Millisecond)
	setDefault(&c.PollMax, max(time.Second, c.PollMin))
	setDefault(&c.RetryMin, 100*time.Millisecond)
	setDefault(&c.RetryMax, max(10*time.Second, c.RetryMin))
	setDefault(&c.MarkEvery, time.Second)
	setDefault(&c.ReplayEvery, time.Second)
	setDefault(&c.Retention, 24*time.Hour)
	setDefault(&c.DrainTimeout, max(20*time.Second, 2*c.PublishTimeout))
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Owner == "" {
		c.Owner = defaultOwner()
	}
	return c, c.check()
}

func (c Config) check() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"batch", int64(c.BatchMax)},
		{"calls in flight", int64(c.InFlight)},
		{"window bytes", int64(c.WindowBytesMax)},
		{"publish timeout", int64(c.PublishTimeout)},
		{"lease", int64(c.LeaseTTL)},
		{"advance interval", int64(c.AdvanceEvery)},
		{"shortest poll", int64(c.PollMin)},
		{"shortest retry", int64(c.RetryMin)},
		{"mark interval", int64(c.MarkEvery)},
		{"replay interval", int64(c.ReplayEvery)},
	} {
		if f.value < 0 {
			return fmt.Errorf("relay: %s %d is negative", f.name, f.value)
		}
	}
	switch {
	case c.Shard < 0:
		return fmt.Errorf("relay: shard %d is negative", c.Shard)
	case c.BatchMax > broker.PublishMax:
		return fmt.Errorf("relay: batch %d exceeds the %d messages of one publish", c.BatchMax, broker.PublishMax)
	case c.WindowMax < c.BatchMax:
		return fmt.Errorf("relay: window %d is smaller than batch %d", c.WindowMax, c.BatchMax)
	case c.LeaseTTL <= c.PublishTimeout:
		return fmt.Errorf("relay: lease %s must exceed publish timeout %s", c.LeaseTTL, c.PublishTimeout)
	case c.DrainTimeout < c.PublishTimeout:
		return fmt.Errorf("relay: drain timeout %s is shorter than publish timeout %s", c.DrainTimeout, c.PublishTimeout)
	case c.AdvanceEvery >= c.LeaseTTL:
		return fmt.Errorf("relay: advance interval %s must be shorter than lease %s", c.AdvanceEvery, c.LeaseTTL)
	case c.PollMax < c.PollMin:
		return fmt.Errorf("relay: longest poll %s is shorter than shortest poll %s", c.PollMax, c.PollMin)
	case c.RetryMax < c.RetryMin:
		return fmt.Errorf("relay: longest retry %s is shorter than shortest retry %s", c.RetryMax, c.RetryMin)
	case c.Retention < 2*c.MarkEvery:
		return fmt.Errorf("relay: retention %s must be at least twice the mark interval %s", c.Retention, c.MarkEvery)
	}
	return nil
}

// readMax bounds the events of one read. A read is a round trip, so it fills several publish calls; with a
// quarter of the window a page is read while others are on their way.
func (c Config) readMax() int { return max(c.BatchMax, c.WindowMax/4) }

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func defaultOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown" // The random part is what tells owners apart; the rest is for people.
	}
	var b [6]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails since Go 1.24.
	return fmt.Sprintf("%s:%d:%s", host, os.Getpid(), hex.EncodeToString(b[:]))
}
