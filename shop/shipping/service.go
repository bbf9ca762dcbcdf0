// Package shipping owns shipments. A shipment's row is the arbiter of created or canceled.
//
// # Guarantee
//
// An order is shipped once or not at all. A request to cancel is answered exactly once, also when it
// overtook the payment: the row is then a tombstone.
//
// # What this package does not do
//
// It calls no carrier; a real one would be a call of three beats, as payment makes them.
package shipping

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// Config of the service.
type Config struct {
	// Service is the configuration of its engines.
	Service settle.Config
	// Delay is the time between payment and shipment, in which an order can still be canceled. Default 0:
	// at once.
	Delay time.Duration
	// Impossible says which orders cannot be shipped. Default: none.
	Impossible func(orderID string) bool
}

// Service is the shipping service.
type Service struct {
	*settle.Service

	cfg Config
	q   *queries
}

// New returns the service on its own store.
func New(store settle.Store, b broker.Broker, cfg Config) (*Service, error) {
	q, err := loadQueries(store)
	if err != nil {
		return nil, err
	}
	cfg.Service.Known = contract.EventTypes()
	s := &Service{Service: settle.NewService("shipping", store, b, cfg.Service), cfg: cfg, q: q}
	settle.On(s.Service, contract.OrderPaid, s.paid)
	settle.On(s.Service, contract.ShipmentDue, s.due)
	settle.On(s.Service, contract.ShipmentCancelRequested, s.cancelRequested)
	return s, nil
}

// State is what became of an order's shipment. The empty State means that shipping has not heard of it.
type State string

// States of a shipment.
const (
	StateNone     State = ""
	StatePlanned  State = "PLANNED"
	StateCreated  State = "CREATED"
	StateFailed   State = "FAILED"
	StateCanceled State = "CANCELED"
)

// Input is what a shipment is told.
type Input int

// Inputs of a shipment.
const (
	InputPlan       Input = iota // paid, to be shipped later
	InputShip                    // paid, or planned and due
	InputImpossible              // paid or due, and it cannot be shipped
	InputCancel
)

// Action is what has to happen in the same transaction as the new state.
type Action int

// Actions of a shipment.
const (
	ActionNone Action = iota
	SetTimer
	EmitCreated
	EmitFailed
	EmitCanceled
	EmitCancelRefused
)

// Decide is the whole rule of a shipment.
func Decide(s State, in Input) (State, Action) {
	switch in {
	case InputPlan:
		if s == StateNone {
			return StatePlanned, SetTimer
		}
	case InputShip:
		if s == StateNone || s == StatePlanned {
			return StateCreated, EmitCreated
		}
	case InputImpossible:
		if s == StateNone || s == StatePlanned {
			return StateFailed, EmitFailed
		}
	case InputCancel:
		switch s {
		case StateNone, StatePlanned:
			return StateCanceled, EmitCanceled
		case StateCanceled, StateFailed: // Nothing goes out: that is what was asked for.
			return s, EmitCanceled
		case StateCreated:
			return s, EmitCancelRefused
		}
	}
	return s, ActionNone
}

// load returns the state of an order's shipment and locks its row until the transaction ends.
func (s *Service) load(ctx context.Context, tx *txn.Tx, orderID string) (state State, err error) {
	err = tx.QueryRow(ctx, s.q.selectShipment, []any{orderID}, &state)
	if errors.Is(err, sql.ErrNoRows) {
		return StateNone, nil
	}
	return state, err
}

// start stores the row of an order that shipping has not heard of, when the input makes one. Of two inputs
// that meet, the second waits for the first and gets the state that it left.
func (s *Service) start(ctx context.Context, tx *txn.Tx, orderID string, in Input) (old State, err error) {
	state, _ := Decide(StateNone, in)
	if state == StateNone {
		return StateNone, nil
	}
	n, err := tx.Exec(ctx, s.q.insertShipment, orderID, string(state), tx.Now().UnixMilli())
	if err != nil || n == 1 {
		return StateNone, err
	}
	if old, err = s.load(ctx, tx, orderID); err == nil && old == StateNone {
		err = fmt.Errorf("shipping: shipment of %s cannot be stored and is not there", orderID)
	}
	return old, err
}

func (s *Service) store(ctx context.Context, tx *txn.Tx, orderID string, old, state State) error {
	if old == StateNone || old == state {
		return nil // Stored by start, or as it was.
	}
	n, err := tx.Exec(ctx, s.q.updateShipment, string(state), tx.Now().UnixMilli(), orderID, string(old))
	if err == nil && n != 1 {
		return fmt.Errorf("shipping: shipment of %s is not %s any more", orderID, old)
	}
	return err
}

func (s *Service) tell(ctx context.Context, tx *txn.Tx, orderID string, in Input) error {
	old, err := s.load(ctx, tx, orderID)
	if err == nil && old == StateNone {
		old, err = s.start(ctx, tx, orderID, in)
	}
	if err != nil {
		return err
	}
	state, action := Decide(old, in)
	if err := s.store(ctx, tx, orderID, old, state); err != nil {
		return err
	}
	said := contract.ShipmentV1{OrderID: orderID, ShipmentID: "shipment-" + orderID}
	switch action {
	case SetTimer:
		return timer.Set(ctx, tx, "ship/"+orderID, tx.Now().Add(s.cfg.Delay), contract.ShipmentDue.New(said))
	case EmitCreated:
		return outbox.Add(ctx, tx, contract.ShipmentCreated.New(said))
	case EmitFailed:
		said.Reason = "IMPOSSIBLE"
		return outbox.Add(ctx, tx, contract.ShipmentFailed.New(said))
	case EmitCanceled:
		if old == StatePlanned {
			if _, err := timer.Cancel(ctx, tx, "ship/"+orderID); err != nil {
				return err
			}
		}
		return outbox.Add(ctx, tx, contract.ShipmentCanceled.New(said))
	case EmitCancelRefused:
		return outbox.Add(ctx, tx, contract.ShipmentCancelRefused.New(said))
	case ActionNone:
	}
	return nil
}

func (s *Service) paid(ctx context.Context, tx *txn.Tx, e event.Of[contract.OrderStateV1]) error {
	if s.cfg.Delay > 0 {
		return s.tell(ctx, tx, e.Data.OrderID, InputPlan)
	}
	return s.ship(ctx, tx, e.Data.OrderID)
}

func (s *Service) due(ctx context.Context, tx *txn.Tx, e event.Of[contract.ShipmentV1]) error {
	return s.ship(ctx, tx, e.Data.OrderID)
}

func (s *Service) ship(ctx context.Context, tx *txn.Tx, orderID string) error {
	if s.cfg.Impossible != nil && s.cfg.Impossible(orderID) {
		return s.tell(ctx, tx, orderID, InputImpossible)
	}
	return s.tell(ctx, tx, orderID, InputShip)
}

func (s *Service) cancelRequested(ctx context.Context, tx *txn.Tx, e event.Of[contract.ShipmentV1]) error {
	return s.tell(ctx, tx, e.Data.OrderID, InputCancel)
}
