package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
)

type membership struct {
	broker *Broker
	group  string
	member *assign.Member
}

func (m *membership) Next(ctx context.Context) (broker.Partition, error) {
	claim, err := m.member.Next(ctx)
	if err != nil {
		if errors.Is(err, assign.ErrClosed) {
			return nil, fmt.Errorf("memory: group %s: %w", m.group, err)
		}
		return nil, err
	}
	return &partition{broker: m.broker, group: m.group, claim: claim}, nil
}

// Standby implements [broker.Standby].
func (m *membership) Standby() bool { return m.member.Standby() }

func (m *membership) Close() error {
	m.member.Close()
	return nil
}

// partition is a log in the hands of one member. It is used by one goroutine at a time.
type partition struct {
	broker *Broker
	group  string
	claim  *assign.Claim

	from    *broker.Position // what Seek was given
	started bool
	lost    bool   // ErrPositionLost until the next Seek
	life    string // the incarnation that next counts in
	next    uint64 // the last offset returned
}

func (p *partition) Name() string { return p.claim.Name }

func (p *partition) Seek(_ context.Context, at broker.Position) error {
	p.from, p.started, p.lost = &at, false, false
	return nil
}

// start finds the first message to return. The caller holds the broker's lock.
func (p *partition) start(l *log) {
	at := p.broker.acked[p.group+" "+p.Name()]
	if p.from != nil {
		at = *p.from
	}
	p.started, p.life = true, p.broker.incarnation
	switch {
	case at.Offset == 0 || at.Incarnation != p.life || at.Offset > l.end():
		// Nothing handled yet, or the log lost its tail since: what it retains, from the start.
		p.next = l.base
	default:
		p.next = at.Offset
	}
}

// Fetch returns what is there, or waits for the first message up to the config's Wait.
func (p *partition) Fetch(ctx context.Context, limit int) ([]broker.Message, error) {
	if limit < 1 || limit > broker.FetchMax {
		return nil, fmt.Errorf("memory: fetch of %d messages: 1 to %d allowed", limit, broker.FetchMax)
	}
	var expired <-chan time.Time
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		messages, grown, err := p.take(limit)
		if err != nil || len(messages) > 0 {
			return messages, err
		}
		if expired == nil {
			timer := time.NewTimer(p.broker.cfg.Wait)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-grown:
		case <-p.claim.Revoked():
		case <-ctx.Done():
		case <-expired:
			return nil, nil
		}
	}
}

// take returns messages, or a channel that is closed when the log has changed.
func (p *partition) take(limit int) ([]broker.Message, <-chan struct{}, error) {
	b := p.broker
	if !p.claim.Live() {
		return nil, nil, broker.ErrRevoked
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.faults.down {
		return nil, nil, fmt.Errorf("memory: fetch %s: %w", p.Name(), broker.ErrUnavailable)
	}
	l := b.partitionLog(p.Name())
	switch {
	case !p.started:
		p.start(l)
	case p.life != b.incarnation || p.next > l.end():
		p.life, p.next = b.incarnation, l.base
	}
	if p.lost = p.lost || p.next < l.base; p.lost {
		return nil, nil, fmt.Errorf("memory: fetch %s after %d, first kept is %d: %w", p.Name(), p.next, l.base+1, broker.ErrPositionLost)
	}
	from := int(p.next - l.base)
	messages := slices.Clone(l.messages[from:min(from+limit, len(l.messages))])
	for i := range messages {
		messages[i].Position.Incarnation = p.life
	}
	p.next += uint64(len(messages))
	return messages, l.grown, nil
}

// Ack remembers the position, for partitions that nobody seeks.
func (p *partition) Ack(_ context.Context, at broker.Position) error {
	if !p.claim.Live() {
		return broker.ErrRevoked
	}
	p.broker.mu.Lock()
	defer p.broker.mu.Unlock()
	if p.broker.faults.down {
		return fmt.Errorf("memory: ack %s: %w", p.Name(), broker.ErrUnavailable)
	}
	p.broker.acked[p.group+" "+p.Name()] = at
	return nil
}

// Lag returns the messages after the last one fetched.
func (p *partition) Lag(context.Context) (int64, error) {
	p.broker.mu.Lock()
	defer p.broker.mu.Unlock()
	l := p.broker.partitionLog(p.Name())
	if !p.started {
		p.start(l)
	}
	if p.life != p.broker.incarnation || p.next > l.end() {
		return int64(len(l.messages)), nil
	}
	return int64(l.end() - max(p.next, l.base)), nil
}

func (p *partition) Revoked() <-chan struct{} { return p.claim.Revoked() }

func (p *partition) Release() error {
	p.claim.Release()
	return nil
}
