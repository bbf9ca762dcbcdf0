package consumer

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

// failure is a handler's error, as against one of the store around it.
type failure struct {
	err   error
	stack string // of a panic
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// step is what becomes of one message of a batch.
type step struct {
	handle  Handler // nil: do not handle
	park    bool
	waiting bool  // behind letters of its lane
	refused error // why it cannot be handled by anybody
}

// batch is the state of one transaction over messages, and its slices are used for all of a reader.
type batch struct {
	steps []step
	ids   []event.ID
	// opened are the lanes that were announced to get letters.
	opened []deadletter.Lane

	// seen are the messages that the filter knows, sifted their events.
	seen   []bool
	sifted []event.Envelope

	handled, duplicates []event.Envelope
	letters             []deadletter.Letter
	failed              *failure
}

// handler returns the message's handler, or why nobody can handle it, or neither when it concerns others.
func (c *Consumer) handler(m *broker.Message) (Handler, error) {
	if m.Err != nil {
		return nil, m.Err
	}
	h := c.cfg.Handlers[m.Event.Type]
	if h == nil && c.known != nil && !c.known[m.Event.Type] {
		return nil, fmt.Errorf("%q: %w", m.Event.Type, ErrUnknownType)
	}
	return h, nil
}

// plan decides about each message in turn, and announces the lanes that will get letters. It returns
// how many messages need the transaction, and how many of them are to be parked.
func (r *reader) plan(messages []broker.Message, fail *failure) (work, parks int) {
	b, c := &r.batch, r.c
	b.steps, b.ids, b.opened = b.steps[:0], b.ids[:0], b.opened[:0]
	for i := range messages {
		m := &messages[i]
		if b.known(i) {
			b.sifted = append(b.sifted, m.Event)
			b.steps = append(b.steps, step{})
			continue
		}
		h, refused := c.handler(m)
		s := step{handle: h, refused: refused}
		if h != nil || refused != nil {
			lane := deadletter.Lane{Topic: m.Event.Topic, Key: m.Event.AggregateID}
			// A failure was seen while its lane was absent; the lane may be there by now because parking
			// it was announced and did not commit. The failure stands.
			s.waiting = fail == nil && c.lanes.has(lane)
			s.park = s.waiting || refused != nil || fail != nil
			if s.park {
				c.lanes.begin(lane)
				b.opened = append(b.opened, lane)
			}
			b.ids = append(b.ids, m.Event.ID)
		}
		b.steps = append(b.steps, s)
	}
	return len(b.ids), len(b.opened)
}

// attempt handles messages in one transaction. A *failure is the handler's of one of them; any other
// error is none of theirs. With fail, the one message is parked for it instead of being handled.
func (r *reader) attempt(ctx, work context.Context, messages []broker.Message, fail *failure) error {
	b, c := &r.batch, r.c
	b.failed = nil
	if b.seen, b.sifted = b.seen[:0], b.sifted[:0]; fail == nil {
		r.sift(work, messages)
	}
	n, parks := r.plan(messages, fail)
	parked := 0
	defer func() { c.lanes.end(b.opened, parked) }()
	last := messages[len(messages)-1].Position
	if n == 0 {
		r.pos = last
		r.passed += len(messages)
		r.reportSifted()
		if !r.seeks {
			// A queue gives out only so many that are not acknowledged, and it has no use for the stored position.
			r.ack(work)
		}
		return nil
	}
	if parks > 0 && !c.lanes.room(parks, c.cfg.LettersMax) {
		_, letters := c.lanes.size()
		return fmt.Errorf("%d letters, %d more, %d allowed: %w", letters, parks, c.cfg.LettersMax, ErrFull)
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return errStopped
	case <-r.p.Revoked():
		return broker.ErrRevoked
	}
	if len(messages) > 1 {
		work = txn.Once(work) // A batch that meets another is repeated one by one, not as a whole.
	}
	err := c.run.Run(work, func(ctx context.Context, tx *txn.Tx) error {
		return r.apply(ctx, tx, messages, fail, last)
	})
	<-c.slots
	if err != nil {
		if b.failed != nil {
			return b.failed
		}
		r.distrust()
		return err
	}
	parked = len(b.letters)
	c.cfg.Failpoint("consumer.after-commit")
	r.settled(last)
	r.report()
	r.ack(work)
	r.teach(work)
	return nil
}

// apply is the transaction: remember, handle or park in order, move the position.
func (r *reader) apply(ctx context.Context, tx *txn.Tx, messages []broker.Message, fail *failure, last broker.Position) error {
	b, c := &r.batch, r.c
	b.failed = nil
	b.handled, b.duplicates, b.letters = b.handled[:0], b.duplicates[:0], b.letters[:0]
	var fresh []bool
	if c.inbox != nil {
		var err error
		if fresh, err = c.inbox.Remember(ctx, tx, c.cfg.Group, b.ids); err != nil {
			return fmt.Errorf("remember %d events: %w", len(b.ids), err)
		}
	}
	if err := r.prepare(ctx, tx, messages, fresh); err != nil {
		return err
	}
	next := 0
	for i := range messages {
		s, m := &b.steps[i], &messages[i]
		if s.handle == nil && !s.park {
			continue
		}
		next++
		if fresh != nil && !fresh[next-1] {
			b.duplicates = append(b.duplicates, m.Event)
			continue
		}
		if s.park {
			if err := r.park(ctx, tx, m, s, fail); err != nil {
				return err
			}
			continue
		}
		if b.failed = c.invoke(ctx, tx, s.handle, &m.Event); b.failed != nil {
			return b.failed
		}
		b.handled = append(b.handled, m.Event)
	}
	if err := c.positions.Store(ctx, tx, c.cfg.Group, r.name, r.fence, last); err != nil {
		return fmt.Errorf("store position: %w", err)
	}
	c.cfg.Failpoint("consumer.before-commit")
	return nil
}

// prepare lets the service take what its handlers of the batch will want.
func (r *reader) prepare(ctx context.Context, tx *txn.Tx, messages []broker.Message, fresh []bool) error {
	b, c := &r.batch, r.c
	if c.cfg.Prepare == nil {
		return nil
	}
	var events []event.Envelope
	next := 0
	for i := range messages {
		s := &b.steps[i]
		if s.handle == nil && !s.park {
			continue
		}
		next++
		if !s.park && (fresh == nil || fresh[next-1]) {
			events = append(events, messages[i].Event)
		}
	}
	if len(events) == 0 {
		return nil
	}
	if err := c.cfg.Prepare(ctx, tx, events); err != nil {
		return fmt.Errorf("prepare %d events: %w", len(events), err)
	}
	return nil
}

// invoke calls a handler; a panic is a failure with a stack.
func (c *Consumer) invoke(ctx context.Context, tx *txn.Tx, h Handler, e *event.Envelope) (f *failure) {
	defer func() {
		if p := recover(); p != nil {
			f = &failure{err: fmt.Errorf("panic: %v", p), stack: string(debug.Stack())}
		}
	}()
	if err := h(event.WithCause(ctx, e.Cause()), tx, *e); err != nil {
		return &failure{err: err}
	}
	return nil
}

// park stores a letter in the transaction of its inbox row and the position.
func (r *reader) park(ctx context.Context, tx *txn.Tx, m *broker.Message, s *step, fail *failure) error {
	now := time.Now()
	l := deadletter.Letter{
		Group: r.c.cfg.Group, Event: m.Event, Partition: r.name, Position: m.Position.String(),
		State: deadletter.StateWaiting, FirstAt: now, LastAt: now, NextAt: now,
	}
	switch {
	case fail != nil:
		l.State = deadletter.StateRetrying
		r.c.judge(&l, fail, now)
	case s.refused != nil:
		// Behind others it waits like any letter; Permanent without an attempt makes it DEAD in its turn.
		l.Cause, l.Permanent = clip(s.refused.Error()), true
		if !s.waiting {
			l.State, l.Attempts = deadletter.StateDead, 1
		}
	}
	if err := r.c.letters.Park(ctx, tx, l); err != nil {
		return fmt.Errorf("park %s: %w", l.ID(), err)
	}
	r.batch.letters = append(r.batch.letters, l)
	if l.State == deadletter.StateDead {
		return r.c.mirror(ctx, tx, &l)
	}
	return nil
}

// judge decides what becomes of a letter whose handler failed: again by the policy, again without
// counting, or given up.
func (c *Consumer) judge(l *deadletter.Letter, f *failure, now time.Time) {
	if l.Attempts == 0 {
		l.FirstAt = now
	}
	l.LastAt = now
	l.Cause, l.Stack = clip(f.err.Error()), clip(f.stack)
	l.State, l.Permanent = deadletter.StateRetrying, retry.IsPermanent(f.err)
	if wait, ok := retry.IsAfter(f.err); ok && !l.Permanent {
		wait = max(wait, time.Millisecond)
		l.NextAt = now.Add(wait)
		if l.Attempts > 0 {
			l.FirstAt = l.FirstAt.Add(wait) // The wait uses up nothing of the policy's total.
		}
		return
	}
	l.Attempts++
	at, ok := c.cfg.Retry.Next(l.Attempts, l.FirstAt, now)
	l.NextAt = at
	if l.Permanent || !ok {
		l.State, l.NextAt = deadletter.StateDead, now
	}
}

func clip(s string) string {
	if len(s) <= deadletter.CauseBytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:deadletter.CauseBytesMax], "")
}

