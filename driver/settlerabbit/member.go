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

var _ broker.Standby = (*member)(nil)

const (
	// crewIdleMax is when the server drops the queue that members count each other by.
	crewIdleMax = time.Hour
	// redialShortest and redialLongest bound the pause before a member connects again.
	redialShortest, redialLongest = 50 * time.Millisecond, 2 * time.Second
)

// errLeft says that a member has left its group.
var errLeft = errors.New("member has left its group")

// member is a broker.Membership with a connection of its own. All that it holds at the server ends with the
// connection, so a connection that is lost has lost its partitions.
//
// Members of a group are consumers of one queue that never has a message: the server tells how many there
// are. Each takes one of as many seats, and the n-th seat has every n-th partition. Seats and partitions
// are held as exclusive queues, of which only one connection can have each.
type member struct {
	broker *Broker
	wants  broker.Subscription
	group  string
	crew   string
	parts  []part
	heir   map[string]bool

	kick chan struct{} // holds a token when the loop is to look now
	wake chan struct{} // holds a token when there may be something for Next
	stop context.CancelFunc
	done chan struct{} // closed when the loop has ended
	quit chan struct{} // closed when the member leaves

	// The loop's own.
	counted <-chan amqp.Delivery
	seat    int

	mu      sync.Mutex
	left    bool
	standby bool
	claims  map[part]*claim // held
	ready   []*claim        // of these, what Next has not handed out
}

// claim is a partition in the hands of a member.
type claim struct {
	part
	link    *link
	revoked chan struct{}

	mu   sync.Mutex
	over bool
	feed *feed
}

func newMember(b *Broker, s broker.Subscription, heir map[string]bool) *member {
	return &member{
		broker: b, wants: s, group: s.Group, crew: b.cfg.crew(s.Group, s.Topics), parts: b.cfg.parts(s.Topics), heir: heir,
		kick: make(chan struct{}, 1), wake: make(chan struct{}, 1), done: make(chan struct{}), quit: make(chan struct{}),
		claims: map[part]*claim{},
	}
}

func (m *member) start() {
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	go m.run(ctx)
}

// run connects, and connects again, until the member leaves.
func (m *member) run(ctx context.Context) {
	defer close(m.done)
	log := m.broker.cfg.Logger.With("group", m.group)
	wait := redialShortest
	for down := false; ctx.Err() == nil; {
		err := m.serve(ctx, down, func() {
			if down {
				log.Info("broker connection of a member is back")
			}
			down, wait = false, redialShortest
		})
		m.dropAll()
		if ctx.Err() != nil {
			return
		}
		if !down {
			log.Warn("broker connection of a member lost", "err", err)
		}
		down = true
		_ = pause(ctx, wait) // The loop looks at ctx.
		wait = min(2*wait, redialLongest)
	}
}

