package contract

import "github.com/settledev/settle/event"

// StockRequestV1 asks inventory to reserve an order's lines, all or none. It carries what the payment
// needs, because inventory asks for the payment in the transaction that reserves.
type StockRequestV1 struct {
	OrderID    string `json:"orderId"`
	CustomerID string `json:"customerId"`
	Lines      []Line `json:"lines"`
	Total      Money  `json:"total"`
}

// OrderRefV1 names an order, where that is all there is to say.
type OrderRefV1 struct {
	OrderID string `json:"orderId"`
}

// StockFailedV1 says which products there was not enough of.
type StockFailedV1 struct {
	OrderID string   `json:"orderId"`
	Short   []string `json:"short"`
}

// ReturnRefV1 answers a request for a return.
type ReturnRefV1 struct {
	ReturnID string `json:"returnId"`
	OrderID  string `json:"orderId,omitempty"`
	Amount   Money  `json:"amount"`
}

// PaymentRequestV1 asks for an authorization.
type PaymentRequestV1 struct {
	OrderID    string `json:"orderId"`
	CustomerID string `json:"customerId"`
	Amount     Money  `json:"amount"`
}

// PaymentV1 is what became of an order's payment.
type PaymentV1 struct {
	OrderID string `json:"orderId"`
	Amount  Money  `json:"amount"`
	Code    string `json:"code,omitempty"` // of the gateway, when it refused
}

// ShipmentV1 is what became of an order's shipment.
type ShipmentV1 struct {
	OrderID    string `json:"orderId"`
	ShipmentID string `json:"shipmentId,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

func refKey(d OrderRefV1) string { return d.OrderID }
func returnRefKey(d ReturnRefV1) string {
	if d.OrderID != "" {
		return d.OrderID
	}
	return d.ReturnID
}

func stockRef(name string) event.Type[OrderRefV1] {
	return event.Define(name, 1, event.Spec[OrderRefV1]{Topic: InventoryTopic, Aggregate: "order", Key: refKey})
}

func payment(name string) event.Type[PaymentV1] {
	return event.Define(name, 1, event.Spec[PaymentV1]{
		Topic: PaymentTopic, Aggregate: "order", Key: func(d PaymentV1) string { return d.OrderID },
	})
}

func shipment(name string) event.Type[ShipmentV1] {
	return event.Define(name, 1, event.Spec[ShipmentV1]{
		Topic: ShippingTopic, Aggregate: "order", Key: func(d ShipmentV1) string { return d.OrderID },
	})
}

// Events on inventory's topic. StockReserveRequested and StockReleaseRequested are requests to it.
var (
	StockReserveRequested = event.Define("StockReserveRequested", 1, event.Spec[StockRequestV1]{
		Topic: InventoryTopic, Aggregate: "order", Key: func(d StockRequestV1) string { return d.OrderID },
	})
	StockReserved          = stockRef("StockReserved")
	StockReservationFailed = event.Define("StockReservationFailed", 1, event.Spec[StockFailedV1]{
		Topic: InventoryTopic, Aggregate: "order", Key: func(d StockFailedV1) string { return d.OrderID },
	})
	StockReleaseRequested = stockRef("StockReleaseRequested")
	StockReleased         = stockRef("StockReleased")
	StockCommitted        = stockRef("StockCommitted")
	StockReturned         = event.Define("StockReturned", 1, event.Spec[ReturnRefV1]{
		Topic: InventoryTopic, Aggregate: "order", Key: returnRefKey,
	})
)

// Events on payment's topic. PaymentRequested and PaymentVoidRequested are requests to it.
var (
	PaymentRequested = event.Define("PaymentRequested", 1, event.Spec[PaymentRequestV1]{
		Topic: PaymentTopic, Aggregate: "order", Key: func(d PaymentRequestV1) string { return d.OrderID },
	})
	PaymentVoidRequested = event.Define("PaymentVoidRequested", 1, event.Spec[OrderRefV1]{
		Topic: PaymentTopic, Aggregate: "order", Key: refKey,
	})
	PaymentAuthorized    = payment("PaymentAuthorized")
	PaymentFailed        = payment("PaymentFailed")
	PaymentVoided        = payment("PaymentVoided")
	PaymentSucceeded     = payment("PaymentSucceeded")
	PaymentCaptureFailed = payment("PaymentCaptureFailed")
	PaymentRefunded      = event.Define("PaymentRefunded", 1, event.Spec[ReturnRefV1]{
		Topic: PaymentTopic, Aggregate: "order", Key: returnRefKey,
	})
)

// Events on shipping's topic. ShipmentCancelRequested is a request to it, ShipmentDue its own timer.
var (
	ShipmentDue             = shipment("ShipmentDue")
	ShipmentCancelRequested = shipment("ShipmentCancelRequested")
	ShipmentCreated         = shipment("ShipmentCreated")
	ShipmentFailed          = shipment("ShipmentFailed")
	ShipmentCanceled        = shipment("ShipmentCanceled")
	ShipmentCancelRefused   = shipment("ShipmentCancelRefused")
)
