package inventory

// State is what the reservation of an order came to. The empty State means that inventory has not
// heard of the order.
type State string

// States of a reservation.
const (
	StateNone      State = ""
	StateReserved  State = "RESERVED"
	StateFailed    State = "FAILED"
	StateReleased  State = "RELEASED"
	StateCommitted State = "COMMITTED"
)

// Input is what a reservation is told.
type Input int

// Inputs of a reservation.
const (
	InputReserve Input = iota // and there is enough of everything
	InputShort                // asked to reserve, and there is not enough
	InputRelease
	InputShipped
)

// Effect is what has to happen in the same transaction as the new state.
type Effect struct {
	Take      bool // subtract the lines from free stock
	GiveBack  bool // add the lines to free stock
	Reserved  bool // emit StockReserved and PaymentRequested
	Failed    bool // emit StockReservationFailed
	Released  bool // emit StockReleased
	Committed bool // emit StockCommitted
}

// Decide is the whole rule of a reservation. A request to release is answered exactly once each, also
// when it overtook the request that it cancels: the row is then a tombstone that refuses the late-comer.
func Decide(s State, in Input) (State, Effect) {
	switch in {
	case InputReserve:
		if s == StateNone {
			return StateReserved, Effect{Take: true, Reserved: true}
		}
	case InputShort:
		if s == StateNone {
			return StateFailed, Effect{Failed: true}
		}
	case InputRelease:
		switch s {
		case StateReserved:
			return StateReleased, Effect{GiveBack: true, Released: true}
		case StateNone, StateReleased, StateFailed:
			// A shortage stays a shortage in the ledger; there is nothing to give back.
			if s == StateNone {
				s = StateReleased
			}
			return s, Effect{Released: true}
		case StateCommitted: // After the shipment there is only forward: the order never asks this.
		}
	case InputShipped:
		if s == StateReserved {
			return StateCommitted, Effect{Committed: true}
		}
	}
	return s, Effect{}
}
