package gateway

import (
	"errors"
	"fmt"
)

// ErrUnreachable says that no instance of a service answers. Try again later: what the request asks for is
// idempotent by its key or its reference.
var ErrUnreachable = errors.New("service cannot be reached")

// UnreachableError is an [ErrUnreachable] with its facts.
type UnreachableError struct {
	Service string
	// Sent says that an instance may have the request, and its answer is lost.
	Sent bool
	Err  error
}

func (e *UnreachableError) Error() string {
	if e.Sent {
		return fmt.Sprintf("%s broke off: %v", e.Service, e.Err)
	}
	return fmt.Sprintf("%s cannot be reached: %v", e.Service, e.Err)
}

// Unwrap makes it an ErrUnreachable, and what the connection had to say.
func (e *UnreachableError) Unwrap() []error { return []error{ErrUnreachable, e.Err} }
