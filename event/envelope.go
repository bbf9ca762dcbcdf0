package event

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// Limits of an envelope. An event past one of them is refused with a [LimitError] when it is added,
// before anything is stored.
const (
	dataBytesMax = 1 << 20
	nameBytesMax = 128
	keyBytesMax  = 256
	// Nanoseconds since 1970, as databases keep times, reach no further.
	yearMin = 1678
	yearMax = 2261

	// DataBytesMax bounds the encoded data of one event: 1 MiB, the default limit of Kafka and NATS.
	DataBytesMax = dataBytesMax
	// NameBytesMax bounds a type, topic, producer or aggregate type.
	NameBytesMax = nameBytesMax
	// KeyBytesMax bounds an aggregate id, an idempotency key and a correlation id.
	KeyBytesMax = keyBytesMax
)

// Envelope is one event with everything that travels with it. Data is JSON in the version that
// Version names. Treat an envelope as a value that nobody changes: copies share Data.
type Envelope struct {
	// ID is the event's identity; see [ID].
	ID ID
	// Type and Version name the definition that wrote Data.
	Type    string
	Version int
	// Topic is the log that the event travels on.
	Topic string
	// AggregateType and AggregateID name the owner of the consistency boundary. AggregateID is the
	// key: events of one topic with one key keep their order.
	AggregateType string
	AggregateID   string
	// OccurredAt is the time of the transaction that added the event, in UTC.
	OccurredAt time.Time
	// TraceParent is the W3C trace context of the cause, empty when the cause was not traced.
	TraceParent string
	// CorrelationID is shared by everything that one command caused.
	CorrelationID string
	// CausationID is the event that was being handled when this one was added; zero for a command.
	CausationID ID
	// IdempotencyKey makes a second emission of the same thing the same event.
	IdempotencyKey string
	// Producer is the service that added the event.
	Producer string
	// Data is the encoded payload.
	Data []byte
}

// LimitError refuses an event that is larger than a limit, with the numbers involved.
type LimitError struct {
	Event string // type/key of the event
	Field string
	Got   int
	Max   int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("event: %s: %s of %d bytes exceeds %d", e.Event, e.Field, e.Got, e.Max)
}

// Check reports the first reason why the envelope may not travel: a missing name, a name with
// characters outside [A-Za-z0-9._-], a key that is not UTF-8 or has control characters, a time outside
// of the years 1678 to 2261, or a [LimitError].
func (e *Envelope) Check() error {
	if e.ID.IsZero() {
		return fmt.Errorf("event: %s: no id", e.label())
	}
	if e.Version < 1 {
		return fmt.Errorf("event: %s: version %d is below 1", e.label(), e.Version)
	}
	for _, f := range [...]struct{ field, value string }{
		{"type", e.Type}, {"topic", e.Topic}, {"aggregate type", e.AggregateType}, {"producer", e.Producer},
	} {
		if err := CheckName(f.value); err != nil {
			return fmt.Errorf("event: %s: %s: %w", e.label(), f.field, err)
		}
	}
	if e.AggregateID == "" {
		return fmt.Errorf("event: %s: no aggregate id", e.label())
	}
	for _, f := range [...]struct{ field, value string }{
		{"aggregate id", e.AggregateID},
		{"idempotency key", e.IdempotencyKey},
		{"correlation id", e.CorrelationID},
		{"traceparent", e.TraceParent},
	} {
		if len(f.value) > keyBytesMax {
			return &LimitError{Event: e.label(), Field: f.field, Got: len(f.value), Max: keyBytesMax}
		}
		if !printable(f.value) {
			return fmt.Errorf("event: %s: %s %.40q has characters that cannot travel in a header", e.label(), f.field, f.value)
		}
	}
	if y := e.OccurredAt.UTC().Year(); (y < yearMin || y > yearMax) && !e.OccurredAt.IsZero() {
		return fmt.Errorf("event: %s: time of the year %d, %d to %d allowed", e.label(), y, yearMin, yearMax)
	}
	if len(e.Data) > dataBytesMax {
		return &LimitError{Event: e.label(), Field: "data", Got: len(e.Data), Max: dataBytesMax}
	}
	return nil
}

func (e *Envelope) label() string { return fmt.Sprintf("%.40s %.40s", e.Type, e.AggregateID) }

// CheckName reports whether s may name a type, topic, producer, group or service: 1 to 128 bytes of
// [A-Za-z0-9._-], so that it is safe in a subject, a path, a label and a log line.
func CheckName(s string) error {
	if s == "" {
		return fmt.Errorf("empty name")
	}
	if len(s) > nameBytesMax {
		return fmt.Errorf("name of %d bytes exceeds %d", len(s), nameBytesMax)
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("name %.40q has a character outside [A-Za-z0-9._-]", s)
		}
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}
