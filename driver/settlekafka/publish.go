package settlekafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/broker"
)

const causeFollows = "follows a message of its key that was refused in the same call"

// producing are the options of a client that publishes.
func (b *Broker) producing() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// The same partition for a key in every process, and in Java's producer: murmur2.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchMaxBytesFn(b.batchMax),
		// Nothing lingers: a call comes with what there is to send.
		kgo.ProducerLinger(0),
		kgo.ProduceRequestTimeout(b.cfg.AckWait),
		// Calls are bounded by PublishMax and by those who call; none of them may wait inside the client.
		kgo.MaxBufferedRecords(1 << 20),
	}
}

// Ordered implements [broker.Ordered]: the client numbers what it sends to a partition and the broker
// takes it in no other order, also when it is sent again. So the messages of a key may share a call.
func (b *Broker) Ordered() bool { return true }

// Publish implements [broker.Publisher]. Without a transactional id the messages are stored one by one,
// idempotently; with one, all of them or none.
//
// After ErrUnavailable a message may stand in its log once, or not at all, and nothing of the call comes
// later: what could not be acknowledged is given up with the epoch of the producer. The messages of the
// next call have a higher epoch, and once a partition has seen that, it refuses what is still on its way
// of the lower one. What arrives before then stands before them, in its order. So the first appearances
// of a key's messages are in order, whatever was repeated.
//
// A message that is refused keeps those of its key that follow it in the same call from being stored: they
// are refused as well, so that nothing overtakes it while it is parked.
func (b *Broker) Publish(ctx context.Context, messages []broker.Message) []error {
	if len(messages) == 0 {
		return nil
	}
	began := time.Now()
	c := newCall(len(messages))
	if err := b.beginPublish(ctx, len(messages)); err != nil {
		for i := range c.errs {
			c.errs[i] = err
		}
		return c.errs
	}
	defer b.publishing.Done()
	b.encode(ctx, c, messages)
	if len(c.records) == 0 {
		return c.errs
	}
	if b.cfg.TransactionalID != "" {
		b.txn.publish(ctx, c, began)
	} else {
		b.plain.publish(ctx, c)
	}
	return c.errs
}

func (b *Broker) beginPublish(ctx context.Context, n int) error {
	if n > broker.PublishMax {
		return fmt.Errorf("settlekafka: publish %d messages: %d allowed", n, broker.PublishMax)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("settlekafka: publish: %w: %w", broker.ErrUnavailable, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed("publish")
	}
	b.publishing.Add(1)
	return nil
}

// call is one call of Publish. A result is written once, by one goroutine, before done is closed.
type call struct {
	errs    []error // by message
	records []*kgo.Record
	indexes []int    // of a record's message
	names   []string // of a record's topic, without prefix
	results []error  // by record, as the client gave them
	left    atomic.Int64
	done    chan struct{}
}

func newCall(n int) *call {
	return &call{errs: make([]error, n), done: make(chan struct{})}
}

func (c *call) send(ctx context.Context, cl *kgo.Client) {
	// The client would give up a whole batch for the context of its first record.
	ctx = context.WithoutCancel(ctx)
	c.left.Store(int64(len(c.records)))
	c.results = make([]error, len(c.records))
	for i, r := range c.records {
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			c.results[i] = err
			if c.left.Add(-1) == 0 {
				close(c.done)
			}
		})
	}
}

// wait returns why the results are not there, or nil.
func (c *call) wait(ctx context.Context, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("no acknowledgement within %s", limit)
	}
}

// route is what order is kept for.
type route struct{ topic, key string }

// encode makes the records of what may be sent, and the results of what may not.
func (b *Broker) encode(ctx context.Context, c *call, messages []broker.Message) {
	failed := map[string]error{}
	refused := map[route]bool{}
	for i := range messages {
		m := &messages[i]
		name, key := m.Event.Topic, route{m.Event.Topic, m.Event.AggregateID}
		if refused[key] {
			c.errs[i] = &broker.RejectedError{Reason: causeFollows}
			continue
		}
		err, known := failed[name]
		var t *topic
		if !known {
			if t, err = b.topic(ctx, name); err != nil {
				if !isResult(err) {
					err = fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
				}
				failed[name] = err
			}
		}
		if err != nil {
			c.errs[i] = fmt.Errorf("settlekafka: publish to %s: %w", name, err)
			continue
		}
		r := encode(t.name, m)
		if size := batchSize(r); size > min(t.sizeMax, batchBytesMax) {
			refused[key] = true
			c.errs[i] = &broker.RejectedError{Reason: tooLarge(len(m.Event.Data), size, t)}
			continue
		}
		c.records = append(c.records, r)
		c.indexes = append(c.indexes, i)
		c.names = append(c.names, name)
	}
}

