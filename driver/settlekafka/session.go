package settlekafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/settledev/settle/broker"
)

const (
	// commitEvery is how often positions are told to the group, for those who look at its lag.
	commitEvery = time.Second
	// idleEvery is how often a member without partitions asks whether it is to have any.
	idleEvery = time.Second
	// fetchBytesMax bounds one answer of a broker, partBytesMax what it has of one partition, unless a
	// single batch is larger.
	fetchBytesMax = 16 << 20
	partBytesMax  = 1 << 20
)

// session is a member's time in its group, with the topics in one of their lives.
//
// Two clients share the work. group is the member, and is told never to fetch: a member's client begins
// to read a partition where the group's offsets are, before anyone can tell it the position that the
// consumer's own database has. reader reads what it is told to, from where it is told to.
type session struct {
	m      *membership
	topics map[string]known // by the name on the cluster
	group  *kgo.Client
	reader *kgo.Client

	mu     sync.Mutex
	ended  bool
	todo   []func()           // for the pump, between two polls
	stop   context.CancelFunc // ends the poll under way
	again  context.CancelFunc // ends the session, so that another begins
	acks   map[place]int64
	latest map[place]int64 // as committed

	open map[place]*partition // being read; the pump's alone
}

// known is a topic's name without the prefix, and its life.
type known struct {
	name        string
	incarnation string
}

// open joins the group. It returns when the clients are made; the group answers in its time.
func (m *membership) open(ctx context.Context) (*session, error) {
	b := m.broker
	s := &session{
		m: m, topics: map[string]known{}, open: map[place]*partition{},
		acks: map[place]int64{}, latest: map[place]int64{},
	}
	for _, name := range m.topics {
		t, err := b.topic(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, err)
		}
		s.topics[t.name] = known{name, t.incarnation}
	}
	var err error
	s.reader, err = b.newClient(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // They count in the offsets, and so in the lag.
		kgo.KeepRetryableFetchErrors(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // A position that is gone is for the consumer to know.
		kgo.FetchMaxWait(b.cfg.Wait),
		kgo.FetchMaxBytes(fetchBytesMax),
		kgo.FetchMaxPartitionBytes(partBytesMax),
	)
	if err != nil {
		return nil, err
	}
	s.group, err = b.newClient(m.grouping(s)...)
	if err != nil {
		s.reader.Close()
		return nil, err
	}
	for name := range s.topics {
		s.group.PauseFetchTopics(name)
	}
	return s, nil
}

// run pumps until ctx is done or the session has to begin anew, and leaves the group.
func (s *session) run(ctx context.Context) {
	ctx, again := context.WithCancel(ctx)
	defer again()
	s.mu.Lock()
	s.again = again
	s.mu.Unlock()
	var helpers sync.WaitGroup
	helpers.Go(func() { s.watch(ctx) })
	helpers.Go(func() { s.committing(ctx) })
	helpers.Go(func() { s.idling(ctx) })
	s.pump(ctx)
	helpers.Wait()
	s.mu.Lock()
	s.ended = true
	todo := s.todo
	s.todo = nil
	s.mu.Unlock()
	for _, f := range todo {
		f()
	}
	s.m.revokeAll()
	s.commit(s.group)
	s.leave()
	s.reader.Close()
	s.m.revokeAll() // What was assigned while the group was left.
}

// leave tells the group, unless the member is static. A cluster that is away finds out by itself.
func (s *session) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), s.m.broker.cfg.AckWait)
	defer cancel()
	if err := s.group.LeaveGroupContext(ctx); err != nil {
		s.m.broker.cfg.Logger.Debug("leaving the group failed", "group", s.m.group, "err", err)
	}
	s.group.Close()
}

// restart ends the session for another one, when a topic turned out to be in another life.
func (s *session) restart(name string, err error) {
	s.m.broker.forget(s.topics[name].name)
	s.m.broker.cfg.Logger.Warn("broker's topic was made anew, the member joins again", "topic", s.topics[name].name, "group", s.m.group, "err", err)
	s.mu.Lock()
	again := s.again
	s.mu.Unlock()
	if again != nil {
		again()
	}
}

