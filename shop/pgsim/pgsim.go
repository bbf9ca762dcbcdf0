package pgsim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/webhook"
	"github.com/settledev/settle/txn"
)

// Limits of the gateway.
const (
	// BodyBytesMax bounds a request's body.
	BodyBytesMax = 64 << 10
	// ReferenceBytesMax bounds a reference, a customer's id and an idempotency key.
	ReferenceBytesMax = 128
	// LedgerPageDefault and LedgerPageMax are the items on a page of the ledger.
	LedgerPageDefault = 500
	LedgerPageMax     = 1000
	// effectTimeout bounds one request's work on the ledger, which the client cannot cancel.
	effectTimeout = 30 * time.Second
)

// Config is how a gateway behaves. The zero Config is one without faults and webhooks.
type Config struct {
	// Faults at the start; see [Server.SetFaults]. Default none.
	Faults Faults
	// WebhookURL receives the webhooks; see [Server.SetWebhookURL]. Default none are written.
	WebhookURL string
	// WebhookSecret signs them: whsec_ and base64, see [webhook.NewSecret]. Required for webhooks.
	WebhookSecret string
	// WebhookTimeout bounds one attempt to send one. Default 10s.
	WebhookTimeout time.Duration
	// WebhookInFlight bounds the attempts at once. Default 16.
	WebhookInFlight int
	// WebhookRetry is when a webhook is sent again. Default that of [retry.Policy], for 24h.
	WebhookRetry retry.Policy
	// PollInterval is how often Run looks for webhooks and late approvals without being told.
	// Default 250ms.
	PollInterval time.Duration
	// Client sends the webhooks. Default one that follows no redirects.
	Client *http.Client
	// Logger gets failures. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	var err error
	if c.Faults, err = c.Faults.withDefaults(); err != nil {
		return c, err
	}
	if c.WebhookTimeout == 0 {
		c.WebhookTimeout = 10 * time.Second
	}
	if c.WebhookInFlight == 0 {
		c.WebhookInFlight = 16
	}
	if c.WebhookRetry.TotalMax == 0 {
		c.WebhookRetry.TotalMax = 24 * time.Hour
	}
	if c.WebhookRetry, err = c.WebhookRetry.WithDefaults(); err != nil {
		return c, err
	}
	if c.PollInterval == 0 {
		c.PollInterval = 250 * time.Millisecond
	}
	if c.WebhookTimeout < 0 || c.WebhookInFlight < 0 || c.PollInterval < 0 {
		return c, fmt.Errorf("webhook timeout %s, in flight %d and poll interval %s must be positive",
			c.WebhookTimeout, c.WebhookInFlight, c.PollInterval)
	}
	if c.WebhookSecret != "" {
		if err := webhook.CheckSecret(c.WebhookSecret); err != nil {
			return c, err
		}
	}
	if c.Client == nil {
		c.Client = &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: c.WebhookInFlight, IdleConnTimeout: time.Minute},
			// What a redirect leads to has not been chosen by whoever set the URL.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Server is the gateway. It serves any number of requests at once.
type Server struct {
	run    txn.Runner
	reads  reader // nil when the ledger has none
	cfg    Config
	mux    *http.ServeMux
	gate   *faults.Gate
	faults atomic.Pointer[Faults]
	url    atomic.Pointer[string]
	queued chan struct{} // rung when a webhook has been written
}

var _ http.Handler = (*Server)(nil)

// New returns a gateway over a ledger that [Migrate] has prepared. A ledger with the method Query of
// [txn.Tx] is read through that, any other one by transactions. Faults or settings that contradict
// one another are an error.
func New(run txn.Runner, cfg Config) (*Server, error) {
	if run == nil {
		return nil, errors.New("pgsim: no ledger")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("pgsim: %w", err)
	}
	s := &Server{run: run, cfg: cfg, queued: make(chan struct{}, 1), gate: faults.NewGate(cfg.Faults.Transport)}
	s.reads, _ = run.(reader)
	s.faults.Store(&cfg.Faults)
	if err := s.SetWebhookURL(cfg.WebhookURL); err != nil {
		return nil, err
	}
	s.mux = s.routes()
	return s, nil
}

// ServeHTTP serves the contract of the package's comment.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Faults returns the faults of now.
func (s *Server) Faults() Faults { return *s.faults.Load() }

// SetFaults replaces all faults for requests that have not begun. Faults out of range change nothing.
func (s *Server) SetFaults(f Faults) error {
	f, err := f.withDefaults()
	if err != nil {
		return fmt.Errorf("pgsim: %w", err)
	}
	s.faults.Store(&f)
	s.gate.Set(f.Transport)
	return nil
}

// WebhookURL returns where webhooks are sent, or nothing.
func (s *Server) WebhookURL() string { return *s.url.Load() }

// SetWebhookURL sends webhooks to another URL from now on, those that wait included. With an empty
// URL none are written, and those that wait are kept.
func (s *Server) SetWebhookURL(to string) error {
	if to != "" {
		u, err := url.Parse(to)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return fmt.Errorf("pgsim: webhook URL %.200q is not an absolute http or https URL", to)
		}
		if s.cfg.WebhookSecret == "" {
			return errors.New("pgsim: webhooks need a secret to be signed with")
		}
	}
	s.url.Store(&to)
	s.ring()
	return nil
}

// Run sends the webhooks and approves what is to be approved late, until ctx is done. Webhooks that
// are being sent then are finished, within [Config].WebhookTimeout, and requests that a fault keeps
// silent are let go. Call it once.
func (s *Server) Run(ctx context.Context) error {
	defer s.gate.Close()
	approved := make(chan struct{})
	go func() {
		defer close(approved)
		s.approveLate(ctx)
	}()
	s.sendWebhooks(ctx)
	<-approved
	return nil
}

// ring wakes the sender of webhooks.
func (s *Server) ring() {
	select {
	case s.queued <- struct{}{}:
	default: // It has been rung already.
	}
}
