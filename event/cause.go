package event

import (
	"context"
	"strconv"
	"time"
)

// Cause is what an event inherits from whatever brought it about.
type Cause struct {
	TraceParent   string
	CorrelationID string
	CausationID   ID
}

type causeKey struct{}

// WithCause returns a context in which added events inherit c. A consumer sets it for each delivery,
// an HTTP server for each request.
func WithCause(ctx context.Context, c Cause) context.Context {
	return context.WithValue(ctx, causeKey{}, c)
}

// CauseFrom returns the cause set by [WithCause], or a zero Cause.
func CauseFrom(ctx context.Context) Cause {
	c, _ := ctx.Value(causeKey{}).(Cause)
	return c
}

// Cause returns what events inherit that are added while e is handled.
func (e *Envelope) Cause() Cause {
	return Cause{TraceParent: e.TraceParent, CorrelationID: e.CorrelationID, CausationID: e.ID}
}

// onceSpace is the name space of identities that are derived from idempotency keys.
//
//nolint:gochecknoglobals // An array constant, which Go does not have.
var onceSpace = ID{0x5e, 0x77, 0x1e, 0x00, 0x00, 0x00, 0x50, 0x00, 0x80, 0x00, 0x6f, 0x75, 0x74, 0x62, 0x6f, 0x78}

// Seal makes the draft an event that producer added at now because of c: it gets its identity and
// is checked against every limit.
func (d Draft) Seal(producer string, now time.Time, c Cause) (Envelope, error) {
	if d.Err != nil {
		return Envelope{}, d.Err
	}
	e := Envelope{
		Type: d.Type, Version: d.Version, Topic: d.Topic,
		AggregateType: d.AggregateType, AggregateID: d.AggregateID,
		OccurredAt: now.UTC(), TraceParent: c.TraceParent, CorrelationID: c.CorrelationID,
		CausationID: c.CausationID, IdempotencyKey: d.IdempotencyKey, Producer: producer, Data: d.Data,
	}
	if d.IdempotencyKey == "" {
		e.ID = NewID(now)
	} else {
		// The version is part of the name, so that a new version of a fact is a new event.
		name := d.AggregateType + "\x00" + d.AggregateID + "\x00" + d.Type + "\x00" + strconv.Itoa(d.Version) + "\x00" + d.IdempotencyKey
		e.ID = DerivedID(onceSpace, name)
	}
	if e.CorrelationID == "" {
		e.CorrelationID = e.ID.String()
	}
	if err := e.Check(); err != nil {
		return Envelope{}, err
	}
	return e, nil
}
