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
	// Services answer their [Routes], by name: the handlers of services of this process.
	Services map[string]http.Handler
	// Peers are the services of other processes, by name; one that is in Services too has further instances
	// there. Every service of Routes must be in Services or Peers.
	Peers map[string]*Peer
	// Lookups answer other services' questions to those of this process, by route. They need the operator's
	// token.
	Lookups map[string]http.Handler
	// Letters are the dead letters of this process's services, by service.
	Letters map[string]*deadletter.Queue
	// Outboxes are the events of this process's services that a broker refused, by service.
	Outboxes map[string]relay.Parking
	// OperatorToken lets operators in, as "Authorization: Bearer <token>", and the gateway into its peers.
	// Without one their routes refuse everybody.
	OperatorToken string
	// Metrics answers GET /metrics. Default: not found.
	Metrics http.Handler
	// Traffic tells how much is on its way in this process's services, by service. Default: an operator
	// who asks finds nothing.
	Traffic func(ctx context.Context) (map[string]Traffic, error)
	// Ready says whether the services can take work. Default: always.
	Ready func(ctx context.Context) error
}

// Service is the gateway.
type Service struct {
	*settle.Service

	cfg      Config
	services map[string]http.Handler // each service's handler, or the way to its peer
	desk     *desk
	hub      *push.Hub
	log      *slog.Logger
}

// New returns the gateway on its own store.
func New(store settle.Store, b broker.Broker, cfg Config) (*Service, error) {
	if cfg.Feed == nil {
		return nil, errors.New("gateway: needs a Feed")
	}
	cfg.Service.Known = contract.EventTypes()
	s := &Service{Service: settle.NewService("gateway", store, b, cfg.Service), cfg: cfg, log: cfg.Service.Logger}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.desk = newDesk(desk{
		letters: cfg.Letters, outboxes: cfg.Outboxes, peers: cfg.Peers, traffic: cfg.Traffic, token: cfg.OperatorToken, log: s.log,
	})
	s.services = map[string]http.Handler{}
	for name := range Routes() {
		switch p := cfg.Peers[name]; {
		case cfg.Services[name] != nil:
			s.services[name] = cfg.Services[name]
		case p != nil:
			s.services[name] = p.Handler(s.log)
		default:
			return nil, fmt.Errorf("gateway: service %s is neither here nor a peer", name)
		}
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