// mirrorSpace is the name space of the identities of copies on a dead letter topic.
//
//nolint:gochecknoglobals // An array constant, which Go does not have.
var mirrorSpace = event.ID{0x5e, 0x77, 0x1e, 0x00, 0x00, 0x00, 0x50, 0x00, 0x80, 0x00, 0x6c, 0x65, 0x74, 0x74, 0x65, 0x72}

// mirror adds a copy of a dead letter's event on <topic>.DLQ, for other teams. The letter itself is the
// truth: what cannot travel (a malformed envelope, data that is no JSON, a copy of a copy) has no mirror.
func (c *Consumer) mirror(ctx context.Context, tx *txn.Tx, l *deadletter.Letter) error {
	e := l.Event
	if strings.HasSuffix(e.Topic, deadletter.TopicSuffix) {
		return nil
	}
	e.ID = event.DerivedID(mirrorSpace, l.ID())
	e.CausationID = l.Event.ID
	e.Topic += deadletter.TopicSuffix
	e.IdempotencyKey = ""
	e.OccurredAt = tx.Now().UTC()
	if e.Producer = tx.Producer(); e.Producer == "" {
		e.Producer = c.cfg.Group
	}
	if e.Check() != nil || !json.Valid(e.Data) {
		return nil
	}
	if err := tx.Append(ctx, e); err != nil {
		return fmt.Errorf("copy to %s: %w", e.Topic, err)
	}
	return nil
}

