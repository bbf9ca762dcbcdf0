package event

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// ErrMalformed says that a message on the wire is not an event of ours. It is permanent.
var ErrMalformed = errors.New("malformed event")

// Attributes yields the envelope in CloudEvents 1.0 binary mode: context attributes by name, without
// the prefix that a protocol binding puts in front (ce- for HTTP and NATS, ce_ for Kafka). The data
// travels as the message's body. Empty optional attributes are left out.
func (e *Envelope) Attributes() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		_ = yield("specversion", "1.0") &&
			yield("id", e.ID.String()) &&
			yield("source", "/"+e.Producer) &&
			yield("type", e.Type) &&
			yield("time", e.OccurredAt.UTC().Format(time.RFC3339Nano)) &&
			yield("subject", e.AggregateType+"/"+e.AggregateID) &&
			yield("datacontenttype", "application/json") &&
			yield("dataversion", strconv.Itoa(e.Version)) &&
			yield("partitionkey", e.AggregateID) &&
			optional(yield, "traceparent", e.TraceParent) &&
			optional(yield, "correlationid", e.CorrelationID) &&
			(e.CausationID.IsZero() || yield("causationid", e.CausationID.String())) &&
			optional(yield, "idempotencykey", e.IdempotencyKey)
	}
}

func optional(yield func(string, string) bool, name, value string) bool {
	return value == "" || yield(name, value)
}

// FromAttributes reads an envelope back from its attributes and data. get returns an attribute's
// value, or "". The error wraps ErrMalformed; the envelope then holds what could be read, so that a
// consumer can park the message under its key.
func FromAttributes(topic string, get func(name string) string, data []byte) (Envelope, error) {
	e := Envelope{
		Type: get("type"), Topic: topic, AggregateID: get("partitionkey"),
		TraceParent: get("traceparent"), CorrelationID: get("correlationid"),
		IdempotencyKey: get("idempotencykey"), Producer: strings.TrimPrefix(get("source"), "/"), Data: data,
	}
	e.AggregateType, _, _ = strings.Cut(get("subject"), "/")
	var errs []error
	if v := get("specversion"); v != "1.0" {
		errs = append(errs, fmt.Errorf("specversion %.20q is not 1.0", v))
	}
	var err error
	if e.ID, err = ParseID(get("id")); err != nil {
		errs = append(errs, err)
	}
	if e.Version, err = strconv.Atoi(get("dataversion")); err != nil {
		errs = append(errs, fmt.Errorf("dataversion: %w", err))
	}
	if e.OccurredAt, err = time.Parse(time.RFC3339Nano, get("time")); err != nil {
		errs = append(errs, fmt.Errorf("time: %w", err))
	}
	e.OccurredAt = e.OccurredAt.UTC()
	if c := get("causationid"); c != "" {
		if e.CausationID, err = ParseID(c); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		if err := e.Check(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return e, fmt.Errorf("event: %w: %w", ErrMalformed, errors.Join(errs...))
	}
	return e, nil
}
