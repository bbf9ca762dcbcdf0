package settlerabbit

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
)

// nameBytesMax is AMQP's limit for the name of a queue or exchange.
const nameBytesMax = 255

// Names are parted by slashes, which prefixes, groups and topics cannot have.

func (c *Config) exchange(topic string) string { return c.Prefix + "/" + topic }

// unroutedExchange says in its name how many partitions a topic has: a server compares alternate exchanges,
// and so refuses a process that counts otherwise.
func (c *Config) unroutedExchange(topic string) string {
	return c.exchange(topic) + "/unrouted:" + strconv.Itoa(c.Partitions)
}

func (c *Config) unroutedQueue(topic string, partition int) string {
	return c.exchange(topic) + "/unrouted/" + strconv.Itoa(partition)
}

// heirQueue is never used as a queue: the first group that declares it is the one for the unrouted.
func (c *Config) heirQueue(topic string) string { return c.exchange(topic) + "/unrouted/heir" }

func (c *Config) queue(group, topic string, partition int) string {
	return c.Prefix + "/" + group + "/" + topic + "/" + strconv.Itoa(partition)
}

func (c *Config) deadQueue(group, topic string, partition int) string {
	return c.queue(group, topic, partition) + ".DLQ"
}

// crew names the members of a group that want the same topics.
func (c *Config) crew(group string, topics []string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.Join(slices.Sorted(slices.Values(topics)), "/")))
	return fmt.Sprintf("%s/%s/members/%016x", c.Prefix, group, h.Sum64())
}

func (c *Config) seat(crew string, n int) string { return crew + "/seat/" + strconv.Itoa(n) }

func (c *Config) lease(group, topic string, partition int) string {
	return c.Prefix + "/" + group + "/lease/" + topic + "/" + strconv.Itoa(partition)
}

// partitionName is the name within a group's subscription.
func partitionName(topic string, partition int) string {
	return "rabbit:" + topic + "/" + strconv.Itoa(partition)
}
