package settleredis

import (
	"strconv"
	"strings"
)

// partitionsMax bounds the partitions of one topic.
const partitionsMax = 1024

// key returns the name of a key or channel. The braces keep all of a prefix in one slot, as the scripts
// touch several at once. Prefixes, groups and topics have no colon, so that names never meet.
func (c *Config) key(parts ...string) string {
	return "{" + c.Prefix + "}:" + strings.Join(parts, ":")
}

func (c *Config) lifeKey() string           { return c.key("life") }
func (c *Config) topicsKey() string         { return c.key("topics") }
func (c *Config) endsKey() string           { return c.key("ends") }
func (c *Config) logKey(log string) string  { return c.key("log", log) }
func (c *Config) tickKey(log string) string { return c.key("ticks", log) }
func (c *Config) bellKey(name string) string {
	return c.key("bell", name)
}
func (c *Config) membersKey(group string) string { return c.key("members", group) }
func (c *Config) leaseKey(group, log string) string {
	return c.key("lease", group, log)
}

// groupBell is the name under which a group's members call one another. A log's has no colon.
func groupBell(group string) string { return "group:" + group }

// logName is the name of a topic's partition among the logs; splitLog is its inverse.
func logName(topic string, partition int) string { return topic + "/" + strconv.Itoa(partition) }

func topicOf(log string) string {
	topic, _, _ := strings.Cut(log, "/")
	return topic
}

// partitionName is the name within a group's subscription.
func partitionName(log string) string { return "redis:" + log }

// parseID returns the offset of an entry: its id is 0-<offset>.
func parseID(id string) (uint64, bool) {
	digits, ok := strings.CutPrefix(id, "0-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

func entryID(offset uint64) string { return "0-" + strconv.FormatUint(offset, 10) }
