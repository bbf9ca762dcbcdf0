package event_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
)

type OrderPlacedV1 struct {
	OrderID string `json:"orderId"`
	Pounds  int64  `json:"pounds"`
}

type OrderPlacedV2 struct {
	OrderID string `json:"orderId"`
	Pence   int64  `json:"pence"`
}

// A definition names topic, version and key once. Old versions are read through upcasters.
var OrderPlaced = event.Define("OrderPlaced", 2, event.Spec[OrderPlacedV2]{
	Topic: "order-events", Aggregate: "order",
	Key: func(o OrderPlacedV2) string { return o.OrderID },
	Upcasters: map[int]event.Upcaster{
		1: func(data []byte) ([]byte, error) {
			var v1 OrderPlacedV1
			if err := json.Unmarshal(data, &v1); err != nil {
				return nil, err
			}
			return json.Marshal(OrderPlacedV2{v1.OrderID, v1.Pounds * 100})
		},
	},
})

func Example() {
	draft := OrderPlaced.New(OrderPlacedV2{"order-42", 1250})
	fmt.Println(draft.Topic, draft.AggregateID, string(draft.Data))

	// What an older program wrote is still read.
	old := event.Envelope{Type: "OrderPlaced", Version: 1, Data: []byte(`{"orderId":"order-41","pounds":7}`)}
	placed, err := OrderPlaced.Decode(old)
	fmt.Println(placed.Data.OrderID, placed.Data.Pence, err)
	// Output:
	// order-events order-42 {"orderId":"order-42","pence":1250}
	// order-41 700 <nil>
}

// On the wire an event is a CloudEvent in binary mode: its attributes are headers, its data is the body.
func ExampleEnvelope_Attributes() {
	at := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	e, err := OrderPlaced.Once("cart-7", OrderPlacedV2{"order-42", 1250}).Seal("order", at, event.Cause{CorrelationID: "cart-7"})
	if err != nil {
		fmt.Println(err)
	}
	for name, value := range e.Attributes() {
		fmt.Printf("ce-%s: %s\n", name, value)
	}
	// Output:
	// ce-specversion: 1.0
	// ce-id: 3451945e-9481-54c2-aac3-7f58fd4cdb1f
	// ce-source: /order
	// ce-type: OrderPlaced
	// ce-time: 2026-11-21T10:00:00Z
	// ce-subject: order/order-42
	// ce-datacontenttype: application/json
	// ce-dataversion: 2
	// ce-partitionkey: order-42
	// ce-correlationid: cart-7
	// ce-idempotencykey: cart-7
}
