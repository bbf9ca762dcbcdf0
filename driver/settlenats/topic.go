package settlenats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

// partitionsKey is where a stream's metadata says how many partitions it has: the number decides
// where a key stands, so it is the stream's and not the process's.
const partitionsKey = "settle-partitions"

// topic is a stream that is known to exist.
type topic struct {
	stream     string
	partitions int
	subjects   []string // by partition
	// first and last are sequences as of the last look, for what may be a little late.
	first, last atomic.Uint64
}

// topic returns a topic's stream and creates it when it is new.
func (b *Broker) topic(ctx context.Context, name string) (*topic, error) {
	b.topicsMu.Lock()
	t := b.topics[name]
	b.topicsMu.Unlock()
	if t != nil {
		return t, nil
	}
	if err := event.CheckName(name); err != nil {
		return nil, &broker.RejectedError{Reason: "topic: " + err.Error()}
	}
	stream, err := b.js.Stream(ctx, b.cfg.streamName(name))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = b.createStream(ctx, name)
	}
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	info := stream.CachedInfo()
	if b.embedded != nil && info.Config.MaxAge != b.cfg.MaxAge {
		// The embedded server is ours alone, so its streams follow the config.
		info.Config.MaxAge, info.Config.Duplicates = b.cfg.MaxAge, b.cfg.Dedup
		if _, err := b.js.UpdateStream(ctx, info.Config); err != nil {
			return nil, unavailable(ctx, err)
		}
	}
	n, err := strconv.Atoi(info.Config.Metadata[partitionsKey])
	if err != nil || n < 1 || n > partitionsMax {
		return nil, fmt.Errorf("stream %s is not ours: metadata %s is %q", info.Config.Name, partitionsKey, info.Config.Metadata[partitionsKey])
	}
	t = &topic{stream: info.Config.Name, partitions: n}
	for i := range n {
		t.subjects = append(t.subjects, b.cfg.subject(name, i))
	}
	t.first.Store(info.State.FirstSeq)
	t.last.Store(info.State.LastSeq)
	b.topicsMu.Lock()
	defer b.topicsMu.Unlock()
	if known := b.topics[name]; known != nil {
		return known, nil
	}
	b.topics[name] = t
	return t, nil
}

// createStream makes a topic's stream. Another process may be first; then the stream is that one's.
func (b *Broker) createStream(ctx context.Context, name string) (jetstream.Stream, error) {
	stream, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
		Name:        b.cfg.streamName(name),
		Description: "settle topic " + name,
		Subjects:    []string{b.cfg.subjects(name)},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		Storage:     jetstream.FileStorage,
		MaxAge:      b.cfg.MaxAge,
		Duplicates:  b.cfg.Dedup,
		Replicas:    b.cfg.Replicas,
		Metadata:    map[string]string{partitionsKey: strconv.Itoa(b.cfg.Partitions)},
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return b.js.Stream(ctx, b.cfg.streamName(name))
	}
	if err == nil && b.embedded != nil {
		err = b.embedded.stamp.refresh()
	}
	return stream, err
}

// forget makes the next use of a topic look for its stream again, after it was missing.
func (b *Broker) forget(name string) {
	b.topicsMu.Lock()
	defer b.topicsMu.Unlock()
	delete(b.topics, name)
}

// known returns the topics in use by their streams' names.
func (b *Broker) known() map[string]*topic {
	b.topicsMu.Lock()
	defer b.topicsMu.Unlock()
	byStream := make(map[string]*topic, len(b.topics))
	for _, t := range b.topics {
		byStream[t.stream] = t
	}
	return byStream
}
