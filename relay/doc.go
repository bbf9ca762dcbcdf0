// Package relay carries committed events from a store's outbox to a broker. It is the one mover between
// two hops, and it only ever repeats.
//
//	r, err := relay.New(store.Outbox(), publisher, relay.Config{})
//	if err != nil {
//		return err
//	}
//	return r.Run(ctx)
//
// # Guarantee
//
// Every committed event is published at least once. Events of one topic and key arrive for the first
// time in the order of their positions, whatever fails, and with any number of relays: a shard has one
// owner at a time, leased and fenced, and a key has at most one event that is not acknowledged (unless
// the publisher keeps order by itself, see [broker.Ordered]). What is repeated keeps its identity, so
// that an inbox absorbs it.
//
// A broker that cannot be reached is waited for without end: no attempt is counted and nothing is
// parked. A message that the broker refuses for its own sake parks its key: the event and all later
// ones of the same topic and key wait beside the log, in order, until an operator has them replayed;
// other keys flow on.
//
// A broker that acknowledges before its disk does ([broker.Tailer]) is compared with what it had
// acknowledged ([Marks]); what it lost is published again, under a new incarnation.
//
// # What this package does not do
//
// It does not remove duplicates: package inbox does. It cannot fence a broker: an owner that is paused
// in the middle of a publish for longer than its lease may still write when it wakes; what it then
// repeats is absorbed, and the margin of the lease is what keeps it from overtaking. It is not needed
// where consumers follow the outbox itself, see package storebroker.
package relay
