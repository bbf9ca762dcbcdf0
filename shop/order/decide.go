package order

import (
	"cmp"

	"github.com/settledev/settle/shop/contract"
)

// Kind is what an order is told.
type Kind int

// Kinds of input: events of the participants, the order's own deadlines, and the customer's wish.
const (
	InputStockReserved Kind = iota
	InputStockFailed
	InputStockReleased
	InputStockCommitted
	InputPaymentAuthorized
	InputPaymentFailed
	InputPaymentCaptured
	InputPaymentCaptureFailed
	InputPaymentVoided
	InputShipmentCreated
	InputShipmentFailed
	InputShipmentCanceled
	InputShipmentCancelRefused
	InputDelayed
	InputExpired
	InputCancel
)

// Input is one thing that an order is told.
type Input struct {
	Kind Kind
	// Code is the gateway's, with InputPaymentFailed.
	Code string
}

// Verdict is what an input did to the facts.
type Verdict int

// Verdicts. Only Changed changes anything.
const (
	Changed     Verdict = iota
	Repeated            // says what is known, or no longer matters
	Contradicts         // cannot be true besides the facts: it changes nothing and is counted
)

// TimerChange is what becomes of the order's one timer.
type TimerChange int

// Changes of the timer. A new order has one that is due after Config.DelayedAfter.
const (
	TimerKeep   TimerChange = iota
	TimerExpire             // set it to Config.ExpiredAfter
	TimerCancel             // the payment's fate is known
)

// Decision is what follows from an input: the new facts, and what must happen in the same transaction.
type Decision struct {
	Facts   Facts
	Verdict Verdict
	Emit    Told
	Timer   TimerChange
}

// Decide is the whole rule of an order: it sets the fact that the input states, and derives from the
// facts what has to be said that has not been said yet.
func Decide(f Facts, in Input) Decision {
	next, verdict := apply(f, in)
	if verdict != Changed {
		return Decision{Facts: f, Verdict: verdict}
	}
	d := Decision{Verdict: Changed, Emit: due(next)}
	next.Told |= d.Emit
	d.Facts = next
	switch {
	case f.waiting() && !next.waiting() && next.Deadline != DeadlineExpired:
		d.Timer = TimerCancel
	case in.Kind == InputDelayed:
		d.Timer = TimerExpire
	}
	return d
}

// due returns what the facts demand to be said and that has not been said.
func due(f Facts) Told {
	switch {
	case f.Told&terminal != 0:
		return 0
	case f.canceling():
		return dueBackward(f) &^ f.Told
	}
	var say Told
	if f.refused() {
		say |= TellRefused
	}
	if f.Stock == StockReserved && f.Payment == PaymentAuthorized {
		say |= TellPaid
	}
	if f.Stock == StockReserved && f.waiting() && f.Deadline != DeadlineNone {
		say |= TellDelayed
	}
	if f.Stock == StockCommitted && f.Payment == PaymentCaptured {
		say |= TellCompleted
	}
	return say &^ f.Told
}

// dueBackward returns what an order has to ask that is being canceled, and TellCanceled when every
// request was answered. From OrderPaid on shipping decides first: its row is the arbiter of the goods.
func dueBackward(f Facts) Told {
	if f.Told.Has(TellPaid) && f.Shipment != ShipmentFailed && f.Shipment != ShipmentCanceled {
		return AskShipmentCancel
	}
	var ask Told
	// A failed reservation took nothing and asked for no payment; a declined payment holds no money.
	// Whoever has not answered yet may have acted.
	if f.Stock != StockFailed {
		ask |= AskRelease
		if f.Payment != PaymentFailed {
			ask |= AskVoid
		}
	}
	if (ask|f.Told)&requests&^f.Answered == 0 {
		return TellCanceled
	}
	return ask
}

// apply sets the fact that an input states.
func apply(f Facts, in Input) (Facts, Verdict) {
	switch in.Kind {
	case InputStockReserved, InputStockFailed, InputStockReleased, InputStockCommitted:
		return applyStock(f, in.Kind)
	case InputPaymentAuthorized, InputPaymentFailed, InputPaymentCaptured, InputPaymentCaptureFailed, InputPaymentVoided:
		return applyPayment(f, in)
	case InputShipmentCreated, InputShipmentFailed, InputShipmentCanceled, InputShipmentCancelRefused:
		return applyShipment(f, in.Kind)
	case InputDelayed, InputExpired:
		return applyDeadline(f, in.Kind)
	case InputCancel:
		switch {
		case f.shipped() || f.Told.Has(TellCompleted):
			return f, Contradicts
		case f.Cancel != "":
			return f, Repeated
		}
		return f.cancel(contract.ReasonCustomer), Changed
	}
	return f, Contradicts
}

// cancel states why the order is to be canceled. The first cause stands.
func (f Facts) cancel(why contract.Reason) Facts {
	f.Cancel = cmp.Or(f.Cancel, why)
	return f
}

