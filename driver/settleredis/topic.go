package settleredis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

// topics is what this process knows of the topics in one incarnation. Data that was flushed may come back
// with other numbers.
type topics struct {
	mu          sync.Mutex
	incarnation string
	partitions  map[string]int
}

func (t *topics) get(name string) (int, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.partitions[name], t.incarnation
}

func (t *topics) set(incarnation, name string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.incarnation != incarnation {
		t.incarnation, t.partitions = incarnation, map[string]int{}
	}
	t.partitions[name] = n
}

func (t *topics) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.incarnation, t.partitions = "", nil
}

// topic returns how many partitions a topic has, as of an incarnation, and creates it when it is new.
func (b *Broker) topic(ctx context.Context, name string) (n int, incarnation string, err error) {
	if n, incarnation = b.topics.get(name); n > 0 {
		return n, incarnation, nil
	}
	if err := event.CheckName(name); err != nil {
		return 0, "", &broker.RejectedError{Reason: "topic: " + err.Error()}
	}
	answer, err := b.askTopic(ctx, name)
	if err == nil && len(answer) == 0 { // The data was flushed.
		if _, err = b.look(ctx); err == nil {
			answer, err = b.askTopic(ctx, name)
		}
	}
	if err == nil && len(answer) != 2 {
		err = errors.New("the data is being flushed")
	}
	if err != nil {
		return 0, "", unavailable(ctx, err)
	}
	if n, err = strconv.Atoi(answer[1]); err != nil || n < 1 || n > partitionsMax {
		return 0, "", fmt.Errorf("topic %s has %q partitions in %s: 1 to %d allowed", name, answer[1], b.cfg.topicsKey(), partitionsMax)
	}
	if n != b.cfg.Partitions {
		b.cfg.Logger.Info("topic keeps the partitions it was created with", "topic", name, "partitions", n, "configured", b.cfg.Partitions)
	}
	b.topics.set(answer[0], name, n)
	return n, answer[0], nil
}

func (b *Broker) askTopic(ctx context.Context, name string) ([]string, error) {
	return b.scripts.topic.Run(ctx, b.db, []string{b.cfg.lifeKey(), b.cfg.topicsKey()}, name, b.cfg.Partitions).StringSlice()
}
