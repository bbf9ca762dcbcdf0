package settlekafka

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Settings are those of a topic that decide whether events last. What the cluster doesn't say is zero.
type Settings struct {
	Topic      string // without the prefix
	Partitions int
	Replicas   int
	// InSyncMin is how many replicas must have an event before it is acknowledged.
	InSyncMin int
	// Compact says that only the last event of each key is kept.
	Compact bool
	// Retention is how long events are kept, BytesMax how much of each partition; 0 is without end.
	Retention time.Duration
	BytesMax  int64
	// Unclean says that a replica that lacks events may become the leader.
	Unclean bool
}

// Settings returns those of the topics that begin with Config.Prefix, for whoever looks after the cluster.
func (b *Broker) Settings(ctx context.Context) ([]Settings, error) {
	found, err := b.admin.ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("settlekafka: settings: %w", unavailable(ctx, err))
	}
	var all []Settings
	var names []string
	for _, t := range found.Sorted() {
		name, ours := strings.CutPrefix(t.Topic, b.cfg.Prefix)
		if !ours || t.Err != nil {
			continue
		}
		all = append(all, Settings{Topic: name, Partitions: len(t.Partitions), Replicas: t.Partitions.NumReplicas()})
		names = append(names, t.Topic)
	}
	if len(names) == 0 {
		return nil, nil
	}
	configs, err := b.admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("settlekafka: settings: %w", unavailable(ctx, err))
	}
	for i := range all {
		if c, err := configs.On(names[i], nil); err == nil && c.Err == nil {
			all[i].read(c.Configs)
		}
	}
	return all, nil
}

func (s *Settings) read(configs []kadm.Config) {
	for _, c := range configs {
		text := c.MaybeValue()
		n, _ := strconv.ParseInt(text, 10, 64) // Texts that are no number have no use for it.
		switch c.Key {
		case "min.insync.replicas":
			s.InSyncMin = int(n)
		case "cleanup.policy":
			s.Compact = strings.Contains(text, "compact")
		case "retention.ms":
			s.Retention = time.Duration(min(max(n, 0), retentionMax.Milliseconds())) * time.Millisecond
		case "retention.bytes":
			s.BytesMax = max(n, 0)
		case "unclean.leader.election.enable":
			s.Unclean = text == "true"
		}
	}
}

// retentionMax is what a Duration can say of longer ones.
const retentionMax = 290 * 365 * 24 * time.Hour
