// Package settlerabbit carries events on RabbitMQ, 3.10 or later.
//
//	b, err := settlerabbit.Open(ctx, "amqps://shop:secret@rabbit/shop", settlerabbit.Config{
//		Groups: []broker.Subscription{{Group: "billing", Topics: []string{"order-events"}}},
//	})
//
// A topic is a direct exchange, <prefix>/<topic>, with a fixed number of partitions: the routing key is the
// partition of the event's key. A group has a quorum queue with a single active consumer for each partition,
// <prefix>/<group>/<topic>/<n>, and beside it the quorum queue <prefix>/<group>/<topic>/<n>.DLQ. Messages are
// CloudEvents 1.0 in binary mode: attributes in headers cloudEvents_…, data in the body.
//
// # Guarantee
//
// A message is acknowledged to the relay when a majority of each bound queue's members has it on disk
// (publisher confirms). Events of one topic and key stand in one queue in the order in which they were
// acknowledged, given the one unacknowledged message per key that package relay keeps to.
//
// A queue is read by one member of a group at a time, in any number of processes. Members count each other
// by the consumers of a queue of the group's, and hold partitions by exclusive queues, which end with the
// connection that declared them. The lease saves work, the single active consumer keeps the order, and what
// refuses a late owner is the fence in the consumer's database. Acknowledgements come after the commit; what
// is unacknowledged when a connection ends comes again, in order, before anything newer. It is counted by
// the server, and after Config.DeliveryLimit returns goes to the .DLQ. Nothing else does: failing and
// malformed events are parked by the consumer long before, so a .DLQ that is not empty says that a process
// died over and over with these messages in hand.
//
// RabbitMQ has no position to go back to: partitions cannot seek, the stored position is for the fence only,
// and the inbox absorbs what comes again.
//
// # Groups
//
// A queue gets what is published after it was bound. A group is known from its first Subscribe, or from
// Config.Groups: a producer declares these with a topic, before it publishes the first event to it. Name
// every group there that must not miss events of a producer that started earlier.
//
// An event that no group is bound for is neither lost nor refused: the topic's alternate exchange stores it
// in <prefix>/<topic>/unrouted/<n> for Config.MaxAge. The first group that ever subscribes to the topic
// reads these queues before its own.
//
// # What this package does not do
//
// It changes no queue or exchange that stands already: another number of partitions, or other arguments, are
// refused by the server. Members of one group are to name the same topics: members with other topics share
// what they have in common by chance. It deletes nothing: a group that is gone fills its queues until
// somebody deletes them.
package settlerabbit