func tooLarge(data, size int, t *topic) string {
	return fmt.Sprintf("MESSAGE_TOO_LARGE: data of %d bytes with key and headers makes %d, topic %s takes %d", data, size, t.name, t.sizeMax)
}

// isResult reports whether an error may be given to a caller of Publish.
func isResult(err error) bool {
	_, rejected := errors.AsType[*broker.RejectedError](err)
	return rejected || errors.Is(err, broker.ErrUnavailable)
}

// idempotent publishes without transactions, for any number of callers.
type idempotent struct {
	broker *Broker
	// mu is held for reading while a call is handed to the client, and for writing while everything in
	// it is given up: else the second half of a call could be stored after its first half was given up.
	mu sync.RWMutex
}

func (p *idempotent) publish(ctx context.Context, c *call) {
	p.mu.RLock()
	c.send(ctx, p.broker.cl)
	p.mu.RUnlock()
	var reason error
	if reason = c.wait(ctx, p.broker.cfg.AckWait); reason != nil {
		p.giveUp()
		<-c.done
	}
	if p.settle(c, reason) {
		p.oneByOne(ctx, c)
	}
}

// giveUp fails everything that is not acknowledged, of all callers: there is one epoch for all. Their
// relays would have met the same silence, and wait as they would then.
func (p *idempotent) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broker.cl.UnsafeAbortBufferedRecords()
}

// settle translates results, and reports whether a batch was refused for a message in it.
func (p *idempotent) settle(c *call, reason error) (condemned bool) {
	for i, err := range c.results {
		switch {
		case err == nil:
		case isCondemned(err):
			condemned = true
		default:
			c.errs[c.indexes[i]] = p.broker.result(c.names[i], err, reason)
		}
	}
	return condemned
}

// result makes an error of the client one that a caller of Publish may see. reason is why the call was
// given up, when it was.
func (b *Broker) result(name string, err, reason error) error {
	switch {
	case isForbidden(err):
		b.forget(name)
		return &broker.RejectedError{Reason: code(err)}
	case isGone(err):
		// Deleted, or another one of the same name. The next call asks, creates or refuses.
		b.forget(name)
		b.cl.PurgeTopicsFromProducing(b.cfg.topicName(name))
	}
	if reason != nil {
		err = reason
	}
	return fmt.Errorf("settlekafka: publish to %s: %w: %w", name, broker.ErrUnavailable, err)
}

// oneByOne sends again what stood in refused batches, each message in a batch of its own. It happens when
// a topic takes less than it did when it was asked: the client fails all that waits for the partition.
// Order has one gap here: a call that is just being handed to the client when another call's batch is
// refused may have a later message of a key stored, and the earlier one only now.
func (p *idempotent) oneByOne(ctx context.Context, c *call) {
	p.mu.Lock() // Nobody's messages may share the batches.
	defer p.mu.Unlock()
	b := p.broker
	ctx, cancel := context.WithTimeout(ctx, b.cfg.AckWait)
	defer cancel()
	failed := b.cl.Flush(ctx)
	refused := map[route]bool{}
	for i, result := range c.results {
		if !isCondemned(result) {
			continue
		}
		b.forget(c.names[i])
		key := route{c.names[i], string(c.records[i].Key)}
		err := failed
		switch {
		case refused[key]:
			c.errs[c.indexes[i]] = &broker.RejectedError{Reason: causeFollows}
			continue
		case err == nil:
			err = p.sendOne(ctx, c.records[i])
		}
		switch {
		case err == nil:
		case isCondemned(err):
			refused[key] = true
			c.errs[c.indexes[i]] = &broker.RejectedError{Reason: fmt.Sprintf("%s: %d bytes with key and headers", code(err), batchSize(c.records[i]))}
		default:
			failed = err // So that nothing overtakes it.
			c.errs[c.indexes[i]] = b.result(c.names[i], err, nil)
		}
	}
}

// sendOne sends a record that no other shares the client with.
func (p *idempotent) sendOne(ctx context.Context, r *kgo.Record) error {
	again := &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
	c := newCall(1)
	c.records = []*kgo.Record{again}
	c.send(ctx, p.broker.cl)
	reason := c.wait(ctx, p.broker.cfg.AckWait)
	if reason == nil {
		return c.results[0]
	}
	p.broker.cl.UnsafeAbortBufferedRecords()
	<-c.done
	if c.results[0] == nil {
		return nil
	}
	return reason
}