// serve looks every CheckEvery for as long as the connection lasts. again says that there was one before:
// the queues may be gone, with it or before it.
func (m *member) serve(ctx context.Context, again bool, connected func()) error {
	b := m.broker
	l, err := b.dial(ctx, "settle member of "+m.group)
	if err != nil {
		return err
	}
	defer l.end(b.cfg.AckWait)
	defer m.dropAll() // Revoked first: nobody is to learn it from a broken channel.
	defer m.stand(false)
	lost := l.NotifyClose(make(chan *amqp.Error, 1))
	if again {
		if _, _, err := b.enlist(ctx, l, m.wants); err != nil {
			return err
		}
	}
	ch, err := m.open(l)
	if err != nil {
		return err
	}
	m.seat, m.counted = -1, nil
	for {
		if err := m.beat(l, ch); err != nil {
			return err
		}
		connected()
		timer := time.NewTimer(b.cfg.CheckEvery)
		select {
		case <-timer.C:
		case <-m.kick:
		case err := <-lost:
			timer.Stop()
			return fmt.Errorf("connection lost: %w", err)
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

func (m *member) open(l *link) (*amqp.Channel, error) {
	timer := time.AfterFunc(m.broker.cfg.AckWait, l.kill)
	defer timer.Stop()
	return l.Channel()
}

// beat is one look: how many are there, give up what is others', take what is ours and free.
func (m *member) beat(l *link, ch *amqp.Channel) error {
	timer := time.AfterFunc(m.broker.cfg.AckWait, l.kill)
	n, err := m.count(ch)
	timer.Stop()
	if err != nil {
		return err
	}
	if err := m.sit(l, n); err != nil {
		return err
	}
	mine := map[part]bool{}
	for i, p := range m.parts {
		if i%n == m.seat {
			mine[p] = true
		}
	}
	// Who has a seat below has a connection, which the server ends with its member.
	m.stand(m.seat >= 0 && len(mine) == 0)
	for _, c := range m.held() {
		if !mine[c.part] {
			m.drop(c)
			if err := m.free(l, m.lease(c.part)); err != nil {
				return err
			}
		}
	}
	for _, p := range m.parts {
		if !mine[p] || m.holds(p) {
			continue
		}
		ok, err := m.hold(l, m.lease(p))
		if err != nil {
			return err
		}
		if ok {
			m.add(&claim{part: p, link: l, revoked: make(chan struct{})})
		}
	}
	return nil
}

// count makes this member count, and returns how many there are.
func (m *member) count(ch *amqp.Channel) (int, error) {
	args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.QueueTTLArg: crewIdleMax.Milliseconds()}
	q, err := ch.QueueDeclare(m.crew, true, false, false, false, args)
	if err != nil {
		return 0, err
	}
	if m.counted != nil {
		select {
		case _, ok := <-m.counted:
			if ok {
				return 0, fmt.Errorf("queue %s has a message, and is to have none", m.crew)
			}
			m.counted = nil // The queue was gone.
		default:
			return max(q.Consumers, 1), nil
		}
	}
	if m.counted, err = ch.Consume(m.crew, rand.Text(), true, false, false, false, nil); err != nil {
		return 0, err
	}
	q, err = ch.QueueDeclare(m.crew, true, false, false, false, args)
	return max(q.Consumers, 1), err
}

// sit takes a seat below n. While none is free the member keeps what it has.
func (m *member) sit(l *link, n int) error {
	if m.seat >= 0 && m.seat < n {
		return nil
	}
	for i := range n {
		ok, err := m.hold(l, m.broker.cfg.seat(m.crew, i))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if m.seat >= 0 {
			err = m.free(l, m.broker.cfg.seat(m.crew, m.seat))
		}
		m.seat = i
		return err
	}
	return nil
}

func (m *member) lease(p part) string { return m.broker.cfg.lease(m.group, p.topic, p.index) }

// hold declares an exclusive queue. ok is false when another connection has it.
func (m *member) hold(l *link, name string) (ok bool, err error) {
	err = m.broker.onChannel(l, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, false, false, true, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic})
		return err
	})
	if refused, is := errors.AsType[*amqp.Error](err); is && refused.Code == amqp.ResourceLocked {
		return false, nil
	}
	return err == nil, err
}

func (m *member) free(l *link, name string) error {
	return m.broker.onChannel(l, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(name, false, false, false)
		return err
	})
}

// add offers a partition to Next, unless the member has left meanwhile: it then ends with the connection.
func (m *member) add(c *claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		c.revoke()
		return
	}
	m.claims[c.part] = c
	m.ready = append(m.ready, c)
	ring(m.wake)
}

func (m *member) held() []*claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := make([]*claim, 0, len(m.claims))
	for _, c := range m.claims {
		held = append(held, c)
	}
	return held
}

func (m *member) stand(by bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.standby = by
}

// Standby implements [broker.Standby].
func (m *member) Standby() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.standby && !m.left && len(m.claims) == 0
}

func (m *member) holds(p part) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claims[p] != nil
}

// drop revokes a claim and stops its reading, so that the server has back what was not acknowledged before
// another member may take the partition.
func (m *member) drop(c *claim) {
	c.revoke()
	m.mu.Lock()
	if m.claims[c.part] == c {
		delete(m.claims, c.part)
	}
	m.mu.Unlock()
	c.shut(m.broker)
}

func (m *member) dropAll() {
	for _, c := range m.held() {
		m.drop(c)
	}
}

// Next implements [broker.Membership].
func (m *member) Next(ctx context.Context) (broker.Partition, error) {
	for {
		if c := m.next(); c != nil {
			return newPartition(m, c), nil
		}
		select {
		case <-m.quit:
			return nil, fmt.Errorf("settlerabbit: group %s: %w", m.group, errLeft)
		default:
		}
		select {
		case <-m.wake:
		case <-m.quit:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *member) next() *claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.ready) > 0 {
		c := m.ready[0]
		m.ready = m.ready[1:]
		if len(m.ready) > 0 {
			ring(m.wake) // For another caller.
		}
		if c.live() {
			return c
		}
	}
	return nil
}

// Close implements [broker.Membership]. The others have what it held when the connection has ended.
func (m *member) Close() error {
	m.mu.Lock()
	if !m.left {
		m.left, m.ready = true, nil
		close(m.quit)
	}
	m.mu.Unlock()
	m.stop()
	<-m.done
	m.broker.forget(m)
	return nil
}

func (c *claim) revoke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		close(c.revoked)
	}
}

func (c *claim) live() bool {
	select {
	case <-c.revoked:
		return false
	default:
		return true
	}
}

// adopt takes a feed to be shut with the claim. It is false when the claim is over.
func (c *claim) adopt(f *feed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.feed = f
	return true
}

// shut ends the claim's feed, if it has one.
func (c *claim) shut(b *Broker) {
	c.mu.Lock()
	f := c.feed
	c.feed = nil
	c.mu.Unlock()
	if f != nil {
		f.close(b)
	}
}
