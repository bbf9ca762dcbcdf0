package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

// Handler handles one event in the transaction of its batch. Its error is its outcome: see package
// retry. ctx carries the event's cause, so that events which the handler adds inherit it. A handler may
// be called again for the same event after a rollback, and must touch nothing but the transaction.
type Handler func(ctx context.Context, tx *txn.Tx, e event.Envelope) error

// Mode says what a repetition or a loss may do; see the package's documentation for the costs.
type Mode int

// The modes of a consumer.
const (
	ExactlyOnce Mode = iota
	AtLeastOnce
	AtMostOnce
)

// String returns the mode's name.
func (m Mode) String() string {
	switch m {
	case ExactlyOnce:
		return "exactly-once"
	case AtLeastOnce:
		return "at-least-once"
	case AtMostOnce:
		return "at-most-once"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// Config is what a consumer may decide. Group and Topics are required.
type Config struct {
	// Group names the consumers that share the work, 1 to 128 bytes of [A-Za-z0-9._-]. Required.
	Group string
	// Topics are the logs to read. Required.
	Topics []string
	// Handlers are by event type. An event of another type costs no row: its position moves.
	Handlers map[string]Handler
	// Known are all event types of the system. An event whose type is neither here nor in Handlers is
	// parked as DEAD, so that it isn't lost to a missing deployment. Default: others are ignored.
	Known []string
	// Prepare is called in the transaction of a batch before its events are handled. A group whose batches want
	// the same rows locks all of them here, in one order: two batches that lock them event by event deadlock.
	// Its error is none of the events'. Default none.
	Prepare func(ctx context.Context, tx *txn.Tx, events []event.Envelope) error
	// Mode is the guarantee. Default ExactlyOnce.
	Mode Mode
	// BatchMax bounds the events of one transaction, up to broker.FetchMax. Default 100.
	BatchMax int
	// InFlight bounds the partitions whose batches are handled at the same time, and the parked letters
	// that are tried at the same time. Default 16.
	InFlight int
	// Retry is the policy of a parked event whose handler fails. Default: 1s x2 up to 60s, 5m in all.
	Retry retry.Policy
	// LettersMax bounds the group's letters. A partition that would have to park one more pauses and
	// logs an error: a systemic failure must not drain a topic into a table. Default 10000.
	LettersMax int

	// InboxRetention is how long a handled event is remembered. Groups of one store share its inbox: give
	// all the same. New refuses one shorter than the sum of the next three and Retry.TotalMax, which is
	// how long an event may come back. Default 168h.
	InboxRetention time.Duration
	// RelayRewind is how far relays may go back. Default 24h.
	RelayRewind time.Duration
	// BrokerRetention is how long the broker keeps messages. Default 72h.
	BrokerRetention time.Duration
	// DeadLetterRetention is how long an operator may take to decide about a dead letter; one that lies
	// longer is kept, and remembers its event by itself. Default 48h.
	DeadLetterRetention time.Duration
	// PurgeEvery is the pause between purges of the inbox. Default 1m.
	PurgeEvery time.Duration
	// Filter passes over events that are known to be settled before the inbox is asked; it is never the
	// truth. ExactlyOnce only. Default none.
	Filter Filter

	// Transient tells errors of a handler that are really those of the store or of the connection: the
	// partition pauses, nothing is parked or counted. Asked beside the store, see Classifier. Default: none
	// are.
	Transient func(error) bool
	// DrainTimeout bounds the end of work in flight after Run's context is done. Default 30s.
	DrainTimeout time.Duration
	// Logger receives life cycle, retries and what a person must mend. Default slog.Default().
	Logger *slog.Logger
	// Hooks are called for metrics and traces. Default none.
	Hooks Hooks
	// Failpoint is called at "consumer.before-commit", "consumer.after-commit" and "consumer.after-ack",
	// for crash tests. Default none.
	Failpoint func(name string)
}

// Hooks are called by the goroutine that did the work, after the commit where there is one; they must
// not block. Slices are valid during the call.
type Hooks struct {
	// Handled has the events whose effect became durable at a time. Their age is at.Sub(OccurredAt).
	Handled func(events []event.Envelope, at time.Time)
	// Duplicate has an event that the inbox knew: it had no effect.
	Duplicate func(e event.Envelope)
	// Retried has a parked letter whose handler failed again.
	Retried func(l deadletter.Letter, err error)
	// Parked has a letter that was parked: RETRYING or DEAD when it failed, WAITING when it follows one.
	Parked func(l deadletter.Letter)
	// Dead has a letter that was given up: a person decides.
	Dead func(l deadletter.Letter)
	// Lost has an event whose handler failed in AtMostOnce.
	Lost func(e event.Envelope, err error)
	// Paused tells that a partition waits because of the engine's own error, not of an event's.
	Paused func(partition string, err error, wait time.Duration)
	// Assigned and Dropped tell of a partition's begin and end.
	Assigned func(partition string)
	Dropped  func(partition string, err error)
}

const (
	// positionEvery and positionMax bound how far a position that only passed unhandled events may be
	// ahead of the stored one: repeating them costs nothing but their transfer.
	positionEvery = time.Second
	positionMax   = 10_000

	backoffShortest = 100 * time.Millisecond
	backoffLongest  = 10 * time.Second
	purgeMax        = 1000
	retryPoll       = time.Second
	lagEvery        = 250 * time.Millisecond
	sweepEvery      = 10 * time.Second
	// blameAfter is how often a single event's transaction may fail outside of its handler, while the
	// store takes other writes, before the event is blamed: a statement that was queued fails there.
	blameAfter = 3
)

func (cfg Config) withDefaults() (Config, error) {
	fill(&cfg.BatchMax, 100)
	fill(&cfg.InFlight, 16)
	fill(&cfg.LettersMax, 10_000)
	fill(&cfg.InboxRetention, 7*24*time.Hour)
	fill(&cfg.RelayRewind, 24*time.Hour)
	fill(&cfg.BrokerRetention, 72*time.Hour)
	fill(&cfg.DeadLetterRetention, 48*time.Hour)
	fill(&cfg.PurgeEvery, time.Minute)
	fill(&cfg.DrainTimeout, 30*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Logger = cfg.Logger.With("group", cfg.Group)
	if cfg.Failpoint == nil {
		cfg.Failpoint = func(string) {}
	}
	var err error
	if cfg.Retry, err = cfg.Retry.WithDefaults(); err != nil {
		return cfg, err
	}
	return cfg, cfg.check()
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (cfg *Config) check() error {
	if err := event.CheckName(cfg.Group); err != nil {
		return fmt.Errorf("group: %w", err)
	}
	if len(cfg.Topics) == 0 {
		return errors.New("no topics")
	}
	for _, t := range cfg.Topics {
		if err := event.CheckName(t); err != nil {
			return fmt.Errorf("topic: %w", err)
		}
	}
	for name, h := range cfg.Handlers {
		if h == nil {
			return fmt.Errorf("handler of %s is nil", name)
		}
	}
	switch {
	case cfg.Mode < ExactlyOnce || cfg.Mode > AtMostOnce:
		return fmt.Errorf("unknown mode %d", int(cfg.Mode))
	case cfg.BatchMax < 1 || cfg.BatchMax > broker.FetchMax:
		return fmt.Errorf("batch of %d events, 1 to %d allowed", cfg.BatchMax, broker.FetchMax)
	case cfg.InFlight < 1:
		return fmt.Errorf("%d batches in flight, at least 1 needed", cfg.InFlight)
	case cfg.LettersMax < 1:
		return fmt.Errorf("%d letters at most, at least 1 needed", cfg.LettersMax)
	case min(cfg.InboxRetention, cfg.RelayRewind, cfg.BrokerRetention, cfg.DeadLetterRetention) < 0,
		min(cfg.PurgeEvery, cfg.DrainTimeout) < 0:
		return errors.New("negative duration")
	}
	if cfg.Mode != ExactlyOnce && cfg.Filter != nil {
		return fmt.Errorf("a filter stands in front of an inbox, mode %s has none", cfg.Mode)
	}
	if cfg.Mode != ExactlyOnce {
		return nil // Nothing is remembered, so nothing can be forgotten too early.
	}
	need := cfg.RelayRewind + cfg.BrokerRetention + cfg.Retry.TotalMax + cfg.DeadLetterRetention
	if cfg.InboxRetention < need {
		return fmt.Errorf("inbox retention %s must reach %s: relay rewind %s + broker retention %s + retries %s + dead letters %s: %w",
			cfg.InboxRetention, need, cfg.RelayRewind, cfg.BrokerRetention, cfg.Retry.TotalMax, cfg.DeadLetterRetention, ErrRetention)
	}
	return nil
}
