package shipping_test

import (
	"testing"

	"github.com/settledev/settle/shop/shipping"
)

// TestDecide is the whole table: every state, told everything.
func TestDecide(t *testing.T) {
	type next struct {
		state  shipping.State
		action shipping.Action
	}
	const (
		none     = shipping.StateNone
		planned  = shipping.StatePlanned
		created  = shipping.StateCreated
		failed   = shipping.StateFailed
		canceled = shipping.StateCanceled
		nothing  = shipping.ActionNone
	)
	// Columns: InputPlan, InputShip, InputImpossible, InputCancel.
	table := map[shipping.State][4]next{
		none:     {{planned, shipping.SetTimer}, {created, shipping.EmitCreated}, {failed, shipping.EmitFailed}, {canceled, shipping.EmitCanceled}},
		planned:  {{planned, nothing}, {created, shipping.EmitCreated}, {failed, shipping.EmitFailed}, {canceled, shipping.EmitCanceled}},
		created:  {{created, nothing}, {created, nothing}, {created, nothing}, {created, shipping.EmitCancelRefused}},
		failed:   {{failed, nothing}, {failed, nothing}, {failed, nothing}, {failed, shipping.EmitCanceled}},
		canceled: {{canceled, nothing}, {canceled, nothing}, {canceled, nothing}, {canceled, shipping.EmitCanceled}},
	}
	for state, row := range table {
		for in, want := range row {
			if s, a := shipping.Decide(state, shipping.Input(in)); s != want.state || a != want.action {
				t.Errorf("%q told %d: %q %d, want %q %d", state, in, s, a, want.state, want.action)
			}
		}
	}
}
