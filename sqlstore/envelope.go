package sqlstore

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
)

// eventColumns is how many columns an envelope has, from event_id to data.
const eventColumns = 13

// nanos stores a time; the zero time is 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func idArg(id *event.ID) any {
	if id.IsZero() {
		return nil
	}
	return id[:]
}

// eventArgs appends an envelope's columns.
func eventArgs(args []any, e *event.Envelope) []any {
	return append(args, e.ID[:], e.Type, int64(e.Version), e.Topic, e.AggregateType, e.AggregateID,
		nanos(e.OccurredAt), e.TraceParent, e.CorrelationID, idArg(&e.CausationID), e.IdempotencyKey,
		e.Producer, e.Data)
}

// eventScan reads an envelope's columns.
type eventScan struct {
	e             event.Envelope
	id, causation sql.RawBytes
	occurred      int64
}

func (s *eventScan) dest(dest []any) []any {
	return append(dest, &s.id, &s.e.Type, &s.e.Version, &s.e.Topic, &s.e.AggregateType, &s.e.AggregateID,
		&s.occurred, &s.e.TraceParent, &s.e.CorrelationID, &s.causation, &s.e.IdempotencyKey,
		&s.e.Producer, &s.e.Data)
}

func (s *eventScan) envelope() (event.Envelope, error) {
	s.e.ID, s.e.CausationID = event.ID{}, event.ID{}
	if copy(s.e.ID[:], s.id) != len(s.e.ID) || len(s.causation) != 0 && copy(s.e.CausationID[:], s.causation) != len(s.e.CausationID) {
		return s.e, fmt.Errorf("identity of %d bytes, causation of %d: %w", len(s.id), len(s.causation), ErrCorrupt)
	}
	s.e.OccurredAt = timeOf(s.occurred)
	return s.e, nil
}

func idOf(b []byte) (id event.ID, err error) {
	if len(b) != 0 && copy(id[:], b) != len(id) {
		return id, fmt.Errorf("identity of %d bytes: %w", len(b), ErrCorrupt)
	}
	return id, nil
}
