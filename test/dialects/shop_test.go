package dialects_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/internal/statement"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/order"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/shop/shipping"
)

// stocked is a catalogue of the products 10001 to 10004.
type stocked struct{}

func (stocked) Products(_ context.Context, ids []string) (map[string]order.Product, error) {
	price, err := contract.ParsePrice("2.50")
	all := map[string]order.Product{}
	for _, id := range ids {
		if strings.Contains("10001 10002 10003 10004", id) {
			all[id] = order.Product{Name: "Product " + id, Price: price, Currency: contract.GBP}
		}
	}
	return all, err
}

// live is the part of the shop that an order goes through, on stores of one dialect, with a gateway.
type live struct {
	t         *testing.T
	order     *order.Service
	inventory *inventory.Service
	payment   *payment.Service
	gateway   http.Handler
}

func start(t *testing.T, dialect string) *live {
	t.Helper()
	b := memory.NewBroker(memory.BrokerConfig{})
	cfg := settle.Config{Logger: slog.New(slog.DiscardHandler)}
	ledger := openStore(t, statement.SQLite, "gateway", nil)
	if err := pgsim.Migrate(t.Context(), ledger); err != nil {
		t.Fatal(err)
	}
	sim, err := pgsim.New(ledger, pgsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	gateway := httptest.NewServer(sim)
	l := &live{t: t, gateway: sim}
	if l.order, err = order.New(openStore(t, dialect, "order", order.Migrations(dialect)), b, order.Config{Service: cfg, Catalog: stocked{}}); err != nil {
		t.Fatal(err)
	}
	if l.inventory, err = inventory.New(openStore(t, dialect, "inventory", inventory.Migrations(dialect)), b, inventory.Config{Service: cfg}); err != nil {
		t.Fatal(err)
	}
	l.payment, err = payment.New(openStore(t, dialect, "payment", payment.Migrations(dialect)), b, payment.Config{Service: cfg, GatewayURL: gateway.URL})
	if err != nil {
		t.Fatal(err)
	}
	ship, err := shipping.New(openStore(t, dialect, "shipping", shipping.Migrations(dialect)), b, shipping.Config{Service: cfg, Delay: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, r := range []interface{ Run(context.Context) error }{l.order, l.inventory, l.payment, ship, sim} {
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(func() { // Before the stores are closed.
		stop()
		running.Wait()
		gateway.Close()
	})
	return l
}

// post sends a command until it is answered with one of the statuses that it may be.
func (l *live) post(path, body, key string, allowed ...int) map[string]any {
	l.t.Helper()
	q := httptest.NewRequestWithContext(l.t.Context(), "POST", path, strings.NewReader(body))
	if key != "" {
		q.Header.Set("Idempotency-Key", key)
	}
	w := httptest.NewRecorder()
	l.order.Handler().ServeHTTP(w, q)
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		l.t.Errorf("%s: %d %s", path, w.Code, w.Body)
	}
	if !slices.Contains(allowed, w.Code) {
		l.t.Errorf("%s: %d %s", path, w.Code, w.Body)
	}
	return v
}

// items reads a whole list.
func items[T any](t *testing.T, h http.Handler, path string) []T {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path+"?limit=1000", http.NoBody))
	var p page.Page[T]
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return p.Items
}

// TestShop sends orders that race for the last units, many of them twice and many canceled at once, through
// services whose handlers, commands and timers run beside one another. In the end every order is over, and
// the books agree.
func TestShop(t *testing.T) {
	const orders, stock = 120, 60
	for _, dialect := range []string{statement.SQLite, statement.Postgres, statement.MySQL} {
		t.Run(dialect, func(t *testing.T) {
			l := start(t, dialect)
			if err := l.inventory.Seed(t.Context(), map[string]int64{"10001": stock, "10002": stock, "10003": stock, "10004": stock}); err != nil {
				t.Fatal(err)
			}
			var clients sync.WaitGroup
			for i := range orders {
				items := fmt.Sprintf(`[{"productId":"1000%d","quantity":1},{"productId":"1000%d","quantity":2}]`, 1+i%4, 1+(i+1+i/4%3)%4)
				for range 2 { // Each twice, at the same time.
					clients.Go(func() {
						var v map[string]any
						if i%2 == 0 {
							v = l.post("/import/orders", fmt.Sprintf(`{"reference":"R%d","items":%s}`, i, items), "", 202)
						} else {
							for v = nil; v["id"] == nil && t.Context().Err() == nil; { // 409 while the other one runs.
								v = l.post("/orders", fmt.Sprintf(`{"customerId":"c","items":%s}`, items), fmt.Sprintf("key-%d", i), 202, 409)
							}
						}
						if id, ok := v["id"].(string); ok && i%3 == 0 {
							l.post("/orders/"+id+"/cancel", "", "", 202, 409)
						}
					})
				}
			}
			clients.Wait()
			l.settle(orders)
			l.reconcile()
		})
	}
}

// settle waits until every order is over.
func (l *live) settle(orders int) {
	l.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		open := 0
		all := items[order.View](l.t, l.order.Handler(), "/internal/orders")
		for _, v := range all {
			if v.State != order.StateCompleted && v.State != order.StateCanceled {
				open++
			}
		}
		if len(all) == orders && open == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, v := range all {
				if v.State != order.StateCompleted && v.State != order.StateCanceled {
					l.t.Logf("%s %s %+v", v.ID, v.State, v.Facts)
				}
			}
			l.t.Fatalf("%d orders, %d still open", len(all), open)
		}
	}
}

// reconcile holds the books of the services and of the gateway against one another.
func (l *live) reconcile() {
	l.t.Helper()
	completed, canceled, minor := 0, 0, int64(0)
	for _, v := range items[order.View](l.t, l.order.Handler(), "/internal/orders") {
		if v.Facts.Contradictions != 0 {
			l.t.Errorf("%s: %d contradictions", v.ID, v.Facts.Contradictions)
		}
		if v.State == order.StateCompleted {
			completed++
			minor += v.Total.Minor()
		} else {
			canceled++
		}
	}
	if completed == 0 || canceled == 0 {
		l.t.Errorf("%d completed, %d canceled: nothing was proven", completed, canceled)
	}
	for _, s := range items[inventory.Stock](l.t, l.inventory.Handler(), "/internal/stock") {
		if s.Reserved != 0 || s.Initial != s.Free+s.Sold || s.Free < 0 {
			l.t.Errorf("stock does not add up: %+v", s)
		}
	}
	captured := int64(0)
	for _, p := range items[payment.Payment](l.t, l.payment.Handler(), "/internal/payments") {
		switch p.State {
		case payment.StateCaptured:
			captured += p.Amount.Minor()
		case payment.StateVoided, payment.StateDeclined:
		default:
			l.t.Errorf("payment %+v is not over", p)
		}
	}
	theirs := int64(0)
	for _, e := range items[struct{ Captured string }](l.t, l.gateway, "/v1/ledger") {
		m, err := contract.ParseMoney(e.Captured, contract.GBP)
		if err != nil {
			l.t.Fatal(err)
		}
		theirs += m.Minor()
	}
	if captured != minor || theirs != minor {
		l.t.Errorf("completed %d, captured %d, the gateway captured %d", minor, captured, theirs)
	}
	l.t.Logf("%d completed, %d canceled", completed, canceled)
}
