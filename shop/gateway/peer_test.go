package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/page"
)

// gone is an address at which nobody listens.
const gone = "http://127.0.0.1:1"

// serveAt serves a handler and returns its address.
func serveAt(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func newPeer(t *testing.T, service string, urls ...string) *Peer {
	t.Helper()
	p, err := NewPeer(service, urls)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// node is another process that has the named services of a rig.
func (r *rig) node(names ...string) http.Handler {
	cfg := NodeConfig{
		Services: map[string]http.Handler{}, Letters: map[string]*deadletter.Queue{}, Outboxes: map[string]relay.Parking{},
		OperatorToken: operatorToken,
		Traffic: func(context.Context) (map[string]Traffic, error) {
			all := map[string]Traffic{}
			for _, name := range names {
				all[name] = Traffic{Emitted: 10, Published: 10, Handled: 5, Lag: 1}
			}
			return all, nil
		},
	}
	for _, name := range names {
		cfg.Services[name] = echo(name)
		if s := r.letters[name]; s != nil {
			cfg.Letters[name] = deadletter.NewQueue(s, s.Letters(), "")
		}
	}
	return NewNode(cfg)
}

// apart makes services peers of the gateway instead of its own.
func apart(peers ...*Peer) func(*Config) {
	return func(c *Config) {
		c.Peers = map[string]*Peer{}
		for _, p := range peers {
			c.Peers[p.service] = p
			delete(c.Services, p.service)
			delete(c.Letters, p.service)
		}
	}
}

func TestNewPeerRefuses(t *testing.T) {
	for _, urls := range [][]string{nil, {"127.0.0.1:80"}, {"ftp://x"}, {"http://"}, {"http://x/path"}, make([]string, instancesMax+1)} {
		if _, err := NewPeer("order", urls); err == nil {
			t.Errorf("%.60q is taken for a peer", urls)
		}
	}
}

func TestRequestsArePassedOn(t *testing.T) {
	there := newRig(t).node("order")
	var seen atomic.Pointer[http.Request]
	url := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Clone(context.WithoutCancel(r.Context())))
		there.ServeHTTP(w, r)
	}))
	r := newRig(t, apart(newPeer(t, "order", url)))
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://shop.example/orders?x=1", strings.NewReader("the body"))
	req.Header.Set("Origin", "http://shop.example")
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	type answer struct{ By, Body, Trace, CauseTrace string }
	a := decoded[answer](t, w)
	if w.Code != http.StatusOK || a.By != "order" || a.Body != "the body" || a.Trace == "" || a.Trace != a.CauseTrace {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
	if h := w.Header(); len(h["Traceparent"]) != 1 || h.Get("Traceparent") != a.Trace || len(h["Content-Security-Policy"]) != 1 {
		t.Errorf("header is %v", h)
	}
	if s := seen.Load(); s.Header.Get("Origin") != "" || s.URL.RawQuery != "x=1" || s.Header.Get("X-Forwarded-Host") != "shop.example" {
		t.Errorf("the peer saw %s %v", s.URL, s.Header)
	}
	// The peer guards its operators' routes too, and the gateway lets nobody else through.
	if w := r.operate("GET /internal/orders"); w.Code != http.StatusOK {
		t.Errorf("operator: %d %s", w.Code, w.Body)
	}
	wantProblem(t, r.send("GET /internal/orders"), http.StatusUnauthorized, "operator-only")
	big := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", strings.NewReader(strings.Repeat("x", peerBodyBytesMax+1)))
	w = httptest.NewRecorder()
	r.handler.ServeHTTP(w, big)
	wantProblem(t, w, http.StatusRequestEntityTooLarge, "body-too-large")
}

