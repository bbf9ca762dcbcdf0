package lock

import (
	"errors"
	"fmt"
	"time"
)

// Errors of a lease.
var (
	// ErrHeld says that someone holds the name: try again later, or leave the work to them. The error is a
	// *HeldError, which has who and until when.
	ErrHeld = errors.New("held by another")
	// ErrFenced says that a newer holder has the name: stop at once and roll back, nothing of it is yours.
	ErrFenced = errors.New("taken by a newer holder")
	// ErrLost says that the lease ran out or was released, and that nobody is known to have taken it since:
	// stop, and acquire it anew.
	ErrLost = errors.New("lease is over")
	// ErrLimit says that a name, an owner, a time to live or a limit is out of bounds: a mistake of the caller.
	ErrLimit = errors.New("out of bounds")
)

// HeldError is ErrHeld with the facts.
type HeldError struct {
	Name  string
	Owner string
	// Until is when the lease runs out unless its holder renews it, by the store's clock.
	Until time.Time
}

// Error has who and until when; the name is in the text around it.
func (e *HeldError) Error() string {
	return fmt.Sprintf("held by %s until %s", e.Owner, e.Until.UTC().Format(time.RFC3339Nano))
}

// Unwrap returns ErrHeld.
func (e *HeldError) Unwrap() error { return ErrHeld }
