package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/shop/problem"
)

// idBytesMax bounds an order's or a customer's id in a path.
const idBytesMax = 128

// Handler serves everything.
func (s *Service) Handler() http.Handler {
	routes := s.routes()
	for route, h := range s.cfg.Lookups {
		routes[route] = s.desk.operator(h)
	}
	return front(routes)
}

// routes are all routes by pattern; openapi.json describes each of them.
func (s *Service) routes() map[string]http.Handler {
	all := s.desk.passed(s.services)
	maps.Copy(all, map[string]http.Handler{
		"GET /orders/{id}": http.HandlerFunc(s.order),
		"GET /stream": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.hub.ServeFeed(w, r, "")
		}),
		"GET /orders/{id}/events":    s.stream(OrderFeed),
		"GET /customers/{id}/stream": s.stream(CustomerFeed),
	})
	maps.Copy(all, state(s.cfg.Metrics, s.cfg.Ready))
	maps.Copy(all, s.desk.routes())
	maps.Copy(all, pages())
	return all
}

// guard refuses requests that another site's page makes a browser send, and forbids pages to load
// anything from elsewhere.
func guard(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, http.StatusForbidden, "cross-origin", "Requests from other sites are refused", "", nil)
	}))
	return protection.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header() // See also guarded.
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	}))
}

// guarded are the header fields that guard and traced give every answer.
func guarded() []string {
	return []string{"X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy", "Traceparent"}
}

// traced gives every request a W3C trace context, the caller's or a new one, which every event that the
// request causes carries on.
func traced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		trace := r.Header.Get("Traceparent")
		if !validTrace(trace) {
			var id [24]byte
			_, _ = rand.Read(id[:]) // crypto/rand.Read never fails.
			trace = fmt.Sprintf("00-%x-%x-01", id[:16], id[16:])
		}
		w.Header().Set("Traceparent", trace)
		r.Header.Set("Traceparent", trace)
		ctx := event.WithCause(r.Context(), event.Cause{TraceParent: trace, CorrelationID: trace[3:35]})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// validTrace reports whether s is a traceparent of version 00 (W3C Trace Context, 3.2).
func validTrace(s string) bool {
	parts := strings.Split(s, "-")
	if len(parts) != 4 || parts[0] != "00" || len(parts[1]) != 32 || len(parts[2]) != 16 || len(parts[3]) != 2 {
		return false
	}
	for _, p := range parts {
		if _, err := hex.DecodeString(p); err != nil || strings.ToLower(p) != p {
			return false
		}
	}
	return strings.Trim(parts[1], "0") != "" && strings.Trim(parts[2], "0") != ""
}

func (s *Service) stream(feed func(string) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if len(id) > idBytesMax {
			problem.Write(w, http.StatusBadRequest, "bad-id", "The id is longer than 128 bytes", "", nil)
			return
		}
		s.hub.ServeFeed(w, r, feed(id))
	}
}

// order adds the timeline, which is the gateway's, to what the order service says.
func (s *Service) order(w http.ResponseWriter, r *http.Request) {
	answer := &recorder{header: http.Header{}, status: http.StatusOK}
	s.services["order"].ServeHTTP(answer, r)
	body := answer.body.Bytes()
	if answer.status == http.StatusOK {
		if merged, err := s.withTimeline(r.Context(), r.PathValue("id"), body); err != nil {
			s.log.Warn("timeline cannot be read", "aggregate_id", r.PathValue("id"), "err", err)
		} else {
			body = merged
		}
	}
	for name, values := range answer.header {
		if name != "Content-Length" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(body)
}

func (s *Service) withTimeline(ctx context.Context, id string, body []byte) ([]byte, error) {
	timeline, err := s.Timeline(ctx, id)
	if err != nil {
		return nil, err
	}
	entries, err := json.Marshal(timeline)
	if err != nil {
		return nil, err
	}
	body = bytes.TrimRight(body, " \n")
	if len(body) < 2 || body[len(body)-1] != '}' {
		return nil, fmt.Errorf("gateway: the order's answer is no JSON object")
	}
	merged := append([]byte{}, body[:len(body)-1]...)
	merged = append(merged, `,"timeline":`...)
	return append(append(merged, entries...), '}', '\n'), nil
}

// recorder keeps an answer of another handler.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