func TestPeerIsAway(t *testing.T) {
	r := newRig(t, apart(newPeer(t, "order", gone)))
	for _, route := range []string{"POST /orders", "GET /orders/1"} {
		w := r.send(route)
		wantProblem(t, w, http.StatusServiceUnavailable, "service-unreachable")
		if w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", route)
		}
	}
	broken := serveAt(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	r = newRig(t, apart(newPeer(t, "order", broken)))
	w := r.send("POST /orders")
	wantProblem(t, w, http.StatusBadGateway, "service-broke-off")
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// TestOtherInstances sends requests to a service of which one instance is away, or breaks off: what is sent
// twice is only what may be.
func TestOtherInstances(t *testing.T) {
	var broke, asked atomic.Int32
	broken := serveAt(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		broke.Add(1)
		panic(http.ErrAbortHandler)
	}))
	draining := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		broke.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	starting := serveAt(t, NewStarting(nil, func(context.Context) error { return errors.New("waits for the broker") }))
	well := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	send := func(p *Peer, method string, header ...string) int {
		r := newRig(t, apart(p))
		req := httptest.NewRequestWithContext(t.Context(), method, "/orders/1", strings.NewReader("body"))
		if method == http.MethodPost {
			req.URL.Path = "/orders"
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, req)
		if w.Code == http.StatusOK && !strings.HasPrefix(w.Body.String(), "body") {
			t.Errorf("%s: body %q", method, w.Body)
		}
		return w.Code
	}
	for name, tt := range map[string]struct {
		other  string
		method string
		header []string
		ok     bool // whichever instance is asked first
	}{
		"nobody there":              {gone, "POST", nil, true},
		"a read breaks off":         {broken, "GET", nil, true},
		"a keyed write breaks off":  {broken, "POST", []string{"Idempotency-Key", "k"}, true},
		"a write breaks off":        {broken, "POST", nil, false},
		"a read of a draining one":  {draining, "GET", nil, true},
		"a write to a draining one": {draining, "POST", nil, false},
		"a write to a starting one": {starting, "POST", nil, true},
	} {
		p := newPeer(t, "order", tt.other, well)
		failed := 0
		for range 4 {
			broke.Store(0)
			if code := send(p, tt.method, tt.header...); code != http.StatusOK {
				failed++
			}
			if broke.Load() > 1 {
				t.Errorf("%s: sent %d times to one instance", name, broke.Load())
			}
		}
		if want := map[bool]int{true: 0, false: 2}[tt.ok]; failed != want {
			t.Errorf("%s: %d of 4 failed, want %d", name, failed, want)
		}
	}
	if asked.Load() == 0 {
		t.Error("the healthy instance was never asked")
	}
}

// TestEndingInstanceIsAskedLast wants requests kept away from an instance that has said that it ends, for as long as
// there is another one.
func TestEndingInstanceIsAskedLast(t *testing.T) {
	var asked atomic.Int32
	ending := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		SetEnding(w.Header())
	}))
	var away atomic.Bool
	well := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	r := newRig(t, apart(newPeer(t, "order", ending, well)))
	for range 8 {
		if w := r.send("GET /orders/1"); w.Code != http.StatusOK || w.Header().Get(instanceHeader) != "" {
			t.Errorf("answer %d %v", w.Code, w.Header())
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("an instance that ends was asked %d times", n)
	}
	away.Store(true)
	if w := r.send("GET /orders/1"); w.Code != http.StatusOK {
		t.Errorf("nobody else is there: %d", w.Code)
	}
}

