// Package settlenats carries events on NATS JetStream: a server of its own inside the process, or a
// cluster by URL.
//
//	b, err := settlenats.OpenEmbedded(ctx, settlenats.Config{Dir: "data/nats"})
//	b, err := settlenats.Open(ctx, "nats://user:secret@nats-1:4222,nats-2:4222", settlenats.Config{Replicas: 3})
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
// # What this package does not do
//
// It divides partitions among the members of one process only. Members of one group in several
// processes each take every partition, and the fence in the consumer's database lets one of them
// write: correct, but one works in vain. It does not manage accounts, and it changes no stream that
// stands on a remote server already.
package settlenats
