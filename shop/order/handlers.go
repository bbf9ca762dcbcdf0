package order

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// register subscribes to everything that states a fact about an order or a return.
func (s *Service) register() {
	ref := func(d contract.OrderRefV1) string { return d.OrderID }
	on(s, contract.StockReserved, InputStockReserved, ref)
	on(s, contract.StockReleased, InputStockReleased, ref)
	on(s, contract.StockCommitted, InputStockCommitted, ref)
	on(s, contract.StockReservationFailed, InputStockFailed, func(d contract.StockFailedV1) string { return d.OrderID })

	paid := func(d contract.PaymentV1) string { return d.OrderID }
	on(s, contract.PaymentAuthorized, InputPaymentAuthorized, paid)
	on(s, contract.PaymentVoided, InputPaymentVoided, paid)
	on(s, contract.PaymentSucceeded, InputPaymentCaptured, paid)
	on(s, contract.PaymentCaptureFailed, InputPaymentCaptureFailed, paid)
	settle.On(s.Service, contract.PaymentFailed, func(ctx context.Context, tx *txn.Tx, e event.Of[contract.PaymentV1]) error {
		return s.tell(ctx, tx, e.Data.OrderID, e.Type, Input{Kind: InputPaymentFailed, Code: e.Data.Code})
	})

	shipped := func(d contract.ShipmentV1) string { return d.OrderID }
	on(s, contract.ShipmentCreated, InputShipmentCreated, shipped)
	on(s, contract.ShipmentFailed, InputShipmentFailed, shipped)
	on(s, contract.ShipmentCanceled, InputShipmentCanceled, shipped)
	on(s, contract.ShipmentCancelRefused, InputShipmentCancelRefused, shipped)

	settle.On(s.Service, contract.OrderDeadlinePassed, func(ctx context.Context, tx *txn.Tx, e event.Of[contract.OrderDeadlineV1]) error {
		kind := InputDelayed
		if e.Data.Deadline == contract.DeadlineExpired {
			kind = InputExpired
		}
		return s.tell(ctx, tx, e.Data.OrderID, e.Type, Input{Kind: kind})
	})
	settle.On(s.Service, contract.StockReturned, s.stockReturned)
	settle.On(s.Service, contract.PaymentRefunded, s.paymentRefunded)
}

// on makes an event an input of its order.
func on[T any](s *Service, t event.Type[T], kind Kind, orderID func(T) string) {
	settle.On(s.Service, t, func(ctx context.Context, tx *txn.Tx, e event.Of[T]) error {
		return s.tell(ctx, tx, orderID(e.Data), e.Type, Input{Kind: kind})
	})
}

// record is an order's row without its lines.
type record struct {
	id       string
	customer string
	ref      string
	total    contract.Money
	placedAt time.Time
	facts    Facts
	version  int64
}

// errUnknownOrder says that there is no such order.
var errUnknownOrder = errors.New("unknown order")

func (s *Service) load(ctx context.Context, tx *txn.Tx, id string) (r record, err error) {
	var currency string
	var total, placedAt int64
	f := &r.facts
	err = tx.QueryRow(ctx, s.q.selectFacts, []any{id},
		&r.customer, &r.ref, &currency, &total, &placedAt,
		&f.Stock, &f.Payment, &f.Shipment, &f.Deadline, &f.Cancel, &f.Told, &f.Answered, &r.version)
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("order: %w: %s", errUnknownOrder, id)
	}
	r.id, r.total, r.placedAt = id, contract.NewMoney(total, currency), time.UnixMilli(placedAt).UTC()
	return r, err
}

// tell lets an order decide over what an event says, and does what follows. An event of an order that
// does not exist is parked: it is evidence of a loss, and nothing may lose it a second time.
func (s *Service) tell(ctx context.Context, tx *txn.Tx, id, eventType string, in Input) error {
	r, err := s.load(ctx, tx, id)
	if err != nil {
		if errors.Is(err, errUnknownOrder) {
			return retry.Permanent(err)
		}
		return err
	}
	d := Decide(r.facts, in)
	switch d.Verdict {
	case Repeated:
		return nil
	case Contradicts:
		return s.contradicted(ctx, tx, r, eventType)
	case Changed:
	}
	return s.store(ctx, tx, r, d)
}

