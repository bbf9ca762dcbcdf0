// Package call reaches outside in three beats: a hop prepares a work row, a worker performs the call
// under a stable key, and the answer is recorded in the next hop.
//
//	authorize := call.Define("authorize", call.Spec[AuthorizeRequest, AuthorizeAnswer]{
//		Do:     gateway.Authorize,  // the network; never inside a transaction
//		Record: recordAuthorized,   // the next hop: rows and events
//	})
//	...
//	err := call.Prepare(ctx, tx, authorize, "pay:order-42#authorize", request)
//
// # Guarantee
//
// A prepared call is performed until it is answered, and its answer is recorded once. The remote side
// sees the same key each time: a crash between the beats only repeats the call. An unknown outcome (a
// timeout, a broken connection) is asked for again under the same key, never guessed.
//
// # What this package does not do
//
// It cannot make a remote side idempotent: outside effects are at-least-once under a stable key.
// It does not order calls; a hop that needs the answer of one call prepares the next when it records.
package call

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

// Limits of calls.
const (
	KeyBytesMax     = 256
	RequestBytesMax = 256 << 10
	InFlightMax     = 1024
)

// Work is one prepared call: a row.
type Work struct {
	// Call is the definition's name; Key is the remote side's idempotency key. Together they are unique.
	Call string
	Key  string
	// Request is JSON.
	Request []byte
	Cause   event.Cause
	// Due is when the call may be made (again).
	Due       time.Time
	CreatedAt time.Time
	// Attempts counts claims, from 1: it is raised in the statement that claims.
	Attempts int
	// Fence is Attempts at the claim: a worker that lost its lease cannot record.
	Fence     int64
	LastError string
}

// Store keeps prepared calls.
type Store interface {
	// Prepare stores a call; one that exists under the same name and key stays as it is.
	Prepare(ctx context.Context, tx *txn.Tx, w Work) error
	// Claim leases up to limit due calls of a definition until the given time, counting the attempt.
	Claim(ctx context.Context, call string, now, until time.Time, limit int) ([]Work, error)
	// Finish deletes a claimed call; false when the lease was lost, and nothing must be recorded.
	Finish(ctx context.Context, tx *txn.Tx, w Work) (bool, error)
	// Defer gives a claimed call back, due at a time.
	Defer(ctx context.Context, w Work, due time.Time, lastError string) error
	// Next returns when the earliest call of a definition is due, ok false when there is none.
	Next(ctx context.Context, call string) (at time.Time, ok bool, err error)
}

// Pending is how many calls of a definition wait, and since when.
type Pending struct {
	Call     string
	Count    int64
	Oldest   time.Time
	Attempts int // of the most often tried
}

// Observer is a store that counts prepared calls.
type Observer interface {
	Pending(ctx context.Context) ([]Pending, error)
}

// Provider is a store that has calls.
type Provider interface {
	Calls() Store
}

// Outcome is what became of a call.
type Outcome[Req, Resp any] struct {
	Key      string
	Request  Req
	Response Resp
	// Err is nil for an answer. Otherwise the call was refused for good (retry.Permanent) or its policy is
	// exhausted: Response is then the zero value.
	Err      error
	Attempts int
	Cause    event.Cause
}

// Spec says how a call is made and recorded.
type Spec[Req, Resp any] struct {
	// Do makes the call under key. An error means an unknown outcome and repeats it under the same key;
	// retry.Permanent records a refusal; retry.After waits without counting. Required.
	Do func(ctx context.Context, key string, req Req) (Resp, error)
	// Record stores the outcome, in one transaction with the end of the work row. Required.
	Record func(ctx context.Context, tx *txn.Tx, o Outcome[Req, Resp]) error
	// Timeout bounds one attempt. Default 5s.
	Timeout time.Duration
	// InFlight bounds concurrent calls of this definition. Default 16.
	InFlight int
	// Retry is the policy between attempts. Default: forever, 100ms x2 up to 10s.
	Retry retry.Policy
}

// Def is the definition of a call. Define it once for each service that makes it.
type Def[Req, Resp any] struct {
	name string
	spec Spec[Req, Resp]
}

// Define returns a definition. It panics when the name or the spec is not usable: a mistake in the
// program.
func Define[Req, Resp any](name string, spec Spec[Req, Resp]) *Def[Req, Resp] {
	if err := event.CheckName(name); err != nil {
		panic(fmt.Sprintf("call: define %q: %v", name, err))
	}
	if spec.Do == nil || spec.Record == nil {
		panic(fmt.Sprintf("call: define %q: needs Do and Record", name))
	}
	if spec.Timeout == 0 {
		spec.Timeout = 5 * time.Second
	}
	if spec.InFlight == 0 {
		spec.InFlight = 16
	}
	if spec.InFlight < 0 || spec.InFlight > InFlightMax || spec.Timeout < 0 {
		panic(fmt.Sprintf("call: define %q: %d in flight (1 to %d allowed), timeout %s", name, spec.InFlight, InFlightMax, spec.Timeout))
	}
	if spec.Retry == (retry.Policy{}) {
		spec.Retry = retry.Policy{Initial: 100 * time.Millisecond, WaitMax: 10 * time.Second, Forever: true}
	}
	var err error
	if spec.Retry, err = spec.Retry.WithDefaults(); err != nil {
		panic(fmt.Sprintf("call: define %q: %v", name, err))
	}
	return &Def[Req, Resp]{name, spec}
}

// Name returns the definition's name.
func (d *Def[Req, Resp]) Name() string { return d.name }

// Prepare stores a call in the transaction. Preparing the same key again changes nothing.
func Prepare[Req, Resp any](ctx context.Context, tx *txn.Tx, d *Def[Req, Resp], key string, req Req) error {
	p, ok := tx.Port().(Provider)
	if !ok {
		return fmt.Errorf("call: store %T has none: %w", tx.Port(), errors.ErrUnsupported)
	}
	if key == "" || len(key) > KeyBytesMax {
		return fmt.Errorf("call: prepare %s: key of %d bytes, 1 to %d allowed", d.name, len(key), KeyBytesMax)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("call: prepare %s %s: %w", d.name, key, err)
	}
	if len(body) > RequestBytesMax {
		return fmt.Errorf("call: prepare %s %s: request of %d bytes exceeds %d", d.name, key, len(body), RequestBytesMax)
	}
	w := Work{Call: d.name, Key: key, Request: body, Cause: event.CauseFrom(ctx), Due: tx.Now(), CreatedAt: tx.Now()}
	if err := p.Calls().Prepare(ctx, tx, w); err != nil {
		return fmt.Errorf("call: prepare %s %s: %w", d.name, key, err)
	}
	return nil
}
