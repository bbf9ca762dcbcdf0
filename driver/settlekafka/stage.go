package settlekafka

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

const (
	stageRetryShortest = 100 * time.Millisecond
	stageRetryLongest  = 10 * time.Second
)

// StageConfig says what a stage reads, and how. Group and Topics are required.
type StageConfig struct {
	// Config is that of the connection. Its TransactionalID names this instance of the stage: with the
	// same one after a crash, what was open is aborted at once; without, after its TransactionTimeout.
	// Default a random one.
	Config

	// Group names the stages that share the work. Required.
	Group string
	// Topics are the logs to read. Required.
	Topics []string
	// BatchMax bounds the messages of one transaction, up to broker.FetchMax. Default 500.
	BatchMax int
}

// Transform returns what a stage publishes for what it has read, which it may be called with again: after
// an abort, and for another member. Its error aborts the transaction; the stage waits and begins again
// with the same messages. A message that is no event has its Err set, and is for the transform to handle.
type Transform func(ctx context.Context, in []broker.Message) ([]broker.Message, error)

// Stage reads topics and publishes to topics of the same cluster, exactly once: what a transform returns,
// and how far it has read, are one Kafka transaction. A rebalance aborts it, and the new owner begins
// where the last one committed.
//
// A stage cannot include a database. Whatever else its transform does may happen again; where there are
// rows to write, use package consumer and an outbox.
type Stage struct {
	broker  *Broker
	cfg     StageConfig
	fn      Transform
	session *kgo.GroupTransactSession
	topics  map[string]known
	lost    bool // the next session begins where the log does
	ran     atomic.Bool
}

// NewStage returns a stage of the cluster at url; see [Open] for its form. Nothing happens before Run.
func NewStage(url string, cfg StageConfig, fn Transform) (*Stage, error) {
	var err error
	if cfg.TransactionalID == "" {
		cfg.TransactionalID = cfg.Group + "." + rand.Text()
	}
	if cfg.Config, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	if cfg.BatchMax == 0 {
		cfg.BatchMax = 500
	}
	if err := event.CheckName(cfg.Group); err != nil {
		return nil, fmt.Errorf("settlekafka: stage: group: %w", err)
	}
	switch {
	case fn == nil:
		return nil, errors.New("settlekafka: stage: no transform")
	case len(cfg.Topics) == 0:
		return nil, errors.New("settlekafka: stage: no topics")
	case cfg.BatchMax < 1 || cfg.BatchMax > broker.FetchMax:
		return nil, fmt.Errorf("settlekafka: stage: batch of %d messages: 1 to %d allowed", cfg.BatchMax, broker.FetchMax)
	}
	where, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("settlekafka: stage: %w", err)
	}
	return &Stage{cfg: cfg, fn: fn, broker: newBroker(cfg.Config, where)}, nil
}

// Run reads, transforms and publishes until ctx is done, then leaves the group and returns nil. It
// waits for a cluster that is away; what it returns needs a person: credentials, a missing topic, or a
// transform's message that the cluster rejects (a *broker.RejectedError). Call it once.
func (s *Stage) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return errors.New("settlekafka: stage: run was called before")
	}
	b := s.broker
	if err := b.connect(); err != nil {
		return fmt.Errorf("settlekafka: stage: %w", err)
	}
	defer b.cl.Close()
	for failures := 0; ctx.Err() == nil; {
		committed, err := s.serve(ctx)
		if committed {
			failures = 0
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if _, rejected := errors.AsType[*broker.RejectedError](err); rejected || isCredentials(err) {
			return fmt.Errorf("settlekafka: stage %s: %w", s.cfg.Group, err)
		}
		failures++
		wait := min(stageRetryShortest<<min(failures-1, 10), stageRetryLongest)
		s.cfg.Logger.Warn("stage begins again", "group", s.cfg.Group, "attempt", failures, "wait", wait, "err", err)
		_ = pause(ctx, wait)
	}
	return nil
}

// serve works with one session until something fails, and reports whether it committed anything.
func (s *Stage) serve(ctx context.Context) (committed bool, err error) {
	if err := s.join(ctx); err != nil {
		return false, err
	}
	// Leaving the group must not wait for a cluster that is away.
	defer s.session.CloseAllowingRebalance()
	for ctx.Err() == nil {
		ok, err := s.turn(ctx)
		committed = committed || ok
		if err != nil {
			return committed, err
		}
	}
	return committed, nil
}

