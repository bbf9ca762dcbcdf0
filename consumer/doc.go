// Package consumer is a group's loop: it fetches a batch, handles it in one transaction with the memory
// that it was handled, and acknowledges.
//
//	c, err := consumer.New(store, store, broker, consumer.Config{
//		Group: "payment", Topics: []string{"payments"},
//		Handlers: map[string]consumer.Handler{"PaymentRequested": onPaymentRequested},
//	})
//	...
//	err = c.Run(ctx)
//
// # Guarantee
//
// In [ExactlyOnce], the default, an event has its effect in the group's database once, whatever is
// killed, repeated or delayed, and the events of one topic and key are handled in their order. A
// handler's failure stops only the event's own key: the event is parked in the transaction that moves
// past it, later events of its key are parked behind it, and everything else flows; see package
// deadletter. An outage of the store or the broker pauses partitions for as long as it takes: it parks
// nothing and counts nothing.
//
// # What the modes cost
//
//   - [ExactlyOnce]: an inbox row for each handled event, kept for InboxRetention; one statement for a
//     batch. The only mode in which a relay's repetition, a broker's loss or a rewind has no second effect.
//   - [AtLeastOnce]: no inbox. The position still commits with the effect, so a crash of the consumer
//     repeats nothing; an event that stands twice in the broker is handled twice. For handlers that are
//     idempotent by themselves.
//   - [AtMostOnce]: the position is stored before handling. A failure is logged and the event is lost to
//     the group. For effects whose repetition is worse than their absence.
//
// # What this package does not do
//
// Effects outside of the database are not covered: see package call. It keeps no order between keys, and
// handles one partition's events one after another: a slow network call belongs into package call.
package consumer
