package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/settledev/settle"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/catalog"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/gateway"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/notify"
	"github.com/settledev/settle/shop/order"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/platform"
	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/shop/replay"
	"github.com/settledev/settle/shop/shipping"
)

// shop are the services of this process; those that run elsewhere are nil.
type shop struct {
	order     *order.Service
	inventory *inventory.Service
	payment   *payment.Service
	shipping  *shipping.Service
	notify    *notify.Service
	platform  *platform.Service
	catalog   *catalog.Service
	gateway   *gateway.Service

	services []*settle.Service       // what each of them is at its core
	engines  []engine                // what runs of them
	handlers map[string]http.Handler // what each answers; see gateway.Routes
	lookups  map[string]http.Handler // what other services may ask, by route
	letters  map[string]*deadletter.Queue
	outboxes map[string]relay.Parking
}

type engine struct {
	name string
	run  func(context.Context) error
}

// newShop makes this process's services. They share nothing but the broker and what is passed here.
func (a *App) newShop() (*shop, error) {
	s := &shop{
		handlers: map[string]http.Handler{}, lookups: map[string]http.Handler{},
		letters: map[string]*deadletter.Queue{}, outboxes: map[string]relay.Parking{},
	}
	// In this order: who is asked by another one comes first.
	for _, m := range []struct {
		name string
		make func(*shop) (*settle.Service, error)
	}{
		{"inventory", a.newInventory},
		{"catalog", a.newCatalog},
		{"payment", a.newPayment},
		{"shipping", a.newShipping},
		{"notify", a.newNotify},
		{"platform", a.newPlatform},
		{"order", a.newOrder},
		{"gateway", a.newGateway},
	} {
		if !slices.Contains(a.opts.Services, m.name) {
			continue
		}
		svc, err := m.make(s)
		if err != nil {
			return nil, err
		}
		a.metrics.Observe(svc)
		s.services = append(s.services, svc)
		if q, ok := svc.Letters(); ok {
			s.letters[m.name] = q
		}
		if p, ok := a.stores[m.name].Outbox().(relay.Parking); ok {
			s.outboxes[m.name] = p
		}
		run := svc.Run
		if m.name == "gateway" {
			run = s.gateway.Run // It serves the feeds too.
		}
		s.engines = append(s.engines, engine{m.name, run})
	}
	return s, nil
}

func (a *App) newInventory(s *shop) (_ *settle.Service, err error) {
	if s.inventory, err = inventory.New(a.backed["inventory"], a.brokerOf("inventory"), inventory.Config{Service: a.config("inventory")}); err != nil {
		return nil, err
	}
	s.handlers["inventory"], s.lookups[inventory.LookupRoute] = s.inventory.Handler(), s.inventory.Lookup()
	return s.inventory.Service, nil
}

func (a *App) newCatalog(s *shop) (_ *settle.Service, err error) {
	cfg := catalog.Config{Service: a.config("catalog")}
	switch p := a.peers["inventory"]; {
	case s.inventory != nil:
		cfg.Available = s.inventory.Available
	case p != nil:
		cfg.Available = inventory.NewClient(peerClient(p), "http://inventory", a.token).Available
	}
	if s.catalog, err = catalog.New(a.backed["catalog"], a.brokerOf("catalog"), cfg); err != nil {
		return nil, err
	}
	s.handlers["catalog"], s.lookups[catalog.LookupRoute] = s.catalog.Handler(), s.catalog.Lookup()
	return s.catalog.Service, nil
}

func (a *App) newPayment(s *shop) (_ *settle.Service, err error) {
	if s.payment, err = payment.New(a.backed["payment"], a.brokerOf("payment"), payment.Config{
		Service: a.config("payment"), GatewayURL: a.PgsimURL, WebhookSecret: a.secret,
	}); err != nil {
		return nil, err
	}
	s.handlers["payment"] = s.payment.Handler()
	return s.payment.Service, nil
}

func (a *App) newShipping(s *shop) (_ *settle.Service, err error) {
	cfg := shipping.Config{Service: a.config("shipping"), Delay: a.opts.ShipDelay}
	if s.shipping, err = shipping.New(a.backed["shipping"], a.brokerOf("shipping"), cfg); err != nil {
		return nil, err
	}
	return s.shipping.Service, nil
}

func (a *App) newNotify(s *shop) (_ *settle.Service, err error) {
	if s.notify, err = notify.New(a.backed["notify"], a.brokerOf("notify"), notify.Config{Service: a.config("notify"), PlatformURL: a.PlatURL}); err != nil {
		return nil, err
	}
	s.handlers["notify"] = s.notify.Handler()
	return s.notify.Service, nil
}

func (a *App) newPlatform(s *shop) (_ *settle.Service, err error) {
	cfg := platform.Config{Service: a.config("platform"), PlatformURL: a.PlatURL}
	if s.platform, err = platform.New(a.backed["platform"], a.brokerOf("platform"), cfg); err != nil {
		return nil, err
	}
	s.handlers["platform"] = s.platform.Handler()
	return s.platform.Service, nil
}