func TestOperatorsReachPeers(t *testing.T) {
	r := newRig(t)
	url := serveAt(t, r.node("payment"))
	near := r.park("order", "1", "boom", 2)
	far := r.park("payment", "2", "bang", 2)
	// The gateway of a second rig has order's letters of the first one, and payment behind a peer.
	g := newRig(t, apart(newPeer(t, "payment", url)), func(c *Config) {
		c.Letters["order"] = deadletter.NewQueue(r.letters["order"], r.letters["order"].Letters(), "")
	})
	var got []string
	for after, n := "", 0; n < 10; n++ {
		p := g.list("limit=3&after=" + after)
		for _, l := range p.Items {
			got = append(got, l.Service+" "+l.MessageID)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	want := []string{"order " + near[0], "order " + near[1], "payment " + far[0], "payment " + far[1]}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("letters are\n%v, want\n%v", got, want)
	}
	if l := decoded[Letter](t, g.operate("GET /api/dlq/"+far[0])); l.MessageID != far[0] || l.Service != "payment" || l.Cause != "bang" {
		t.Errorf("letter is %+v", l)
	}
	causes := decoded[page.Page[CauseCount]](t, g.operate("GET /api/dlq/causes")).Items
	if len(causes) < 2 || causes[len(causes)-1].Service != "payment" {
		t.Errorf("causes are %+v", causes)
	}
	wantProblem(t, g.operate("POST /api/dlq/"+far[1]+"/discard"), http.StatusConflict, "letter-waits")
	if w := g.operate("POST /api/dlq/reprocess/single?messageId=" + far[0]); w.Code != http.StatusAccepted {
		t.Errorf("replay: %d %s", w.Code, w.Body)
	}
	if w := g.operate("POST /api/dlq/" + near[0] + "/discard"); w.Code != http.StatusOK {
		t.Errorf("discard: %d %s", w.Code, w.Body)
	}
	audit := decoded[page.Page[AuditEntry]](t, g.operate("GET /api/dlq/audit")).Items
	if len(audit) != 2 || audit[0].Action != "discard" || audit[1].Action != "replay" || audit[1].Operator != "eve" {
		t.Errorf("audit is %+v", audit)
	}
	wantProblem(t, g.operate("GET /api/dlq/payment:nothing"), http.StatusNotFound, "no-such-letter")
}

func TestMissingPartsAreSaid(t *testing.T) {
	r := newRig(t, apart(newPeer(t, "payment", gone)))
	ids := r.park("order", "1", "boom", 1)
	type answer struct {
		Items       []Letter
		Replayed    int
		Unreachable []Unreachable
	}
	for _, tt := range []struct {
		route string
		items int
	}{{"GET /api/dlq", 1}, {"GET /api/dlq/causes", 1}, {"GET /api/dlq/audit", 0}, {"POST /api/dlq/reprocess/batch", 0}} { // The last is audited.
		a := decoded[answer](t, r.operate(tt.route))
		if len(a.Items) != tt.items || len(a.Unreachable) != 1 || a.Unreachable[0].Service != "payment" {
			t.Errorf("%s: %+v", tt.route, a)
		}
	}
	if w := r.operate("GET /api/dlq/" + ids[0]); w.Code != http.StatusOK {
		t.Errorf("a letter of a service that is here: %d %s", w.Code, w.Body)
	}
	other := "payment" + ids[0][strings.IndexByte(ids[0], ':'):]
	wantProblem(t, r.operate("GET /api/dlq/"+other), http.StatusServiceUnavailable, "service-unreachable")
	wantProblem(t, r.operate("POST /api/dlq/reprocess/single?messageId="+other), http.StatusServiceUnavailable, "service-unreachable")
	wantProblem(t, r.operate("POST /api/outbox/replay?service=payment&topic=t"), http.StatusServiceUnavailable, "service-unreachable")
	wantProblem(t, r.operate("GET /internal/stats"), http.StatusServiceUnavailable, "service-unreachable")
	wrong := newRig(t, func(c *Config) { c.OperatorToken = "another" }, apart(newPeer(t, "payment", serveAt(t, r.node("payment")))))
	w := wrong.send("GET /api/dlq", "Authorization", "Bearer another")
	if a := decoded[answer](t, w); len(a.Unreachable) != 1 || !strings.Contains(a.Unreachable[0].Detail, "403") {
		t.Errorf("a peer with another token: %s", w.Body)
	}
}

func TestTrafficOfInstances(t *testing.T) {
	r := newRig(t)
	first, second := serveAt(t, r.node("payment")), httptest.NewServer(r.node("payment"))
	p := newPeer(t, "payment", first, second.URL)
	g := newRig(t, apart(p))
	a := decoded[TrafficAnswer](t, g.operate("GET /internal/stats"))
	// Two instances have one outbox, and handle different events.
	if want := (Traffic{Emitted: 10, Published: 10, Handled: 10, Lag: 2}); a.Services["payment"] != want {
		t.Errorf("payment's traffic is %+v, want %+v", a.Services["payment"], want)
	}
	if a.Lag != 3 || a.Services["order"].Lag != 1 {
		t.Errorf("traffic is %+v", a)
	}
	second.Close()
	wantProblem(t, g.operate("GET /internal/stats"), http.StatusServiceUnavailable, "service-unreachable")
	p.instances[1].seen.Store(time.Now().Add(-2 * instanceGrace).UnixNano())
	if a := decoded[TrafficAnswer](t, g.operate("GET /internal/stats")); a.Services["payment"].Handled != 5 {
		t.Errorf("traffic long after an instance has gone: %+v", a)
	}
}

// TestPeerOfItself gives a gateway a list of peers that it is in itself, as one list for all processes has it.
func TestPeerOfItself(t *testing.T) {
	var h atomic.Pointer[http.Handler]
	url := serveAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h.Load()).ServeHTTP(w, r) }))
	r := newRig(t, func(c *Config) {
		c.Peers = map[string]*Peer{"order": newPeer(t, "order", url), "gateway": newPeer(t, "gateway", url)}
		c.Traffic = func(context.Context) (map[string]Traffic, error) {
			return map[string]Traffic{"order": {Handled: 1}, "gateway": {Handled: 2}}, nil
		}
	})
	h.Store(&r.handler)
	if a := decoded[TrafficAnswer](t, r.operate("GET /internal/stats")); a.Handled != 3 || len(a.Services) != 2 {
		t.Errorf("traffic is %+v", a)
	}
	r.park("order", "1", "boom", 1)
	if p := r.list(""); len(p.Items) != 1 {
		t.Errorf("letters are %+v", p)
	}
}

func TestNode(t *testing.T) {
	ready := errors.New("draining")
	h := NewNode(NodeConfig{
		Services:      map[string]http.Handler{"order": echo("order")},
		Lookups:       map[string]http.Handler{"POST /internal/products/lookup": echo("catalog")},
		OperatorToken: operatorToken, Ready: func(context.Context) error { return ready },
	})
	r := &rig{t: t, handler: h}
	for route, want := range map[string]int{
		"GET /orders/1": 200, "POST /orders": 200, "GET /healthz": 200, "GET /readyz": 503, "GET /products": 404, "GET /metrics": 404,
		"GET /internal/orders": 401, "POST /import/orders": 401, "GET /api/dlq": 401, "POST /internal/products/lookup": 401,
	} {
		if w := r.send(route); w.Code != want {
			t.Errorf("%s: %d %s, want %d", route, w.Code, w.Body, want)
		}
	}
	ready = nil
	for _, route := range []string{"GET /internal/orders", "POST /import/orders", "GET /api/dlq", "POST /internal/products/lookup", "GET /readyz"} {
		if w := r.operate(route); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", route, w.Code, w.Body)
		}
	}
}