// answer states that a request was answered.
func (f Facts) answer(request Told) (Facts, Verdict) {
	switch {
	case f.Answered.Has(request):
		return f, Repeated
	case !f.Told.Has(request):
		return f, Contradicts
	}
	f.Answered |= request
	return f, Changed
}

func applyStock(f Facts, k Kind) (Facts, Verdict) {
	switch k {
	case InputStockReserved:
		switch {
		case f.Stock == StockReserved || f.Stock == StockCommitted:
			return f, Repeated
		case f.Stock == StockFailed || f.Answered.Has(AskRelease):
			return f, Contradicts
		}
		f.Stock = StockReserved
	case InputStockFailed:
		switch {
		case f.Stock == StockFailed:
			return f, Repeated
		case f.Stock != StockUnknown || f.Payment != PaymentUnknown || f.Answered.Has(AskRelease):
			return f, Contradicts
		}
		f.Stock = StockFailed
		f = f.cancel(contract.ReasonOutOfStock)
	case InputStockCommitted:
		switch {
		case f.Stock == StockCommitted:
			return f, Repeated
		case f.Stock != StockReserved || !f.Told.Has(TellPaid) || f.Told.Has(AskRelease):
			return f, Contradicts
		}
		f.Stock = StockCommitted
	default:
		return f.answer(AskRelease)
	}
	return f, Changed
}

func applyPayment(f Facts, in Input) (Facts, Verdict) {
	switch in.Kind {
	case InputPaymentAuthorized:
		switch {
		case f.Payment != PaymentUnknown && f.Payment != PaymentFailed:
			return f, Repeated
		case f.Payment == PaymentFailed || f.Stock == StockFailed || f.Answered.Has(AskVoid):
			return f, Contradicts
		}
		f.Payment = PaymentAuthorized
	case InputPaymentFailed:
		switch {
		case f.Payment == PaymentFailed:
			return f, Repeated
		case f.Payment != PaymentUnknown || f.Stock == StockFailed || f.Answered.Has(AskVoid):
			return f, Contradicts
		}
		f.Payment = PaymentFailed
		f = f.cancel(cmp.Or(contract.Reason(in.Code), contract.ReasonCardDeclined))
	case InputPaymentCaptured, InputPaymentCaptureFailed:
		said := PaymentCaptured
		if in.Kind == InputPaymentCaptureFailed {
			said = PaymentCaptureFailed
		}
		switch {
		case f.Payment == said:
			return f, Repeated
		case f.Payment != PaymentAuthorized || !f.Told.Has(TellPaid) || f.Told.Has(AskVoid):
			return f, Contradicts
		}
		f.Payment = said
	default:
		return f.answer(AskVoid)
	}
	return f, Changed
}

func applyShipment(f Facts, k Kind) (Facts, Verdict) {
	if !f.Told.Has(TellPaid) {
		return f, Contradicts // Nothing is shipped, nor asked of shipping, before it is paid.
	}
	switch k {
	case InputShipmentCreated:
		switch f.Shipment {
		case ShipmentCreated:
			return f, Repeated
		case ShipmentFailed, ShipmentCanceled:
			return f, Contradicts
		case ShipmentUnknown:
		}
		f.Shipment = ShipmentCreated
	case InputShipmentFailed:
		switch {
		case f.Shipment == ShipmentFailed:
			return f, Repeated
		case f.Shipment != ShipmentUnknown || f.shipped():
			return f, Contradicts
		}
		f.Shipment = ShipmentFailed
		f = f.cancel(contract.ReasonShipmentFailed)
	case InputShipmentCanceled:
		if f.shipped() {
			return f, Contradicts
		}
		if f.Shipment == ShipmentUnknown && f.Told.Has(AskShipmentCancel) {
			f.Shipment = ShipmentCanceled
		}
		return f.answer(AskShipmentCancel)
	default:
		switch f.Shipment {
		case ShipmentFailed, ShipmentCanceled:
			return f, Contradicts
		case ShipmentUnknown, ShipmentCreated:
		}
		if f.Told.Has(AskShipmentCancel) {
			f.Shipment = ShipmentCreated
		}
		return f.answer(AskShipmentCancel)
	}
	return f, Changed
}

// applyDeadline notes a deadline that passed. One that passes when the payment's fate is known, or the
// order is canceled, no longer matters: its timer fired while it was being cancelled.
func applyDeadline(f Facts, k Kind) (Facts, Verdict) {
	switch {
	case !f.waiting() || f.Deadline == DeadlineExpired:
		return f, Repeated
	case k == InputExpired:
		f.Deadline = DeadlineExpired
		return f.cancel(contract.ReasonPaymentTimeout), Changed
	case f.Deadline == DeadlineDelayed:
		return f, Repeated
	}
	f.Deadline = DeadlineDelayed
	return f, Changed
}
