package event_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/settledev/settle/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata. What has been on the wire must stay readable, so a change
// of these files is a decision, not a repair.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has changed.\n got:\n%s\nwant:\n%s\nRun with -update when this is meant.", path, got, want)
	}
}

func mustID(t *testing.T, s string) event.ID {
	t.Helper()
	id, err := event.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func fullEnvelope(t *testing.T) event.Envelope {
	t.Helper()
	return event.Envelope{
		ID: mustID(t, "019aa5f0-1c2d-7abc-8def-0123456789ab"), Type: "OrderCreated", Version: 3, Topic: "order-events",
		AggregateType: "order", AggregateID: "order-42/ü", OccurredAt: time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC),
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", CorrelationID: "cart-7",
		CausationID: mustID(t, "019aa5f0-0000-7000-8000-000000000001"), IdempotencyKey: "cart-7#create",
		Producer: "order", Data: []byte(`{"orderId":"order-42/ü"}`),
	}
}

func wire(e *event.Envelope) []byte {
	var b bytes.Buffer
	for name, value := range e.Attributes() {
		_, _ = fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	_, _ = fmt.Fprintf(&b, "\n%s\n", e.Data)
	return b.Bytes()
}

func TestWireGolden(t *testing.T) {
	full := fullEnvelope(t)
	golden(t, "wire_full.txt", wire(&full))
	minimal := event.Envelope{
		ID: full.ID, Type: "OrderCreated", Version: 1, Topic: "order-events", AggregateType: "order", AggregateID: "o",
		OccurredAt: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), Producer: "order", Data: []byte(`{}`),
	}
	golden(t, "wire_minimal.txt", wire(&minimal))
}

// The three versions of one event. Only the last is known to today's program.
type (
	priceV1 struct {
		Product string  `json:"product"`
		Price   float64 `json:"price"` // in pounds
	}
	priceV2 struct {
		Product string `json:"product"`
		Pence   int64  `json:"pence"`
	}
	priceV3 struct {
		Product string `json:"product"`
		Amount  struct {
			Amount   int64  `json:"amount"`
			Currency string `json:"currency"`
		} `json:"amount"`
	}
)

func priceChanged(upcasters map[int]event.Upcaster) event.Type[priceV3] {
	return event.Define("PriceChanged", 3, event.Spec[priceV3]{
		Topic: "catalog-events", Aggregate: "product", Key: func(p priceV3) string { return p.Product }, Upcasters: upcasters,
	})
}

func upcasters() map[int]event.Upcaster {
	return map[int]event.Upcaster{
		1: func(data []byte) ([]byte, error) {
			var v1 priceV1
			if err := json.Unmarshal(data, &v1); err != nil {
				return nil, err
			}
			return json.Marshal(priceV2{v1.Product, int64(v1.Price*100 + 0.5)})
		},
		2: func(data []byte) ([]byte, error) {
			var v2 priceV2
			if err := json.Unmarshal(data, &v2); err != nil {
				return nil, err
			}
			v3 := priceV3{Product: v2.Product}
			v3.Amount.Amount, v3.Amount.Currency = v2.Pence, "GBP"
			return json.Marshal(v3)
		},
	}
}

// TestUpcastGolden decodes an event as each version's program wrote it.
func TestUpcastGolden(t *testing.T) {
	current := priceChanged(upcasters())
	for version := 1; version <= 3; version++ {
		t.Run("v"+strconv.Itoa(version), func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("price_v%d.json", version)))
			if err != nil {
				t.Fatal(err)
			}
			e := event.Envelope{Type: "PriceChanged", Version: version, Data: data}
			of, err := current.Decode(e)
			if err != nil {
				t.Fatal(err)
			}
			if of.Version != version || !bytes.Equal(of.Envelope.Data, data) {
				t.Errorf("the envelope must stay as it was written: version %d, data %s", of.Version, of.Envelope.Data)
			}
			got, err := json.MarshalIndent(of.Data, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "price_decoded.json", append(got, '\n'))
		})
	}
}
