// Package gateway is the shop's front door: it routes requests to the services that own them, guards the
// operator's routes, keeps the live feeds, and serves the pages.
//
// # Guarantee
//
// A live feed is a log in the gateway's store, filled by its consumer: a browser that reconnects misses
// nothing or is told to reload. A route that nobody may use is refused, not hidden.
//
// # What this package does not do
//
// It decides nothing about orders, stock or money. It knows no accounts: customers are names, and only
// operators are authenticated, by a bearer token.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/push"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/contract"
)

// Config of the gateway.
type Config struct {
	// Service is the configuration of its engines.
	Service settle.Config
	// Feed is the log of the live feeds: that of the gateway's store. Required.
	Feed push.Log
	// Push configures the live feeds.
	Push push.Config
	// Order, Payment and Catalog answer their routes: the services' handlers in one process, or
	// proxies to them. Required.
	Order, Payment, Catalog http.Handler
	// Internal answers the operator's lists (/internal/...), by the first part of the path after it.
	Internal map[string]http.Handler
	// Letters are the dead letters of the services, by service.
	Letters map[string]*deadletter.Queue
	// Outboxes are the events that a broker refused, by service.
	Outboxes map[string]relay.Parking
	// OperatorToken lets operators in, as "Authorization: Bearer <token>". Without one their routes refuse
	// everybody.
	OperatorToken string
	// Metrics answers GET /metrics. Default: not found.
	Metrics http.Handler
	// Traffic tells an operator how much is on its way, as JSON. Default: not found.
	Traffic func(ctx context.Context) (any, error)
	// Ready says whether the services can take work. Default: always.
	Ready func(ctx context.Context) error
}

// Service is the gateway.
type Service struct {
	*settle.Service

	cfg Config
	hub *push.Hub
	log *slog.Logger
}

// New returns the gateway on its own store.
func New(store settle.Store, b broker.Broker, cfg Config) (*Service, error) {
	if cfg.Feed == nil || cfg.Order == nil || cfg.Payment == nil || cfg.Catalog == nil {
		return nil, errors.New("gateway: needs Feed, Order, Payment and Catalog")
	}
	cfg.Service.Known = contract.EventTypes()
	s := &Service{Service: settle.NewService("gateway", store, b, cfg.Service), cfg: cfg, log: cfg.Service.Logger}
	if s.log == nil {
		s.log = slog.Default()
	}
	for _, e := range contract.Events() {
		settle.OnEnvelope(s.Service, e.Topic(), e.Name(), s.show)
	}
	cfg.Push.Logger = s.log
	var err error
	if s.hub, err = push.NewHub(cfg.Feed, cfg.Push); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return s, nil
}

// Run serves the feeds and the engines until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.hub.Run(ctx) }()
	err := s.Service.Run(ctx)
	cancel()
	return errors.Join(err, <-done)
}

// Streams returns how many browsers follow a feed.
func (s *Service) Streams() int { return s.hub.Clients() }
