package settlerabbit

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
)

// linesMax bounds the calls of Publish that are under way at once.
const linesMax = 16

// frameRoom is what a header frame needs beside the headers.
const frameRoom = 512

// lines are channels of the publishing connection. A call of Publish has one to itself: a refusal ends a
// channel, and must not hit messages of others.
type lines struct {
	broker *Broker
	slots  chan struct{} // a token for each call that may run
	dials  chan struct{} // one token: who has it may connect

	mu     sync.Mutex
	link   *link
	free   []*line
	closed bool
}

// line is a channel with confirms.
type line struct {
	link     *link
	ch       *amqp.Channel
	ended    chan *amqp.Error
	returned chan amqp.Return
}

func (p *lines) start(b *Broker) {
	p.broker, p.slots, p.dials = b, make(chan struct{}, linesMax), make(chan struct{}, 1)
	for range linesMax {
		p.slots <- struct{}{}
	}
	p.dials <- struct{}{}
}

// connect returns the publishing connection, a new one when the last has ended.
func (p *lines) connect(ctx context.Context) (*link, error) {
	select {
	case <-p.dials:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { p.dials <- struct{}{} }()
	p.mu.Lock()
	l, closed := p.link, p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case l != nil && !l.IsClosed():
		return l, nil
	}
	next, err := p.broker.dial(ctx, "settle publisher")
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link, p.free = next, nil
	if l != nil {
		p.broker.cfg.Logger.Info("broker connection is back")
	}
	return next, nil
}

// take returns a line for one call. The caller gives it back.
func (p *lines) take(ctx context.Context) (*line, error) {
	l, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	if why := l.blocked.Load(); why != nil {
		return nil, fmt.Errorf("%w: the server takes nothing from publishers: %s", broker.ErrUnavailable, *why)
	}
	p.mu.Lock()
	for len(p.free) > 0 {
		one := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		if one.link == l && !one.ch.IsClosed() {
			p.mu.Unlock()
			return one, nil
		}
	}
	p.mu.Unlock()
	timer := time.AfterFunc(p.broker.cfg.AckWait, l.kill)
	defer timer.Stop()
	ch, err := l.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return &line{
		link: l, ch: ch, ended: ch.NotifyClose(make(chan *amqp.Error, 1)),
		returned: ch.NotifyReturn(make(chan amqp.Return, broker.PublishMax)),
	}, nil
}

// give takes a line back. One with messages of which nothing is known is not used again: what the server
// says of them later must not be taken for another call's.
func (p *lines) give(one *line, clean bool) {
	if !clean {
		timer := time.AfterFunc(p.broker.cfg.AckWait, one.link.kill)
		defer timer.Stop()
		_ = one.ch.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, one)
}

// close waits for the calls under way, which end within AckWait, and ends the connection.
func (p *lines) close() {
	for range linesMax {
		<-p.slots
	}
	p.mu.Lock()
	p.closed = true
	l := p.link
	p.mu.Unlock()
	if l != nil {
		l.end(p.broker.cfg.AckWait)
	}
	for range linesMax { // For calls to come, which are refused.
		p.slots <- struct{}{}
	}
}

// Publish implements [broker.Publisher]: all messages are sent, then all confirms awaited. When the server
// ends the channel for the sake of one message, the others are sent again.
func (b *Broker) Publish(ctx context.Context, messages []broker.Message) []error {
	errs := make([]error, len(messages))
	if len(messages) > broker.PublishMax {
		return fill(errs, fmt.Errorf("settlerabbit: publish %d messages: %d allowed", len(messages), broker.PublishMax))
	}
	select {
	case <-b.lines.slots:
	case <-ctx.Done():
		return fill(errs, ctx.Err())
	}
	defer func() { b.lines.slots <- struct{}{} }()
	c := call{broker: b, messages: messages, errs: errs}
	for i := range messages {
		c.left = append(c.left, i)
	}
	for again := true; again && len(c.left) > 0; {
		again = c.round(ctx)
	}
	for i, err := range errs {
		if _, rejected := err.(*broker.RejectedError); err != nil && !rejected { //nolint:errorlint // It stands alone.
			errs[i] = fmt.Errorf("settlerabbit: publish to %s: %w", messages[i].Event.Topic, err)
		}
	}
	return errs
}

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// call is one call of Publish.
type call struct {
	broker   *Broker
	messages []broker.Message
	errs     []error
	left     []int // to be sent
	sent     []sent
}

// sent is a message on its way.
type sent struct {
	index   int
	confirm *amqp.DeferredConfirmation
}

func (c *call) giveUp(err error) {
	for _, i := range c.left {
		c.errs[i] = err
	}
	c.left = nil
}

