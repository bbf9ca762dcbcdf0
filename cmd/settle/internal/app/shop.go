package app

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"sync/atomic"
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
	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/shop/platform"
	"github.com/settledev/settle/shop/platformsim"
	"github.com/settledev/settle/shop/replay"
	"github.com/settledev/settle/shop/shipping"
)

// shop are the services.
type shop struct {
	order     *order.Service
	inventory *inventory.Service
	payment   *payment.Service
	shipping  *shipping.Service
	notify    *notify.Service
	platform  *platform.Service
	catalog   *catalog.Service
	gateway   *gateway.Service
}

// migrations are the services' own tables.
func migrations() map[string]fs.FS {
	return map[string]fs.FS{
		"order": order.Migrations("sqlite"), "inventory": inventory.Migrations("sqlite"), "payment": payment.Migrations("sqlite"),
		"shipping": shipping.Migrations("sqlite"), "notify": notify.Migrations("sqlite"), "platform": platform.Migrations("sqlite"),
		"catalog": catalog.Migrations("sqlite"),
	}
}

// openOutside starts to listen for the payment gateway and the data platform, each on a port of its own.
func (a *App) openOutside(ctx context.Context) error {
	gate, err := listen(ctx, "pgsim", "127.0.0.1:0")
	if err != nil {
		return err
	}
	a.outside = append(a.outside, gate)
	if err := pgsim.Migrate(ctx, a.stores["pgsim"]); err != nil {
		return err
	}
	cfg := pgsim.Config{Faults: a.opts.Gateway, WebhookSecret: a.secret, Logger: a.opts.Logger}
	if !a.opts.NoWebhooks {
		cfg.WebhookURL = a.front.url() + "/webhooks/payments"
	}
	pg, err := pgsim.New(a.stores["pgsim"], cfg)
	if err != nil {
		return err
	}
	gate.http.Handler, gate.run, a.PgsimURL = pg, pg.Run, gate.url()

	receiver, err := listen(ctx, "platformsim", "127.0.0.1:0")
	if err != nil {
		return err
	}
	a.outside = append(a.outside, receiver)
	if err := platformsim.Migrate(ctx, a.stores["platformsim"]); err != nil {
		return err
	}
	plat, err := platformsim.New(a.stores["platformsim"], platformsim.Config{Faults: a.opts.Platform, Logger: a.opts.Logger})
	if err != nil {
		return err
	}
	receiver.http.Handler, receiver.run, a.PlatURL = plat, plat.Run, receiver.url()
	return nil
}

// newShop makes the services. They share nothing but the broker and what is passed here.
func (a *App) newShop() (*shop, error) {
	s := &shop{}
	err := a.newParticipants(s)
	if err != nil {
		return nil, err
	}
	s.order, err = order.New(a.stores["order"], a.broker, order.Config{
		Service: a.config("order"), Catalog: products{s.catalog},
		DelayedAfter: a.opts.PaymentDelayed, ExpiredAfter: a.opts.PaymentExpired, Hooks: a.orderHooks(),
	})
	if err != nil {
		return nil, err
	}
	orders, payments, stock := s.order.Handler(), s.payment.Handler(), s.inventory.Handler()
	letters, parked := map[string]*deadletter.Queue{}, map[string]relay.Parking{}
	s.gateway, err = gateway.New(a.stores["gateway"], a.broker, gateway.Config{
		Service: a.config("gateway"), Feed: a.stores["gateway"].Feed(),
		Order: orders, Payment: payments, Catalog: s.catalog.Handler(),
		Internal: map[string]http.Handler{
			"orders": orders, "returns": orders, "stock": stock, "movements": stock,
			"payments": payments, "refunds": payments, "messages": s.notify.Handler(), "deliveries": s.platform.Handler(),
		},
		OperatorToken: a.token, Metrics: a.metricsHandler(), Letters: letters, Outboxes: parked, Ready: a.Ready,
		Traffic: func(ctx context.Context) (any, error) { return a.Traffic(ctx) },
	})
	if err != nil {
		return nil, err
	}
	for _, svc := range s.services() {
		a.metrics.Observe(svc)
		if q, ok := svc.Letters(); ok {
			letters[svc.Name()] = q
		}
		if p, ok := a.stores[svc.Name()].Outbox().(relay.Parking); ok {
			parked[svc.Name()] = p
		}
	}
	return s, nil
}