// do has the pump run f between two polls, and waits for it, so that no message fetched before f is
// handed on after it.
func (s *session) do(f func()) {
	done := make(chan struct{})
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.todo = append(s.todo, func() { defer close(done); f() })
	if s.stop != nil {
		s.stop()
	}
	s.mu.Unlock()
	<-done
}

// pump moves what the reader fetched to the partitions' buffers.
func (s *session) pump(ctx context.Context) {
	for ctx.Err() == nil {
		poll, stop := context.WithCancel(ctx)
		s.mu.Lock()
		todo := s.todo
		s.todo, s.stop = nil, stop
		s.mu.Unlock()
		if len(todo) == 0 {
			s.deliver(ctx, s.reader.PollFetches(poll))
		}
		stop()
		for _, f := range todo {
			f()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop = nil
}

func (s *session) deliver(ctx context.Context, fetches kgo.Fetches) {
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		at := place{f.Topic, f.Partition}
		p := s.open[at]
		if p == nil {
			return
		}
		if len(f.Records) > 0 {
			p.receive(f.Records)
		}
		if f.Err != nil && ctx.Err() == nil && !errors.Is(f.Err, context.Canceled) {
			s.trouble(p, f.Err)
		}
	})
}

// trouble sorts what the reader says of a partition. What the client repeats by itself it repeats.
func (s *session) trouble(p *partition, err error) {
	loss, isLoss := errors.AsType[*kgo.ErrDataLoss](err)
	switch {
	case isLoss:
		p.fail(fmt.Errorf("%w: %w", broker.ErrPositionLost, loss))
	case errors.Is(err, kerr.OffsetOutOfRange):
		p.fail(fmt.Errorf("%w: %w", broker.ErrPositionLost, err))
	case isGone(err):
		s.ask(p.at.topic, err)
	case kerr.IsRetriable(err):
		s.m.broker.cfg.Logger.Debug("fetch is repeated", "partition", p.Name(), "err", err)
	default:
		p.fail(err)
	}
}

// ask looks whether a topic still is in the life that the session knows. It runs beside the pump, which
// others wait for.
func (s *session) ask(name string, cause error) {
	b := s.m.broker
	was := s.topics[name]
	s.m.spawn(func() {
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.AckWait)
		defer cancel()
		t, err := b.askTopic(ctx, name)
		if err == nil && t.incarnation != was.incarnation || isGone(err) {
			s.restart(name, cause)
		}
	})
}

// watch reads what the group's client has to say, which is never a message.
func (s *session) watch(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := s.group.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			if ctx.Err() != nil || errors.Is(e.Err, kgo.ErrClientClosed) {
				return
			}
			s.m.broker.cfg.Logger.Warn("group's member has trouble", "group", s.m.group, "err", e.Err)
			if isGone(e.Err) && s.topics[e.Topic].name != "" {
				s.ask(e.Topic, e.Err)
			}
			if isRefused(e.Err) {
				s.m.fail(e.Err)
			}
		}
	}
}

func (s *session) committing(ctx context.Context) {
	for pause(ctx, commitEvery) == nil {
		s.commit(s.group)
	}
}

// acknowledge remembers how far a partition is settled, until the next commit.
func (s *session) acknowledge(at place, next int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acks[at] = next
}

// commit tells the group how far its partitions are settled. Nothing is read from it again: positions are
// the consumer's own, so one that fails is made good by the next.
func (s *session) commit(cl *kgo.Client) {
	s.mu.Lock()
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for at, next := range s.acks {
		if s.latest[at] == next {
			continue
		}
		s.latest[at] = next
		if offsets[at.topic] == nil {
			offsets[at.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[at.topic][at.index] = kgo.EpochOffset{Epoch: -1, Offset: next}
	}
	clear(s.acks)
	s.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.m.broker.cfg.AckWait)
	defer cancel()
	cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			s.m.broker.cfg.Logger.Debug("commit failed, the next one covers it", "group", s.m.group, "err", err)
		}
	})
}
