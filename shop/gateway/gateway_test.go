package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/txn"
)

const operatorToken = "operator's secret"

// rig is a gateway over memory stores, whose services are echoes.
type rig struct {
	t       *testing.T
	store   *memory.Store            // the gateway's
	letters map[string]*memory.Store // the stores of the services that have letters
	gateway *Service
	handler http.Handler
}

// echo answers with who was asked, under which trace, and what the request's cause is.
func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/orders/missing" {
			problem.Write(w, http.StatusNotFound, "unknown-order", "There is no such order", "", nil)
			return
		}
		body, _ := io.ReadAll(r.Body)
		page.Write(w, http.StatusOK, map[string]any{
			"by": name, "body": string(body), "trace": r.Header.Get("Traceparent"),
			"causeTrace": event.CauseFrom(r.Context()).TraceParent, "correlation": event.CauseFrom(r.Context()).CorrelationID,
		})
	})
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, store: memory.New(), letters: map[string]*memory.Store{"order": memory.New(), "payment": memory.New()}}
	b := memory.NewBroker(memory.BrokerConfig{})
	t.Cleanup(func() { _ = b.Close() })
	cfg := Config{
		Service: settle.Config{Logger: slog.New(slog.DiscardHandler)},
		Feed:    r.store.Feed(), Services: map[string]http.Handler{},
		OperatorToken: operatorToken, Metrics: echo("metrics"),
		Letters: map[string]*deadletter.Queue{}, Outboxes: map[string]relay.Parking{},
		Traffic: func(context.Context) (map[string]Traffic, error) { return map[string]Traffic{"order": {Lag: 1}}, nil },
	}
	for name := range Routes() {
		cfg.Services[name] = echo(name)
	}
	for name, s := range r.letters {
		cfg.Letters[name] = deadletter.NewQueue(s, s.Letters(), "")
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if r.gateway, err = New(r.store, b, cfg); err != nil {
		t.Fatal(err)
	}
	r.handler = r.gateway.Handler()
	return r
}

// send sends "METHOD /path" with header fields, name and value in turn.
func (r *rig) send(route string, header ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	method, path, _ := strings.Cut(route, " ")
	req := httptest.NewRequestWithContext(r.t.Context(), method, path, http.NoBody)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w
}

func (r *rig) operate(route string) *httptest.ResponseRecorder {
	r.t.Helper()
	return r.send(route, "Authorization", "Bearer "+operatorToken, "X-Operator", "eve")
}

// decoded reads a JSON answer.
func decoded[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("answer %d %q: %v", w.Code, w.Body, err)
	}
	return v
}

func wantProblem(t *testing.T, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	p := decoded[struct {
		Code   string
		Status int
	}](t, w)
	if w.Code != status || p.Code != code || p.Status != status || w.Header().Get("Content-Type") != problem.ContentType {
		t.Errorf("answer is %d %s, want %d with code %s", w.Code, w.Body, status, code)
	}
}

func TestNewNeedsItsServices(t *testing.T) {
	if _, err := New(memory.New(), memory.NewBroker(memory.BrokerConfig{}), Config{}); err == nil {
		t.Error("a gateway without services was made")
	}
}

func TestOperatorRoutesRefuseByDefault(t *testing.T) {
	off := newRig(t, func(c *Config) { c.OperatorToken = "" })
	on := newRig(t)
	n := 0
	for pattern := range on.gateway.routes() {
		route := strings.NewReplacer("{id}", "1").Replace(pattern)
		if _, path, _ := strings.Cut(route, " "); !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/internal/") && !strings.HasPrefix(path, "/import/") {
			continue
		}
		n++
		// Without a configured token even an empty one is refused.
		for _, h := range [][]string{nil, {"Authorization", "Bearer "}, {"Authorization", "Bearer " + operatorToken}} {
			wantProblem(t, off.send(route, h...), http.StatusForbidden, "operator-routes-off")
		}
		w := on.send(route)
		wantProblem(t, w, http.StatusUnauthorized, "operator-only")
		if w.Header().Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: a 401 without its challenge", route)
		}
		wantProblem(t, on.send(route, "Authorization", "Basic "+operatorToken), http.StatusUnauthorized, "operator-only")
		for _, wrong := range []string{"", "guess", operatorToken + "x"} {
			wantProblem(t, on.send(route, "Authorization", "Bearer "+wrong), http.StatusForbidden, "operator-only")
		}
		if w := on.operate(route); w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden {
			t.Errorf("%s: the operator got %d", route, w.Code)
		}
	}
	if n < 15 {
		t.Errorf("only %d operator routes", n)
	}
}

