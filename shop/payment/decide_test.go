package payment

import "testing"

// TestDecide is the whole table: every state, told everything.
func TestDecide(t *testing.T) {
	type next struct {
		state  State
		action Action
	}
	stay := func(s State) (row [8]next) {
		for i := range row {
			row[i] = next{s, ActionNone}
		}
		return row
	}
	with := func(s State, changes map[Input]next) [8]next {
		row := stay(s)
		for in, n := range changes {
			row[in] = n
		}
		return row
	}
	table := map[State][8]next{
		StateNone: with(StateNone, map[Input]next{
			InputRequested: {StateRequested, CallAuthorize}, InputVoidRequested: {StateVoided, EmitVoided},
		}),
		StateRequested: with(StateRequested, map[Input]next{
			InputVoidRequested: {StateVoiding, CallVoid},
			InputAuthorized:    {StateAuthorized, EmitAuthorized}, InputDeclined: {StateDeclined, EmitFailed},
		}),
		StateAuthorized: with(StateAuthorized, map[Input]next{
			InputVoidRequested: {StateVoiding, CallVoid}, InputShipped: {StateCapturing, CallCapture},
		}),
		StateDeclined: with(StateDeclined, map[Input]next{InputVoidRequested: {StateDeclined, EmitVoided}}),
		StateVoiding:  with(StateVoiding, map[Input]next{InputVoided: {StateVoided, EmitVoided}}),
		StateVoided:   with(StateVoided, map[Input]next{InputVoidRequested: {StateVoided, EmitVoided}}),
		StateCapturing: with(StateCapturing, map[Input]next{
			InputCaptured: {StateCaptured, EmitSucceeded}, InputCaptureRefused: {StateCaptureFailed, EmitCaptureFailed},
		}),
		StateCaptured:      stay(StateCaptured),
		StateCaptureFailed: stay(StateCaptureFailed),
	}
	if len(table[StateNone]) != int(InputCaptureRefused)+1 {
		t.Fatal("an input is missing in the table")
	}
	for state, row := range table {
		for in, want := range row {
			if s, a := Decide(state, Input(in)); s != want.state || a != want.action {
				t.Errorf("%q told %d: %q %d, want %q %d", state, in, s, a, want.state, want.action)
			}
		}
	}
}
