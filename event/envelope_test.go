package event_test

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/event"
)

func attributes(e *event.Envelope) map[string]string {
	return maps.Collect(e.Attributes())
}

func TestAttributesRoundTrip(t *testing.T) {
	full := fullEnvelope(t)
	for name, change := range map[string]func(e *event.Envelope){
		"full":               func(*event.Envelope) {},
		"no trace":           func(e *event.Envelope) { e.TraceParent = "" },
		"no cause":           func(e *event.Envelope) { e.CausationID = event.ID{} },
		"no correlation":     func(e *event.Envelope) { e.CorrelationID = "" },
		"no idempotency key": func(e *event.Envelope) { e.IdempotencyKey = "" },
		"no data":            func(e *event.Envelope) { e.Data = nil },
		"slashes in the key": func(e *event.Envelope) { e.AggregateID = "/a//b/" },
		"spaces in the key":  func(e *event.Envelope) { e.AggregateID = " a b " },
		"percent in the key": func(e *event.Envelope) { e.AggregateID = "100%25" },
		"whole seconds":      func(e *event.Envelope) { e.OccurredAt = e.OccurredAt.Truncate(time.Second) },
		"largest data":       func(e *event.Envelope) { e.Data = make([]byte, event.DataBytesMax) },
	} {
		t.Run(name, func(t *testing.T) {
			want := full
			change(&want)
			m := attributes(&want)
			got, err := event.FromAttributes(want.Topic, func(name string) string { return m[name] }, want.Data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestAttributesStopEarly(t *testing.T) {
	e := fullEnvelope(t)
	for n := range 13 {
		seen := 0
		for range e.Attributes() {
			if seen == n {
				break
			}
			seen++
		}
		if seen != n {
			t.Errorf("a loop over the attributes must end where it breaks: at %d, want %d", seen, n)
		}
	}
}

func TestFromAttributesMalformed(t *testing.T) {
	for name, value := range map[string]string{
		"specversion": "0.3", "id": "not-a-uuid", "time": "yesterday", "dataversion": "x", "type": "bad type",
		"causationid": "x", "subject": "", "partitionkey": "", "source": "/", "traceparent": "a\nb",
		"correlationid": strings.Repeat("x", event.KeyBytesMax+1),
	} {
		t.Run(name, func(t *testing.T) {
			e := fullEnvelope(t)
			m := attributes(&e)
			m[name] = value
			got, err := event.FromAttributes(e.Topic, func(name string) string { return m[name] }, e.Data)
			if !errors.Is(err, event.ErrMalformed) {
				t.Fatalf("got error %v, want ErrMalformed", err)
			}
			if !strings.HasPrefix(err.Error(), "event: ") {
				t.Errorf("error has no package prefix: %v", err)
			}
			if name != "partitionkey" && got.AggregateID != e.AggregateID || got.Topic != e.Topic || string(got.Data) != string(e.Data) {
				t.Errorf("what can be read must be returned, so that the message is parked under its key: %+v", got)
			}
		})
	}
	_, err := event.FromAttributes("topic", func(string) string { return "" }, nil)
	if !errors.Is(err, event.ErrMalformed) {
		t.Errorf("a message without attributes: got %v, want ErrMalformed", err)
	}
}

func TestCheckLimits(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, test := range map[string]struct {
		change func(e *event.Envelope)
		limit  *event.LimitError // nil: another error
		ok     bool
	}{
		"as it is":                  {change: func(*event.Envelope) {}, ok: true},
		"no id":                     {change: func(e *event.Envelope) { e.ID = event.ID{} }},
		"version 0":                 {change: func(e *event.Envelope) { e.Version = 0 }},
		"no type":                   {change: func(e *event.Envelope) { e.Type = "" }},
		"longest type":              {change: func(e *event.Envelope) { e.Type = long(event.NameBytesMax) }, ok: true},
		"type too long":             {change: func(e *event.Envelope) { e.Type = long(event.NameBytesMax + 1) }},
		"type with a space":         {change: func(e *event.Envelope) { e.Type = "Order Created" }},
		"no topic":                  {change: func(e *event.Envelope) { e.Topic = "" }},
		"topic with a wildcard":     {change: func(e *event.Envelope) { e.Topic = "order.*" }},
		"no aggregate type":         {change: func(e *event.Envelope) { e.AggregateType = "" }},
		"aggregate type with slash": {change: func(e *event.Envelope) { e.AggregateType = "a/b" }},
		"no producer":               {change: func(e *event.Envelope) { e.Producer = "" }},
		"producer not ASCII":        {change: func(e *event.Envelope) { e.Producer = "zahlungsmöglichkeit" }},
		"no key":                    {change: func(e *event.Envelope) { e.AggregateID = "" }},
		"longest key":               {change: func(e *event.Envelope) { e.AggregateID = long(event.KeyBytesMax) }, ok: true},
		"key too long": {
			change: func(e *event.Envelope) { e.AggregateID = long(event.KeyBytesMax + 1) },
			limit:  &event.LimitError{Field: "aggregate id", Got: event.KeyBytesMax + 1, Max: event.KeyBytesMax},
		},
		"key with a line break":     {change: func(e *event.Envelope) { e.AggregateID = "a\r\nb" }},
		"key with DEL":              {change: func(e *event.Envelope) { e.AggregateID = "a\x7f" }},
		"key that is not UTF-8":     {change: func(e *event.Envelope) { e.AggregateID = "\xff" }},
		"idempotency key too long":  {change: func(e *event.Envelope) { e.IdempotencyKey = long(300) }, limit: &event.LimitError{Field: "idempotency key", Got: 300, Max: event.KeyBytesMax}},
		"idempotency key with zero": {change: func(e *event.Envelope) { e.IdempotencyKey = "a\x00b" }},
		"correlation id too long":   {change: func(e *event.Envelope) { e.CorrelationID = long(257) }, limit: &event.LimitError{Field: "correlation id", Got: 257, Max: event.KeyBytesMax}},
		"traceparent too long":      {change: func(e *event.Envelope) { e.TraceParent = long(257) }, limit: &event.LimitError{Field: "traceparent", Got: 257, Max: event.KeyBytesMax}},
		"no time":                   {change: func(e *event.Envelope) { e.OccurredAt = time.Time{} }, ok: true},
		"time before all databases": {change: func(e *event.Envelope) { e.OccurredAt = time.Date(1677, 1, 1, 0, 0, 0, 0, time.UTC) }},
		"time after all databases":  {change: func(e *event.Envelope) { e.OccurredAt = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC) }},
		"largest data":              {change: func(e *event.Envelope) { e.Data = make([]byte, event.DataBytesMax) }, ok: true},
		"data too large": {
			change: func(e *event.Envelope) { e.Data = make([]byte, event.DataBytesMax+1) },
			limit:  &event.LimitError{Field: "data", Got: event.DataBytesMax + 1, Max: event.DataBytesMax},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := fullEnvelope(t)
			test.change(&e)
			err := e.Check()
			if test.ok != (err == nil) {
				t.Fatalf("got error %v, want none: %t", err, test.ok)
			}
			var limit *event.LimitError
			if got := errors.As(err, &limit); got != (test.limit != nil) {
				t.Fatalf("got %v, a limit error is wanted: %t", err, test.limit != nil)
			}
			if limit != nil && (limit.Field != test.limit.Field || limit.Got != test.limit.Got || limit.Max != test.limit.Max) {
				t.Errorf("got %+v, want %+v", limit, test.limit)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("an error must not repeat what is too large: %d bytes", len(err.Error()))
			}
		})
	}
}

func FuzzFromAttributes(f *testing.F) {
	e := event.Envelope{
		ID: event.NewID(time.Now()), Type: "OrderCreated", Version: 1, Topic: "order-events", AggregateType: "order",
		AggregateID: "order-42", OccurredAt: time.Now().UTC(), Producer: "order",
	}
	m := attributes(&e)
	f.Add("1.0", m["id"], m["source"], m["type"], m["time"], m["subject"], "1", "order-42", "", "corr", "", "", []byte(`{}`))
	f.Add("1.0", m["id"], "/a", "t", "9999-12-31T23:59:59-23:59", "a/b", "+1", "k", "tp", "c", m["id"], "ik", []byte(nil))
	f.Add("", "", "", "", "", "", "", "", "", "", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, spec, id, source, typ, at, subject, version, key, trace, corr, cause, idem string, data []byte) {
		in := map[string]string{
			"specversion": spec, "id": id, "source": source, "type": typ, "time": at, "subject": subject, "dataversion": version,
			"partitionkey": key, "traceparent": trace, "correlationid": corr, "causationid": cause, "idempotencykey": idem,
		}
		e, err := event.FromAttributes("order-events", func(name string) string { return in[name] }, data)
		if err != nil {
			if !errors.Is(err, event.ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
			return
		}
		if err := e.Check(); err != nil {
			t.Fatalf("what was read may not travel: %v", err)
		}
		// A relay, a dead letter queue and a replay all pass events on: they must stay what they are.
		out := attributes(&e)
		again, err := event.FromAttributes("order-events", func(name string) string { return out[name] }, data)
		if err != nil {
			t.Fatalf("passed on, it cannot be read any more: %v\n%+v", err, e)
		}
		if !reflect.DeepEqual(again, e) {
			t.Fatalf("%+v\nbecame %+v", e, again)
		}
	})
}
