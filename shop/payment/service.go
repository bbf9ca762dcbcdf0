// Package payment owns what the shop asked of the payment gateway and what came of it.
//
// Every call has three beats: prepared in the hop that decides it, performed under a stable key
// ("pay:<order>#authorize"), recorded in the hop that knows. [Decide] is the rule of an order's payment.
//
// # Guarantee
//
// The gateway sees one key for each thing that is asked of it, however often it is asked. An unknown
// outcome is never guessed: the same key is asked until there is an answer. A void wins whenever it comes.
//
// # What this package does not do
//
// It stores no card and no secret of a customer. It does not decide deadlines; the order does.
package payment

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/call"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

// Config of the service.
type Config struct {
	// Service is the configuration of its engines.
	Service settle.Config
	// GatewayURL is the base URL of the payment gateway. Required.
	GatewayURL string
	// Client makes the calls. Default: a client with enough idle connections for InFlight.
	Client *http.Client
	// Timeout bounds one call. Default 5s.
	Timeout time.Duration
	// InFlight bounds the concurrent calls of each kind. Default 64.
	InFlight int
	// Retry is the policy between attempts of one call, whose TotalMax is not used: an unknown outcome is
	// asked for until there is an answer. Default: that of package call, 100ms x2 up to 10s.
	Retry retry.Policy
	// WebhookSecret verifies the gateway's webhooks (whsec_...). Without it they are refused.
	WebhookSecret string
}

// Service is the payment service.
type Service struct {
	*settle.Service

	cfg       Config
	q         *queries
	read      page.Reader
	log       *slog.Logger
	authorize *call.Def[authorizeRequest, answer]
	void      *call.Def[contract.OrderRefV1, answer]
	capture   *call.Def[captureRequest, answer]
	refund    *call.Def[refundRequest, answer]
	lookup    *call.Def[contract.OrderRefV1, answer]
}

// New returns the service on its own store.
func New(store settle.Store, b broker.Broker, cfg Config) (*Service, error) {
	q, err := loadQueries(store)
	if err != nil {
		return nil, err
	}
	cfg.Service.Known = contract.EventTypes()
	if cfg.InFlight == 0 {
		cfg.InFlight = 64
	}
	if cfg.Retry != (retry.Policy{}) {
		cfg.Retry.Forever = true // Giving up would be guessing that nothing was authorized.
	}
	s := &Service{
		Service: settle.NewService("payment", store, b, cfg.Service), cfg: cfg,
		q: q, read: page.ReaderOf(store), log: cfg.Service.Logger,
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	g := newGateway(cfg.GatewayURL, cfg.Client, cfg.InFlight)
	s.authorize = define(s, "authorize", g.authorize, s.authorized)
	s.void = define(s, "void", g.void, s.voided)
	s.capture = define(s, "capture", g.capture, s.captured)
	s.refund = define(s, "refund", g.refund, s.refunded)
	s.lookup = define(s, "lookup", g.lookup, s.hinted)

	settle.On(s.Service, contract.PaymentRequested, s.requested)
	settle.On(s.Service, contract.PaymentVoidRequested, s.voidRequested)
	settle.On(s.Service, contract.ShipmentCreated, s.shipped)
	settle.On(s.Service, contract.ReturnRequested, s.returned)
	return s, nil
}

func define[Req any](
	s *Service, name string,
	do func(context.Context, string, Req) (answer, error),
	record func(context.Context, *txn.Tx, call.Outcome[Req, answer]) error,
) *call.Def[Req, answer] {
	d := call.Define(name, call.Spec[Req, answer]{
		Do: do, Record: record, Timeout: s.cfg.Timeout, InFlight: s.cfg.InFlight, Retry: s.cfg.Retry,
	})
	settle.Perform(s.Service, d)
	return d
}

// row is a payment as it is stored.
type row struct {
	state  State
	amount contract.Money
}

// load returns an order's payment and locks its row until the transaction ends.
func (s *Service) load(ctx context.Context, tx *txn.Tx, orderID string) (r row, err error) {
	var minor int64
	var currency string
	err = tx.QueryRow(ctx, s.q.selectPayment, []any{orderID}, &r.state, &minor, &currency)
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, nil
	}
	r.amount = contract.NewMoney(minor, currency)
	return r, err
}

