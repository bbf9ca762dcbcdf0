package settlenats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
)

// Codes of JetStream's errors (server/errors.json) that condemn one message, not the server.
const (
	codeMessageTooLarge = 10054
	codeHeaderTooLarge  = 10097
)

// errPending marks a result that is not known yet.
var errPending = errors.New("no acknowledgement yet")

// publisher keeps what is unacknowledged. One inbox takes every acknowledgement; its last two tokens
// say which batch and which message.
type publisher struct {
	broker *Broker
	inbox  string // with a dot at its end

	mu       sync.Mutex
	closed   bool
	inFlight sync.WaitGroup
	next     uint64
	batches  map[uint64]*batch
	acked    map[string]uint64 // by stream: the last sequence that this process saw acknowledged
	lost     map[string]bool   // by stream: its tail is gone, and the new incarnation has not begun
}

// batch is one call of Publish; guarded by the publisher's mu.
type batch struct {
	messages []broker.Message
	errs     []error
	left     int
	done     chan struct{} // closed when left is 0
}

func (b *batch) settle(i int, err error) {
	if b.errs[i] != errPending { //nolint:errorlint // A mark of ours that is never wrapped.
		return
	}
	b.errs[i] = err
	if b.left--; b.left == 0 {
		close(b.done)
	}
}

func (p *publisher) start(b *Broker) error {
	p.broker, p.inbox = b, b.nc.NewInbox()+"."
	p.batches, p.acked, p.lost = map[uint64]*batch{}, map[string]uint64{}, map[string]bool{}
	sub, err := b.nc.Subscribe(p.inbox+"*.*", p.ack)
	if err != nil {
		return err
	}
	return sub.SetPendingLimits(-1, -1) // bounded by what is in flight
}

// Publish implements [broker.Publisher]: all messages are sent, then all acknowledgements awaited.
func (b *Broker) Publish(ctx context.Context, messages []broker.Message) []error {
	if len(messages) == 0 {
		return nil
	}
	errs := make([]error, len(messages))
	err := ctx.Err()
	if len(messages) > broker.PublishMax {
		err = fmt.Errorf("settlenats: publish %d messages: %d allowed", len(messages), broker.PublishMax)
	}
	if err != nil {
		fill(errs, err)
		return errs
	}
	id, batch := b.pub.begin(messages, errs)
	if batch == nil {
		fill(errs, fmt.Errorf("settlenats: publish: %w: broker is closed", broker.ErrUnavailable))
		return errs
	}
	defer b.pub.inFlight.Done()
	b.send(ctx, id, batch)
	timer := time.NewTimer(b.cfg.AckWait)
	defer timer.Stop()
	reason := ""
	select {
	case <-batch.done:
	case <-ctx.Done():
		reason = ctx.Err().Error()
	case <-timer.C:
		reason = "no acknowledgement within " + b.cfg.AckWait.String()
	}
	b.pub.end(id, reason)
	return errs
}

func fill(errs []error, err error) {
	for i := range errs {
		errs[i] = err
	}
}

func (p *publisher) begin(messages []broker.Message, errs []error) (uint64, *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, nil
	}
	p.inFlight.Add(1)
	fill(errs, errPending)
	p.next++
	b := &batch{messages: messages, errs: errs, left: len(errs), done: make(chan struct{})}
	p.batches[p.next] = b
	return p.next, b
}

// end takes the batch out; what is still open is unavailable for the reason.
func (p *publisher) end(id uint64, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.batches[id]
	delete(p.batches, id)
	for i := range b.errs {
		b.settle(i, fmt.Errorf("settlenats: publish: %w: %s", broker.ErrUnavailable, reason))
	}
}

func (b *Broker) send(ctx context.Context, id uint64, batch *batch) {
	encoder := newEncoder()
	late := b.lateness(ctx)
	reply := append([]byte(b.pub.inbox), strconv.FormatUint(id, 10)...)
	reply = append(reply, '.')
	var t *topic
	var name string
	for i := range batch.messages {
		m := &batch.messages[i]
		var err error
		if t == nil || m.Event.Topic != name {
			if t, err = b.topic(ctx, m.Event.Topic); err != nil {
				t = nil
				b.pub.settle(batch, i, fmt.Errorf("settlenats: publish to %s: %w", m.Event.Topic, err))
				continue
			}
			name = m.Event.Topic
		}
		if err = late(); err != nil {
			b.pub.settle(batch, i, fmt.Errorf("settlenats: publish: %w: %w", broker.ErrUnavailable, err))
			continue
		}
		msg := encoder.encode(t.subjects[assign.Partition(m.Event.AggregateID, t.partitions)], m)
		msg.Reply = string(strconv.AppendInt(reply, int64(i), 10))
		if err = b.nc.PublishMsg(msg); err != nil {
			b.pub.settle(batch, i, sendError(err, len(msg.Data), b.nc.MaxPayload()))
		}
	}
}

// Errors of a call that is late.
var (
	errDeadline = errors.New("the call's time is over")
	errReplaced = errors.New("the connection was replaced during the call")
)

// lateness returns what tells whether a call may still send. A relay that slept in the middle of a call may
// wake up when its shard has another owner, and the broker another tail: a message sent then could stand
// before one that was lost and is on its way again. Its deadline lies within its lease, and a server that
// lost its tail has lost its connections. The context is not asked: its timer sleeps as long as we do.
func (b *Broker) lateness(ctx context.Context) func() error {
	deadline, bounded := ctx.Deadline()
	before := b.nc.Stats().Reconnects
	return func() error {
		switch {
		case bounded && !time.Now().Before(deadline):
			return errDeadline
		case b.nc.Stats().Reconnects != before:
			return errReplaced
		}
		return nil
	}
}

