// Package event says what happened: the envelope that every event travels in, the typed
// definitions that services share, the codec, and the upcasters that read old versions.
//
// A definition names an event's topic, version and key once:
//
//	var OrderCreated = event.Define("OrderCreated", 1, event.Spec[OrderCreatedV1]{
//		Topic: "order-events", Aggregate: "order",
//		Key: func(d OrderCreatedV1) string { return d.OrderID },
//	})
//
// OrderCreated.New(data) is a draft to add to an outbox; OrderCreated.Decode(envelope) is the typed
// event again, whatever older version it was written in.
//
// # Guarantee
//
// An event's identity never changes once it is drafted into a transaction: every copy that any
// broker delivers carries the same [ID], which is what consumers remember. A draft with an
// idempotency key gets an identity derived from it, so that emitting it twice is one event.
//
// # What this package does not do
//
// It has no registry and sends nothing. Data is JSON; a schema registry or another encoding is
// outside it. Order between events is the concern of outbox, relay and broker.
package event
