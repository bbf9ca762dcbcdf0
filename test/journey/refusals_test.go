package journey_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/settledev/settle/test/internal/binary"
)

// TestRefusals sends everything that must be refused, and wants nothing stored and nothing emitted.
func TestRefusals(t *testing.T) {
	binary.NeedsProcesses(t)
	dir := newDir(t)
	p := serve(t, dir, "--broker", "store")
	before := p.WaitQuiet(patience)
	const product = `{"productId":"85123A","quantity":1}`
	items := func(list string) string { return `{"customerId":"c","items":[` + list + `]}` }
	imports := func(list string) string {
		return `{"reference":"r-1","customerId":"c","currency":"GBP","items":[` + list + `]}`
	}
	for _, test := range []struct {
		name, route, body string
		status            int
		code              string
	}{
		{"no items", "/orders", items(""), 422, "no-items"},
		{"no body", "/orders", "", 422, "no-items"},
		{"quantity 0", "/orders", items(`{"productId":"85123A","quantity":0}`), 422, "quantity-not-positive"},
		{"quantity -1", "/orders", items(product + `,{"productId":"85123A","quantity":-1}`), 422, "quantity-not-positive"},
		{"quantity before product", "/orders", items(`{"productId":"none","quantity":0}`), 422, "quantity-not-positive"},
		{"unknown product", "/orders", items(product + `,{"productId":"none","quantity":1}`), 422, "unknown-product"},
		{"no product", "/orders", items(`{"quantity":1}`), 422, "unknown-product"},
		{"total mismatch", "/orders", `{"items":[` + product + `],"total":{"amount":"0.01","currency":"GBP"}}`, 422, "total-mismatch"},
		{"too many lines", "/orders", items(strings.Repeat(product+",", 2000) + product), 422, "too-many-lines"},
		{"too large", "/orders", items(product + strings.Repeat(" ", 1<<20)), 413, "body-too-large"},
		{"malformed", "/orders", `{"items":[`, 400, "malformed-json"},
		{"no JSON", "/orders", `items=1`, 400, "malformed-json"},
		{"a list", "/orders", `[]`, 400, "malformed-json"},
		{"a text as quantity", "/orders", items(`{"productId":"85123A","quantity":"1"}`), 400, "malformed-json"},
		{"a fraction as quantity", "/orders", items(`{"productId":"85123A","quantity":1.5}`), 400, "malformed-json"},
		{"two values", "/orders", items(product) + `{}`, 400, "malformed-json"},
		{"unknown field", "/orders", `{"items":[` + product + `],"coupon":"X"}`, 400, "unknown-field"},
		{"a price from the client", "/orders", items(`{"productId":"85123A","quantity":1,"unitPrice":"0.01"}`), 400, "unknown-field"},
		{"quantity out of range", "/orders", items(`{"productId":"85123A","quantity":9000000000000}`), 422, "amount-out-of-range"},
		{"customer too long", "/orders", `{"customerId":"` + strings.Repeat("c", 129) + `","items":[` + product + `]}`, 422, "customer-too-long"},
		{"price negative", "/import/orders", imports(`{"productId":"none","quantity":1,"unitPrice":"-1"}`), 422, "price-negative"},
		{"price 0", "/import/orders", imports(`{"productId":"85123A","quantity":1,"unitPrice":"0"}`), 422, "total-not-positive"},
		{"import without reference", "/import/orders", items(`{"productId":"85123A","quantity":1,"unitPrice":"1"}`), 422, "reference-missing"},
		{"returned price 0", "/import/returns", imports(`{"productId":"85123A","quantity":1,"unitPrice":"0"}`), 422, "total-not-positive"},
		{"return of nothing", "/returns", `{"orderId":"none","items":[]}`, 422, "no-items"},
		{"return of no order", "/returns", `{"orderId":"none","items":[` + product + `]}`, 404, "unknown-order"},
		{"cancel of no order", "/orders/none/cancel", "", 404, "unknown-order"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := p.Send(http.MethodPost, test.route, test.body)
			if a.Status != test.status || a.Code() != test.code {
				t.Errorf("%d %s, want %d %s: %.300s", a.Status, a.Code(), test.status, test.code, a.Body)
			}
			if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %q", got)
			}
		})
	}
	t.Run("operator's routes", func(t *testing.T) {
		for _, route := range []string{"/import/orders", "/import/returns", "/api/dlq/reprocess/batch"} {
			if a := binary.Send(t, http.MethodPost, p.URL+route, "{}"); a.Status != http.StatusUnauthorized {
				t.Errorf("%s without token: %d %s", route, a.Status, a.Body)
			}
			if a := binary.Send(t, http.MethodPost, p.URL+route, "{}", "Authorization", "Bearer wrong"); a.Status != http.StatusForbidden {
				t.Errorf("%s with a wrong token: %d %s", route, a.Status, a.Body)
			}
		}
		if a := binary.Send(t, http.MethodGet, p.URL+"/internal/orders", ""); a.Status != http.StatusUnauthorized {
			t.Errorf("/internal/orders without token: %d %s", a.Status, a.Body)
		}
	})
	if after := p.WaitQuiet(patience); after.Emitted != before.Emitted {
		t.Errorf("refused requests emitted %d events", after.Emitted-before.Emitted)
	}
	if orders := binary.List[order](t, p, p.URL+"/internal/orders"); len(orders) != 0 {
		t.Errorf("refused requests stored %v", orders)
	}
	if emitted := binary.Outbox(t, dir, "order"); len(emitted) != 0 {
		t.Errorf("refused requests left %v in the outbox", emitted)
	}
}

