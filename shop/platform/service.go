// Package platform hands every order that came to its end to the data platform.
//
// # Guarantee
//
// It listens in a group of its own: whatever becomes of it, no order is slowed or failed. Each delivery is
// handed over until the receiver has it, under the event's identity.
//
// # What this package does not do
//
// It cannot make the receiver idempotent: a delivery may be handed over more than once, with the same
// identity.
package platform

import (
	"context"
	"net/http"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/deliver"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

// Config of the service.
type Config struct {
	// Service is the configuration of its engines.
	Service settle.Config
	// PlatformURL is the base URL of the receiver. Required.
	PlatformURL string
	// Client makes the calls. Default: a client with enough idle connections for InFlight.
	Client *http.Client
	// Timeout bounds one call. Default 5s.
	Timeout time.Duration
	// InFlight bounds the concurrent calls. Default 32.
	InFlight int
}

// Service is the platform service.
type Service struct {
	*settle.Service

	ledger *deliver.Ledger
	read   page.Reader
}

// New returns the service on its own store.
func New(store settle.Store, b broker.Broker, cfg Config) (*Service, error) {
	q, err := loadStatements(store)
	if err != nil {
		return nil, err
	}
	cfg.Service.Known = contract.EventTypes()
	if cfg.InFlight == 0 {
		cfg.InFlight = 32
	}
	s := &Service{Service: settle.NewService("platform", store, b, cfg.Service), read: page.ReaderOf(store)}
	client := deliver.New(cfg.PlatformURL, cfg.Client, cfg.InFlight)
	s.ledger = deliver.NewLedger("order", client, q, cfg.Timeout, cfg.InFlight, cfg.Service.Logger)
	settle.Perform(s.Service, s.ledger.Call())
	settle.On(s.Service, contract.OrderCompleted, s.deliver)
	settle.On(s.Service, contract.OrderCanceled, s.deliver)
	return s, nil
}

func (s *Service) deliver(ctx context.Context, tx *txn.Tx, e event.Of[contract.OrderStateV1]) error {
	return s.ledger.Send(ctx, tx, e.Envelope, e.Data.OrderID)
}

// Handler serves the service's list for operators.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /internal/deliveries", s.ledger.List(s.read))
	return mux
}