// report tells hooks and the log what has been committed.
func (r *reader) report() {
	b, c := &r.batch, r.c
	if c.cfg.Hooks.Handled != nil && len(b.handled) > 0 {
		c.cfg.Hooks.Handled(b.handled, time.Now())
	}
	if c.cfg.Hooks.Duplicate != nil {
		for i := range b.duplicates {
			c.cfg.Hooks.Duplicate(b.duplicates[i])
		}
	}
	r.reportSifted()
	for i := range b.letters {
		c.parked(&b.letters[i])
	}
}

// reportSifted tells of what the filter knew: to others it is a duplicate like any other.
func (r *reader) reportSifted() {
	if h := r.c.cfg.Hooks.Duplicate; h != nil {
		for i := range r.batch.sifted {
			h(r.batch.sifted[i])
		}
	}
}

func (c *Consumer) parked(l *deadletter.Letter) {
	log := append(attributes(&l.Event), "attempt", l.Attempts, "err", l.Cause)
	switch l.State {
	case deadletter.StateWaiting:
		c.cfg.Logger.Debug("event parked behind others of its key", log...)
	case deadletter.StateRetrying:
		c.alarm.at(l.NextAt)
		c.cfg.Logger.Warn("event parked, its key waits", append(log, "next", l.NextAt)...)
	case deadletter.StateDead:
		c.dead(l)
	}
	if c.cfg.Hooks.Parked != nil {
		c.cfg.Hooks.Parked(*l)
	}
}

func (c *Consumer) dead(l *deadletter.Letter) {
	c.cfg.Logger.Error("event given up, its key waits for a person",
		append(attributes(&l.Event), "attempt", l.Attempts, "err", l.Cause)...)
	if c.cfg.Hooks.Dead != nil {
		c.cfg.Hooks.Dead(*l)
	}
}