func (a *App) newOrder(s *shop) (_ *settle.Service, err error) {
	var known asker
	if s.catalog != nil {
		known = s.catalog
	} else {
		known = catalog.NewClient(peerClient(a.peers["catalog"]), "http://catalog", a.token)
	}
	if s.order, err = order.New(a.backed["order"], a.brokerOf("order"), order.Config{
		Service: a.config("order"), Catalog: products{known},
		DelayedAfter: a.opts.PaymentDelayed, ExpiredAfter: a.opts.PaymentExpired, Hooks: a.orderHooks(),
	}); err != nil {
		return nil, err
	}
	s.handlers["order"] = s.order.Handler()
	return s.order.Service, nil
}

func (a *App) newGateway(s *shop) (_ *settle.Service, err error) {
	if s.gateway, err = gateway.New(a.backed["gateway"], a.brokerOf("gateway"), gateway.Config{
		Service: a.config("gateway"), Feed: a.stores["gateway"].Feed(),
		Services: s.handlers, Peers: a.peers, Lookups: s.lookups, Letters: s.letters, Outboxes: s.outboxes,
		OperatorToken: a.token, Metrics: a.metricsHandler(), Ready: a.Ready, Traffic: a.Traffic,
	}); err != nil {
		return nil, err
	}
	return s.gateway.Service, nil
}

// frontHandler is what the process serves: the gateway, or else its own services' routes.
func (a *App) frontHandler() http.Handler {
	if g := a.shop.gateway; g != nil {
		return g.Handler()
	}
	return gateway.NewNode(gateway.NodeConfig{
		Services: a.shop.handlers, Lookups: a.shop.lookups, Letters: a.shop.letters, Outboxes: a.shop.outboxes,
		OperatorToken: a.token, Metrics: a.metricsHandler(), Ready: a.Ready, Traffic: a.Traffic, Logger: a.opts.Logger,
	})
}

// orderHooks measures whole orders, from acceptance to their end: what a customer waits for.
func (a *App) orderHooks() order.Hooks {
	ended := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "shop", Name: "order_seconds", Help: "Time from an order's acceptance to its end, by how it ended.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 18),
	}, []string{"state", "reason"})
	contradicted := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "shop", Name: "order_contradictions_total", Help: "Events that could not be true beside an order's facts, and changed nothing.",
	}, []string{"type"})
	a.registry.MustRegister(ended, contradicted)
	return order.Hooks{
		Ended: func(_ string, state order.State, reason contract.Reason, took time.Duration) {
			ended.WithLabelValues(string(state), string(reason)).Observe(took.Seconds())
			if a.opts.Ended != nil {
				a.opts.Ended(took)
			}
		},
		Contradicted: func(_, eventType string) { contradicted.WithLabelValues(eventType).Inc() },
	}
}

// lookupTimeout bounds what one service asks another one within a request.
const lookupTimeout = 5 * time.Second

func peerClient(p *gateway.Peer) *http.Client {
	return &http.Client{Transport: p, Timeout: lookupTimeout}
}

// asker is the catalogue, here or in another process.
type asker interface {
	Products(ctx context.Context, ids []string) (map[string]catalog.Product, error)
}

// products lets the order service ask the catalogue.
type products struct{ catalog asker }

func (p products) Products(ctx context.Context, ids []string) (map[string]order.Product, error) {
	found, err := p.catalog.Products(ctx, ids)
	if errors.Is(err, gateway.ErrUnreachable) {
		away := problem.New(http.StatusServiceUnavailable, "service-unreachable", "A service cannot be reached",
			"The catalogue is away, and nothing was done: try again.", map[string]any{"service": "catalog"})
		away.RetryAfter = time.Second
		return nil, away
	}
	if err != nil {
		return nil, err
	}
	all := make(map[string]order.Product, len(found))
	for id, v := range found {
		all[id] = order.Product{Name: v.Name, Price: v.Price, Currency: v.Currency}
	}
	return all, nil
}

// Seed gives the catalogue its products and the inventory the stock that the file's orders need, once, as
// far as these services are here.
func (a *App) Seed(ctx context.Context, file *replay.File, stockPercent int64) error {
	return a.seed(ctx, file, file.Stock(stockPercent))
}

// SeedStock gives the catalogue its products and the inventory the same stock of each, once.
func (a *App) SeedStock(ctx context.Context, file *replay.File, units int64) error {
	stock := map[string]int64{}
	for code := range file.Products {
		stock[code] = units
	}
	return a.seed(ctx, file, stock)
}

// seed waits as opening does: a database may go away in between.
func (a *App) seed(ctx context.Context, file *replay.File, stock map[string]int64) error {
	if s := a.shop.catalog; s != nil {
		list, err := offered(file)
		if err != nil {
			return err
		}
		if err := a.awaitDatabase(ctx, "catalog", func(ctx context.Context) error { return s.Seed(ctx, list) }); err != nil {
			return err
		}
	}
	if s := a.shop.inventory; s != nil {
		return a.awaitDatabase(ctx, "inventory", func(ctx context.Context) error { return s.Seed(ctx, stock) })
	}
	return nil
}

// offered are the file's products as the catalogue has them.
func offered(file *replay.File) ([]catalog.Product, error) {
	list := make([]catalog.Product, 0, len(file.Products))
	for _, p := range file.Products {
		price, err := contract.ParsePrice(p.Price)
		if err != nil {
			return nil, fmt.Errorf("product %s: %w", p.Code, err)
		}
		name := p.Name
		if name == "" {
			name = p.Code
		}
		list = append(list, catalog.Product{ID: p.Code, Name: name, Price: price, Currency: contract.GBP})
	}
	return list, nil
}
