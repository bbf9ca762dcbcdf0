// Package storebroker is a broker that is no broker: a consumer follows the producers' outboxes
// themselves. It costs half of a hop through a broker and has the lowest latency, and a small
// installation runs nothing but its databases.
//
//	b, err := storebroker.New(map[string]relay.Source{
//		"order":   orderStore.Outbox(),
//		"payment": paymentStore.Outbox(),
//	}, storebroker.Config{})
//
// A subscription has one partition for each producer, named store:order, whatever its topics; events
// of other topics are skipped. It is no [broker.Publisher]: a service on it runs no relay. Run
// [Broker.Run] beside the services, so that the outboxes know what is settled and can be purged.
//
// # Guarantee
//
// A group sees each committed event of each producer in the order of its outbox, which keeps the
// order of each aggregate. A position is the event's place in the outbox: it outlives every restart.
// An event that the outbox no longer keeps is reported as [broker.ErrPositionLost], if the source
// reports [relay.ErrRetention].
//
// # What this package does not do
//
// It does not spread one producer over many consumers: a producer is one partition. Between processes it
// divides partitions by leases ([Config.Leases]). It reads shard 0 and so expects outboxes of one shard. A producer's database that is replaced
// by an older copy is not noticed.
package storebroker
