// Package app puts the shop together: one store for each service, one broker, the outside world as
// programs behind real HTTP, and the gateway in front. It is the only place, beside the command's own files, that
// names drivers.
//
// # What this package does not do
//
// It decides nothing: which store, broker and services are used is the command's to say.
package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlenats"
	"github.com/settledev/settle/driver/settleprom"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/shop/webhook"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/storebroker"
)

// Options say what to put together.
type Options struct {
	// Dir holds everything. It is made when it is missing, and belongs to this process.
	Dir string
	// Addr is where the gateway listens.
	Addr string
	// Broker is "nats" (embedded JetStream), "store" (no broker: outboxes are followed), or a nats:// URL.
	Broker string
	// Services are those whose engines run; the others' events wait for them. Default: all.
	Services []string
	// Gateway and Platform are the faults of the outside world.
	Gateway  pgsim.Faults
	Platform faults.Transport
	// NoWebhooks keeps the payment gateway from sending webhooks: its answers alone tell what it did.
	NoWebhooks bool
	// PaymentDelayed and PaymentExpired are the order's deadlines; zero means the order's defaults.
	PaymentDelayed time.Duration
	PaymentExpired time.Duration
	// ShipDelay is the time between payment and shipment.
	ShipDelay time.Duration
	// Ended is told how long each order took from its acceptance to its end. Default: nobody.
	Ended func(took time.Duration)
	// Logger receives everything. Required.
	Logger *slog.Logger
	// Failpoint is called at every named point of a hop, for crash tests, with the number of events that
	// this process has handled.
	Failpoint func(name string, handled int64)
}

// App is the whole system in one process.
type App struct {
	opts     Options
	lock     *settlesqlite.Lock
	stores   map[string]*sqlstore.Store
	broker   broker.Broker
	follower *storebroker.Broker // the broker, when outboxes are followed
	metrics  *settleprom.Metrics
	registry *prometheus.Registry
	token    string
	secret   string
	traffic  *traffic

	shop      *shop
	outside   []*server
	front     *server
	PgsimURL  string
	PlatURL   string
	closeOnce sync.Once
}

// server is an HTTP server with its listener.
type server struct {
	name     string
	http     *http.Server
	listener net.Listener
	run      func(context.Context) error
}

// Services are the names of all services, in the order of an event's way.
func Services() []string {
	return []string{"order", "inventory", "payment", "shipping", "notify", "platform", "catalog", "gateway"}
}

