package settlenats

import (
	"strconv"
	"strings"
)

// partitionsMax bounds the partitions of one topic.
const partitionsMax = 1024

// token makes a topic one token of a subject and a part of a stream's name: neither may have a dot,
// and = is not a character of a topic.
func token(topic string) string { return strings.ReplaceAll(topic, ".", "=") }

// streamName is that of a topic's stream. The prefix has no underscore, so that names of two
// prefixes never meet.
func (c *Config) streamName(topic string) string { return c.Prefix + "_" + token(topic) }

func (c *Config) subject(topic string, partition int) string {
	return c.Prefix + "." + token(topic) + "." + strconv.Itoa(partition)
}

func (c *Config) subjects(topic string) string { return c.Prefix + "." + token(topic) + ".*" }

// lifeStream holds the incarnation; its subject has two tokens, those of topics have three.
func (c *Config) lifeStream() string { return c.Prefix }

func (c *Config) lifeSubject() string { return c.Prefix + ".incarnation" }

// partitionName is the name within a group's subscription; splitPartition is its inverse.
func partitionName(topic string, partition int) string {
	return "nats:" + topic + "/" + strconv.Itoa(partition)
}

func splitPartition(name string) (topic string, partition int) {
	topic, number, _ := strings.Cut(strings.TrimPrefix(name, "nats:"), "/")
	partition, _ = strconv.Atoi(number)
	return topic, partition
}