// round sends what is left. It returns true when it rejected a message because of which the server had ended
// the channel, so that it is worth sending the rest.
func (c *call) round(ctx context.Context) bool {
	one, err := c.broker.lines.take(ctx)
	if err != nil {
		c.giveUp(err)
		return false
	}
	c.send(ctx, one)
	unknown, why := c.await(ctx)
	clean := len(unknown) == 0 && !one.ch.IsClosed()
	if clean {
		c.unrouted(one)
	}
	defer c.broker.lines.give(one, clean)
	c.left = append(unknown, c.left...)
	if len(c.left) == 0 {
		return false
	}
	if one.ch.IsClosed() {
		if reason := <-one.ended; reason != nil {
			if c.blame(one, reason) {
				return true
			}
			why = reason.Error()
		} else {
			why = "connection lost"
		}
	}
	c.giveUp(fmt.Errorf("%w: %s", broker.ErrUnavailable, why))
	return false
}

// send sends what is left, and leaves what could not be sent.
func (c *call) send(ctx context.Context, one *line) {
	b := c.broker
	// A server that reads nothing must not hold us for longer than one that does not answer.
	timer := time.AfterFunc(b.cfg.AckWait, one.link.kill)
	defer timer.Stop()
	left := c.left
	c.left, c.sent = nil, nil
	for n, i := range left {
		m := &c.messages[i]
		err := b.declare(ctx, one.link, m.Event.Topic)
		if err == nil {
			err = b.checkSize(m)
		}
		if err != nil {
			c.errs[i] = err
			continue
		}
		p, headers := encode(m)
		if size := one.link.Config.FrameSize; size > 0 && headers > size-frameRoom {
			c.errs[i] = &broker.RejectedError{Reason: fmt.Sprintf("headers of %d bytes do not fit a frame of %d", headers, size)}
			continue
		}
		key := strconv.Itoa(assign.Partition(m.Event.AggregateID, b.cfg.Partitions))
		confirm, err := one.ch.PublishWithDeferredConfirm(b.cfg.exchange(m.Event.Topic), key, true, false, p)
		if err != nil {
			c.left = left[n:]
			return
		}
		c.sent = append(c.sent, sent{i, confirm})
	}
}

func (b *Broker) checkSize(m *broker.Message) error {
	if len(m.Event.Data) > b.cfg.BytesMax {
		return &broker.RejectedError{Reason: fmt.Sprintf("data of %d bytes exceeds %d", len(m.Event.Data), b.cfg.BytesMax)}
	}
	return nil
}

// await waits for the confirms, and returns the messages that have none.
func (c *call) await(ctx context.Context) (unknown []int, why string) {
	timer := time.NewTimer(c.broker.cfg.AckWait)
	defer timer.Stop()
	for _, s := range c.sent {
		if why == "" {
			select {
			case <-s.confirm.Done():
			case <-ctx.Done():
				why = ctx.Err().Error()
			case <-timer.C:
				why = "no confirm within " + c.broker.cfg.AckWait.String()
			}
		}
		if !s.confirm.Acked() {
			unknown = append(unknown, s.index)
		}
	}
	if why == "" {
		why = "the server did not take the message"
	}
	return unknown, why
}

// unrouted looks for confirmed messages that were given back, because no queue was bound for them: somebody
// has deleted the queues for the unrouted.
func (c *call) unrouted(one *line) {
	back := map[string]bool{}
	for len(one.returned) > 0 { // They come before their confirms.
		r := <-one.returned
		back[r.MessageId] = true
	}
	if len(back) == 0 {
		return
	}
	for _, s := range c.sent {
		if m := &c.messages[s.index]; back[m.Event.ID.String()] {
			one.link.forget(m.Event.Topic)
			c.errs[s.index] = fmt.Errorf("%w: no queue takes the message", broker.ErrUnavailable)
		}
	}
}

// sizes finds the numbers in the server's words about a message that is too large: its size, and the limit.
var sizes = regexp.MustCompile(`message size (\d+) .*larger than .*max size (\d+)`)

// blame rejects the messages because of which the server ended the channel, and reports whether there are any.
func (c *call) blame(one *line, reason *amqp.Error) bool {
	guilty := func(*broker.Message) bool { return false }
	switch reason.Code {
	case amqp.PreconditionFailed:
		if found := sizes.FindStringSubmatch(reason.Reason); found != nil {
			limit, err := strconv.Atoi(found[2])
			guilty = func(m *broker.Message) bool { return err == nil && len(m.Event.Data) > limit }
		}
	case amqp.AccessRefused:
		guilty = func(m *broker.Message) bool {
			return strings.Contains(reason.Reason, "'"+c.broker.cfg.exchange(m.Event.Topic)+"'")
		}
	case amqp.NotFound: // An exchange was deleted.
		for i := range c.messages {
			one.link.forget(c.messages[i].Event.Topic)
		}
	}
	var rest []int
	for _, i := range c.left {
		if guilty(&c.messages[i]) {
			c.errs[i] = &broker.RejectedError{Reason: reason.Reason}
		} else {
			rest = append(rest, i)
		}
	}
	found := len(rest) < len(c.left)
	c.left = rest
	return found
}
