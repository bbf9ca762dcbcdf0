package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
)

// Product is what an order needs to know of a product.
type Product struct {
	Name     string
	Price    contract.Price
	Currency string
}

// Catalog knows products and their prices.
type Catalog interface {
	// Products returns those of ids that exist. It is called outside of any transaction.
	Products(ctx context.Context, ids []string) (map[string]Product, error)
}

// Hooks are called for metrics, after the commit; they must not block.
type Hooks struct {
	// Placed has an order that was accepted and its number of lines.
	Placed func(orderID string, lines int)
	// Ended has an order that became COMPLETED or CANCELED, and how long that took since it was placed.
	Ended func(orderID string, state State, reason contract.Reason, took time.Duration)
	// Contradicted has an event that cannot be true besides the order's facts.
	Contradicted func(orderID, eventType string)
}

// Config of the service.
type Config struct {
	// Service is the configuration of its engines.
	Service settle.Config
	// Catalog knows the products. Required.
	Catalog Catalog
	// DelayedAfter is how long an order waits for its payment before it says so. Default 5s.
	DelayedAfter time.Duration
	// ExpiredAfter is how long after it was placed an order that has no payment is canceled. It must exceed
	// DelayedAfter. Default 2m.
	ExpiredAfter time.Duration
	// Principal says who sends a request: two principals' idempotency keys have nothing to do with one
	// another. Default: everyone is the same.
	Principal func(*http.Request) string
	// Hooks are called for metrics. Default none.
	Hooks Hooks
}

// Service takes orders and returns, and decides what becomes of them.
type Service struct {
	*settle.Service

	cfg    Config
	read   page.Reader
	q      *queries
	keeper *idempotency.Keeper
	log    *slog.Logger
}

// New returns the service on its own store. The store must keep timers, be a [page.Reader] for the lists,
// and keep answers (see package idempotency) for Idempotency-Key to be honoured: a request with a key is
// refused without.
func New(store settle.Store, b broker.Broker, cfg Config) (*Service, error) {
	if cfg.DelayedAfter == 0 {
		cfg.DelayedAfter = 5 * time.Second
	}
	if cfg.ExpiredAfter == 0 {
		cfg.ExpiredAfter = 2 * time.Minute
	}
	if cfg.Principal == nil {
		cfg.Principal = func(*http.Request) string { return "" }
	}
	switch {
	case cfg.Catalog == nil:
		return nil, errors.New("order: new: needs a Catalog")
	case cfg.DelayedAfter < 0 || cfg.ExpiredAfter <= cfg.DelayedAfter:
		return nil, fmt.Errorf("order: new: expired after %s must exceed delayed after %s", cfg.ExpiredAfter, cfg.DelayedAfter)
	}
	q, err := loadQueries(store)
	if err != nil {
		return nil, err
	}
	cfg.Service.Known = contract.EventTypes()
	s := &Service{Service: settle.NewService("order", store, b, cfg.Service), cfg: cfg, read: page.ReaderOf(store), q: q, log: cfg.Service.Logger}
	if s.log == nil {
		s.log = slog.Default()
	}
	if p, ok := store.(idempotency.Provider); ok {
		s.keeper = idempotency.NewKeeper(s.Runner(), p.Answers())
	}
	s.register()
	return s, nil
}
