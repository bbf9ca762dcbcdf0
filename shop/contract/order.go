package contract

import (
	"time"

	"github.com/settledev/settle/event"
)

// Line is one product of an order or a return.
type Line struct {
	ProductID string `json:"productId"`
	Name      string `json:"name,omitempty"`
	Quantity  int64  `json:"quantity"`
	UnitPrice Price  `json:"unitPrice"`
	Amount    Money  `json:"amount"`
}

// Reason says why an order was canceled.
type Reason string

// Reasons of a cancellation. A declined payment has the gateway's code as its reason.
const (
	ReasonOutOfStock     Reason = "OUT_OF_STOCK"
	ReasonCardDeclined   Reason = "CARD_DECLINED"
	ReasonPaymentTimeout Reason = "PAYMENT_TIMEOUT"
	ReasonCustomer       Reason = "CUSTOMER"
	ReasonShipmentFailed Reason = "SHIPMENT_FAILED"
)

// Deadlines of an order's payment.
const (
	DeadlineDelayed = "delayed" // 5 s: the order waits visibly
	DeadlineExpired = "expired" // 2 min: the order cancels
)

// OrderCreatedV1 is an accepted order.
type OrderCreatedV1 struct {
	OrderID    string    `json:"orderId"`
	CustomerID string    `json:"customerId"`
	Reference  string    `json:"reference,omitempty"` // of an imported order: unique outside
	Lines      []Line    `json:"lines"`
	Total      Money     `json:"total"`
	PlacedAt   time.Time `json:"placedAt"`
}

// OrderDeadlineV1 is a deadline of an order that has passed: the order's own timer.
type OrderDeadlineV1 struct {
	OrderID  string `json:"orderId"`
	Deadline string `json:"deadline"`
}

// OrderStateV1 is a change of an order's state, for those who follow it.
type OrderStateV1 struct {
	OrderID    string `json:"orderId"`
	CustomerID string `json:"customerId"`
	Reference  string `json:"reference,omitempty"`
	State      string `json:"state"`
	Reason     Reason `json:"reason,omitempty"`
	Total      Money  `json:"total"`
}

// ReturnV1 is a return of goods, of an order or (imported) of none.
type ReturnV1 struct {
	ReturnID   string `json:"returnId"`
	OrderID    string `json:"orderId,omitempty"`
	CustomerID string `json:"customerId"`
	Reference  string `json:"reference,omitempty"`
	Lines      []Line `json:"lines"`
	Amount     Money  `json:"amount"`
}

func orderKey(d OrderStateV1) string { return d.OrderID }

// Key of a return is its order, so that it stays in order with it; an imported one stands alone.
func returnKey(d ReturnV1) string {
	if d.OrderID != "" {
		return d.OrderID
	}
	return d.ReturnID
}

func orderState(name string) event.Type[OrderStateV1] {
	return event.Define(name, 1, event.Spec[OrderStateV1]{Topic: OrderTopic, Aggregate: "order", Key: orderKey})
}

// Events of the order service.
var (
	OrderCreated = event.Define("OrderCreated", 1, event.Spec[OrderCreatedV1]{
		Topic: OrderTopic, Aggregate: "order", Key: func(d OrderCreatedV1) string { return d.OrderID },
	})
	OrderDeadlinePassed = event.Define("OrderDeadlinePassed", 1, event.Spec[OrderDeadlineV1]{
		Topic: OrderTopic, Aggregate: "order", Key: func(d OrderDeadlineV1) string { return d.OrderID },
	})
	OrderPaymentDelayed = orderState("OrderPaymentDelayed")
	OrderPaid           = orderState("OrderPaid")
	OrderCompleted      = orderState("OrderCompleted")
	OrderCanceled       = orderState("OrderCanceled")
	OrderCancelRefused  = orderState("OrderCancelRefused")
	ReturnRequested     = event.Define("ReturnRequested", 1, event.Spec[ReturnV1]{
		Topic: OrderTopic, Aggregate: "order", Key: returnKey,
	})
	ReturnCompleted = event.Define("ReturnCompleted", 1, event.Spec[ReturnV1]{
		Topic: OrderTopic, Aggregate: "order", Key: returnKey,
	})
)