func (p *publisher) settle(b *batch, i int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.settle(i, err)
}

// sendError tells what the client refused to send at all.
func sendError(err error, size int, limit int64) error {
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return &broker.RejectedError{Reason: fmt.Sprintf("data of %d bytes and headers exceed the server's max payload of %d", size, limit)}
	case errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg):
		return &broker.RejectedError{Reason: err.Error()}
	default:
		return fmt.Errorf("settlenats: publish: %w: %w", broker.ErrUnavailable, err)
	}
}

// ack takes one acknowledgement. The client calls it from one goroutine, in the order of arrival.
func (p *publisher) ack(msg *nats.Msg) {
	id, index, ok := p.address(msg.Subject)
	if !ok {
		return
	}
	a := parseAck(msg)
	life, _ := p.broker.life.current()
	p.mu.Lock()
	b := p.batches[id]
	lost := a.err == nil && p.wentBack(&a)
	if b != nil && index < len(b.errs) {
		if a.missing {
			p.broker.forget(b.messages[index].Event.Topic)
		}
		b.settle(index, a.err)
	}
	p.mu.Unlock()
	if lost {
		p.broker.life.report(life, a.stream, a.sequence-1)
	}
}

// wentBack looks whether the log ends lower than what it had acknowledged: its tail is gone, and nothing
// is acknowledged until the new incarnation has begun. It reports whether that is news.
func (p *publisher) wentBack(a *ackResult) bool {
	before := p.acked[a.stream]
	news := !a.duplicate && a.sequence <= before
	if !news && !p.lost[a.stream] {
		if !a.duplicate {
			p.acked[a.stream] = a.sequence
		}
		return false
	}
	p.lost[a.stream] = true
	a.err = fmt.Errorf("settlenats: publish: %w: %s had acknowledged %d and has lost its tail", broker.ErrUnavailable, a.stream, before)
	return news
}

// address reads batch and message from an acknowledgement's subject.
func (p *publisher) address(subject string) (id uint64, index int, ok bool) {
	rest, ok := strings.CutPrefix(subject, p.inbox)
	if !ok {
		return 0, 0, false
	}
	first, second, _ := strings.Cut(rest, ".")
	id, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	index, err = strconv.Atoi(second)
	return id, index, err == nil && index >= 0
}

// ackResult is what one acknowledgement says.
type ackResult struct {
	stream    string
	sequence  uint64
	duplicate bool
	missing   bool // no stream listens to the subject
	err       error
}

func parseAck(msg *nats.Msg) ackResult {
	if len(msg.Data) == 0 {
		return ackResult{missing: true, err: fmt.Errorf("settlenats: publish: %w: no stream takes the message", broker.ErrUnavailable)}
	}
	if a, ok := quickAck(msg.Data); ok {
		return a
	}
	var answer struct {
		Stream    string `json:"stream"`
		Sequence  uint64 `json:"seq"`
		Duplicate bool   `json:"duplicate"`
		Error     *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return ackResult{err: fmt.Errorf("settlenats: publish: %w: acknowledgement %.60q: %w", broker.ErrUnavailable, msg.Data, err)}
	}
	switch e := answer.Error; {
	case e == nil && answer.Sequence > 0:
		return ackResult{stream: answer.Stream, sequence: answer.Sequence, duplicate: answer.Duplicate}
	case e == nil:
		return ackResult{err: fmt.Errorf("settlenats: publish: %w: acknowledgement %.60q", broker.ErrUnavailable, msg.Data)}
	case e.Code == codeMessageTooLarge || e.Code == codeHeaderTooLarge:
		return ackResult{err: &broker.RejectedError{Reason: e.Description}}
	default:
		return ackResult{err: fmt.Errorf("settlenats: publish: %w: %s (%d)", broker.ErrUnavailable, e.Description, e.Code)}
	}
}

// quickAck reads the form that nearly every acknowledgement has: {"stream":"s","seq":1} with or
// without further fields.
func quickAck(data []byte) (ackResult, bool) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"stream":"`))
	if !ok {
		return ackResult{}, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return ackResult{}, false
	}
	rest, ok = bytes.CutPrefix(bytes.TrimLeft(rest, ", "), []byte(`"seq":`))
	if !ok {
		return ackResult{}, false
	}
	a := ackResult{stream: string(stream)}
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		a.sequence = a.sequence*10 + uint64(rest[n]-'0')
		n++
	}
	a.duplicate = bytes.Contains(rest[n:], []byte(`"duplicate":true`)) || bytes.Contains(rest[n:], []byte(`"duplicate": true`))
	return a, a.sequence > 0
}

// fail makes everything unacknowledged unavailable, when the connection is lost.
func (p *publisher) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.batches {
		for i := range b.errs {
			b.settle(i, err)
		}
	}
}

// deny takes the server's word that a subject is not ours to publish to: the messages are refused for
// their own sake. The text is: permissions violation for publish to "subject".
func (p *publisher) deny(text string) {
	_, rest, ok := strings.Cut(strings.ToLower(text), "publish to \"")
	if !ok {
		return
	}
	subject, _, _ := strings.Cut(rest, "\"")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.batches {
		for i, m := range b.messages {
			if strings.HasPrefix(subject, strings.ToLower(p.broker.cfg.Prefix+"."+token(m.Event.Topic)+".")) {
				b.settle(i, &broker.RejectedError{Reason: "not allowed to publish to " + m.Event.Topic})
			}
		}
	}
}

// renew forgets the sequences seen, when a new incarnation has begun.
func (p *publisher) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.acked)
	clear(p.lost)
}

func (p *publisher) closing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// close refuses new calls and waits for those under way, which end within AckWait.
func (p *publisher) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.inFlight.Wait()
}
