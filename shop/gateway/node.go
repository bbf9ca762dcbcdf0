package gateway

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/problem"
)

// Routes are the routes that each service answers itself, by the service's name. The gateway passes them on
// to whoever has the service, in this process or in another one; only operators reach those under
// /internal and /import.
func Routes() map[string][]string {
	return map[string][]string{
		"order": {
			"POST /orders", "GET /orders/{id}", "POST /orders/{id}/cancel", "POST /returns", "GET /customers/{id}/orders",
			"POST /import/orders", "POST /import/returns", "GET /internal/orders", "GET /internal/returns",
		},
		"inventory": {"GET /internal/stock", "GET /internal/movements"},
		"payment":   {"POST /webhooks/payments", "GET /internal/payments", "GET /internal/refunds"},
		"notify":    {"GET /internal/messages"},
		"platform":  {"GET /internal/deliveries"},
		"catalog": {
			"GET /products", "GET /products/{id}", "POST /products/{id}/views",
			"PUT /products/{id}/likes/{user}", "DELETE /products/{id}/likes/{user}",
		},
	}
}

// operatorsOnly reports whether a route is for operators.
func operatorsOnly(route string) bool {
	_, path, _ := strings.Cut(route, " ")
	return strings.HasPrefix(path, "/internal/") || strings.HasPrefix(path, "/import/") || strings.HasPrefix(path, "/api/")
}

// passed returns the routes of services, the operators' ones guarded.
func (d *desk) passed(services map[string]http.Handler) map[string]http.Handler {
	all := map[string]http.Handler{}
	routes := Routes()
	for name, h := range services {
		for _, route := range routes[name] {
			if all[route] = h; operatorsOnly(route) {
				all[route] = d.operator(h)
			}
		}
	}
	return all
}

// NodeConfig is what a process serves that has services and no gateway.
type NodeConfig struct {
	// Services answer their [Routes], by name.
	Services map[string]http.Handler
	// Lookups answer the other services' questions, by route. They need the operator's token.
	Lookups map[string]http.Handler
	// Letters, Outboxes, OperatorToken, Metrics, Traffic and Ready are as in [Config].
	Letters       map[string]*deadletter.Queue
	Outboxes      map[string]relay.Parking
	OperatorToken string
	Metrics       http.Handler
	Traffic       func(ctx context.Context) (map[string]Traffic, error)
	Ready         func(ctx context.Context) error
	// Logger takes what goes wrong. Default slog.Default().
	Logger *slog.Logger
}

// NewNode returns what such a process serves: its services' routes, the operator's for them, and its
// state.
func NewNode(cfg NodeConfig) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	d := newDesk(desk{letters: cfg.Letters, outboxes: cfg.Outboxes, traffic: cfg.Traffic, token: cfg.OperatorToken, log: cfg.Logger})
	routes := d.passed(cfg.Services)
	for route, h := range cfg.Lookups {
		routes[route] = d.operator(h)
	}
	maps.Copy(routes, d.routes())
	maps.Copy(routes, state(cfg.Metrics, cfg.Ready))
	return front(routes)
}

// instanceHeader is how a process tells gateways how it is: starting, when the request has done nothing, or ending.
const (
	instanceHeader   = "X-Settle-Instance"
	instanceStarting = "starting"
	instanceEnding   = "ending"
)

// SetEnding has an answer say that its process ends: the connection is closed with it, and gateways ask other
// instances from then on.
func SetEnding(h http.Header) {
	h.Set(instanceHeader, instanceEnding)
	h.Set("Connection", "close")
}

// NewStarting returns what a process serves before its services run: how it is, and for everything else that it
// is too early.
func NewStarting(metrics http.Handler, ready func(ctx context.Context) error) http.Handler {
	mux := http.NewServeMux()
	for route, h := range state(metrics, ready) {
		mux.Handle(route, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(instanceHeader, instanceStarting)
		early := problem.New(http.StatusServiceUnavailable, "not-ready", "The shop is not ready", "Nothing was done: try again.", nil)
		early.RetryAfter = time.Second
		early.Send(w)
	})
	return guard(mux)
}

// state are the routes by which a process tells how it is.
func state(metrics http.Handler, ready func(context.Context) error) map[string]http.Handler {
	all := map[string]http.Handler{
		"GET /healthz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			page.Write(w, http.StatusOK, map[string]string{"status": "ok"})
		}),
		"GET /readyz": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ready != nil {
				if err := ready(r.Context()); err != nil {
					problem.Write(w, http.StatusServiceUnavailable, "not-ready", "The shop is not ready", err.Error(), nil)
					return
				}
			}
			page.Write(w, http.StatusOK, map[string]string{"status": "ready"})
		}),
	}
	if metrics != nil {
		all["GET /metrics"] = metrics
	}
	return all
}

// front serves routes, and a problem for everything else.
func front(routes map[string]http.Handler) http.Handler {
	mux := http.NewServeMux()
	for route, h := range routes {
		mux.Handle(route, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, http.StatusNotFound, "not-found", "There is nothing here", "", nil)
	})
	return guard(traced(mux))
}
