package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/driver/settlekafka"
)

// keptLeast is how long a topic should keep events: as long as inboxes remember them. A group that was away
// for longer has missed some.
const keptLeast = 7 * 24 * time.Hour

// kafka looks at the topics that begin with the prefix: without one, at all of the cluster.
func kafka(ctx context.Context, name string, b *settlekafka.Broker, c app.Carrier) []Finding {
	all, err := b.Settings(ctx)
	if err != nil {
		return []Finding{{Warn, name, "settings of topics cannot be looked at: " + err.Error(), "give the user the right to describe topics and their configs, or look by hand"}}
	}
	var found []Finding
	for i := range all[:min(len(all), topicsMax)] {
		found = append(found, KafkaTopic(name, &all[i], c.Partitions)...)
	}
	return append(found, Finding{OK, name, fmt.Sprintf("%d topics were looked at", min(len(all), topicsMax)), ""})
}

// KafkaTopic says what is wrong with a topic's settings. partitions is what new topics get, 0 the driver's
// default.
func KafkaTopic(of string, s *settlekafka.Settings, partitions int) []Finding {
	var all []Finding
	add := func(level Level, do, format string, args ...any) {
		all = append(all, Finding{level, of, fmt.Sprintf("topic %.140q: ", s.Topic) + fmt.Sprintf(format, args...), do})
	}
	switch {
	case s.InSyncMin > s.Replicas:
		add(Fail, "lower the first, or add replicas", "min.insync.replicas is %d of %d: nothing can be published", s.InSyncMin, s.Replicas)
	case s.Replicas == 1:
		add(Warn, "3 replicas and min.insync.replicas=2, unless it may be lost", "has 1 replica: its disk is the only copy")
	case s.InSyncMin == 1:
		add(Warn, "set min.insync.replicas=2", "min.insync.replicas is 1 of %d: an event may be acknowledged that has one copy", s.Replicas)
	case s.InSyncMin == s.Replicas:
		add(Warn, "add a replica", "min.insync.replicas is %d of %d: nothing can be published while one is away", s.InSyncMin, s.Replicas)
	}
	if s.Compact {
		add(Warn, "set cleanup.policy=delete", "is compacted: of each key only the last event is kept")
	}
	if s.Retention > 0 && s.Retention < keptLeast {
		add(Warn, fmt.Sprintf("set retention.ms=%d", keptLeast.Milliseconds()),
			"keeps events for %s, less than %s: a group that was away for longer misses some", s.Retention, keptLeast)
	}
	if s.BytesMax > 0 {
		add(Warn, "set retention.bytes=-1, and watch the disk", "keeps %d bytes of each partition, however old they are", s.BytesMax)
	}
	if s.Unclean {
		add(Warn, "set unclean.leader.election.enable=false", "may be led by a replica that lacks acknowledged events")
	}
	if partitions > 0 && s.Partitions != partitions {
		add(Warn, "correct the setting; adding partitions moves keys, which breaks their order unless all is read before",
			"has %d partitions, configured are %d", s.Partitions, partitions)
	}
	return all
}