func TestOtherSitesAreRefused(t *testing.T) {
	r := newRig(t)
	wantProblem(t, r.send("POST /orders", "Sec-Fetch-Site", "cross-site"), http.StatusForbidden, "cross-origin")
	wantProblem(t, r.send("POST /orders", "Origin", "https://evil.example"), http.StatusForbidden, "cross-origin")
	wantProblem(t, r.send("POST /import/orders", "Origin", "https://evil.example", "Authorization", "Bearer "+operatorToken), http.StatusForbidden, "cross-origin")
	for _, h := range [][]string{nil, {"Sec-Fetch-Site", "same-origin"}, {"Origin", "http://example.com"}} {
		if w := r.send("POST /orders", h...); w.Code != http.StatusOK {
			t.Errorf("%v: %d %s", h, w.Code, w.Body)
		}
	}
	if w := r.send("GET /orders/1", "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusOK {
		t.Errorf("a link from another site got %d", w.Code)
	}
}

func TestTraceIsCarriedOrBegun(t *testing.T) {
	r := newRig(t)
	const given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	type answer struct{ Trace, CauseTrace, Correlation string }
	w := r.send("POST /orders", "Traceparent", given)
	if a := decoded[answer](t, w); a != (answer{given, given, given[3:35]}) || w.Header().Get("Traceparent") != given {
		t.Errorf("a given trace became %+v", a)
	}
	seen := map[string]bool{given: true}
	for _, bad := range []string{
		"", "garbage", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", "01" + given[2:], strings.ToUpper(given),
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-" + strings.Repeat("0", 16) + "-01",
		"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
	} {
		a := decoded[answer](t, r.send("POST /orders", "Traceparent", bad))
		if !validTrace(a.Trace) || a.Trace != a.CauseTrace || a.Correlation != a.Trace[3:35] || seen[a.Trace] {
			t.Errorf("trace %q became %+v", bad, a)
		}
		seen[a.Trace] = true
	}
}

// shown appends an event to the feeds as the gateway's consumer does.
func (r *rig) shown(topic, key, typ, data string) {
	r.t.Helper()
	e := event.Envelope{
		ID: event.NewID(time.Now()), Type: typ, Topic: topic, AggregateType: "order", AggregateID: key,
		OccurredAt: time.Now().UTC(), Producer: "order", Data: []byte(data),
	}
	if err := r.store.Run(r.t.Context(), func(ctx context.Context, tx *txn.Tx) error { return r.gateway.show(ctx, tx, e) }); err != nil {
		r.t.Fatal(err)
	}
}

func TestOrderHasItsTimeline(t *testing.T) {
	r := newRig(t)
	r.shown(contract.OrderTopic, "1", "OrderCreated", `{"customerId":"ada"}`)
	r.shown(contract.OrderTopic, "2", "OrderCreated", `{"customerId":"ada"}`)
	r.shown(contract.PaymentTopic, "1", "PaymentAuthorized", fmt.Sprintf(`{"customerId":"bob","pad":%q}`, strings.Repeat("x", frameDataMax)))
	w := r.send("GET /orders/1")
	got := decoded[struct {
		By       string
		Timeline []Entry
	}](t, w)
	if got.By != "order" || len(got.Timeline) != 2 || got.Timeline[0].Type != "OrderCreated" || string(got.Timeline[0].Data) != `{"customerId":"ada"}` {
		t.Fatalf("order is %s", w.Body)
	}
	if e := got.Timeline[1]; e.Type != "PaymentAuthorized" || e.Data != nil || e.Topic != contract.PaymentTopic || e.Key != "1" {
		t.Errorf("an event with much data is shown as %+v", e)
	}
	if empty := decoded[struct{ Timeline []Entry }](t, r.send("GET /orders/3")); empty.Timeline == nil || len(empty.Timeline) != 0 {
		t.Errorf("timeline of nothing is %v", empty.Timeline)
	}
	wantProblem(t, r.send("GET /orders/missing"), http.StatusNotFound, "unknown-order")
}

