package settletest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
)

// Compile-time proof that watching hides nothing of the memory broker.
var (
	_ broker.Broker    = (*watch)(nil)
	_ broker.Publisher = (*watch)(nil)
	_ broker.Tailer    = (*watch)(nil)
	_ broker.Seeker    = (*watched)(nil)
	_ broker.Laggard   = (*watched)(nil)
)

// watch is a memory broker that knows what each group has settled: a reader that fetches again has
// settled all that it was given before.
type watch struct {
	*memory.Broker

	begun chan struct{} // closed by the first use: the service's engines run
	once  sync.Once

	mu      sync.Mutex
	groups  map[string]map[string]bool // topics by group
	settled map[string]uint64          // by group and partition
}

func newWatch(b *memory.Broker) *watch {
	return &watch{
		Broker: b, begun: make(chan struct{}),
		groups: map[string]map[string]bool{}, settled: map[string]uint64{},
	}
}

func (w *watch) begin() { w.once.Do(func() { close(w.begun) }) }

// behind returns how many messages a group has not settled; it is never 0 before the group has joined.
func (w *watch) behind(group string, ends map[string]uint64) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	topics := w.groups[group]
	if topics == nil {
		return 1
	}
	var n uint64
	for name, end := range ends {
		if i := strings.LastIndexByte(name, '/'); i >= 0 && topics[name[:i]] {
			n += end - min(end, w.settled[group+" "+name])
		}
	}
	return n
}

// Tail implements [broker.Tailer].
func (w *watch) Tail(ctx context.Context) (broker.Tail, error) {
	w.begin()
	return w.Broker.Tail(ctx)
}

// Subscribe implements [broker.Broker].
func (w *watch) Subscribe(ctx context.Context, s broker.Subscription) (broker.Membership, error) {
	w.begin()
	m, err := w.Broker.Subscribe(ctx, s)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	topics := map[string]bool{}
	for _, t := range s.Topics {
		topics[t] = true
	}
	w.groups[s.Group] = topics
	return &watchedMember{m, w, s.Group}, nil
}

type watchedMember struct {
	broker.Membership

	watch *watch
	group string
}

// Next implements [broker.Membership].
func (m *watchedMember) Next(ctx context.Context) (broker.Partition, error) {
	p, err := m.Membership.Next(ctx)
	if err != nil {
		return nil, err
	}
	return &watched{Partition: p, watch: m.watch, name: m.group + " " + p.Name()}, nil
}

type watched struct {
	broker.Partition

	watch *watch
	name  string
	last  uint64 // the last offset returned
}

func (p *watched) settle(to uint64) {
	p.last = to
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	p.watch.settled[p.name] = to
}

// Seek implements [broker.Seeker].
func (p *watched) Seek(ctx context.Context, at broker.Position) error {
	s, ok := p.Partition.(broker.Seeker)
	if !ok {
		return errors.ErrUnsupported
	}
	p.settle(at.Offset)
	return s.Seek(ctx, at)
}

// Lag implements [broker.Laggard].
func (p *watched) Lag(ctx context.Context) (int64, error) {
	l, ok := p.Partition.(broker.Laggard)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return l.Lag(ctx)
}

// Fetch implements [broker.Partition].
func (p *watched) Fetch(ctx context.Context, limit int) ([]broker.Message, error) {
	p.settle(p.last)
	messages, err := p.Partition.Fetch(ctx, limit)
	if n := len(messages); n > 0 {
		p.last = messages[n-1].Position.Offset
	}
	return messages, err
}

// publish puts drafts on their topics, one by one, so that they stay in the order given.
func publish(ctx context.Context, b broker.Publisher, drafts []event.Draft) error {
	for _, d := range drafts {
		e, err := d.Seal(producer, time.Now(), event.CauseFrom(ctx))
		if err != nil {
			return err
		}
		if err := b.Publish(ctx, []broker.Message{{Event: e}})[0]; err != nil {
			return fmt.Errorf("%s %s: %w", e.Type, e.AggregateID, err)
		}
	}
	return nil
}
