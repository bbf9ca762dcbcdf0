package settlekafka

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/event"
)

// TestRecordOfColumns reads what a carrier makes that copies the outbox's columns into headers: no
// ce_partitionkey, a subject and a source without a slash, empty values, and the time in nanoseconds.
func TestRecordOfColumns(t *testing.T) {
	headers := map[string]string{
		"id": "01936b5e-0000-7000-8000-000000000000", "ce_id": "01936b5e-0000-7000-8000-000000000000",
		"ce_specversion": "1.0", "ce_type": "OrderPlaced", "ce_dataversion": "1", "ce_source": "order",
		"ce_subject": "order", "ce_timeunixnano": "1795255200000000005", "ce_traceparent": "", "ce_correlationid": "c-1",
		"ce_causationid": "", "ce_idempotencykey": "", "content-type": "application/json",
	}
	record := func(change, value string) *kgo.Record {
		r := &kgo.Record{Key: []byte("order-1"), Value: []byte("{}")}
		for name, text := range headers {
			if name == change {
				text = value
			}
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(text)})
		}
		return r
	}
	m := decode("orders", "c.1", record("", ""))
	if m.Err != nil {
		t.Fatal(m.Err)
	}
	at := time.Date(2026, 11, 21, 10, 0, 0, 5, time.UTC)
	e := m.Event
	if e.OccurredAt != at || e.AggregateType != "order" || e.AggregateID != "order-1" || e.Producer != "order" ||
		e.CorrelationID != "c-1" || !e.CausationID.IsZero() {
		t.Errorf("%+v", e)
	}
	for _, garbled := range []string{"", "soon", "17952552000000000050"} {
		if m := decode("orders", "c.1", record("ce_timeunixnano", garbled)); !errors.Is(m.Err, event.ErrMalformed) {
			t.Errorf("time %q: %v", garbled, m.Err)
		}
	}
}