// start stores the row of an order that payment has not heard of, when the input makes one. Of two inputs
// that meet, the second waits for the first and gets the row that it left.
func (s *Service) start(ctx context.Context, tx *txn.Tx, in Input, orderID string, amount contract.Money) (row, error) {
	none := row{amount: amount}
	state, _ := Decide(StateNone, in)
	if state == StateNone {
		return none, nil
	}
	n, err := tx.Exec(ctx, s.q.insertPayment, orderID, string(state), amount.Minor(), amount.Currency(), tx.Now().UnixMilli())
	if err != nil || n == 1 {
		return none, err
	}
	old, err := s.load(ctx, tx, orderID)
	if err == nil && old.state == StateNone {
		err = fmt.Errorf("payment: payment of %s cannot be stored and is not there", orderID)
	}
	return old, err
}

// tell lets the payment's row decide over an input, and does what follows in the same transaction.
// amount and code are those of the request or the answer.
func (s *Service) tell(ctx context.Context, tx *txn.Tx, in Input, orderID, customerID, code string, amount contract.Money) error {
	old, err := s.load(ctx, tx, orderID)
	if err == nil && old.state == StateNone {
		old, err = s.start(ctx, tx, in, orderID, amount)
	}
	if err != nil {
		return err
	}
	state, action := Decide(old.state, in)
	if err := s.store(ctx, tx, orderID, old, state, code); err != nil {
		return err
	}
	emitted := contract.PaymentV1{OrderID: orderID, Amount: old.amount, Code: code}
	switch action {
	case CallAuthorize:
		return call.Prepare(ctx, tx, s.authorize, key(orderID, "authorize"), authorizeRequest{orderID, old.amount, customerID})
	case CallVoid:
		return call.Prepare(ctx, tx, s.void, key(orderID, "void"), contract.OrderRefV1{OrderID: orderID})
	case CallCapture:
		return call.Prepare(ctx, tx, s.capture, key(orderID, "capture"), captureRequest{orderID, old.amount})
	case EmitAuthorized:
		return outbox.Add(ctx, tx, contract.PaymentAuthorized.New(emitted))
	case EmitFailed:
		return outbox.Add(ctx, tx, contract.PaymentFailed.New(emitted))
	case EmitVoided:
		emitted.Amount = amount // What was voided at the gateway, zero when there was nothing.
		return outbox.Add(ctx, tx, contract.PaymentVoided.New(emitted))
	case EmitSucceeded:
		return outbox.Add(ctx, tx, contract.PaymentSucceeded.New(emitted))
	case EmitCaptureFailed:
		s.log.Error("capture refused for good, the order needs a person", "aggregate_id", orderID, "code", code)
		return outbox.Add(ctx, tx, contract.PaymentCaptureFailed.New(emitted))
	case ActionNone:
	}
	return nil
}

func (s *Service) store(ctx context.Context, tx *txn.Tx, orderID string, old row, state State, code string) error {
	if old.state == StateNone || old.state == state {
		return nil // Stored by start, or as it was.
	}
	n, err := tx.Exec(ctx, s.q.updatePayment, string(state), code, orderID, string(old.state))
	if err == nil && n != 1 {
		return fmt.Errorf("payment: payment of %s is not %s any more", orderID, old.state)
	}
	return err
}

// key is the idempotency key of a call for an order.
func key(orderID, what string) string { return "pay:" + orderID + "#" + what }

func (s *Service) requested(ctx context.Context, tx *txn.Tx, e event.Of[contract.PaymentRequestV1]) error {
	return s.tell(ctx, tx, InputRequested, e.Data.OrderID, e.Data.CustomerID, "", e.Data.Amount)
}

func (s *Service) voidRequested(ctx context.Context, tx *txn.Tx, e event.Of[contract.OrderRefV1]) error {
	return s.tell(ctx, tx, InputVoidRequested, e.Data.OrderID, "", "", contract.NewMoney(0, contract.GBP))
}

func (s *Service) shipped(ctx context.Context, tx *txn.Tx, e event.Of[contract.ShipmentV1]) error {
	return s.tell(ctx, tx, InputShipped, e.Data.OrderID, "", "", contract.Money{})
}