// TestIdempotencyKey repeats commands under a key: one effect, and the first answer each time, also after a
// restart.
func TestIdempotencyKey(t *testing.T) {
	binary.NeedsProcesses(t)
	dir := newDir(t)
	p := serve(t, dir, "--broker", "store")
	const key = "Idempotency-Key"
	first := p.Send(http.MethodPost, "/orders", basket(1), key, "k-1")
	same := func(what string, again binary.Answer) {
		t.Helper()
		if again.Status != http.StatusAccepted || again.Body != first.Body || again.Header.Get("Location") != first.Header.Get("Location") {
			t.Errorf("%s: %d %s, first answer %d %s", what, again.Status, again.Body, first.Status, first.Body)
		}
		if again.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: does not say that it is a repetition", what)
		}
	}
	same("again", p.Send(http.MethodPost, "/orders", basket(1), key, "k-1"))
	if a := p.Send(http.MethodPost, "/orders", basket(2), key, "k-1"); a.Status != 422 || a.Code() != "idempotency-key-mismatch" {
		t.Errorf("another body: %d %s", a.Status, a.Body)
	}
	if a := p.Send(http.MethodPost, "/orders", basket(1), key, strings.Repeat("k", 300)); a.Status != 400 || a.Code() != "idempotency-key-invalid" {
		t.Errorf("long key: %d %s", a.Status, a.Body)
	}
	if a := p.Send(http.MethodPost, "/orders", basket(1), key, "k-2"); a.Status != http.StatusAccepted || a.Body == first.Body {
		t.Errorf("another key: %d %s", a.Status, a.Body)
	}
	if a := p.Send(http.MethodPost, "/orders", `{"items":[]}`, key, "k-3"); a.Code() != "no-items" {
		t.Errorf("refused under a key: %d %s", a.Status, a.Body)
	}
	ids := atOnce(t, p, 24)
	if len(ids) != 1 {
		t.Errorf("requests of one key at once made orders %v", ids)
	}
	p.WaitQuiet(patience)
	stop(t, p)
	p = serve(t, dir, "--broker", "store")
	same("after a restart", p.Send(http.MethodPost, "/orders", basket(1), key, "k-1"))
	p.WaitQuiet(patience)
	if orders := binary.List[order](t, p, p.URL+"/internal/orders"); len(orders) != 3 {
		t.Errorf("%d orders, want one for each of 3 keys", len(orders))
	}
}

// atOnce sends n requests of one key at once and returns the orders that they were answered with. A request
// may be told that the first is still running, and nothing else.
func atOnce(t *testing.T, p *binary.Process, n int) map[string]bool {
	t.Helper()
	var mu sync.Mutex
	ids := map[string]bool{}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			a := p.Send(http.MethodPost, "/orders", basket(3), "Idempotency-Key", "k-at-once")
			mu.Lock()
			defer mu.Unlock()
			switch a.Status {
			case http.StatusAccepted:
				ids[a.Header.Get("Location")] = true
			case http.StatusConflict:
				if a.Header.Get("Retry-After") == "" {
					t.Errorf("409 without Retry-After: %s", a.Body)
				}
			default:
				t.Errorf("%d %s", a.Status, a.Body)
			}
		})
	}
	wg.Wait()
	return ids
}

// TestSentTwice imports one invoice again and again, also with another body and after a restart: one order,
// one return.
func TestSentTwice(t *testing.T) {
	binary.NeedsProcesses(t)
	dir := newDir(t)
	p := serve(t, dir)
	body := func(quantity int) string {
		return fmt.Sprintf(`{"reference":"536365","customerId":"1","currency":"GBP","items":[{"productId":"85123A","quantity":%d,"unitPrice":"2.55"}]}`, quantity)
	}
	ids := map[string]bool{}
	send := func(quantity int) {
		t.Helper()
		for _, route := range []string{"/import/orders", "/import/returns"} {
			a := p.Send(http.MethodPost, route, body(quantity))
			var doc struct{ ID string }
			a.Decode(t, &doc)
			if a.Status >= 300 || doc.ID == "" {
				t.Fatalf("%s: %d %s", route, a.Status, a.Body)
			}
			ids[route+" "+doc.ID] = true
		}
	}
	send(1)
	send(1)
	p.WaitQuiet(patience)
	send(2)
	stop(t, p)
	p = serve(t, dir)
	send(1)
	p.WaitQuiet(patience)
	orders := binary.List[order](t, p, p.URL+"/internal/orders")
	returns := binary.List[order](t, p, p.URL+"/internal/returns")
	if len(ids) != 2 || len(orders) != 1 || len(returns) != 1 || orders[0].Total.Amount != "2.55" {
		t.Errorf("ids %v, orders %v, returns %v", ids, orders, returns)
	}
	binary.CheckEvents(t, dir)
}