func TestFeedsOfAnEvent(t *testing.T) {
	for name, test := range map[string]struct {
		event event.Envelope
		want  string
	}{
		"order's":                {event.Envelope{AggregateType: "order", AggregateID: "1", Topic: contract.OrderTopic, Data: []byte(`{"customerId":"ada"}`)}, "[order/1 customer/ada]"},
		"order's, no customer":   {event.Envelope{AggregateType: "order", AggregateID: "1", Topic: contract.OrderTopic, Data: []byte(`{}`)}, "[order/1]"},
		"order's, not readable":  {event.Envelope{AggregateType: "order", AggregateID: "1", Topic: contract.OrderTopic, Data: []byte(`[]`)}, "[order/1]"},
		"payment's of the order": {event.Envelope{AggregateType: "order", AggregateID: "1", Topic: contract.PaymentTopic, Data: []byte(`{"customerId":"ada"}`)}, "[order/1]"},
		"product's":              {event.Envelope{AggregateType: "product", AggregateID: "1", Topic: contract.CatalogTopic}, "[]"},
	} {
		if got := fmt.Sprint(feeds(test.event)); got != test.want {
			t.Errorf("%s: feeds are %s, want %s", name, got, test.want)
		}
	}
}

func TestStreamIDsAreBounded(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("x", idBytesMax+1)
	wantProblem(t, r.send("GET /orders/"+long+"/events"), http.StatusBadRequest, "bad-id")
	wantProblem(t, r.send("GET /customers/"+long+"/stream"), http.StatusBadRequest, "bad-id")
}

func TestSystemRoutes(t *testing.T) {
	r := newRig(t)
	for _, route := range []string{"GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.json"} {
		if w := r.send(route); w.Code != http.StatusOK {
			t.Errorf("%s: %d", route, w.Code)
		}
	}
	wantProblem(t, r.send("GET /nothing/here"), http.StatusNotFound, "not-found")
	down := newRig(t, func(c *Config) {
		c.Ready = func(context.Context) error { return errors.New("group x has no partition yet") }
	})
	wantProblem(t, down.send("GET /readyz"), http.StatusServiceUnavailable, "not-ready")
	if w := down.send("GET /healthz"); w.Code != http.StatusOK {
		t.Errorf("a process that is not ready is dead: %d", w.Code)
	}
	broken := newRig(t, func(c *Config) {
		c.Traffic = func(context.Context) (map[string]Traffic, error) { return nil, errors.New("secret detail") }
	})
	w := broken.operate("GET /internal/stats")
	wantProblem(t, w, http.StatusInternalServerError, "internal")
	if strings.Contains(w.Body.String(), "secret") {
		t.Errorf("an internal error is told: %s", w.Body)
	}
}

func TestPages(t *testing.T) {
	r := newRig(t)
	for _, route := range []string{"GET /", "GET /order/any", "GET /customer/any%2Fone", "GET /live"} {
		w := r.send(route)
		csp := w.Header().Get("Content-Security-Policy")
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || !strings.HasPrefix(csp, "default-src 'self'") {
			t.Errorf("%s: %d %v", route, w.Code, w.Header())
		}
		if !strings.Contains(w.Body.String(), "<main") || !strings.Contains(w.Body.String(), `<html lang="en">`) {
			t.Errorf("%s is no page", route)
		}
	}
	for path, kind := range map[string]string{"style.css": "text/css", "shop.js": "text/javascript", "icon.svg": "image/svg+xml"} {
		if w := r.send("GET /assets/" + path); w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) {
			t.Errorf("%s: %d %s", path, w.Code, w.Header().Get("Content-Type"))
		}
	}
	if w := r.send("GET /assets/../openapi.json"); w.Code == http.StatusOK {
		t.Errorf("a path out of the assets got %d", w.Code)
	}
}
