package outbox_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

func TestPositionOrder(t *testing.T) {
	sorted := []outbox.Position{
		{}, {ID: 1}, {ID: 2}, {Tick: 1}, {Tick: 1, ID: 1}, {Tick: 2}, {Epoch: 1}, {Epoch: 1, ID: 5}, {Epoch: 1, Tick: 1}, {Epoch: 2},
	}
	for i, p := range sorted {
		for j, q := range sorted {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := p.Compare(q); got != want {
				t.Errorf("compare %s with %s: %d, want %d", p, q, got, want)
			}
		}
	}
	if !sorted[0].IsZero() || slices.ContainsFunc(sorted[1:], outbox.Position.IsZero) {
		t.Error("only the place before the first event is zero")
	}
}

func TestPositionText(t *testing.T) {
	for _, p := range []outbox.Position{{}, {ID: 7}, {Epoch: 1, Tick: 2, ID: 3}, {Epoch: 1<<63 - 1, Tick: 1<<63 - 1, ID: 1<<63 - 1}} {
		got, err := outbox.ParsePosition(p.String())
		if err != nil || got != p {
			t.Errorf("%s became %s: %v", p, got, err)
		}
	}
	for _, s := range []string{"", "1", "1.2", "a.b.c", "1.2.x", "1.2.3.4", "1.2.3 ", " 1.2.3", "1.2.99999999999999999999", "1.2.-3", "-1.2.3", "+1.2.3", strings.Repeat("9", 1000)} {
		if p, err := outbox.ParsePosition(s); err == nil {
			t.Errorf("%.40q must be refused, it was read as %s", s, p)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"0.0.7", "1.2.3", "", "1.2.3x", "0x1.2.3", "01.2.3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := outbox.ParsePosition(s)
		if err == nil && p.String() != s {
			t.Fatalf("%q was read as %s", s, p)
		}
	})
}

type placed struct {
	Key string `json:"key"`
}

func placedType() event.Type[placed] {
	return event.Define("OrderPlaced", 1, event.Spec[placed]{Topic: "order-events", Aggregate: "order", Key: func(p placed) string { return p.Key }})
}

func TestAddSealsInTheTransaction(t *testing.T) {
	s := memory.New()
	cause := event.Cause{TraceParent: "00-a-b-01", CorrelationID: "corr", CausationID: event.NewID(time.Now())}
	var now time.Time
	err := s.Run(event.WithCause(t.Context(), cause), func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("order", nil)
		now = tx.Now()
		return outbox.Add(ctx, tx, placedType().New(placed{"a"}), placedType().Once("key", placed{"b"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	records, err := s.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{}, 10)
	if err != nil || len(records) != 2 {
		t.Fatalf("%d records: %v", len(records), err)
	}
	for i, r := range records {
		e := r.Event
		if e.Producer != "order" || !e.OccurredAt.Equal(now) || e.CorrelationID != "corr" || e.TraceParent != "00-a-b-01" || e.CausationID != cause.CausationID {
			t.Errorf("event %d must have the transaction's producer, time and cause: %+v", i, e)
		}
	}
}

func TestAddFailsTheTransaction(t *testing.T) {
	s := memory.New()
	for name, d := range map[string]event.Draft{
		"no key":     placedType().New(placed{}),
		"too large":  placedType().New(placed{strings.Repeat("k", event.KeyBytesMax+1)}),
		"encoding":   {Type: "OrderPlaced", Err: errors.New("cannot be encoded")},
		"bad key":    placedType().New(placed{"a\nb"}),
		"bad header": placedType().Once("a\x00b", placed{"a"}),
	} {
		err := s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			tx.Bind("order", nil)
			return outbox.Add(ctx, tx, placedType().New(placed{"fine"}), d)
		})
		if err == nil || !strings.HasPrefix(err.Error(), "outbox: add OrderPlaced: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	err := s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		return outbox.Add(ctx, tx, placedType().New(placed{"a"})) // Nobody has named the producer.
	})
	if err == nil {
		t.Error("an event without a producer must be refused")
	}
	if records, _ := s.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{}, 10); len(records) != 0 {
		t.Errorf("a transaction whose Add failed must leave no event: %d", len(records))
	}
}
