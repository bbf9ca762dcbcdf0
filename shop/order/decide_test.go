package order

import (
	"slices"
	"testing"

	"github.com/settledev/settle/shop/contract"
)

// TestDecide tells whole stories: each step is an input, what it makes the order say, and the state after
// it.
func TestDecide(t *testing.T) {
	type step struct {
		in    Kind
		emit  Told
		state State
		timer TimerChange
	}
	paid := []step{
		{InputStockReserved, 0, StateStockReserved, TimerKeep},
		{InputPaymentAuthorized, TellPaid, StatePaid, TimerCancel},
	}
	after := func(first []step, rest ...step) []step { return slices.Concat(first, rest) }
	for _, c := range []struct {
		name   string
		steps  []step
		reason contract.Reason
		by     string
	}{
		{"completed", after(
			paid,
			step{InputShipmentCreated, 0, StatePaid, TimerKeep},
			step{InputPaymentCaptured, 0, StatePaid, TimerKeep},
			step{InputStockCommitted, TellCompleted, StateCompleted, TimerKeep},
		), "", ""},
		{"completed, other topics first", []step{
			{InputPaymentAuthorized, 0, StatePending, TimerCancel},
			{InputStockReserved, TellPaid, StatePaid, TimerKeep},
			{InputStockCommitted, 0, StatePaid, TimerKeep},
			{InputPaymentCaptured, TellCompleted, StateCompleted, TimerKeep},
			{InputShipmentCreated, 0, StateCompleted, TimerKeep},
		}, "", ""},
		{"delayed, then paid", []step{
			{InputStockReserved, 0, StateStockReserved, TimerKeep},
			{InputDelayed, TellDelayed, StatePaymentInProgress, TimerExpire},
			{InputPaymentAuthorized, TellPaid, StatePaid, TimerCancel},
		}, "", ""},
		{"delayed before the stock is known", []step{
			{InputDelayed, 0, StatePending, TimerExpire},
			{InputStockReserved, TellDelayed, StatePaymentInProgress, TimerKeep},
		}, "", ""},
		{"out of stock", []step{
			{InputStockFailed, TellCanceled, StateCanceled, TimerCancel},
		}, contract.ReasonOutOfStock, ByInventory},
		{"declined", []step{
			{InputStockReserved, 0, StateStockReserved, TimerKeep},
			{InputPaymentFailed, AskRelease, StateCanceling, TimerCancel},
			{InputStockReleased, TellCanceled, StateCanceled, TimerKeep},
		}, contract.ReasonCardDeclined, ByPayment},
		{"gateway silent", []step{
			{InputStockReserved, 0, StateStockReserved, TimerKeep},
			{InputDelayed, TellDelayed, StatePaymentInProgress, TimerExpire},
			{InputExpired, AskVoid | AskRelease, StateCanceling, TimerKeep},
			{InputPaymentAuthorized, 0, StateCanceling, TimerKeep}, // late: voided all the same
			{InputStockReleased, 0, StateCanceling, TimerKeep},
			{InputPaymentVoided, TellCanceled, StateCanceled, TimerKeep},
		}, contract.ReasonPaymentTimeout, ByDeadline},
		{"inventory silent", []step{
			{InputDelayed, 0, StatePending, TimerExpire},
			{InputExpired, AskVoid | AskRelease, StateCanceling, TimerKeep},
			{InputStockFailed, 0, StateCanceling, TimerKeep}, // the first cause stands
			{InputStockReleased, 0, StateCanceling, TimerKeep},
			{InputPaymentVoided, TellCanceled, StateCanceled, TimerKeep},
		}, contract.ReasonPaymentTimeout, ByDeadline},
		{"customer cancels at once", []step{
			{InputCancel, AskVoid | AskRelease, StateCanceling, TimerCancel},
			{InputStockReserved, 0, StateCanceling, TimerKeep},
			{InputPaymentFailed, 0, StateCanceling, TimerKeep},
			{InputPaymentVoided, 0, StateCanceling, TimerKeep},
			{InputStockReleased, TellCanceled, StateCanceled, TimerKeep},
		}, contract.ReasonCustomer, ByCustomer},
		{"customer cancels when paid", after(
			paid,
			step{InputCancel, AskShipmentCancel, StateCanceling, TimerKeep},
			step{InputShipmentCanceled, AskVoid | AskRelease, StateCanceling, TimerKeep},
			step{InputPaymentVoided, 0, StateCanceling, TimerKeep},
			step{InputStockReleased, TellCanceled, StateCanceled, TimerKeep},
		), contract.ReasonCustomer, ByCustomer},
		{"cancel crosses a failing shipment", after(
			paid,
			step{InputCancel, AskShipmentCancel, StateCanceling, TimerKeep},
			step{InputShipmentFailed, AskVoid | AskRelease, StateCanceling, TimerKeep},
			step{InputPaymentVoided, 0, StateCanceling, TimerKeep},
			step{InputStockReleased, 0, StateCanceling, TimerKeep},
			step{InputShipmentCanceled, TellCanceled, StateCanceled, TimerKeep},
		), contract.ReasonCustomer, ByCustomer},
		{"cancel refused", after(
			paid,
			step{InputCancel, AskShipmentCancel, StateCanceling, TimerKeep},
			step{InputShipmentCreated, 0, StateCanceling, TimerKeep},
			step{InputShipmentCancelRefused, TellRefused, StatePaid, TimerKeep},
			step{InputStockCommitted, 0, StatePaid, TimerKeep},
			step{InputPaymentCaptured, TellCompleted, StateCompleted, TimerKeep},
		), "", ByCustomer},
		{"cancel refused last", after(
			paid,
			step{InputCancel, AskShipmentCancel, StateCanceling, TimerKeep},
			step{InputStockCommitted, 0, StateCanceling, TimerKeep},
			step{InputPaymentCaptured, 0, StateCanceling, TimerKeep},
			step{InputShipmentCreated, 0, StateCanceling, TimerKeep},
			step{InputShipmentCancelRefused, TellRefused | TellCompleted, StateCompleted, TimerKeep},
		), "", ByCustomer},
		{"shipment impossible", after(
			paid,
			step{InputShipmentFailed, AskVoid | AskRelease, StateCanceling, TimerKeep},
			step{InputStockReleased, 0, StateCanceling, TimerKeep},
			step{InputPaymentVoided, TellCanceled, StateCanceled, TimerKeep},
		), contract.ReasonShipmentFailed, ByShipping},
		{"capture refused for good", after(
			paid,
			step{InputShipmentCreated, 0, StatePaid, TimerKeep},
			step{InputPaymentCaptureFailed, 0, StatePaid, TimerKeep},
			step{InputStockCommitted, 0, StatePaid, TimerKeep},
		), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Facts
			for i, s := range c.steps {
				d := Decide(f, Input{Kind: s.in})
				if d.Verdict != Changed || d.Emit != s.emit || d.Facts.State() != s.state || d.Timer != s.timer {
					t.Fatalf("step %d: verdict %d, emit %b, state %s, timer %d; want emit %b, state %s, timer %d",
						i, d.Verdict, d.Emit, d.Facts.State(), d.Timer, s.emit, s.state, s.timer)
				}
				f = d.Facts
			}
			if f.Reason() != c.reason || f.CanceledBy() != c.by {
				t.Errorf("canceled for %q by %q, want %q by %q", f.Reason(), f.CanceledBy(), c.reason, c.by)
			}
			for _, s := range c.steps {
				if d := Decide(f, Input{Kind: s.in}); d.Verdict == Changed {
					t.Errorf("input %d told again changes %+v", s.in, d)
				}
			}
		})
	}
}

