// Package settlekafka carries events on Apache Kafka.
//
//	b, err := settlekafka.Open(ctx, "kafka://kafka-1:9092,kafka-2:9092", settlekafka.Config{Partitions: 24, Replication: 3})
//	b, err := settlekafka.Open(ctx, "kafka+tls://shop:secret@kafka:9093?sasl=scram-sha-512", settlekafka.Config{})
//
// A topic is a topic, a key is a key: Kafka's own hash of it picks the partition, so foreign producers
// and Debezium agree. Messages are CloudEvents 1.0 in binary mode, attributes in headers ce_….
//
// # Guarantee
//
// Events of one topic and key stand in one partition, their first appearances in the order in which they
// were given to Publish. The producer is idempotent, waits for all in-sync replicas and has 5 requests
// in flight at most; what it could not get acknowledged is given up, and nothing of that comes after a
// message that was published later. With Config.TransactionalID each call is one transaction, and a
// publisher that was replaced is fenced off ([ErrFenced]).
//
// Partitions are divided by the group's cooperative protocol, with static members if wanted, and read
// from positions of the consumer's own, committed messages only. A position is counted in one life of a
// topic: one that was deleted and made anew is read from its start. A position that retention has
// overtaken, or that lies past the end, is [broker.ErrPositionLost]. The group's offsets are for tools
// that watch its lag; nothing is read from them.
//
// A [Stage] transforms topics to topics exactly once, without a database.
//
// # What this package does not do
//
// It does not put a topic and a database into one transaction: package relay repeats, package inbox
// remembers. It cannot tell whether a commit happened whose answer was lost, so a message may stand twice
// also with a transactional id. Kafka acknowledges before its disks do: give topics three replicas, two
// of them in sync, or a power failure takes acknowledged events along; a log that is refilled past a
// consumer's position afterwards shows no trace of that. It changes no topic that exists: partitions that
// are added later move keys, and with them their order.
package settlekafka
