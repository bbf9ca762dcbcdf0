// Package settlenats carries events on NATS JetStream: a server of its own inside the process, or a
// cluster by URL.
//
//	b, err := settlenats.OpenEmbedded(ctx, settlenats.Config{Dir: "data/nats"})
//	b, err := settlenats.Open(ctx, "tls://nats-1:4222,nats-2:4222?ca=ca.pem&creds=shop.creds", settlenats.Config{})
//
// Each topic is one stream, each partition one subject of it. Messages are CloudEvents 1.0 in binary
// mode: attributes in headers ce-…, percent-encoded as in the HTTP binding, data in the body.
//
// # Guarantee
//
// Events of one topic and key stand in one partition in the order in which they were acknowledged,
// given the one unacknowledged message per key that package relay keeps to. Partitions are read from
// positions of the consumer's own, without acknowledgements, by short explicit pulls; a consumer on
// the server that went silent, lost messages or vanished is replaced.
//
// JetStream acknowledges before its disk does and may lose its tail. So positions carry an
// incarnation, kept in a stream of its own beside the topics. A new one begins when a relay finds the
// tail shorter than it was, when an acknowledgement goes back, or when a consumer's position lies past
// the end. Consumers then read what is retained again.
//
// A relay that sleeps through the end of its lease can publish late. What it then sends has stood in the log
// before, and comes after it: each event follows one that was acknowledged to this relay or marked by the one
// before it. Only a lost tail could make that untrue, so nothing is sent after a call's deadline, which lies
// within the lease, or on another connection than the one the call began with.
//
// # What this package does not do
//
// Without Config.Leases it divides partitions among the members of one process only: members of one group
// in several processes each take every partition, and the fence in the consumer's database lets one of them
// write: correct, but one works in vain. It does not manage accounts, and it changes no stream that
// stands on a remote server already. What a late relay has left in the buffers of its connection is sent,
// whatever is lost meanwhile: two nodes that lose their disks' last seconds while a relay sleeps in the
// middle of a write may cost one key its order.
package settlenats
