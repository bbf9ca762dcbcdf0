package binary

import (
	"slices"

	"github.com/settledev/settle/shop/contract"
)

// Illegal says what is wrong with the order service's events of one order, or of one imported return, in
// the order it emitted them; nothing when all is right. It knows shop.md, and nothing of the service's code.
func Illegal(names []string) string {
	at := map[string]int{}
	for i, name := range names {
		if _, ok := at[name]; ok && !repeats(name) {
			return name + " twice"
		}
		at[name] = i
	}
	has := func(name string) bool { _, ok := at[name]; return ok }
	created := has(contract.OrderCreated.Name())
	if !created {
		return illegalReturn(names)
	}
	completed, canceled := has(contract.OrderCompleted.Name()), has(contract.OrderCanceled.Name())
	paid := has(contract.OrderPaid.Name())
	switch {
	case len(names) < 2 || names[0] != contract.OrderCreated.Name() || names[1] != contract.StockReserveRequested.Name():
		return "does not begin with OrderCreated, StockReserveRequested"
	case completed == canceled:
		return "not exactly one end"
	case completed && (!paid || at[contract.OrderPaid.Name()] > at[contract.OrderCompleted.Name()]):
		return "completed before it was paid"
	case completed && (has(contract.StockReleaseRequested.Name()) || has(contract.PaymentVoidRequested.Name())):
		return "completed, and taken back"
	case paid && canceled && !has(contract.ShipmentCancelRequested.Name()):
		return "canceled after it was paid, and shipping was not asked"
	case canceled && names[len(names)-1] != contract.OrderCanceled.Name():
		return "went on after it was canceled"
	case has(contract.OrderPaymentDelayed.Name()) && paid && at[contract.OrderPaymentDelayed.Name()] > at[contract.OrderPaid.Name()]:
		return "waits for a payment that it has"
	}
	return ""
}

// repeats reports whether an order may say it more than once: it can have several returns, and it has two
// deadlines.
func repeats(name string) bool {
	return name == contract.ReturnRequested.Name() || name == contract.ReturnCompleted.Name() ||
		name == contract.OrderDeadlinePassed.Name()
}

func illegalReturn(names []string) string {
	if !slices.Equal(names, []string{contract.ReturnRequested.Name(), contract.ReturnCompleted.Name()}) {
		return "is neither an order nor a return that ended"
	}
	return ""
}
