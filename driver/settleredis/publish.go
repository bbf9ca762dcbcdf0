package settleredis

import (
	"context"
	"errors"
	"fmt"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
)

// One script takes so much at most: it holds the server up for a few milliseconds, and stays far below
// what the server takes as one command.
const (
	chunkMax      = 250
	chunkBytesMax = 4 << 20
)

// errLife says that the logs are not the ones that the producer knew.
var errLife = fmt.Errorf("settleredis: publish: the logs are not what they were, look at their tail: %w", broker.ErrUnavailable)

// chunk is the messages of one script.
type chunk struct {
	epoch epoch
	logs  []string
	index map[string]int // of a log in logs, from 1
	args  []any
	which []int // of the messages, in the caller's slice
	bytes int
}

// Publish implements [broker.Publisher]. A chunk of messages is stored together or not at all, and only in
// the epoch that the producer knows.
func (b *Broker) Publish(ctx context.Context, messages []broker.Message) []error {
	if len(messages) == 0 {
		return nil
	}
	errs := make([]error, len(messages))
	err := ctx.Err()
	if len(messages) > broker.PublishMax {
		err = fmt.Errorf("settleredis: publish %d messages: %d allowed", len(messages), broker.PublishMax)
	}
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	var c chunk
	var fields []any
	for i := range messages {
		m := &messages[i]
		e, log, err := b.place(ctx, m)
		if err != nil {
			errs[i] = err
			continue
		}
		var size int
		if fields, size = encode(fields[:0], m); size > b.cfg.BytesMax {
			errs[i] = &broker.RejectedError{Reason: fmt.Sprintf(
				"message of %d bytes, %d of them data, exceeds the largest of %d", size, len(m.Event.Data), b.cfg.BytesMax)}
			continue
		}
		if len(c.which) == chunkMax || c.bytes+size > chunkBytesMax || c.epoch != e {
			b.send(ctx, &c, messages, errs)
			c = chunk{epoch: e}
		}
		c.add(i, log, fields, size)
	}
	b.send(ctx, &c, messages, errs)
	return errs
}

// place returns the epoch in which the message may be published, and its log.
func (b *Broker) place(ctx context.Context, m *broker.Message) (epoch, string, error) {
	e, ok := b.gate.admit(m.Event.Producer)
	if !ok {
		return e, "", errLife
	}
	n, incarnation, err := b.topic(ctx, m.Event.Topic)
	if err == nil && incarnation != e.incarnation {
		b.topics.clear()
		n, incarnation, err = b.topic(ctx, m.Event.Topic)
	}
	if err != nil {
		return e, "", fmt.Errorf("settleredis: publish to %s: %w", m.Event.Topic, err)
	}
	if incarnation != e.incarnation {
		b.gate.refuse(m.Event.Producer)
		return e, "", errLife
	}
	return e, logName(m.Event.Topic, assign.Partition(m.Event.AggregateID, n)), nil
}

func (c *chunk) add(i int, log string, fields []any, size int) {
	k := c.index[log]
	if k == 0 {
		if c.index == nil {
			c.index = map[string]int{}
		}
		c.logs = append(c.logs, log)
		k = len(c.logs)
		c.index[log] = k
	}
	c.args = append(c.args, k, len(fields))
	c.args = append(c.args, fields...)
	c.which = append(c.which, i)
	c.bytes += size
}

func (b *Broker) send(ctx context.Context, c *chunk, messages []broker.Message, errs []error) {
	if len(c.which) == 0 {
		return
	}
	keys := []string{b.cfg.lifeKey(), b.cfg.endsKey()}
	args := make([]any, 0, 3+len(c.logs)+len(c.args))
	args = append(args, c.epoch.incarnation, c.epoch.life, b.cfg.bellKey(""))
	for _, log := range c.logs {
		keys = append(keys, b.cfg.logKey(log))
		args = append(args, log)
	}
	results, err := b.scripts.publish.Run(ctx, b.db, keys, append(args, c.args...)...).StringSlice()
	switch {
	case err != nil && ctx.Err() != nil:
		err = fmt.Errorf("settleredis: publish: %w: %w", broker.ErrUnavailable, ctx.Err())
	case err != nil:
		err = fmt.Errorf("settleredis: publish: %w: %w", broker.ErrUnavailable, err)
	case len(results) == 1:
		err = errLife
	case len(results) != len(c.which)+1:
		err = fmt.Errorf("settleredis: publish: %w: %d results for %d messages", broker.ErrUnavailable, len(results)-1, len(c.which))
	}
	for n, i := range c.which {
		switch {
		case err != nil:
			errs[i] = err
		case results[n+1] != "":
			errs[i] = fmt.Errorf("settleredis: publish: %w: %s", broker.ErrUnavailable, results[n+1])
		}
		if errors.Is(err, errLife) {
			b.gate.refuse(messages[i].Event.Producer)
		}
	}
}
