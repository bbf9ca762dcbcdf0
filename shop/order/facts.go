package order

import (
	"github.com/settledev/settle/shop/contract"
)

// Facts are all that an order knows about itself. Each is set once, however early or often its event
// comes; the state and what to emit follow from them alone. The zero Facts are those of a new order.
type Facts struct {
	Stock    Stock
	Payment  Payment
	Shipment Shipment
	Deadline Deadline
	// Cancel is why the order is to be canceled, empty when it is not: the first cause wins.
	Cancel contract.Reason
	// Told has what the order has said and asked, Answered those of its requests that were answered.
	Told     Told
	Answered Told
}

// Stock is what inventory said of the reservation.
type Stock string

// Facts of the stock.
const (
	StockUnknown   Stock = ""
	StockReserved  Stock = "RESERVED"
	StockFailed    Stock = "FAILED"
	StockCommitted Stock = "COMMITTED"
)

// Payment is what payment said of the money.
type Payment string

// Facts of the payment.
const (
	PaymentUnknown       Payment = ""
	PaymentAuthorized    Payment = "AUTHORIZED"
	PaymentFailed        Payment = "FAILED"
	PaymentCaptured      Payment = "CAPTURED"
	PaymentCaptureFailed Payment = "CAPTURE_FAILED"
)

// Shipment is what shipping said of the goods.
type Shipment string

// Facts of the shipment.
const (
	ShipmentUnknown  Shipment = ""
	ShipmentCreated  Shipment = "CREATED"
	ShipmentFailed   Shipment = "FAILED"
	ShipmentCanceled Shipment = "CANCELED"
)

// Deadline is the last deadline that passed while the payment was not known.
type Deadline string

// Facts of the deadline.
const (
	DeadlineNone    Deadline = ""
	DeadlineDelayed Deadline = "DELAYED"
	DeadlineExpired Deadline = "EXPIRED"
)

// Told is a set of what an order says and asks, each at most once. The values are stored: never change
// one.
type Told uint16

// What an order says, and what it asks of others.
const (
	TellDelayed       Told = 1 << iota // OrderPaymentDelayed
	TellPaid                           // OrderPaid: from here on shipping is asked first
	TellCompleted                      // OrderCompleted
	TellCanceled                       // OrderCanceled
	TellRefused                        // OrderCancelRefused
	AskShipmentCancel                  // ShipmentCancelRequested
	AskVoid                            // PaymentVoidRequested
	AskRelease                         // StockReleaseRequested
	requests          = AskShipmentCancel | AskVoid | AskRelease
	terminal          = TellCompleted | TellCanceled
)

// Has reports whether every member of m is in t.
func (t Told) Has(m Told) bool { return t&m == m }

// State is where an order stands, for those who look at it.
type State string

// States of an order.
const (
	StatePending           State = "PENDING"
	StateStockReserved     State = "STOCK_RESERVED"
	StatePaymentInProgress State = "PAYMENT_IN_PROGRESS"
	StatePaid              State = "PAID"
	StateCompleted         State = "COMPLETED"
	StateCanceling         State = "CANCELING"
	StateCanceled          State = "CANCELED"
)

// State returns the order's state.
func (f Facts) State() State {
	switch {
	case f.Told.Has(TellCanceled):
		return StateCanceled
	case f.Told.Has(TellCompleted):
		return StateCompleted
	case f.canceling():
		return StateCanceling
	case f.Told.Has(TellPaid):
		return StatePaid
	case f.Stock == StockReserved && f.waiting() && f.Deadline != DeadlineNone:
		return StatePaymentInProgress
	case f.Stock == StockReserved:
		return StateStockReserved
	}
	return StatePending
}

// Reason returns why the order is canceled or on its way to it, empty when it is neither.
func (f Facts) Reason() contract.Reason {
	if !f.canceling() {
		return ""
	}
	return f.Cancel
}

// Who asked for a cancellation.
const (
	ByCustomer  = "customer"
	ByDeadline  = "deadline"
	ByInventory = "inventory"
	ByPayment   = "payment"
	ByShipping  = "shipping"
)

// CanceledBy returns who asked for the cancellation, also for one that was refused. It follows from the
// cause: every cause has one owner.
func (f Facts) CanceledBy() string {
	switch f.Cancel {
	case "":
		return ""
	case contract.ReasonCustomer:
		return ByCustomer
	case contract.ReasonPaymentTimeout:
		return ByDeadline
	case contract.ReasonOutOfStock:
		return ByInventory
	case contract.ReasonShipmentFailed:
		return ByShipping
	case contract.ReasonCardDeclined:
		return ByPayment
	}
	return ByPayment // A gateway's own code.
}

// AttentionCaptureFailed says that the goods are out and the gateway refused the money for good.
const AttentionCaptureFailed = "PAYMENT_CAPTURE_FAILED"

// Attention says that the order stays open until a person acts, and why; empty when all is well.
func (f Facts) Attention() string {
	if f.Payment == PaymentCaptureFailed {
		return AttentionCaptureFailed
	}
	return ""
}

// waiting reports whether the payment's deadlines still matter.
func (f Facts) waiting() bool { return f.Payment == PaymentUnknown && f.Cancel == "" }

// shipped reports whether the shipment is known to exist, be it from what followed.
func (f Facts) shipped() bool {
	return f.Shipment == ShipmentCreated || f.Stock == StockCommitted ||
		f.Payment == PaymentCaptured || f.Payment == PaymentCaptureFailed
}

// refused reports whether shipping answered that it is too late to cancel.
func (f Facts) refused() bool {
	return f.Answered.Has(AskShipmentCancel) && f.Shipment == ShipmentCreated
}

// canceling reports whether the order was canceled or is to be.
func (f Facts) canceling() bool { return f.Cancel != "" && !f.refused() }
