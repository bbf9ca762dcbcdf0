// Package app puts the shop together: a store for each service, one broker, the outside world as programs
// behind real HTTP, and the gateway in front; all of it in one process, or one part of it beside others in
// theirs. It is the only place, beside the command's own files, that names drivers.
//
// # What this package does not do
//
// It decides nothing: which store, broker and services are used is the command's to say.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settleprom"
	"github.com/settledev/settle/driver/settleredis"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/shop/gateway"
	"github.com/settledev/settle/shop/webhook"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/storebroker"
)

// App is the whole system in one process, or the services of one process among several.
type App struct {
	opts    Options
	where   storeURL
	lock    *settlesqlite.Lock // of the directory, when all its files are this process's
	stores  map[string]*sqlstore.Store
	backed  map[string]settle.Store // the stores as the services have them
	readers []*sqlstore.Store       // outboxes of other processes, when they are followed
	broker  broker.Broker
	// brokers are the services' own ones, where outboxes are followed and not all of them are here;
	// followers are all that follow outboxes.
	brokers   map[string]broker.Broker
	followers []*storebroker.Broker
	filter    *settleredis.Filter // nil when there is none
	metrics   *settleprom.Metrics
	registry  *prometheus.Registry
	token     string
	secret    string
	peers     map[string]*gateway.Peer
	traffic   map[string]*traffic

	shop     *shop
	outside  *Outside // nil when it runs elsewhere
	front    *server
	starting http.Handler // what the process answers before it runs
	running  http.Handler // and then
	PgsimURL string
	PlatURL  string

	waits     atomic.Pointer[string] // what Open waits for
	started   atomic.Bool            // Start was called
	draining  atomic.Bool
	closeOnce sync.Once
}

// Services are the names of all services, in the order of an event's way.
func Services() []string {
	return []string{"order", "inventory", "payment", "shipping", "notify", "platform", "catalog", "gateway"}
}

// producers are those whose events others listen to.
func producers() []string { return []string{"order", "inventory", "payment", "shipping", "catalog"} }

// Open puts everything together and listens: until [App.Run] it answers how it is, and nothing else. Close it in
// the end, also when it never ran. The error is [ErrUsage] when the options cannot be right.
func Open(ctx context.Context, opts Options) (_ *App, err error) {
	opts, where, err := opts.checked()
	if err != nil {
		return nil, err
	}
	a := &App{
		opts: opts, where: where, stores: map[string]*sqlstore.Store{}, backed: map[string]settle.Store{},
		brokers: map[string]broker.Broker{}, registry: prometheus.NewRegistry(), traffic: map[string]*traffic{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if err := a.openDir(); err != nil {
		return nil, err
	}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.metrics = settleprom.New(a.registry)
	if a.peers, err = opts.peers(); err != nil {
		return nil, err
	}
	if err := a.openFront(ctx); err != nil {
		return nil, err
	}
	if err := a.openStores(ctx); err != nil {
		return nil, err
	}
	if err := a.openBroker(ctx); err != nil {
		return nil, err
	}
	if opts.Filter != "" {
		if a.filter, err = settleredis.OpenFilter(ctx, opts.Filter, settleredis.FilterConfig{Prefix: opts.TopicPrefix}); err != nil {
			return nil, err
		}
	}
	if err := a.openOutside(ctx); err != nil {
		return nil, err
	}
	if a.shop, err = a.newShop(); err != nil {
		return nil, err
	}
	a.running = a.frontHandler()
	return a, nil
}

// openFront listens and answers: whoever watches the process sees from its beginning that it lives, and what it
// waits for.
func (a *App) openFront(ctx context.Context) (err error) {
	if a.front, err = listen(ctx, "shop", a.opts.Addr); err != nil {
		return err
	}
	a.starting = gateway.NewStarting(a.metricsHandler(), a.Ready)
	a.front.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.draining.Load() {
			gateway.SetEnding(w.Header())
		}
		if !a.started.Load() {
			a.starting.ServeHTTP(w, r)
			return
		}
		a.running.ServeHTTP(w, r)
	})
	a.front.start()
	return nil
}

// openStores opens the services' databases.
func (a *App) openStores(ctx context.Context) (err error) {
	if a.opts.Create {
		if err := a.where.create(ctx, a.opts.Services); err != nil {
			return err
		}
	}
	for _, name := range a.opts.Services {
		a.traffic[name] = &traffic{}
		if err := a.awaitDatabase(ctx, name, func(ctx context.Context) (err error) {
			a.stores[name], err = openStore(ctx, a.where, name, a.opts)
			return err
		}); err != nil {
			return err
		}
		if a.backed[name], err = a.storeOf(name); err != nil {
			return err
		}
	}
	return nil
}

// openDir takes the directory, where this process has all of it, and reads the secrets in it.
func (a *App) openDir() (err error) {
	if a.opts.whole() {
		if a.lock, err = settlesqlite.LockDir(a.opts.Dir); err != nil {
			return err
		}
	}
	if a.token, err = readSecret(a.opts.OperatorTokenFile, filepath.Join(a.opts.Dir, "operator-token"), randomToken); err != nil {
		return err
	}
	a.secret, err = readSecret(a.opts.WebhookSecretFile, filepath.Join(a.opts.Dir, "webhook-secret"), webhook.NewSecret)
	return err
}

