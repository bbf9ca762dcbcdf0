package platformsim

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/internal/jsonhttp"
	"github.com/settledev/settle/txn"
)

// Limits of the platform.
const (
	// BodyBytesMax bounds a request's body: an event with all that it carries.
	BodyBytesMax = 1 << 20
	// NameBytesMax bounds an event id and a reference.
	NameBytesMax = 128
	// LedgerPageDefault and LedgerPageMax are the items on a page of the ledger.
	LedgerPageDefault = 500
	LedgerPageMax     = 1000
	// effectTimeout bounds one request's work on the ledger, which the client cannot cancel.
	effectTimeout = 30 * time.Second
)

//go:embed schema.sql
var schema string

// Schema returns the statements that make the ledger's tables, in SQLite's SQL; running them again
// changes nothing. Each ends with a semicolon at the end of a line.
func Schema() string { return schema }

// Migrate creates the ledger's tables where they are missing.
func Migrate(ctx context.Context, run txn.Runner) error {
	return run.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		for statement := range strings.SplitSeq(schema, ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("platformsim: migrate: %w", err)
			}
		}
		return nil
	})
}

// Config is how a platform behaves. The zero Config is one without faults.
type Config struct {
	// Faults at the start; see [Server.SetFaults]. Default none.
	Faults faults.Transport
	// Logger gets failures. Default slog.Default().
	Logger *slog.Logger
}

// Server is the platform. It serves any number of requests at once.
type Server struct {
	run    txn.Runner
	reads  reader
	logger *slog.Logger
	mux    *http.ServeMux
	gate   *faults.Gate
	faults atomic.Pointer[faults.Transport]
}

var _ http.Handler = (*Server)(nil)

// reader is what a ledger may have besides: queries that need no turn of its writer. They see all that
// is committed.
type reader interface {
	Query(ctx context.Context, query string, args ...any) (txn.Rows, error)
}

// New returns a platform over a ledger that [Migrate] has prepared. A ledger with the method Query of
// [txn.Tx] is read through that, any other one by transactions. Faults out of range are an error.
func New(run txn.Runner, cfg Config) (*Server, error) {
	if run == nil {
		return nil, errors.New("platformsim: no ledger")
	}
	s := &Server{run: run, logger: cfg.Logger, gate: faults.NewGate(cfg.Faults)}
	s.reads, _ = run.(reader)
	if s.logger == nil {
		s.logger = slog.Default()
	}
	if err := s.SetFaults(cfg.Faults); err != nil {
		return nil, err
	}
	s.mux = s.routes()
	return s, nil
}

// ServeHTTP serves the contract of the package's comment.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Faults returns the faults of now.
func (s *Server) Faults() faults.Transport { return *s.faults.Load() }

// SetFaults replaces all faults for requests that have not begun. Faults out of range change nothing.
func (s *Server) SetFaults(t faults.Transport) error {
	if err := t.Check(); err != nil {
		return fmt.Errorf("platformsim: %w", err)
	}
	s.faults.Store(&t)
	s.gate.Set(t)
	return nil
}

// Run blocks until ctx is done and then lets go of the requests that a fault keeps silent, so that
// the HTTP server can shut down. Call it once.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.gate.Close()
	return nil
}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	up := func(pattern string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if s.gate.Up(w) {
				h(w, r)
			}
		})
	}
	up("POST /v1/deliveries", s.postDelivery)
	up("GET /v1/ledger", s.getLedger)
	up("GET /v1/stats", s.getStats)
	up("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		jsonhttp.Answer{Status: http.StatusOK, Body: map[string]string{"status": "ok"}}.Send(w)
	})
	mux.HandleFunc("GET /v1/faults", func(w http.ResponseWriter, _ *http.Request) {
		jsonhttp.Answer{Status: http.StatusOK, Body: s.Faults()}.Send(w)
	})
	mux.HandleFunc("PUT /v1/faults", s.putFaults)
	return mux
}

func (s *Server) putFaults(w http.ResponseWriter, r *http.Request) {
	var t faults.Transport
	if p := jsonhttp.Decode(w, r, BodyBytesMax, &t); p != nil {
		p.Answer().Send(w)
		return
	}
	if err := s.SetFaults(t); err != nil {
		jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeInvalid, "%v", err).Answer().Send(w)
		return
	}
	jsonhttp.Answer{Status: http.StatusOK, Body: s.Faults()}.Send(w)
}
