package binary_test

import (
	"strings"
	"testing"

	"github.com/settledev/settle/test/internal/binary"
)

func TestIllegal(t *testing.T) {
	const begin = "OrderCreated StockReserveRequested "
	for _, test := range []struct{ names, problem string }{
		{begin + "OrderPaid OrderCompleted", ""},
		{begin + "OrderDeadlinePassed OrderPaymentDelayed OrderPaid OrderCompleted", ""},
		{begin + "OrderCanceled", ""},
		{begin + "StockReleaseRequested OrderCanceled", ""},
		{begin + "OrderPaid ShipmentCancelRequested PaymentVoidRequested StockReleaseRequested OrderCanceled", ""},
		{begin + "OrderPaid ShipmentCancelRequested OrderCancelRefused OrderCompleted", ""},
		{begin + "OrderPaid OrderCompleted ReturnRequested ReturnRequested ReturnCompleted ReturnCompleted", ""},
		{"ReturnRequested ReturnCompleted", ""},
		{begin, "not exactly one end"},
		{begin + "OrderPaid", "not exactly one end"},
		{begin + "OrderPaid OrderCompleted OrderCanceled", "not exactly one end"},
		{begin + "OrderPaid OrderPaid OrderCompleted", "OrderPaid twice"},
		{begin + "OrderCompleted", "completed before it was paid"},
		{begin + "OrderCompleted OrderPaid", "completed before it was paid"},
		{begin + "OrderPaid StockReleaseRequested OrderCompleted", "completed, and taken back"},
		{begin + "OrderPaid OrderCanceled", "canceled after it was paid, and shipping was not asked"},
		{begin + "OrderCanceled StockReleaseRequested", "went on after it was canceled"},
		{begin + "OrderPaid OrderPaymentDelayed OrderCompleted", "waits for a payment that it has"},
		{"StockReserveRequested OrderCreated OrderCanceled", "does not begin with OrderCreated, StockReserveRequested"},
		{"ReturnRequested", "is neither an order nor a return that ended"},
		{"OrderPaid OrderCompleted", "is neither an order nor a return that ended"},
	} {
		if got := binary.Illegal(strings.Fields(test.names)); got != test.problem {
			t.Errorf("%s: %q, want %q", test.names, got, test.problem)
		}
	}
}
