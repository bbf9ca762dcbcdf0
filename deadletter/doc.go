// Package deadletter keeps the events that a group could not handle yet, and gives people a say.
//
// An event whose handler fails is parked: a letter, in the transaction that moves the partition past it.
// Letters of one topic and key form a lane. Only the lane's head is tried again; later events of the key
// are parked behind it, so that a key's order holds while every other key flows. A head whose retries are
// used up, or whose handler said that no retry helps, is DEAD and waits for a person:
//
//	q := deadletter.NewQueue(store, store.Letters(), "payment")
//	letters, err := q.List(ctx, deadletter.Query{State: deadletter.StateDead})
//	...
//	err = q.Replay(ctx, "ann@example.org", letters[0].ID())
//
// # Guarantee
//
// No event is lost on its way into, through or out of dead letters. Replaying never handles an event
// twice: the letter's row and the handler's effect are one transaction. Every action of an operator is
// audited in its own transaction, with the operator's name, and may be repeated without harm.
//
// # What this package does not do
//
// It handles nothing: the group's consumer does, within about a second of a replay. It cannot tell
// whether a discarded event mattered: events behind it are handled without it.
package deadletter