// TestContradictions: what cannot be true changes nothing.
func TestContradictions(t *testing.T) {
	told := func(kinds ...Kind) (f Facts) {
		for _, k := range kinds {
			f = Decide(f, Input{Kind: k}).Facts
		}
		return f
	}
	completed := told(InputStockReserved, InputPaymentAuthorized, InputShipmentCreated, InputPaymentCaptured, InputStockCommitted)
	for _, c := range []struct {
		name string
		f    Facts
		in   Kind
	}{
		{"answer without a request", Facts{}, InputStockReleased},
		{"void without a request", Facts{}, InputPaymentVoided},
		{"shipment before payment", Facts{}, InputShipmentCreated},
		{"capture before payment", told(InputStockReserved), InputPaymentCaptured},
		{"sale before payment", told(InputStockReserved), InputStockCommitted},
		{"reserved after failed", told(InputStockFailed), InputStockReserved},
		{"failed after reserved", told(InputStockReserved), InputStockFailed},
		{"paid without stock", told(InputStockFailed), InputPaymentAuthorized},
		{"declined after authorized", told(InputPaymentAuthorized), InputPaymentFailed},
		{"authorized after declined", told(InputPaymentFailed), InputPaymentAuthorized},
		{"shipment failed after created", told(InputStockReserved, InputPaymentAuthorized, InputShipmentCreated), InputShipmentFailed},
		{"refusal nobody asked for", told(InputStockReserved, InputPaymentAuthorized), InputShipmentCancelRefused},
		{"shipment canceled when completed", completed, InputShipmentCanceled},
		{"capture failed when captured", completed, InputPaymentCaptureFailed},
		{"cancel when completed", completed, InputCancel},
		{"cancel when shipped", told(InputStockReserved, InputPaymentAuthorized, InputShipmentCreated), InputCancel},
		{"no such kind", Facts{}, InputCancel + 1},
	} {
		if d := Decide(c.f, Input{Kind: c.in}); d.Verdict != Contradicts || d.Facts != c.f || d.Emit != 0 || d.Timer != TimerKeep {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	// A gateway's own code is the reason.
	if d := Decide(Facts{}, Input{Kind: InputPaymentFailed, Code: "EXPIRED_CARD"}); d.Facts.Reason() != "EXPIRED_CARD" {
		t.Errorf("reason %s", d.Facts.Reason())
	}
}