// newParticipants makes the services that an order and its catalogue need.
func (a *App) newParticipants(s *shop) (err error) {
	if s.inventory, err = inventory.New(a.stores["inventory"], a.broker, inventory.Config{Service: a.config("inventory")}); err != nil {
		return err
	}
	s.catalog, err = catalog.New(a.stores["catalog"], a.broker, catalog.Config{
		Service: a.config("catalog"), Available: s.inventory.Available,
	})
	if err != nil {
		return err
	}
	s.payment, err = payment.New(a.stores["payment"], a.broker, payment.Config{
		Service: a.config("payment"), GatewayURL: a.PgsimURL, WebhookSecret: a.secret,
	})
	if err != nil {
		return err
	}
	s.shipping, err = shipping.New(a.stores["shipping"], a.broker, shipping.Config{Service: a.config("shipping"), Delay: a.opts.ShipDelay})
	if err != nil {
		return err
	}
	s.notify, err = notify.New(a.stores["notify"], a.broker, notify.Config{Service: a.config("notify"), PlatformURL: a.PlatURL})
	if err != nil {
		return err
	}
	s.platform, err = platform.New(a.stores["platform"], a.broker, platform.Config{Service: a.config("platform"), PlatformURL: a.PlatURL})
	return err
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

// services are what every service is at its core.
func (s *shop) services() []*settle.Service {
	return []*settle.Service{
		s.order.Service, s.inventory.Service, s.payment.Service, s.shipping.Service,
		s.notify.Service, s.platform.Service, s.catalog.Service, s.gateway.Service,
	}
}

type engine struct {
	name string
	run  func(context.Context) error
}

// engines returns what runs of the named services.
func (s *shop) engines(names []string) []engine {
	var all []engine
	for _, svc := range s.services() {
		switch {
		case !slices.Contains(names, svc.Name()):
		case svc.Name() == "gateway":
			all = append(all, engine{"gateway", s.gateway.Run}) // It serves the feeds too.
		default:
			all = append(all, engine{svc.Name(), svc.Run})
		}
	}
	return all
}

// products lets the order service ask the catalogue.
type products struct{ catalog *catalog.Service }

func (p products) Products(ctx context.Context, ids []string) (map[string]order.Product, error) {
	found, err := p.catalog.Products(ctx, ids)
	if err != nil {
		return nil, err
	}
	all := make(map[string]order.Product, len(found))
	for id, v := range found {
		all[id] = order.Product{Name: v.Name, Price: v.Price, Currency: v.Currency}
	}
	return all, nil
}

// Seed gives the catalogue its products and the inventory the stock that the file's orders need, once.
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

func (a *App) seed(ctx context.Context, file *replay.File, stock map[string]int64) error {
	list := make([]catalog.Product, 0, len(file.Products))
	for _, p := range file.Products {
		price, err := contract.ParsePrice(p.Price)
		if err != nil {
			return fmt.Errorf("product %s: %w", p.Code, err)
		}
		name := p.Name
		if name == "" {
			name = p.Code
		}
		list = append(list, catalog.Product{ID: p.Code, Name: name, Price: price, Currency: contract.GBP})
	}
	if err := a.shop.catalog.Seed(ctx, list); err != nil {
		return err
	}
	return a.shop.inventory.Seed(ctx, stock)
}

// traffic counts what this process has handled; what outlives it is read from the stores.
type traffic struct {
	handled    atomic.Int64
	duplicates atomic.Int64
}

// Traffic says how much is on its way.
func (a *App) Traffic(ctx context.Context) (replay.Traffic, error) {
	t := replay.Traffic{Handled: a.traffic.handled.Load(), Duplicates: a.traffic.duplicates.Load()}
	for _, svc := range a.shop.services() {
		stats, err := svc.Stats(ctx)
		if err != nil {
			return t, err
		}
		t.Emitted += stats.Outbox.Sent + stats.Outbox.Pending
		t.Published += stats.Outbox.Sent
		t.Unpublished += stats.Outbox.Pending
		t.Parked += stats.Outbox.Parked
		t.Timers += stats.Timers
		for _, g := range stats.Groups {
			t.Lag += g.Lag
			for state, n := range g.Letters {
				if state == deadletter.StateRetrying {
					t.Retrying += n
				}
				t.Parked += n
			}
		}
		for _, c := range stats.Calls {
			t.CallsPending += c.Count
		}
	}
	return t, nil
}

// WaitReady waits until every service reads its partitions.
func (a *App) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if a.Ready(ctx) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Ready reports why the shop cannot take work yet.
func (a *App) Ready(ctx context.Context) error {
	for _, svc := range a.shop.services() {
		if !slices.Contains(a.opts.Services, svc.Name()) {
			continue
		}
		stats, err := svc.Stats(ctx)
		if err != nil {
			return err
		}
		for _, g := range stats.Groups {
			if len(g.Partitions) == 0 {
				return fmt.Errorf("group %s has no partition yet", g.Group)
			}
		}
	}
	return nil
}
