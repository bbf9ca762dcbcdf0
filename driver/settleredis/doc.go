// Package settleredis carries events on Redis Streams, and lends Redis to three other uses that are never
// the truth: a filter of settled events, a cache of read models, and hints that save work.
//
//	b, err := settleredis.Open(ctx, "redis://shop:secret@redis:6379/0", settleredis.Config{})
//	...
//	c, err := consumer.New(store, store, b, consumer.Config{Group: "billing", Topics: []string{"orders"}, ...})
//
// Each topic has a number of partitions, fixed when it is created, and each partition is one stream,
// {settle}:log:<topic>/<n>. An entry's id is 0-<offset>, counted from 1; its fields are the event's
// CloudEvents attributes by name, data, and origin.
//
// # Guarantee
//
// Events of one topic and key stand in one stream in the order in which they were acknowledged, given the
// one unacknowledged message per key that package relay keeps to. A call's messages are stored by scripts,
// each wholly or not at all.
//
// A stream is read by one member of a group at a time, in any number of processes: a lease with a token,
// renewed every third of its time, taken by whoever has the fewest. The lease saves work only. What
// refuses a late owner is the fence in the consumer's database. A new owner takes over what was pending
// (XAUTOCLAIM, and nobody else calls it), drops what its own position covers, and reads what is pending
// first, then what is new. The position decides: whenever the group's state does not follow on from it, the
// group is set back to it. XACK comes after the commit. A message is trimmed when it is older than the
// retention and every group has acknowledged it.
//
// Redis acknowledges before its disk does: a server that dies may lose the last second, a failover more,
// FLUSHALL everything. So positions carry an incarnation, kept beside the streams, and publishing is tied
// to a life: one run of the server (its run_id) over one set of data. In a run that is new, or when a stream
// is gone, the first process that looks writes down how far the streams reach, before anything is
// published: scripts refuse to publish in a life that the producer has not looked at. Relays compare that
// with their marks, begin a new incarnation and publish again what is in doubt, as the broker's
// [Broker.Tail] tells them. Consumers of another incarnation read what is retained again, and the inbox
// absorbs it; what is older than the retention, kept for a slow group only, the others do not read again.
//
// A server whose memory is full takes no events: publishing is unavailable, and goes on when groups have
// acknowledged and trimming has made room, or an operator has. Everything retained is in memory, some 700
// bytes for an event with 300 bytes of data: choose Config.Retention by that.
//
// Doorbells over Pub/Sub wake a waiting Fetch. One that is lost costs Config.Wait.
//
// # What this package does not do
//
// It does not run on Redis Cluster, nor on a version before 7 (scripts need INFO, and ids 0-*), and refuses a
// server that evicts keys. It does not follow a failover by itself: give it an address that does. It does
// not delete topics. A program that has two relays with the same producer on one Broker can, within
// relay.Config.MarkEvery after a restart that lost something, publish for the one that has not looked yet:
// give each a Broker of its own.
package settleredis
