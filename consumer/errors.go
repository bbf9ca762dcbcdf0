package consumer

import "errors"

// Errors of a consumer.
var (
	// ErrDrain says that DrainTimeout passed with work in flight. It was cut off; whatever had not
	// committed is delivered again.
	ErrDrain = errors.New("drain timed out with work in flight")
	// ErrRetention says that the inbox forgets events that may still come back: raise InboxRetention or
	// lower what it must outlive.
	ErrRetention = errors.New("inbox retention is too short")
	// ErrUnknownType is the cause of a letter whose event type the system does not know.
	ErrUnknownType = errors.New("no handler knows this event type")
	// ErrFull pauses a partition: the group has LettersMax letters. Mend the cause, then replay.
	ErrFull = errors.New("group has too many dead letters")

	errRan = errors.New("consumer: Run was called twice")
)
