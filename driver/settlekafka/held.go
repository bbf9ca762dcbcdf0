package settlekafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Held returns those of the topics that have had a message, whoever wrote it. It creates none.
func (b *Broker) Held(ctx context.Context, topics ...string) ([]string, error) {
	var held []string
	for _, topic := range topics {
		name := b.cfg.topicName(topic)
		ends, err := b.admin.ListEndOffsets(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("settlekafka: held: %w", unavailable(ctx, err))
		}
		written := false
		for _, end := range ends[name] {
			if end.Err != nil && !errors.Is(end.Err, kerr.UnknownTopicOrPartition) {
				return nil, fmt.Errorf("settlekafka: held: topic %s: %w", name, unavailable(ctx, end.Err))
			}
			written = written || end.Err == nil && end.Offset > 0
		}
		if written {
			held = append(held, topic)
		}
	}
	return held, nil
}