// openOutside runs the outside world in this process, unless it is said where it runs.
func (a *App) openOutside(ctx context.Context) (err error) {
	a.PgsimURL, a.PlatURL = a.opts.GatewayURL, a.opts.PlatformURL
	if !a.opts.withOutside() {
		return nil
	}
	opts := OutsideOptions{
		Dir: a.opts.Dir, GatewayAddr: "127.0.0.1:0", PlatformAddr: "127.0.0.1:0",
		Gateway: a.opts.Gateway, Platform: a.opts.Platform, Logger: a.opts.Logger, secret: a.secret,
	}
	if !a.opts.NoWebhooks {
		opts.WebhookURL = a.front.url() + "/webhooks/payments"
	}
	if a.outside, err = OpenOutside(ctx, opts); err != nil {
		return err
	}
	a.PgsimURL, a.PlatURL = a.outside.GatewayURL(), a.outside.PlatformURL()
	return nil
}

// config is a service's configuration, instrumented.
func (a *App) config(name string) settle.Config {
	cfg := a.metrics.Instrument(name, settle.Config{Logger: a.opts.Logger})
	count := a.traffic[name]
	handled := cfg.Consumer.Hooks.Handled
	cfg.Consumer.Hooks.Handled = func(events []event.Envelope, at time.Time) {
		count.handled.Add(int64(len(events)))
		handled(events, at)
	}
	duplicate := cfg.Consumer.Hooks.Duplicate
	cfg.Consumer.Hooks.Duplicate = func(e event.Envelope) {
		count.duplicates.Add(1)
		duplicate(e)
	}
	if a.filter != nil {
		cfg.Consumer.Filter = a.filter
	}
	if a.opts.Failpoint != nil {
		point := func(name string) { a.opts.Failpoint(name, a.handled()) }
		cfg.Relay.Failpoint, cfg.Consumer.Failpoint, cfg.Timer.Failpoint, cfg.Call.Failpoint = point, point, point, point
	}
	return cfg
}

// Start lets requests in. Whoever is told the addresses after it is not sent away as too early.
func (a *App) Start() { a.started.Store(true) }

// Run serves what Start let in until ctx is done and everything has drained: first the process says that it is
// not ready any more, then it takes no new requests, then the services end.
func (a *App) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	inside, stopInside := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInside()
	// The outside world ends after the services, whose last calls still want an answer.
	outside, stopOutside := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOutside()
	r := runner{fail: cancel}
	var services, world sync.WaitGroup
	if a.outside != nil {
		r.run(outside, &world, "outside", a.outside.Run)
	}
	for _, f := range a.followers {
		r.run(outside, &world, "follower", f.Run)
	}
	for _, e := range a.shop.engines {
		r.run(inside, &services, e.name, e.run)
	}
	r.run(inside, &services, "http", a.front.serve)
	<-ctx.Done()
	a.drain(r.failed())
	stopInside()
	services.Wait()
	stopOutside()
	world.Wait()
	return r.err()
}

// drain says that the process is not ready any more, and waits until those who ask have heard it, unless
// it must end anyway.
func (a *App) drain(failed bool) {
	a.draining.Store(true)
	if failed || a.opts.DrainDelay == 0 {
		return
	}
	t := time.NewTimer(a.opts.DrainDelay)
	defer t.Stop()
	<-t.C
}

// runner runs what a process consists of; the first failure ends the others.
type runner struct {
	fail context.CancelCauseFunc
	mu   sync.Mutex
	errs []error
}

func (r *runner) run(ctx context.Context, wg *sync.WaitGroup, name string, fn func(context.Context) error) {
	wg.Go(func() {
		if err := fn(ctx); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
			r.fail(err)
		}
	})
}

func (r *runner) failed() bool { return r.err() != nil }

func (r *runner) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}

// URL is where the process listens.
func (a *App) URL() string { return a.front.url() }

// Token is the operator's.
func (a *App) Token() string { return a.token }

// Running are the names of this process's services.
func (a *App) Running() []string { return slices.Clone(a.opts.Services) }

// Close closes everything. Run must have returned.
func (a *App) Close() error {
	var errs []error
	a.closeOnce.Do(func() {
		if a.front != nil {
			a.front.close()
		}
		if a.broker != nil {
			errs = append(errs, a.broker.Close())
		}
		for _, b := range a.brokers {
			errs = append(errs, b.Close())
		}
		if a.filter != nil {
			errs = append(errs, a.filter.Close())
		}
		if a.outside != nil {
			errs = append(errs, a.outside.Close())
		}
		for _, s := range append(slices.Collect(maps.Values(a.stores)), a.readers...) {
			if s != nil {
				errs = append(errs, s.Close())
			}
		}
		if a.lock != nil {
			errs = append(errs, a.lock.Unlock())
		}
	})
	return errors.Join(errs...)
}

func (a *App) metricsHandler() http.Handler {
	return promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{Registry: a.registry, ErrorLog: slog.NewLogLogger(a.opts.Logger.Handler(), slog.LevelWarn)})
}