func (s *Service) contradicted(ctx context.Context, tx *txn.Tx, r record, eventType string) error {
	if _, err := tx.Exec(ctx, s.q.countContradiction, r.id); err != nil {
		return err
	}
	tx.AfterCommit(func() {
		s.log.Warn("event contradicts the order", "aggregate_id", r.id, "event_type", eventType, "state", r.facts.State())
		if s.cfg.Hooks.Contradicted != nil {
			s.cfg.Hooks.Contradicted(r.id, eventType)
		}
	})
	return nil
}

// store writes a decision's facts, changes the timer and adds the events: one hop.
func (s *Service) store(ctx context.Context, tx *txn.Tx, r record, d Decision) error {
	f, state := d.Facts, d.Facts.State()
	n, err := tx.Exec(ctx, s.q.updateFacts,
		string(state), string(f.Stock), string(f.Payment), string(f.Shipment), string(f.Deadline), string(f.Cancel),
		int64(f.Told), int64(f.Answered), tx.Now().UnixMilli(), r.id, r.version)
	switch {
	case err != nil:
		return err
	case n != 1:
		return fmt.Errorf("order: %s is not at version %d any more", r.id, r.version)
	}
	switch d.Timer {
	case TimerExpire:
		err = timer.Set(ctx, tx, timerKey(r.id), r.placedAt.Add(s.cfg.ExpiredAfter), deadline(r.id, contract.DeadlineExpired))
	case TimerCancel:
		_, err = timer.Cancel(ctx, tx, timerKey(r.id))
	case TimerKeep:
	}
	if err != nil {
		return err
	}
	if d.Emit&terminal != 0 && s.cfg.Hooks.Ended != nil {
		tx.AfterCommit(func() { s.cfg.Hooks.Ended(r.id, state, f.Reason(), time.Since(r.placedAt)) })
	}
	return s.emit(ctx, tx, r, d)
}

// emit adds what the decision says and asks, what is said before what is asked.
func (s *Service) emit(ctx context.Context, tx *txn.Tx, r record, d Decision) error {
	if d.Emit == 0 {
		return nil
	}
	said := contract.OrderStateV1{
		OrderID: r.id, CustomerID: r.customer, Reference: r.ref,
		State: string(d.Facts.State()), Reason: d.Facts.Reason(), Total: r.total,
	}
	var drafts [8]event.Draft
	out := drafts[:0]
	for _, t := range [...]struct {
		member Told
		event  event.Type[contract.OrderStateV1]
	}{
		{TellDelayed, contract.OrderPaymentDelayed},
		{TellPaid, contract.OrderPaid},
		{TellRefused, contract.OrderCancelRefused},
		{TellCompleted, contract.OrderCompleted},
		{TellCanceled, contract.OrderCanceled},
	} {
		if d.Emit.Has(t.member) {
			out = append(out, t.event.New(said))
		}
	}
	if d.Emit.Has(AskShipmentCancel) {
		out = append(out, contract.ShipmentCancelRequested.New(contract.ShipmentV1{OrderID: r.id, Reason: string(d.Facts.Cancel)}))
	}
	if d.Emit.Has(AskVoid) {
		out = append(out, contract.PaymentVoidRequested.New(contract.OrderRefV1{OrderID: r.id}))
	}
	if d.Emit.Has(AskRelease) {
		out = append(out, contract.StockReleaseRequested.New(contract.OrderRefV1{OrderID: r.id}))
	}
	return outbox.Add(ctx, tx, out...)
}

// timerKey names the one timer that an order has at a time.
func timerKey(orderID string) string { return "order/" + orderID }

func deadline(orderID, which string) event.Draft {
	return contract.OrderDeadlinePassed.New(contract.OrderDeadlineV1{OrderID: orderID, Deadline: which})
}
