package settlekafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/broker"
)

var errLeft = errors.New("member has left its group")

// place is a partition on the cluster.
type place struct {
	topic string // with the prefix
	index int32
}

// membership is one member of a group, through as many sessions as it takes.
type membership struct {
	broker *Broker
	group  string
	topics []string

	mu      sync.Mutex
	parts   map[place]*partition // assigned to us, handed out or not; nil while one is given back
	queue   []*partition         // to be handed out
	trouble error                // what keeps us from being assigned anything, until Next has told
	standby bool                 // there is nothing for us, as long as parts is empty
	closed  bool

	wake chan struct{} // holds a token when there may be something for Next
	done chan struct{} // closed by Close
	end  context.CancelFunc
	work sync.WaitGroup
}

func newMembership(b *Broker, s broker.Subscription) *membership {
	return &membership{
		broker: b, group: s.Group, topics: s.Topics, parts: map[place]*partition{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// start runs the membership from its first session on.
func (m *membership) start(ctx context.Context, first *session) {
	ctx, m.end = context.WithCancel(context.WithoutCancel(ctx))
	m.work.Go(func() {
		for s := first; s != nil; s = m.reopen(ctx) {
			s.run(ctx)
		}
	})
}

// reopen begins another session after one whose topics were made anew. It returns nil when ctx is done.
func (m *membership) reopen(ctx context.Context) *session {
	for ctx.Err() == nil {
		s, err := m.open(ctx)
		if err == nil {
			return s
		}
		if ctx.Err() == nil {
			m.fail(err)
			_ = pause(ctx, time.Second)
		}
	}
	return nil
}

// spawn runs f beside the rest, unless the membership is ending.
func (m *membership) spawn(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.work.Go(f)
	}
}

// Next implements [broker.Membership].
func (m *membership) Next(ctx context.Context) (broker.Partition, error) {
	for {
		p, err := m.pop()
		if p != nil {
			return p, nil
		}
		if err != nil {
			return nil, fmt.Errorf("settlekafka: group %s: %w", m.group, err)
		}
		select {
		case <-m.wake:
		case <-m.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *membership) pop() (*partition, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errLeft
	}
	if err := m.trouble; err != nil {
		m.trouble = nil
		return nil, err
	}
	if len(m.queue) == 0 {
		return nil, nil
	}
	p := m.queue[0]
	m.queue = m.queue[1:]
	if len(m.queue) > 0 {
		m.ring()
	}
	return p, nil
}

func (m *membership) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// fail tells whoever waits for a partition why there is none.
func (m *membership) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = unavailable(context.Background(), err)
	m.ring()
}

// assigned takes partitions that the group gave us.
func (m *membership) assigned(s *session, parts map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, indexes := range parts {
		for _, index := range indexes {
			at := place{name, index}
			if _, known := m.parts[at]; !known {
				m.offer(s, at)
			}
		}
	}
}

// offer makes a partition to be handed out. The caller holds mu.
func (m *membership) offer(s *session, at place) {
	p := newPartition(m, s, at)
	m.parts[at] = p
	m.queue = append(m.queue, p)
	m.ring()
}

// revoked gives up partitions that the group took away.
func (m *membership) revoked(parts map[string][]int32) {
	for name, indexes := range parts {
		for _, index := range indexes {
			m.revoke(place{name, index})
		}
	}
}

func (m *membership) revoke(at place) {
	m.mu.Lock()
	p := m.parts[at]
	delete(m.parts, at)
	m.unqueue(p)
	m.mu.Unlock()
	if p != nil {
		close(p.revoked)
		p.drop()
	}
}

// unqueue takes a partition out that was not handed out yet. The caller holds mu.
func (m *membership) unqueue(p *partition) {
	for i := range m.queue {
		if m.queue[i] == p {
			m.queue = append(m.queue[:i], m.queue[i+1:]...)
			return
		}
	}
}

// revokeAll gives up everything, at the end of a session.
func (m *membership) revokeAll() {
	m.mu.Lock()
	all := make([]place, 0, len(m.parts))
	for at := range m.parts {
		all = append(all, at)
	}
	m.mu.Unlock()
	for _, at := range all {
		m.revoke(at)
	}
}

// release ends a partition's use. As the group still has it with us, it is offered again.
func (m *membership) release(p *partition) {
	m.mu.Lock()
	if m.parts[p.at] != p {
		m.mu.Unlock()
		return
	}
	close(p.revoked)
	m.parts[p.at] = nil
	m.mu.Unlock()
	p.drop() // Before the next one reads, so that the two never meet.
	m.mu.Lock()
	defer m.mu.Unlock()
	if next, ours := m.parts[p.at]; ours && next == nil && !m.closed {
		m.offer(p.session, p.at)
	}
}

// Close leaves the group.
func (m *membership) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.work.Wait()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	close(m.done)
	m.end()
	m.work.Wait()
	b := m.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.members, m)
	return nil
}

// grouping are the options of the client that is the member. It reads nothing: see session.
func (m *membership) grouping(s *session) []kgo.Opt {
	cfg := &m.broker.cfg
	topics := make([]string, 0, len(m.topics))
	for _, name := range m.topics {
		topics = append(topics, cfg.topicName(name))
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(cfg.groupName(m.group)),
		kgo.ConsumeTopics(topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(max(cfg.SessionTimeout/10, 100*time.Millisecond)),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { m.assigned(s, parts) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
			m.revoked(parts)
			s.commit(cl)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { m.revoked(parts) }),
	}
	if cfg.InstanceID != "" {
		options = append(options, kgo.InstanceID(cfg.InstanceID))
	}
	return options
}