func (s *Stage) join(ctx context.Context) error {
	b := s.broker
	s.topics = map[string]known{}
	names := make([]string, 0, len(s.cfg.Topics))
	for _, name := range s.cfg.Topics {
		b.forget(name)
		t, err := b.topic(ctx, name)
		if err != nil {
			return fmt.Errorf("topic %s: %w", name, err)
		}
		s.topics[t.name] = known{name, t.incarnation}
		names = append(names, t.name)
	}
	options, err := b.common()
	if err != nil {
		return err
	}
	reset := kgo.NoResetOffset()
	if s.lost {
		reset, s.lost = kgo.NewOffset().AtStart(), false
	}
	options = append(options, b.producing()...)
	options = append(
		options,
		kgo.ConsumerGroup(s.cfg.groupName(s.cfg.Group)),
		kgo.ConsumeTopics(names...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(max(s.cfg.SessionTimeout/10, 100*time.Millisecond)),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(reset),
		kgo.FetchMaxWait(s.cfg.Wait),
		kgo.FetchMaxBytes(fetchBytesMax),
		kgo.TransactionalID(s.cfg.Prefix+s.cfg.TransactionalID),
		kgo.TransactionTimeout(s.cfg.TransactionTimeout),
	)
	if s.cfg.InstanceID != "" {
		options = append(options, kgo.InstanceID(s.cfg.InstanceID))
	}
	s.session, err = kgo.NewGroupTransactSession(append(options, s.cfg.Options...)...)
	return err
}

// turn is one transaction. An error ends the session: its successor fences off whatever this one still has
// on its way, and begins at the offsets that were committed.
func (s *Stage) turn(ctx context.Context) (committed bool, err error) {
	poll, cancel := context.WithTimeout(ctx, fetchWaitMax)
	defer cancel()
	fetches := s.session.PollRecords(poll, s.cfg.BatchMax)
	if err := s.examine(fetches); err != nil || fetches.NumRecords() == 0 {
		return false, err
	}
	in := make([]broker.Message, 0, fetches.NumRecords())
	fetches.EachRecord(func(r *kgo.Record) {
		t := s.topics[r.Topic]
		in = append(in, decode(t.name, t.incarnation, r))
	})
	if err := s.session.Begin(); err != nil {
		return false, err
	}
	err = s.produce(ctx, in)
	// Cut short, the end of a transaction would leave its outcome open.
	end, done := context.WithTimeout(context.WithoutCancel(ctx), 2*s.cfg.AckWait)
	defer done()
	committed, failed := s.session.End(end, kgo.TransactionEndTry(err == nil))
	if err == nil {
		err = failed
	}
	return committed, err
}

// examine returns an error of the poll that its client does not mend by itself.
func (s *Stage) examine(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		switch {
		case errors.Is(e.Err, context.Canceled), errors.Is(e.Err, context.DeadlineExceeded):
		case errors.Is(e.Err, kerr.OffsetOutOfRange):
			s.lost = true
			s.cfg.Logger.Error("the broker no longer keeps the stage's position, events may be missing: reading all that it keeps",
				"group", s.cfg.Group, "partition", partitionName(s.topics[e.Topic].name, e.Partition), "err", e.Err)
			return fmt.Errorf("%w: %w", broker.ErrPositionLost, e.Err)
		case isRefused(e.Err), isGone(e.Err), errors.Is(e.Err, kgo.ErrClientClosed):
			return e.Err
		case kerr.IsRetriable(e.Err):
		default:
			s.cfg.Logger.Warn("stage has trouble reading", "group", s.cfg.Group, "err", e.Err)
		}
	}
	return nil
}

// produce transforms messages and puts the outcome into the open transaction.
func (s *Stage) produce(ctx context.Context, in []broker.Message) error {
	out, err := s.fn(ctx, in)
	if err != nil || len(out) == 0 {
		return err
	}
	c := newCall(len(out))
	s.broker.encode(ctx, c, out)
	if err := errors.Join(c.errs...); err != nil {
		return err
	}
	c.send(ctx, s.session.Client())
	if err := c.wait(ctx, s.cfg.AckWait); err != nil {
		return err // Ending the transaction fails what is left.
	}
	for i, err := range c.results {
		switch {
		case err == nil:
		case isForbidden(err):
			return s.broker.result(c.names[i], err, nil)
		default:
			return fmt.Errorf("publish to %s: %w", c.names[i], err)
		}
	}
	return nil
}
