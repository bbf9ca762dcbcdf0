package settlerabbit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/broker"
)

// errEnded says that the server has closed a channel, or removed its consumer.
var errEnded = errors.New("the server ended the reading")

// partition is a queue in the hands of one member, used by one goroutine at a time.
type partition struct {
	member *member
	claim  *claim
	queue  string
	feed   *feed // nil until opened, and after it ended
}

// feed is a channel that reads a queue. Delivery tags are its positions: a queue has none of its own.
type feed struct {
	link    *link
	ch      *amqp.Channel
	life    string
	arrived chan struct{} // holds a token when there may be something
	first   chan struct{} // while the unrouted are read: closed when that has ended

	mu     sync.Mutex
	buffer []amqp.Delivery
	own    bool // the unrouted are behind us
	over   bool // nothing more will come

	last, acked uint64 // tags
}

func newPartition(m *member, c *claim) *partition {
	return &partition{member: m, claim: c, queue: m.broker.cfg.queue(m.group, c.topic, c.index)}
}

// Name implements [broker.Partition].
func (p *partition) Name() string { return partitionName(p.claim.topic, p.claim.index) }

// Revoked implements [broker.Partition].
func (p *partition) Revoked() <-chan struct{} { return p.claim.revoked }

// Fetch returns what has arrived, or waits up to the config's Wait for the first message.
func (p *partition) Fetch(ctx context.Context, limit int) ([]broker.Message, error) {
	if limit < 1 || limit > broker.FetchMax {
		return nil, fmt.Errorf("settlerabbit: fetch of %d messages: 1 to %d allowed", limit, broker.FetchMax)
	}
	timer := time.NewTimer(p.member.broker.cfg.Wait)
	defer timer.Stop()
	for {
		if !p.claim.live() {
			return nil, broker.ErrRevoked
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		messages, err := p.read(ctx, limit)
		if err != nil {
			if p.drop(); p.lost(err) {
				p.member.drop(p.claim)
			}
			if refused, ok := errors.AsType[*amqp.Error](err); ok && refused.Code == amqp.NotFound {
				p.claim.link.kill() // Somebody deleted the queue. A member that connects makes it again.
			}
			if !p.claim.live() {
				return nil, broker.ErrRevoked
			}
			return nil, fmt.Errorf("settlerabbit: fetch %s: %w", p.Name(), unavailable(ctx, err))
		}
		if len(messages) > 0 {
			return messages, nil
		}
		select {
		case <-p.feed.arrived:
		case <-p.claim.revoked:
		case <-ctx.Done():
		case <-timer.C:
			return nil, nil
		}
	}
}

// lost reports whether an error is the connection's, and not the channel's alone.
func (p *partition) lost(err error) bool {
	_, refused := errors.AsType[*amqp.Error](err)
	return p.claim.link.IsClosed() || !refused && !errors.Is(err, errEnded)
}

// read returns what is there now.
func (p *partition) read(ctx context.Context, limit int) ([]broker.Message, error) {
	if p.feed == nil {
		if err := p.open(); err != nil {
			return nil, err
		}
	}
	f := p.feed
	deliveries, over := f.take(limit)
	if len(deliveries) == 0 && !over && f.first != nil {
		empty, err := p.unroutedEmpty(ctx)
		if err != nil || !empty {
			return nil, err
		}
		if err := p.readOwn(); err != nil {
			return nil, err
		}
		deliveries, over = f.take(limit)
	}
	if over {
		return nil, errEnded
	}
	return p.decode(deliveries), nil
}

func (p *partition) decode(deliveries []amqp.Delivery) []broker.Message {
	messages := make([]broker.Message, len(deliveries))
	for i := range deliveries {
		d := &deliveries[i]
		messages[i] = decode(p.claim.topic, p.queue, d)
		messages[i].Position = broker.Position{Incarnation: p.feed.life, Offset: d.DeliveryTag}
		p.feed.last = d.DeliveryTag
	}
	return messages
}

// open makes a channel on the member's connection, and begins to read: what was published before any group
// was bound, if that is for this group, and then the queue.
func (p *partition) open() error {
	b, l := p.member.broker, p.claim.link
	timer := time.AfterFunc(b.cfg.AckWait, l.kill)
	defer timer.Stop()
	ch, err := l.Channel()
	if err != nil {
		return err
	}
	f := &feed{link: l, ch: ch, life: rand.Text(), arrived: make(chan struct{}, 1)}
	if !p.claim.adopt(f) {
		f.close(b)
		return broker.ErrRevoked
	}
	p.feed = f
	if err := ch.Qos(b.prefetch, 0, false); err != nil {
		return err
	}
	if !p.member.heir[p.claim.topic] {
		return p.consume(p.queue, nil)
	}
	f.first = make(chan struct{})
	return p.consume(p.unrouted(), f.first)
}

func (p *partition) unrouted() string {
	return p.member.broker.cfg.unroutedQueue(p.claim.topic, p.claim.index)
}

// consume begins to read a queue. first is closed when that ends and is not the end of the feed.
func (p *partition) consume(queue string, first chan struct{}) error {
	f := p.feed
	deliveries, err := f.ch.Consume(queue, queue, false, false, false, false, nil)
	if err != nil {
		return err
	}
	p.member.broker.helpers.Go(func() { f.pump(deliveries, first) })
	return nil
}

// unroutedEmpty reports whether nothing more waits there. It is asked on the feed's channel, so that the
// answer comes after what was delivered before.
func (p *partition) unroutedEmpty(ctx context.Context) (bool, error) {
	f := p.feed
	timer := time.AfterFunc(p.member.broker.cfg.AckWait, f.link.kill)
	defer timer.Stop()
	q, err := f.ch.QueueDeclarePassive(p.unrouted(), true, false, false, false, nil)
	if err != nil || q.Messages > 0 {
		return false, err
	}
	return f.waiting(ctx) == 0, nil
}

// readOwn goes on to the queue. What came from the unrouted is still in hand, and goes back there with the
// channel.
func (p *partition) readOwn() error {
	f := p.feed
	timer := time.AfterFunc(p.member.broker.cfg.AckWait, f.link.kill)
	defer timer.Stop()
	f.mu.Lock()
	f.own = true
	f.mu.Unlock()
	if err := f.ch.Cancel(p.unrouted(), false); err != nil {
		return err
	}
	<-f.first // What came last is in the buffer.
	f.first = nil
	return p.consume(p.queue, nil)
}

// pump takes what arrives until the consumer ends.
func (f *feed) pump(deliveries <-chan amqp.Delivery, first chan struct{}) {
	for d := range deliveries {
		f.mu.Lock()
		f.buffer = append(f.buffer, d)
		f.mu.Unlock()
		ring(f.arrived)
	}
	f.mu.Lock()
	f.over = f.over || first == nil || !f.own
	f.mu.Unlock()
	if first != nil {
		close(first)
	}
	ring(f.arrived)
}

// take returns what has arrived. over says that nothing more will.
func (f *feed) take(limit int) (deliveries []amqp.Delivery, over bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return nil, true // What is left goes back to the queue.
	}
	n := min(limit, len(f.buffer))
	deliveries = f.buffer[:n:n]
	if f.buffer = f.buffer[n:]; len(f.buffer) == 0 {
		f.buffer = nil
	} else {
		ring(f.arrived)
	}
	return deliveries, false
}

