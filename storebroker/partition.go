package storebroker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

const (
	// scanPagesMax bounds the pages that one Fetch reads on its way through events of other topics.
	scanPagesMax = 8
	// lagPagesMax bounds what Lag counts: 5,000 events.
	lagPagesMax = 5
	// lagEvery is how old the answer of Lag may be while it is large.
	lagEvery = time.Second
)

// claim is the right to read a partition: an [assign.Claim], or an [assign.Held] one.
type claim interface {
	Live() bool
	Revoked() <-chan struct{}
	Release()
}

// partition is one producer's outbox in the hands of one member, used by one goroutine at a time.
type partition struct {
	broker   *Broker
	producer string
	source   relay.Source
	topics   map[string]bool
	name     string
	claim    claim
	follower *follower

	next outbox.Position // everything up to it was returned or is of other topics
	lost error           // ErrPositionLost until the next Seek

	lag   int64 // as counted at lagAt
	lagAt time.Time

	ring <-chan struct{}
	stop func()
	once sync.Once // ends the ring
}

func (p *partition) Name() string { return p.name }

// Seek takes a position that this package gave out; any other is refused.
func (p *partition) Seek(_ context.Context, at broker.Position) error {
	to, err := decode(at)
	if err != nil {
		return fmt.Errorf("storebroker: seek %s: %w", p.Name(), err)
	}
	p.next, p.lost = to, nil
	p.broker.mu.Lock()
	defer p.broker.mu.Unlock()
	if p.claim.Live() {
		*p.follower = follower{acked: to, returned: to, scanned: to}
	}
	return nil
}

// Fetch reads what is there, or waits for the doorbell up to the config's Wait.
func (p *partition) Fetch(ctx context.Context, limit int) ([]broker.Message, error) {
	if limit < 1 || limit > broker.FetchMax {
		return nil, fmt.Errorf("storebroker: fetch of %d messages: 1 to %d allowed", limit, broker.FetchMax)
	}
	p.listen() // before the first read, so that no event falls between the two
	var expired <-chan time.Time
	for {
		if !p.claim.Live() {
			p.silence()
			return nil, broker.ErrRevoked
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		messages, err := p.scan(ctx, limit)
		if err != nil || len(messages) > 0 {
			return messages, err
		}
		if expired == nil {
			timer := time.NewTimer(p.broker.cfg.Wait)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-p.ring:
		case <-p.Revoked():
		case <-ctx.Done():
		case <-expired:
			return nil, nil
		}
	}
}

// scan reads pages until there are limit messages, or no more events, or enough pages were read.
func (p *partition) scan(ctx context.Context, limit int) ([]broker.Message, error) {
	if p.lost != nil {
		return nil, p.lost
	}
	var messages []broker.Message
	var last outbox.Position
	for i := range scanPagesMax {
		page := limit - len(messages)
		if i > 0 && len(messages) == 0 {
			page = max(page, broker.FetchMax/4) // a quiet group passes over others' events quickly
		}
		records, err := p.source.Next(ctx, relay.Lease{}, p.next, page)
		if err != nil {
			if len(messages) > 0 {
				break // they are good; the error comes again
			}
			return nil, p.refusal(ctx, err)
		}
		full := len(records) == page
		for _, r := range records {
			if p.topics[r.Event.Topic] {
				if len(messages) == limit {
					full = false
					break
				}
				last = r.Position
				messages = append(messages, broker.Message{Event: r.Event, Origin: r.Position.String(), Position: encode(r.Position)})
			}
			p.next = r.Position
		}
		if !full || len(messages) == limit {
			break
		}
	}
	p.progress(last)
	return messages, nil
}

func (p *partition) refusal(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, relay.ErrRetention):
		p.lost = fmt.Errorf("storebroker: fetch %s after %s: %w", p.Name(), p.next, broker.ErrPositionLost)
		return p.lost
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return fmt.Errorf("storebroker: fetch %s: %w: %w", p.Name(), broker.ErrUnavailable, err)
	}
}

// progress tells the broker how far the scan has come; a zero last means that nothing was returned.
func (p *partition) progress(last outbox.Position) {
	p.broker.mu.Lock()
	defer p.broker.mu.Unlock()
	if !p.claim.Live() {
		return
	}
	p.follower.scanned = p.next
	if !last.IsZero() {
		p.follower.returned = last
	}
}

// Ack remembers how far the group has settled; see [Broker.Settled].
func (p *partition) Ack(_ context.Context, at broker.Position) error {
	if !p.claim.Live() {
		return broker.ErrRevoked
	}
	to, err := decode(at)
	if err != nil {
		return fmt.Errorf("storebroker: ack %s: %w", p.Name(), err)
	}
	p.broker.mu.Lock()
	defer p.broker.mu.Unlock()
	if to.Compare(p.follower.acked) > 0 {
		p.follower.acked = to
	}
	return nil
}

// Lag counts the events of the group's topics that are not fetched yet. It reads them to tell, so it
// looks at 5,000 events of the outbox at most, and no more than once a second when there are that many:
// a larger lag is reported as at least what was found.
func (p *partition) Lag(ctx context.Context) (int64, error) {
	if p.lag >= broker.FetchMax && time.Since(p.lagAt) < lagEvery {
		return p.lag, nil
	}
	at := p.next
	var n int64
	for range lagPagesMax {
		records, err := p.source.Next(ctx, relay.Lease{}, at, broker.FetchMax)
		if err != nil {
			return n, fmt.Errorf("storebroker: lag of %s: %w", p.Name(), err)
		}
		for _, r := range records {
			if at = r.Position; p.topics[r.Event.Topic] {
				n++
			}
		}
		if len(records) < broker.FetchMax {
			break
		}
	}
	p.lag, p.lagAt = n, time.Now()
	return n, nil
}

// Revoked is closed when another member has the partition, or may have it.
func (p *partition) Revoked() <-chan struct{} { return p.claim.Revoked() }

func (p *partition) Release() error {
	p.silence()
	p.claim.Release()
	return nil
}

func (p *partition) listen() {
	if p.ring != nil || !p.claim.Live() {
		return
	}
	if bell, ok := p.source.(relay.Bell); ok {
		p.ring, p.stop = bell.Listen()
	}
}

func (p *partition) silence() {
	p.once.Do(func() {
		if p.stop != nil {
			p.stop()
		}
	})
}
