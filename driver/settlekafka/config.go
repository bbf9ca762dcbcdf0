package settlekafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/event"
)

// Config says how events are carried. The zero Config is ready to use.
type Config struct {
	// Prefix begins the name of every topic, group and transactional id, for several systems on one
	// cluster: [A-Za-z0-9._-]. Default none.
	Prefix string
	// Partitions of a topic that is created; one that exists keeps its own. Default 8.
	Partitions int
	// Replication of a topic that is created. Default the cluster's.
	Replication int
	// NoCreateTopics leaves the making of topics to someone else: a missing one then is an error of
	// Subscribe, and Publish rejects its messages.
	NoCreateTopics bool

	// User and Password are for SASL; those in the URL come first. Default none.
	User     string
	Password string
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Default PLAIN when there is a user.
	Mechanism string
	// TLS is how a kafka+tls URL is dialled. Default the system's roots.
	TLS *tls.Config

	// TransactionalID makes each call of Publish one transaction. It belongs to one shard of one outbox:
	// whoever publishes with it fences off whoever did before. Default none: the idempotent producer.
	TransactionalID string
	// TransactionTimeout is when the cluster gives up a transaction whose publisher went silent; until
	// then it holds up the readers of its partitions. Default 30s.
	TransactionTimeout time.Duration
	// AckWait is how long Publish waits for acknowledgements, and any other request for its answer.
	// Default 5s.
	AckWait time.Duration

	// InstanceID makes members static: one that comes back with the same id within SessionTimeout keeps
	// its partitions, and nobody else notices. No two running members of a group may share it. Default
	// none: a member that leaves hands its partitions over at once.
	InstanceID string
	// SessionTimeout is how long the cluster waits for a silent member. Default 10s.
	SessionTimeout time.Duration
	// Wait is how long a Fetch waits for the first message: at most 5s. Default 250ms.
	Wait time.Duration

	// Options are given to each Kafka client after this package's own. Default none.
	Options []kgo.Opt
	// Logger takes what the clients have to say. Default slog.Default().
	Logger *slog.Logger
}

const (
	// partitionsMax bounds the partitions of one topic.
	partitionsMax = 10_000
	// fetchWaitMax bounds Config.Wait: a fetch that waits for long hides a broker that went silent.
	fetchWaitMax = 5 * time.Second
	// headerRoom is what a topic of ours takes in one message beside the data of an event.
	headerRoom = 16 << 10
)

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field *time.Duration
		name  string
		value time.Duration
	}{
		{&c.TransactionTimeout, "transaction timeout", 30 * time.Second},
		{&c.AckWait, "ack wait", 5 * time.Second},
		{&c.SessionTimeout, "session timeout", 10 * time.Second},
		{&c.Wait, "wait", 250 * time.Millisecond},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return c, fmt.Errorf("settlekafka: %s %s is negative", d.name, *d.field)
		}
	}
	if c.Partitions == 0 {
		c.Partitions = 8
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, c.check()
}

func (c Config) check() error {
	for _, n := range []struct{ name, value string }{
		{"prefix", c.Prefix}, {"transactional id", c.TransactionalID}, {"instance id", c.InstanceID},
	} {
		if err := event.CheckName(n.value); n.value != "" && err != nil {
			return fmt.Errorf("settlekafka: %s: %w", n.name, err)
		}
	}
	switch {
	case c.Partitions < 1 || c.Partitions > partitionsMax:
		return fmt.Errorf("settlekafka: %d partitions: 1 to %d allowed", c.Partitions, partitionsMax)
	case c.Replication < 0 || c.Replication > 100:
		return fmt.Errorf("settlekafka: %d replicas: 1 to 100 allowed", c.Replication)
	case c.Wait > fetchWaitMax:
		return fmt.Errorf("settlekafka: wait %s exceeds %s", c.Wait, fetchWaitMax)
	case c.AckWait < 100*time.Millisecond:
		return errors.New("settlekafka: ack wait is below 100ms")
	case c.TransactionalID != "" && c.TransactionTimeout <= c.AckWait:
		return fmt.Errorf("settlekafka: transaction timeout %s must exceed ack wait %s", c.TransactionTimeout, c.AckWait)
	case c.Password != "" && c.User == "":
		return errors.New("settlekafka: a password without a user")
	}
	return nil
}

// topicName is a topic's name on the cluster.
func (c *Config) topicName(topic string) string { return c.Prefix + topic }

// groupName is a group's name on the cluster.
func (c *Config) groupName(group string) string { return c.Prefix + group }