// close ends the channel, never the consumer alone: the server then gives the next owner what this one has
// in hand before anything newer.
func (f *feed) close(b *Broker) {
	timer := time.AfterFunc(b.cfg.AckWait, f.link.kill)
	defer timer.Stop()
	_ = f.ch.Close()
}

// Ack acknowledges up to a position. What a channel has delivered that has ended comes again.
func (p *partition) Ack(ctx context.Context, at broker.Position) error {
	if !p.claim.live() {
		return broker.ErrRevoked
	}
	f := p.feed
	if f == nil || at.Incarnation != f.life || at.Offset <= f.acked {
		return nil
	}
	tag := min(at.Offset, f.last)
	if err := f.ch.Ack(tag, true); err != nil {
		if !p.claim.live() {
			return broker.ErrRevoked
		}
		return fmt.Errorf("settlerabbit: ack %s: %w", p.Name(), unavailable(ctx, err))
	}
	f.acked = tag
	return nil
}

// Lag asks the server how many messages wait, and adds those that have arrived.
func (p *partition) Lag(ctx context.Context) (int64, error) {
	if p.feed == nil {
		if err := p.open(); err != nil {
			p.drop()
			return 0, fmt.Errorf("settlerabbit: lag of %s: %w", p.Name(), unavailable(ctx, err))
		}
	}
	// On its own channel the answer comes after what was delivered before.
	f := p.feed
	timer := time.AfterFunc(p.member.broker.cfg.AckWait, f.link.kill)
	defer timer.Stop()
	n := 0
	for _, queue := range []string{p.queue, p.unrouted()} {
		q, err := f.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			p.drop()
			return 0, fmt.Errorf("settlerabbit: lag of %s: %w", p.Name(), unavailable(ctx, err))
		}
		n += q.Messages
		if !p.member.heir[p.claim.topic] {
			break
		}
	}
	return int64(n + f.waiting(ctx)), nil
}

// waiting returns how many messages have arrived and were not taken. The client hands them on by goroutines
// of its own, so it is read until it stays the same for a moment.
func (f *feed) waiting(ctx context.Context) int {
	for last := -1; ; {
		f.mu.Lock()
		n := len(f.buffer)
		f.mu.Unlock()
		if n == last || pause(ctx, 2*time.Millisecond) != nil {
			return n
		}
		last = n
	}
}

// Release gives the partition back; it is handed out again, perhaps to the same member.
func (p *partition) Release() error {
	m, c := p.member, p.claim
	if !c.live() {
		return nil
	}
	m.drop(c)
	p.feed = nil
	err := m.free(c.link, m.lease(c.part))
	ring(m.kick)
	if err != nil {
		return fmt.Errorf("settlerabbit: release %s: %w: %w", p.Name(), broker.ErrUnavailable, err)
	}
	return nil
}

// drop ends the feed; the next Fetch opens another.
func (p *partition) drop() {
	p.feed = nil
	p.claim.shut(p.member.broker)
}