func (s *Service) authorized(ctx context.Context, tx *txn.Tx, o call.Outcome[authorizeRequest, answer]) error {
	in, code := InputDeclined, o.Response.Code
	switch {
	case o.Err != nil: // A mistake in the request: nothing was authorized, and asking again is of no use.
		s.log.Error("gateway refused an authorization", "aggregate_id", o.Request.Reference, "err", o.Err)
		code = statusRefused
	case o.Response.Status == statusAuthorized:
		in = InputAuthorized
	case code == "":
		code = string(contract.ReasonCardDeclined)
	}
	return s.tell(ctx, tx, in, o.Request.Reference, "", code, o.Request.Amount)
}

func (s *Service) voided(ctx context.Context, tx *txn.Tx, o call.Outcome[contract.OrderRefV1, answer]) error {
	if o.Err != nil || o.Response.Status == statusRefused {
		// The rules never void what is captured, so a person must look; the call is asked again meanwhile.
		s.log.Error("gateway refused a void", "aggregate_id", o.Request.OrderID, "err", o.Err, "code", o.Response.Code)
		return fmt.Errorf("payment: void of %s was refused (%s)", o.Request.OrderID, o.Response.Code)
	}
	amount := o.Response.Amount
	if o.Response.Status == statusDeclined {
		amount = contract.NewMoney(0, amount.Currency())
	}
	return s.tell(ctx, tx, InputVoided, o.Request.OrderID, "", "", amount)
}

func (s *Service) captured(ctx context.Context, tx *txn.Tx, o call.Outcome[captureRequest, answer]) error {
	in, code := InputCaptured, ""
	if o.Err != nil || o.Response.Status == statusRefused {
		in, code = InputCaptureRefused, o.Response.Code
		if code == "" {
			code = statusRefused
		}
	}
	return s.tell(ctx, tx, in, o.Request.Reference, "", code, o.Request.Amount)
}

// hinted records what a lookup found after a webhook: the same facts as the answer that may still come.
func (s *Service) hinted(ctx context.Context, tx *txn.Tx, o call.Outcome[contract.OrderRefV1, answer]) error {
	switch {
	case o.Err != nil: // The gateway does not know the reference: there is nothing to learn.
		return nil
	case o.Response.Status == statusAuthorized:
		return s.tell(ctx, tx, InputAuthorized, o.Request.OrderID, "", "", o.Response.Amount)
	case o.Response.Status == statusDeclined:
		return s.tell(ctx, tx, InputDeclined, o.Request.OrderID, "", o.Response.Code, o.Response.Amount)
	}
	return nil
}

func (s *Service) returned(ctx context.Context, tx *txn.Tx, e event.Of[contract.ReturnV1]) error {
	n, err := tx.Exec(ctx, s.q.insertRefund, e.Data.ReturnID, e.Data.OrderID, e.Data.Amount.Minor(), e.Data.Amount.Currency(), tx.Now().UnixMilli())
	if err != nil || n != 1 {
		return err // The return's refund is asked for already.
	}
	return call.Prepare(ctx, tx, s.refund, "refund:"+e.Data.ReturnID, refundRequest{e.Data.ReturnID, e.Data.OrderID, e.Data.Amount})
}

func (s *Service) refunded(ctx context.Context, tx *txn.Tx, o call.Outcome[refundRequest, answer]) error {
	if o.Err != nil || o.Response.Status == statusRefused {
		s.log.Error("gateway refused a refund, the return needs a person", "return_id", o.Request.Reference, "code", o.Response.Code, "err", o.Err)
		_, err := tx.Exec(ctx, s.q.updateRefund, "REFUSED", o.Response.Code, o.Request.Reference)
		return err
	}
	n, err := tx.Exec(ctx, s.q.updateRefund, "REFUNDED", "", o.Request.Reference)
	if err != nil || n == 0 {
		return err
	}
	return outbox.Add(ctx, tx, contract.PaymentRefunded.New(contract.ReturnRefV1{
		ReturnID: o.Request.Reference, OrderID: o.Request.Authorization, Amount: o.Request.Amount,
	}))
}
