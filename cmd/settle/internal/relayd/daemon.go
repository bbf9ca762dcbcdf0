// Package relayd is the relay as a program of its own: it carries outboxes of databases to brokers, as its file
// says, and shows how far it is.
//
// # Guarantee
//
// What package relay says of each source. An outage of a database or a broker is waited out, at the start too;
// what only a person can mend ends the program.
//
// # What this package does not do
//
// It migrates nothing, and knows no service's own tables.
package relayd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/settledev/settle/driver/settleprom"
)

// Daemon carries every source of a configuration.
type Daemon struct {
	log      *slog.Logger
	listener net.Listener
	registry *prometheus.Registry
	metrics  *settleprom.Metrics
	sinks    map[string]*sink
	sources  []*source
}

// Open listens, and opens nothing else; see [Daemon.Run], which closes it. The configuration has been checked.
func Open(ctx context.Context, c Config, logger *slog.Logger) (*Daemon, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	d := &Daemon{log: logger, listener: l, registry: prometheus.NewRegistry(), sinks: map[string]*sink{}}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.metrics = settleprom.New(d.registry)
	for _, s := range c.Sinks {
		d.sinks[s.Name] = &sink{cfg: s, log: logger.With("sink", s.Name), opened: make(chan struct{})}
	}
	shards := map[string]int{}
	for _, s := range c.Sources {
		shards[s.Store] = max(shards[s.Store], s.Shard+1)
	}
	for _, s := range c.Sources {
		d.sources = append(d.sources, newSource(s, d.sinks[s.Sink], shards[s.Store], d.metrics, logger))
	}
	d.registry.MustRegister(&state{d.sources})
	return d, nil
}

// URL is where the daemon listens.
func (d *Daemon) URL() string { return "http://" + d.listener.Addr().String() }

// Run carries until ctx is done, then lets what is in flight end and returns nil. Any other error needs a person.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	web, stopWeb := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWeb()
	var mu sync.Mutex
	var errs []error
	run := func(wg *sync.WaitGroup, ctx context.Context, what string, fn func(context.Context) error) {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", what, err))
				cancel(err)
			}
		})
	}
	var work, http sync.WaitGroup
	run(&http, web, "http", d.serve)
	sinks, stopSinks := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSinks()
	var carriers sync.WaitGroup
	for name, s := range d.sinks {
		run(&carriers, sinks, "sink "+name, s.run)
	}
	for _, s := range d.sources {
		run(&work, ctx, "source "+s.cfg.Name, s.run)
	}
	<-ctx.Done()
	work.Wait()
	stopSinks() // Only now: what is in flight needs them.
	carriers.Wait()
	stopWeb()
	http.Wait()
	return errors.Join(errs...)
}

// serve answers until ctx is done.
func (d *Daemon) serve(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{Registry: d.registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		code, states := http.StatusOK, map[string]string{}
		for _, s := range d.sources {
			why, ready := s.state()
			states[s.cfg.Name] = why
			if !ready {
				code = http.StatusServiceUnavailable
			}
		}
		answer(w, code, states)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(d.listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		_ = srv.Close() // A reader that does not read: nothing of the relay's is lost.
	}
	return nil
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // Whoever asked may be gone.
}
