package payment

// State is how far an order's payment has come, as far as payment knows what the gateway did. The empty
// State means that payment has not heard of the order.
type State string

// States of a payment.
const (
	StateNone          State = ""
	StateRequested     State = "REQUESTED" // authorize is being asked
	StateAuthorized    State = "AUTHORIZED"
	StateDeclined      State = "DECLINED"
	StateVoiding       State = "VOIDING" // void is being asked
	StateVoided        State = "VOIDED"  // also the tombstone of an order that never was authorized
	StateCapturing     State = "CAPTURING"
	StateCaptured      State = "CAPTURED"
	StateCaptureFailed State = "CAPTURE_FAILED"
)

// Input is what a payment is told: requests of other services, and answers of the gateway.
type Input int

// Inputs of a payment.
const (
	InputRequested Input = iota
	InputVoidRequested
	InputShipped
	InputAuthorized // the gateway's answers from here on
	InputDeclined
	InputVoided
	InputCaptured
	InputCaptureRefused
)

// Action is what has to happen in the same transaction as the new state: a call to prepare or an event
// to emit.
type Action int

// Actions of a payment.
const (
	ActionNone Action = iota
	CallAuthorize
	CallVoid
	CallCapture
	EmitAuthorized
	EmitFailed
	EmitVoided
	EmitSucceeded
	EmitCaptureFailed
)

// Decide is the whole rule of a payment. A void wins whenever it comes: before the authorization the row
// is a tombstone; during it the gateway is asked to void the same reference, where either the approval is
// voided or a tombstone declines it; after it the approval is voided. Answers of an authorization that a
// void has overtaken change nothing.
func Decide(s State, in Input) (State, Action) {
	switch in {
	case InputRequested:
		if s == StateNone {
			return StateRequested, CallAuthorize
		}
	case InputVoidRequested:
		switch s {
		case StateNone:
			return StateVoided, EmitVoided
		case StateRequested, StateAuthorized:
			return StateVoiding, CallVoid
		case StateDeclined, StateVoided: // Nothing to do is an answer too.
			return s, EmitVoided
		case StateVoiding, StateCapturing, StateCaptured, StateCaptureFailed:
			// VOIDING answers when the gateway does. After the shipment there is only forward.
		}
	case InputShipped:
		if s == StateAuthorized {
			return StateCapturing, CallCapture
		}
	case InputAuthorized:
		if s == StateRequested {
			return StateAuthorized, EmitAuthorized
		}
	case InputDeclined:
		if s == StateRequested {
			return StateDeclined, EmitFailed
		}
	case InputVoided:
		if s == StateVoiding {
			return StateVoided, EmitVoided
		}
	case InputCaptured:
		if s == StateCapturing {
			return StateCaptured, EmitSucceeded
		}
	case InputCaptureRefused:
		if s == StateCapturing {
			return StateCaptureFailed, EmitCaptureFailed
		}
	}
	return s, ActionNone
}
