package payment

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/shop/contract"
)

// played answers every request the same and remembers the last one.
type played struct {
	status           int
	body, retryAfter string
	method, uri, key string
	request          string
}

func (p *played) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	p.method, p.uri, p.key, p.request = r.Method, r.URL.RequestURI(), r.Header.Get("Idempotency-Key"), string(b)
	if p.retryAfter != "" {
		w.Header().Set("Retry-After", p.retryAfter)
	}
	w.WriteHeader(p.status)
	_, _ = io.WriteString(w, p.body)
}

// outcome says in one line what a caller makes of an answer.
func outcome(a answer, err error) string {
	wait, after := retry.IsAfter(err)
	switch {
	case after:
		return "again in " + wait.String()
	case retry.IsPermanent(err):
		return "permanent"
	case err != nil:
		return "unknown"
	}
	return strings.TrimSpace(a.Status + " " + a.Code)
}

func TestGatewayAnswers(t *testing.T) {
	ok := func(status string) string {
		return `{"reference":"o1","status":"` + status + `","amount":{"amount":"7.65","currency":"GBP"}}`
	}
	problem := `{"type":"urn:x:CAPTURE_REFUSED","title":"Conflict","status":409,"code":"CAPTURE_REFUSED","detail":"d"}`
	for _, c := range []struct {
		name, call, want string
		played           played
	}{
		{"approved", "authorize", "AUTHORIZED", played{status: 201, body: ok("AUTHORIZED")}},
		{"approved before", "authorize", "AUTHORIZED", played{status: 200, body: ok("AUTHORIZED")}},
		{"declined", "authorize", "DECLINED CARD_DECLINED", played{status: 201, body: `{"reference":"o1","status":"DECLINED","code":"CARD_DECLINED","amount":{"amount":"7.65","currency":"GBP"}}`}},
		{"declined by a void", "authorize", "DECLINED VOIDED", played{status: 200, body: `{"reference":"o1","status":"DECLINED","code":"VOIDED"}`}},
		{"pending", "authorize", "again in 1s", played{status: 202, body: ok("PENDING")}},
		{"pending, with a wait", "authorize", "again in 3s", played{status: 202, body: ok("PENDING"), retryAfter: "3"}},
		{"too many", "authorize", "again in 7s", played{status: 429, retryAfter: "7"}},
		{"too many, for an hour", "authorize", "again in 1m0s", played{status: 429, retryAfter: "86400"}},
		{"too many, for garbage", "authorize", "again in 1s", played{status: 429, retryAfter: "-1"}},
		{"mismatch", "authorize", "permanent", played{status: 422, body: `{"code":"IDEMPOTENCY_MISMATCH"}`}},
		{"malformed", "authorize", "permanent", played{status: 400}},
		{"another's answer", "authorize", "unknown", played{status: 200, body: strings.Replace(ok("AUTHORIZED"), "o1", "o2", 1)}},
		{"another amount", "authorize", "unknown", played{status: 200, body: strings.Replace(ok("AUTHORIZED"), "7.65", "7.64", 1)}},
		{"no answer in it", "authorize", "unknown", played{status: 200, body: `{}`}},
		{"a status of another call", "authorize", "unknown", played{status: 200, body: ok("PENDING")}},
		{"garbage", "authorize", "unknown", played{status: 201, body: `<html>`}},
		{"empty", "authorize", "unknown", played{status: 200}},
		{"endless", "authorize", "unknown", played{status: 200, body: `{"reference":"` + strings.Repeat("x", 2*answerBytesMax) + `"}`}},
		{"broken", "authorize", "unknown", played{status: 500}},
		{"down", "authorize", "unknown", played{status: 503, retryAfter: "1", body: `{"status":503,"code":"DOWN"}`}},
		{"timeout of a proxy", "authorize", "unknown", played{status: 408}},
		{"too early", "authorize", "unknown", played{status: 425}},
		{"lost credential", "authorize", "unknown", played{status: 401}},
		{"wrong address", "authorize", "unknown", played{status: 404}},
		{"captured", "capture", "CAPTURED", played{status: 200, body: ok("CAPTURED")}},
		{"capture refused for good", "capture", "REFUSED CAPTURE_REFUSED", played{status: 409, body: problem}},
		{"refused without a code", "capture", "unknown", played{status: 409, body: `{"status":409}`}},
		{"refused by a proxy", "capture", "unknown", played{status: 409, body: `<html>`}},
		{"capture too early", "capture", "unknown", played{status: 503, body: `{"status":503,"code":"PENDING"}`, retryAfter: "1"}},
		{"not captured", "capture", "unknown", played{status: 200, body: ok("AUTHORIZED")}},
		{"voided", "void", "VOIDED", played{status: 200, body: `{"reference":"o1","status":"VOIDED","amount":{"amount":"0","currency":""}}`}},
		{"void of a decline", "void", "DECLINED", played{status: 200, body: ok("DECLINED")}},
		{"void of a capture", "void", "REFUSED CAPTURED", played{status: 409, body: `{"status":409,"code":"CAPTURED"}`}},
		{"refunded", "refund", "REFUNDED", played{status: 201, body: strings.Replace(ok("REFUNDED"), "o1", "r1", 1)}},
		{"refund refused", "refund", "REFUSED REFUND_EXCEEDS", played{status: 409, body: `{"status":409,"code":"REFUND_EXCEEDS"}`}},
		{"looked up", "lookup", "CAPTURED", played{status: 200, body: ok("CAPTURED")}},
		{"looked up, unknown", "lookup", "permanent", played{status: 404, body: `{"status":404,"code":"NOT_FOUND"}`}},
		{"looked up, pending", "lookup", "PENDING", played{status: 200, body: ok("PENDING")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(&c.played)
			defer server.Close()
			if got := outcome(ask(t.Context(), newGateway(server.URL, nil, 1), c.call)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func ask(ctx context.Context, g *gateway, call string) (answer, error) {
	amount := contract.NewMoney(765, contract.GBP)
	switch call {
	case "authorize":
		return g.authorize(ctx, "k", authorizeRequest{"o1", amount, "c1"})
	case "capture":
		return g.capture(ctx, "k", captureRequest{"o1", amount})
	case "void":
		return g.void(ctx, "k", contract.OrderRefV1{OrderID: "o1"})
	case "refund":
		return g.refund(ctx, "k", refundRequest{"r1", "o1", amount})
	case "lookup":
		return g.lookup(ctx, "k", contract.OrderRefV1{OrderID: "o1"})
	}
	return answer{}, fmt.Errorf("no call %q", call)
}

// TestGatewayRequests pins what goes over the wire.
func TestGatewayRequests(t *testing.T) {
	p := &played{status: 500}
	server := httptest.NewServer(p)
	defer server.Close()
	g := newGateway(server.URL, nil, 1)
	const amount = `"amount":{"amount":"7.65","currency":"GBP"}`
	for call, want := range map[string]string{
		"authorize": `POST /v1/authorizations k {"reference":"o1",` + amount + `,"customerId":"c1"}`,
		"capture":   `POST /v1/authorizations/o1/capture k {` + amount + `}`,
		"void":      `POST /v1/authorizations/o1/void k {}`,
		"refund":    `POST /v1/refunds k {"reference":"r1","authorization":"o1",` + amount + `}`,
		"lookup":    `GET /v1/authorizations/o1  `,
	} {
		if _, err := ask(t.Context(), g, call); err == nil {
			t.Errorf("%s: no error", call)
		}
		if got := p.method + " " + p.uri + " " + p.key + " " + p.request; got != want {
			t.Errorf("%s: %s\nwant %s", call, got, want)
		}
	}
	// A reference is one segment of the path, and a name that the gateway cannot take is left out.
	if _, err := g.void(t.Context(), "k", contract.OrderRefV1{OrderID: "a/../b"}); err == nil || p.uri != "/v1/authorizations/a%2F..%2Fb/void" {
		t.Errorf("void went to %s, %v", p.uri, err)
	}
	if _, err := g.authorize(t.Context(), "k", authorizeRequest{"o1", contract.NewMoney(765, contract.GBP), "Zoë B"}); err == nil || !strings.Contains(p.request, `"customerId":""`) {
		t.Errorf("request %s, %v", p.request, err)
	}
}

// TestGatewaySilence proves that no answer in time, and no connection, are unknown outcomes.
func TestGatewaySilence(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	g := newGateway(server.URL, nil, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got := outcome(ask(ctx, g, "authorize")); got != "unknown" {
		t.Errorf("silent: %s", got)
	}
	server.Close()
	if got := outcome(ask(t.Context(), g, "authorize")); got != "unknown" {
		t.Errorf("gone: %s", got)
	}
}
