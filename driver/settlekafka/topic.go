package settlekafka

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

const (
	// sizeDefault is the largest message that a topic takes where it cannot be asked: Kafka's default.
	sizeDefault = 1<<20 + 12
	// topicLooks is how often a missing topic is looked for that others have to create, a topicPause apart: the
	// broker that is asked may be a moment behind the one that created it.
	topicLooks = 10
	topicPause = 100 * time.Millisecond
)

// topic is one life of a topic that is known to exist.
type topic struct {
	name        string // on the cluster
	incarnation string
	sizeMax     int // of a batch, so of a message
}

// topic returns a topic and creates it when it is missing and Config allows it. An error is
// broker.ErrUnavailable, a *broker.RejectedError, or the context's.
func (b *Broker) topic(ctx context.Context, name string) (*topic, error) {
	b.mu.Lock()
	t := b.topics[name]
	b.mu.Unlock()
	if t != nil {
		return t, nil
	}
	if err := event.CheckName(name); err != nil {
		return nil, &broker.RejectedError{Reason: "topic: " + err.Error()}
	}
	limited, cancel := context.WithTimeout(ctx, b.cfg.AckWait)
	defer cancel()
	t, err := b.findTopic(limited, b.cfg.topicName(name))
	switch {
	case err == nil:
	case isForbidden(err):
		return nil, &broker.RejectedError{Reason: code(err)}
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return nil, fmt.Errorf("%w: %w", ErrNoTopic, &broker.RejectedError{Reason: code(err) + ": topic " + b.cfg.topicName(name) + " does not exist"})
	default:
		return nil, unavailable(ctx, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topics[name], b.sizes[t.name] = t, t.sizeMax
	return t, nil
}

func (b *Broker) findTopic(ctx context.Context, name string) (*topic, error) {
	for look := 1; ; look++ {
		t, err := b.askTopic(ctx, name)
		if err == nil || !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return t, err
		}
		if b.cfg.NoCreateTopics {
			if look == topicLooks {
				return nil, err
			}
		} else if err := b.createTopic(ctx, name); err != nil {
			return nil, err
		} // It exists now; a busy cluster may take seconds to say so.
		if err := pause(ctx, topicPause); err != nil {
			return nil, err
		}
	}
}

// askTopic asks the cluster, not a client's memory, which keeps to a topic's first life.
func (b *Broker) askTopic(ctx context.Context, name string) (*topic, error) {
	req := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &name
	req.Topics = append(req.Topics, asked)
	resp, err := req.RequestWith(ctx, b.cl)
	if err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("the cluster answered with %d topics for one", len(resp.Topics))
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		return nil, err
	}
	cluster := ""
	if resp.ClusterID != nil {
		cluster = *resp.ClusterID
	}
	id := resp.Topics[0].TopicID
	t := &topic{name: name, incarnation: cluster + "." + hex.EncodeToString(id[:])}
	t.sizeMax, err = b.sizeMax(ctx, name)
	return t, err
}

// sizeMax asks for max.message.bytes: messages beyond it are refused here, before they take the others of
// their batch with them.
func (b *Broker) sizeMax(ctx context.Context, name string) (int, error) {
	configs, err := b.admin.DescribeTopicConfigs(ctx, name)
	if _, denied := errors.AsType[*kadm.AuthError](err); denied {
		return sizeDefault, nil
	}
	if err != nil {
		return 0, err
	}
	for _, c := range configs {
		for _, entry := range c.Configs {
			if entry.Key == "max.message.bytes" && entry.Value != nil {
				if n, err := strconv.Atoi(*entry.Value); err == nil && n > 0 {
					return n, nil
				}
			}
		}
	}
	return sizeDefault, nil
}

// createTopic makes a topic that takes every event with its headers. Another process may be first; then
// the topic is that one's.
func (b *Broker) createTopic(ctx context.Context, name string) error {
	replication := int16(b.cfg.Replication)
	if replication == 0 {
		replication = -1
	}
	configs := map[string]*string{"max.message.bytes": new(strconv.Itoa(event.DataBytesMax + headerRoom))}
	_, err := b.admin.CreateTopic(ctx, int32(b.cfg.Partitions), replication, configs, name)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	return err
}

// forget makes the next use of a topic ask for it again, after it was missing or other than known.
func (b *Broker) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.topics, name)
}

// batchMax is the client's question for the largest batch of a topic.
func (b *Broker) batchMax(name string) int32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.sizes[name]; n > 0 {
		return int32(min(n, batchBytesMax))
	}
	return sizeDefault
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