// Open puts everything together and listens, but starts nothing; see [App.Run]. Close it in the end, also
// when it never ran.
func Open(ctx context.Context, opts Options) (_ *App, err error) {
	for _, name := range opts.Services {
		if !slices.Contains(Services(), name) {
			return nil, fmt.Errorf("there is no service %q: the services are %s", name, strings.Join(Services(), ", "))
		}
	}
	if len(opts.Services) == 0 {
		opts.Services = Services()
	}
	lock, err := settlesqlite.LockDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	a := &App{opts: opts, lock: lock, stores: map[string]*sqlstore.Store{}, registry: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.metrics = settleprom.New(a.registry)
	a.traffic = &traffic{}
	if a.token, err = secretFile(filepath.Join(opts.Dir, "operator-token"), randomToken); err != nil {
		return nil, err
	}
	if a.secret, err = secretFile(filepath.Join(opts.Dir, "webhook-secret"), webhook.NewSecret); err != nil {
		return nil, err
	}
	if err := a.openStores(ctx); err != nil {
		return nil, err
	}
	if err := a.openBroker(ctx); err != nil {
		return nil, err
	}
	if a.front, err = listen(ctx, "shop", opts.Addr); err != nil {
		return nil, err
	}
	if err := a.openOutside(ctx); err != nil {
		return nil, err
	}
	if a.shop, err = a.newShop(); err != nil {
		return nil, err
	}
	a.front.http.Handler = a.shop.gateway.Handler()
	return a, nil
}

// secretFile reads a secret that only this user may read, or makes one.
func secretFile(path string, fresh func() string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if s := strings.TrimSpace(string(b)); s != "" {
			return s, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	s := fresh()
	return s, os.WriteFile(path, []byte(s+"\n"), 0o600)
}

func randomToken() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails.
	return hex.EncodeToString(b[:])
}

func (a *App) openStores(ctx context.Context) error {
	schemas := migrations()
	for _, name := range append(Services(), "pgsim", "platformsim") {
		cfg := settlesqlite.Config{Migrate: true, Store: sqlstore.Config{Logger: a.opts.Logger}}
		if files := schemas[name]; files != nil {
			cfg.Store.Schemas = []sqlstore.Schema{{Name: name, Files: files}}
		}
		s, err := settlesqlite.Open(ctx, filepath.Join(a.opts.Dir, name+".db"), cfg)
		if err != nil {
			return err
		}
		a.stores[name] = s
	}
	return nil
}

func (a *App) openBroker(ctx context.Context) (err error) {
	cfg := settlenats.Config{Logger: a.opts.Logger}
	switch {
	case a.opts.Broker == "nats":
		cfg.Dir = filepath.Join(a.opts.Dir, "jetstream")
		a.broker, err = settlenats.OpenEmbedded(ctx, cfg)
	case strings.HasPrefix(a.opts.Broker, "nats://"), strings.HasPrefix(a.opts.Broker, "tls://"):
		a.broker, err = settlenats.Open(ctx, a.opts.Broker, cfg)
	case a.opts.Broker == "store":
		sources := map[string]relay.Source{}
		for _, name := range Services() {
			sources[name] = a.stores[name].Outbox()
		}
		a.follower, err = storebroker.New(sources, storebroker.Config{})
		a.broker = a.follower
	default:
		err = fmt.Errorf("broker %q is none of nats, store, nats://host:port", a.opts.Broker)
	}
	return err
}

// listen opens a listener, so that an address is known, and refused, before anything starts.
func listen(ctx context.Context, name, addr string) (*server, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &server{name: name, listener: l, http: &http.Server{
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}}, nil
}

func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// config is a service's configuration, instrumented.
func (a *App) config(name string) settle.Config {
	cfg := a.metrics.Instrument(name, settle.Config{Logger: a.opts.Logger})
	handled := cfg.Consumer.Hooks.Handled
	cfg.Consumer.Hooks.Handled = func(events []event.Envelope, at time.Time) {
		a.traffic.handled.Add(int64(len(events)))
		handled(events, at)
	}
	duplicate := cfg.Consumer.Hooks.Duplicate
	cfg.Consumer.Hooks.Duplicate = func(e event.Envelope) {
		a.traffic.duplicates.Add(1)
		duplicate(e)
	}
	if a.opts.Failpoint != nil {
		point := func(name string) { a.opts.Failpoint(name, a.traffic.handled.Load()) }
		cfg.Relay.Failpoint, cfg.Consumer.Failpoint, cfg.Timer.Failpoint, cfg.Call.Failpoint = point, point, point, point
	}
	return cfg
}

// Run serves until ctx is done and everything has drained: first no new requests, then the services.
func (a *App) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The outside world ends after the services, whose last calls still want an answer.
	outsideCtx, stopOutside := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOutside()
	var outside, inside sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	run := func(wg *sync.WaitGroup, ctx context.Context, name string, fn func(context.Context) error) {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				cancel(err)
			}
		})
	}
	for _, s := range a.outside {
		run(&outside, outsideCtx, s.name, s.serve)
		if s.run != nil {
			run(&outside, outsideCtx, s.name, s.run)
		}
	}
	if a.follower != nil {
		run(&outside, outsideCtx, "follower", a.follower.Run)
	}
	for _, e := range a.shop.engines(a.opts.Services) {
		run(&inside, ctx, e.name, e.run)
	}
	run(&inside, ctx, "http", a.front.serve)
	inside.Wait()
	stopOutside()
	outside.Wait()
	return errors.Join(errs...)
}

// serve answers requests until ctx is done and those in progress are answered.
func (s *server) serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := s.http.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("drain: %w", err), s.http.Close())
	}
	return nil
}

// URL is where the gateway listens.
func (a *App) URL() string { return a.front.url() }

// Token is the operator's.
func (a *App) Token() string { return a.token }

// Close closes everything. Run must have returned.
func (a *App) Close() error {
	var errs []error
	a.closeOnce.Do(func() {
		for _, s := range append(slices.Clone(a.outside), a.front) {
			if s != nil {
				_ = s.listener.Close() // A server that ran has closed it.
			}
		}
		if a.broker != nil {
			errs = append(errs, a.broker.Close())
		}
		for _, s := range a.stores {
			errs = append(errs, s.Close())
		}
		errs = append(errs, a.lock.Unlock())
	})
	return errors.Join(errs...)
}

func (a *App) metricsHandler() http.Handler {
	return promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{Registry: a.registry})
}
