package memory

import (
	"crypto/rand"
	"fmt"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/event"
)

// faults are what a test has asked a [Broker] to do wrong.
type faults struct {
	down     bool
	refuse   func(event.Envelope) bool
	loseAcks int
}

// SetDown makes every call answer ErrUnavailable until it is called with false.
func (b *Broker) SetDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults.down = down
}

// Refuse makes Publish reject the messages that match, each for its own sake. A nil match ends it.
func (b *Broker) Refuse(match func(event.Envelope) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults.refuse = match
}

// LoseAcks makes the next n messages be stored, and reported as ErrUnavailable.
func (b *Broker) LoseAcks(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults.loseAcks = n
}

// LoseTail drops the last n messages of every log, as a power failure does: the incarnation stays, and
// its offsets would be counted again; only Tail's Life is another.
func (b *Broker) LoseTail(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, logs := range b.logs {
		for _, l := range logs {
			l.messages = l.messages[:max(0, len(l.messages)-n):max(0, len(l.messages)-n)]
			l.changed()
		}
	}
	b.run, b.opened = rand.Text(), b.ends()
}

// Expire drops the first n messages of every log, as retention does.
func (b *Broker) Expire(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, logs := range b.logs {
		for _, l := range logs {
			drop := min(n, len(l.messages))
			l.messages, l.base = l.messages[drop:], l.base+uint64(drop)
			l.changed()
		}
	}
}

// Garble puts a message on a topic that is not an event, and returns the identity it is given.
func (b *Broker) Garble(topic, key string) event.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := assign.Partition(key, b.cfg.Partitions)
	l := b.topic(topic)[i]
	name := fmt.Sprintf("%s/%s/%d", b.incarnation, partitionName(topic, i), l.end()+1)
	id := event.DerivedID(event.ID{}, name)
	b.append(l, broker.Message{
		Event: event.Envelope{ID: id, Topic: topic, AggregateID: key, Data: []byte("garbled")},
		Err:   fmt.Errorf("memory: %s: %w", name, event.ErrMalformed),
	})
	return id
}

// Revoke takes every partition of a group away and hands it out again, as a rebalance does.
func (b *Broker) Revoke(group string) { b.table.Revoke(group) }
