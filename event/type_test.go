package event_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/event"
)

type orderCreated struct {
	OrderID string `json:"orderId"`
}

func orderType() event.Type[orderCreated] {
	return event.Define("OrderCreated", 1, event.Spec[orderCreated]{
		Topic: "order-events", Aggregate: "order", Key: func(o orderCreated) string { return o.OrderID },
	})
}

func TestDefinePanicsOnMistakes(t *testing.T) {
	spec := func() event.Spec[orderCreated] {
		return event.Spec[orderCreated]{Topic: "t", Aggregate: "a", Key: func(orderCreated) string { return "k" }}
	}
	same := func(data []byte) ([]byte, error) { return data, nil }
	for name, define := range map[string]func(){
		"name":      func() { event.Define("Order Created", 1, spec()) },
		"version":   func() { event.Define("OrderCreated", 0, spec()) },
		"topic":     func() { s := spec(); s.Topic = ""; event.Define("OrderCreated", 1, s) },
		"aggregate": func() { s := spec(); s.Aggregate = "a/b"; event.Define("OrderCreated", 1, s) },
		"key":       func() { s := spec(); s.Key = nil; event.Define("OrderCreated", 1, s) },
		"upcaster to nowhere": func() {
			s := spec()
			s.Upcasters = map[int]event.Upcaster{2: same}
			event.Define("OrderCreated", 2, s)
		},
		"upcaster from nowhere": func() {
			s := spec()
			s.Upcasters = map[int]event.Upcaster{0: same}
			event.Define("OrderCreated", 2, s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p, ok := recover().(string); !ok || !strings.HasPrefix(p, "event: define ") {
					t.Errorf("a mistake in the program must panic and say where: %v", p)
				}
			}()
			define()
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	broken := errors.New("upcaster failed")
	for name, test := range map[string]struct {
		e         event.Envelope
		upcasters map[int]event.Upcaster
		want      error
	}{
		"another type":         {event.Envelope{Type: "OrderPaid", Version: 3, Data: []byte(`{}`)}, nil, event.ErrUnknownType},
		"a later version":      {event.Envelope{Type: "PriceChanged", Version: 4, Data: []byte(`{}`)}, upcasters(), event.ErrUnknownVersion},
		"version 0":            {event.Envelope{Type: "PriceChanged", Data: []byte(`{}`)}, upcasters(), event.ErrUnknownVersion},
		"a gap in the chain":   {event.Envelope{Type: "PriceChanged", Version: 1, Data: []byte(`{}`)}, map[int]event.Upcaster{1: upcasters()[1]}, event.ErrUnknownVersion},
		"no upcasters":         {event.Envelope{Type: "PriceChanged", Version: 2, Data: []byte(`{}`)}, nil, event.ErrUnknownVersion},
		"an upcaster's error":  {event.Envelope{Type: "PriceChanged", Version: 2, Data: []byte(`{}`)}, map[int]event.Upcaster{2: func([]byte) ([]byte, error) { return nil, broken }}, broken},
		"data that is no JSON": {event.Envelope{Type: "PriceChanged", Version: 3, Data: []byte(`{`)}, nil, nil},
		"data of another form": {event.Envelope{Type: "PriceChanged", Version: 3, Data: []byte(`{"product":7}`)}, nil, nil},
		"no data":              {event.Envelope{Type: "PriceChanged", Version: 3}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := priceChanged(test.upcasters).Decode(test.e)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestSeal(t *testing.T) {
	now := time.Date(2026, 11, 21, 11, 0, 0, 5, time.FixedZone("CET", 3600))
	cause := event.Cause{TraceParent: "00-a-b-01", CorrelationID: "cart-7", CausationID: event.NewID(now)}
	e, err := orderType().New(orderCreated{"order-42"}).Seal("order", now, cause)
	if err != nil {
		t.Fatal(err)
	}
	want := event.Envelope{
		ID: e.ID, Type: "OrderCreated", Version: 1, Topic: "order-events", AggregateType: "order", AggregateID: "order-42",
		OccurredAt: now.UTC(), TraceParent: "00-a-b-01", CorrelationID: "cart-7", CausationID: cause.CausationID,
		Producer: "order", Data: []byte(`{"orderId":"order-42"}`),
	}
	if string(wire(&e)) != string(wire(&want)) {
		t.Errorf("got\n%s\nwant\n%s", wire(&e), wire(&want))
	}
	// What is caused while e is handled names it, through a context.
	next := event.CauseFrom(event.WithCause(context.Background(), e.Cause()))
	if next.CausationID != e.ID || next.CorrelationID != "cart-7" || next.TraceParent != "00-a-b-01" {
		t.Errorf("an event must hand its cause on: %+v", next)
	}
	if got := event.CauseFrom(context.Background()); got != (event.Cause{}) {
		t.Errorf("a context without a cause: %+v", got)
	}
	first, err := orderType().New(orderCreated{"order-42"}).Seal("order", now, event.Cause{})
	if err != nil || first.CorrelationID != first.ID.String() || !first.CausationID.IsZero() {
		t.Errorf("a command's first event starts its own correlation: %+v, %v", first, err)
	}
}

func TestSealRefuses(t *testing.T) {
	if _, err := orderType().New(orderCreated{}).Seal("order", time.Now(), event.Cause{}); err == nil {
		t.Error("a draft without a key must be refused")
	}
	big := orderCreated{OrderID: "order-42"}
	d := orderType().New(big)
	d.Data = make([]byte, event.DataBytesMax+1)
	var limit *event.LimitError
	if _, err := d.Seal("order", time.Now(), event.Cause{}); !errors.As(err, &limit) {
		t.Errorf("data that is too large: got %v, want a LimitError", err)
	}
	bad := event.Define("Bad", 1, event.Spec[func()]{Topic: "t", Aggregate: "a", Key: func(func()) string { return "k" }})
	if _, err := bad.New(func() {}).Seal("order", time.Now(), event.Cause{}); err == nil {
		t.Error("data that cannot be encoded must be refused when it is added")
	}
}

func TestOnceIsOneEvent(t *testing.T) {
	seal := func(d event.Draft, at time.Time) event.ID {
		t.Helper()
		e, err := d.Seal("order", at, event.Cause{})
		if err != nil {
			t.Fatal(err)
		}
		return e.ID
	}
	now := time.Now()
	base := orderType().Once("cart-7", orderCreated{"order-42"})
	id := seal(base, now)
	if again := seal(orderType().Once("cart-7", orderCreated{"order-42"}), now.Add(time.Hour)); again != id {
		t.Errorf("the same thing emitted twice must be one event: %s and %s", id, again)
	}
	// Consumers remember identities across releases, so how they are derived is part of the wire.
	golden(t, "once.txt", []byte(id.String()+"\n"))
	for name, change := range map[string]func(d *event.Draft){
		"key":            func(d *event.Draft) { d.IdempotencyKey = "cart-8" },
		"aggregate":      func(d *event.Draft) { d.AggregateID = "order-43" },
		"aggregate type": func(d *event.Draft) { d.AggregateType = "cart" },
		"type":           func(d *event.Draft) { d.Type = "OrderPaid" },
		"version":        func(d *event.Draft) { d.Version = 2 },
	} {
		d := base
		change(&d)
		if seal(d, now) == id {
			t.Errorf("another %s must be another event", name)
		}
	}
	if a, b := seal(orderType().New(orderCreated{"order-42"}), now), seal(orderType().New(orderCreated{"order-42"}), now); a == b {
		t.Error("without a key each emission must be an event of its own")
	}
}
