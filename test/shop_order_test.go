package test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/statement"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/order"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/sqlstore"
)

// orderCatalog is a catalogue of three products.
type orderCatalog struct{}

func (orderCatalog) Products(_ context.Context, ids []string) (map[string]order.Product, error) {
	all := map[string]order.Product{}
	for id, price := range map[string]string{"10001": "2.55", "10002": "0.335", "10003": "0"} {
		if slices.Contains(ids, id) {
			p, err := contract.ParsePrice(price)
			if err != nil {
				return nil, err
			}
			all[id] = order.Product{Name: "Product " + id, Price: p, Currency: contract.GBP}
		}
	}
	return all, nil
}

// orderRig is the order service on a real database, with the other services played by the test.
type orderRig struct {
	t      *testing.T
	store  *sqlstore.Store
	broker *memory.Broker
	svc    *order.Service
	http   http.Handler
}

// inOrderRig runs a test in a bubble, where time passes when everybody waits.
func inOrderRig(t *testing.T, test func(t *testing.T, r *orderRig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store, err := settlesqlite.Open(t.Context(), filepath.Join(dir, "order.db"), settlesqlite.Config{
			Migrate: true, Store: sqlstore.Config{Schemas: []sqlstore.Schema{{Name: "order", Files: order.Migrations("sqlite")}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		r := &orderRig{t: t, store: store, broker: memory.NewBroker(memory.BrokerConfig{})}
		if r.svc, err = order.New(store, r.broker, order.Config{
			Service: settle.Config{Logger: slog.New(slog.DiscardHandler)}, Catalog: orderCatalog{},
		}); err != nil {
			t.Fatal(err)
		}
		r.http = r.svc.Handler()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.svc.Run(ctx) }()
		test(t, r)
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := r.broker.Close(); err != nil {
			t.Errorf("close broker: %v", err)
		}
	})
}

// do sends a request and returns its answer, decoded.
func (r *orderRig) do(method, path, body string, header ...string) (*httptest.ResponseRecorder, map[string]any) {
	r.t.Helper()
	q := httptest.NewRequestWithContext(r.t.Context(), method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.http.ServeHTTP(w, q)
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		r.t.Fatalf("%s %s: %d %q: %v", method, path, w.Code, w.Body, err)
	}
	return w, v
}

// must sends a request that is to be answered with a status.
func (r *orderRig) must(status int, method, path, body string, header ...string) map[string]any {
	r.t.Helper()
	w, v := r.do(method, path, body, header...)
	if w.Code != status {
		r.t.Fatalf("%s %s: %d %s, want %d", method, path, w.Code, w.Body, status)
	}
	return v
}

// place places an order of three units of 10001 and returns its id.
func (r *orderRig) place() string {
	r.t.Helper()
	v := r.must(http.StatusAccepted, "POST", "/orders", `{"customerId":"c1","items":[{"productId":"10001","quantity":3}]}`)
	return as[string](v["id"])
}

// tell publishes another service's events one after the other, and lets a second pass.
func (r *orderRig) tell(drafts ...event.Draft) {
	r.t.Helper()
	for _, d := range drafts {
		e, err := d.Seal("test", time.Now(), event.Cause{})
		if err != nil {
			r.t.Fatal(err)
		}
		if err := r.broker.Publish(r.t.Context(), []broker.Message{{Event: e, Origin: "test"}})[0]; err != nil {
			r.t.Fatal(err)
		}
		r.pass(300 * time.Millisecond)
	}
}

// pass lets virtual time pass and everybody finish what that brings.
func (r *orderRig) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.t.Context().Done():
	}
	synctest.Wait()
}

// emitted returns the types of the events that the service added for an aggregate.
func (r *orderRig) emitted(id string) (types []string) {
	r.t.Helper()
	rows, err := r.store.Query(r.t.Context(), "SELECT type FROM settle_outbox WHERE aggregate_id = ? OR ? = '' ORDER BY id", id, id)
	if err != nil {
		r.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			r.t.Fatal(err)
		}
		types = append(types, s)
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return types
}

func (r *orderRig) count(table string) (n int) {
	r.t.Helper()
	if err := r.store.QueryRow(r.t.Context(), "SELECT count(*) FROM "+table, nil, &n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

func (r *orderRig) wantState(id, state, reason string) {
	r.t.Helper()
	v := r.must(http.StatusOK, "GET", "/orders/"+id, "")
	if got, _ := v["reason"].(string); v["state"] != state || got != reason {
		r.t.Fatalf("state %v, reason %q; want %s, %q", v["state"], got, state, reason)
	}
}

func (r *orderRig) wantEmitted(id string, want ...string) {
	r.t.Helper()
	if got := r.emitted(id); !slices.Equal(got, want) {
		r.t.Fatalf("emitted %v\nwant    %v", got, want)
	}
}

func orderRef(id string) contract.OrderRefV1 { return contract.OrderRefV1{OrderID: id} }

func orderPayment(id, code string) contract.PaymentV1 {
	return contract.PaymentV1{OrderID: id, Amount: contract.NewMoney(765, contract.GBP), Code: code}
}

func orderShipment(id string) contract.ShipmentV1 { return contract.ShipmentV1{OrderID: id} }

// complete plays the other services until an order is completed.
func (r *orderRig) complete(id string) {
	r.t.Helper()
	r.tell(
		contract.StockReserved.New(orderRef(id)), contract.PaymentAuthorized.New(orderPayment(id, "")),
		contract.ShipmentCreated.New(orderShipment(id)), contract.PaymentSucceeded.New(orderPayment(id, "")),
		contract.StockCommitted.New(orderRef(id)),
	)
	r.wantState(id, "COMPLETED", "")
}

func TestOrderCompletes(t *testing.T) {
	inOrderRig(t, func(_ *testing.T, r *orderRig) {
		w, v := r.do("POST", "/orders", `{"customerId":"c1","items":[{"productId":"10001","quantity":3},{"productId":"10002","quantity":1}],"total":{"amount":"7.99","currency":"GBP"}}`)
		id, _ := v["id"].(string)
		if w.Code != http.StatusAccepted || w.Header().Get("Location") != "/orders/"+id || v["state"] != "PENDING" || fmt.Sprint(v["total"]) != "map[amount:7.99 currency:GBP]" {
			r.t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		r.complete(id)
		r.wantEmitted(id, "OrderCreated", "StockReserveRequested", "OrderPaid", "OrderCompleted")
		if n := r.count("settle_timer"); n != 0 {
			r.t.Errorf("%d timers are left", n)
		}
		v = r.must(http.StatusOK, "GET", "/orders/"+id, "")
		if lines, _ := v["lines"].([]any); len(lines) != 2 || v["facts"] != nil {
			r.t.Errorf("order %v", v)
		}
		// Too late to cancel; and what contradicts the facts changes nothing and is counted.
		if v := r.must(http.StatusConflict, "POST", "/orders/"+id+"/cancel", ""); v["type"] != problem.Base+"order-already-shipped" {
			r.t.Errorf("cancel: %v", v)
		}
		r.tell(contract.StockReservationFailed.New(contract.StockFailedV1{OrderID: id}), contract.PaymentVoided.New(orderPayment(id, "")))
		r.wantState(id, "COMPLETED", "")
		items := as[[]any](r.must(http.StatusOK, "GET", "/internal/orders", "")["items"])
		facts := as[map[string]any](as[map[string]any](items[0])["facts"])
		if facts["contradictions"] != 2.0 || facts["payment"] != "CAPTURED" || facts["stock"] != "COMMITTED" || facts["shipment"] != "CREATED" {
			r.t.Errorf("facts %v", facts)
		}
	})
}

func TestOrderFailures(t *testing.T) {
	created := []string{"OrderCreated", "StockReserveRequested"}
	for name, c := range map[string]struct {
		told   func(id string) []event.Draft
		then   []string
		state  string
		reason string
	}{
		"out of stock": {func(id string) []event.Draft {
			return []event.Draft{contract.StockReservationFailed.New(contract.StockFailedV1{OrderID: id, Short: []string{"10001"}})}
		}, []string{"OrderCanceled"}, "CANCELED", "OUT_OF_STOCK"},
		"declined": {func(id string) []event.Draft {
			return []event.Draft{
				contract.StockReserved.New(orderRef(id)), contract.PaymentFailed.New(orderPayment(id, "EXPIRED_CARD")),
				contract.StockReleased.New(orderRef(id)),
			}
		}, []string{"StockReleaseRequested", "OrderCanceled"}, "CANCELED", "EXPIRED_CARD"},
		"shipment impossible": {func(id string) []event.Draft {
			return []event.Draft{
				contract.StockReserved.New(orderRef(id)), contract.PaymentAuthorized.New(orderPayment(id, "")),
				contract.ShipmentFailed.New(orderShipment(id)), contract.PaymentVoided.New(orderPayment(id, "")), contract.StockReleased.New(orderRef(id)),
			}
		}, []string{"OrderPaid", "PaymentVoidRequested", "StockReleaseRequested", "OrderCanceled"}, "CANCELED", "SHIPMENT_FAILED"},
		"capture refused for good": {func(id string) []event.Draft {
			return []event.Draft{
				contract.StockReserved.New(orderRef(id)), contract.PaymentAuthorized.New(orderPayment(id, "")),
				contract.ShipmentCreated.New(orderShipment(id)), contract.StockCommitted.New(orderRef(id)),
				contract.PaymentCaptureFailed.New(orderPayment(id, "EXPIRED")),
			}
		}, []string{"OrderPaid"}, "PAID", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inOrderRig(t, func(t *testing.T, r *orderRig) {
				id := r.place()
				r.tell(c.told(id)...)
				r.wantState(id, c.state, c.reason)
				r.wantEmitted(id, slices.Concat(created, c.then)...)
				v := r.must(http.StatusOK, "GET", "/orders/"+id, "")
				if open := v["attention"] == order.AttentionCaptureFailed; open != (c.state == "PAID") {
					t.Errorf("attention %v", v["attention"])
				}
			})
		})
	}
}

func TestOrderDeadlines(t *testing.T) {
	inOrderRig(t, func(_ *testing.T, r *orderRig) {
		id := r.place()
		r.tell(contract.StockReserved.New(orderRef(id)))
		r.wantState(id, "STOCK_RESERVED", "")
		r.pass(6 * time.Second)
		r.wantState(id, "PAYMENT_IN_PROGRESS", "")
		r.wantEmitted(id, "OrderCreated", "StockReserveRequested", "OrderDeadlinePassed", "OrderPaymentDelayed")
		r.pass(110 * time.Second)
		r.wantState(id, "PAYMENT_IN_PROGRESS", "")
		r.pass(10 * time.Second)
		r.wantState(id, "CANCELING", "PAYMENT_TIMEOUT")
		// The late approval changes nothing: it is voided.
		r.tell(
			contract.PaymentAuthorized.New(orderPayment(id, "")), contract.PaymentVoided.New(orderPayment(id, "")),
			contract.StockReleased.New(orderRef(id)),
		)
		r.wantState(id, "CANCELED", "PAYMENT_TIMEOUT")
		r.wantEmitted(id, "OrderCreated", "StockReserveRequested", "OrderDeadlinePassed", "OrderPaymentDelayed",
			"OrderDeadlinePassed", "PaymentVoidRequested", "StockReleaseRequested", "OrderCanceled")
	})
}

func TestOrderCancel(t *testing.T) {
	inOrderRig(t, func(_ *testing.T, r *orderRig) {
		id := r.place()
		first := r.must(http.StatusAccepted, "POST", "/orders/"+id+"/cancel", "")
		r.wantState(id, "CANCELING", "CUSTOMER")
		r.tell(contract.StockReserved.New(orderRef(id)), contract.StockReleased.New(orderRef(id)), contract.PaymentVoided.New(orderPayment(id, "")))
		r.wantState(id, "CANCELED", "CUSTOMER")
		if again := r.must(http.StatusAccepted, "POST", "/orders/"+id+"/cancel", "{}"); fmt.Sprint(again) != fmt.Sprint(first) {
			r.t.Errorf("first %v, again %v", first, again)
		}
		r.wantEmitted(id, "OrderCreated", "StockReserveRequested", "PaymentVoidRequested", "StockReleaseRequested", "OrderCanceled")
		r.must(http.StatusNotFound, "POST", "/orders/none/cancel", "")
		r.must(http.StatusBadRequest, "POST", "/orders/"+id+"/cancel", `{"why":"x"}`)

		// From PAID on shipping is asked first, and may refuse.
		id = r.place()
		r.tell(contract.StockReserved.New(orderRef(id)), contract.PaymentAuthorized.New(orderPayment(id, "")))
		r.must(http.StatusAccepted, "POST", "/orders/"+id+"/cancel", "")
		r.wantState(id, "CANCELING", "CUSTOMER")
		r.tell(contract.ShipmentCreated.New(orderShipment(id)), contract.ShipmentCancelRefused.New(orderShipment(id)))
		r.wantState(id, "PAID", "")
		r.must(http.StatusConflict, "POST", "/orders/"+id+"/cancel", "")
		r.tell(contract.PaymentSucceeded.New(orderPayment(id, "")), contract.StockCommitted.New(orderRef(id)))
		r.wantState(id, "COMPLETED", "")
		r.wantEmitted(id, "OrderCreated", "StockReserveRequested", "OrderPaid", "ShipmentCancelRequested", "OrderCancelRefused", "OrderCompleted")
	})
}

func TestOrderRefusals(t *testing.T) {
	item := `{"productId":"10001","quantity":1}`
	inOrderRig(t, func(t *testing.T, r *orderRig) {
		for _, c := range []struct {
			name, path, body string
			status           int
			code             string
		}{
			{"no items", "/orders", `{"customerId":"c","items":[]}`, 422, "no-items"},
			{"empty body", "/orders", ``, 422, "no-items"},
			{"quantity before product", "/orders", `{"items":[{"productId":"x","quantity":1},{"productId":"10001","quantity":0}]}`, 422, "quantity-not-positive"},
			{"unknown product", "/orders", `{"items":[{"productId":"x","quantity":1}]}`, 422, "unknown-product"},
			{"nothing to pay", "/orders", `{"items":[{"productId":"10003","quantity":1}]}`, 422, "total-not-positive"},
			{"wrong total", "/orders", `{"items":[` + item + `],"total":{"amount":"2.54","currency":"GBP"}}`, 422, "total-mismatch"},
			{"total in another currency", "/orders", `{"items":[` + item + `],"total":{"amount":"2.55","currency":"EUR"}}`, 422, "total-mismatch"},
			{"total that is no money", "/orders", `{"items":[` + item + `],"total":{"amount":"2.555","currency":"GBP"}}`, 400, "malformed-json"},
			{"price of a client", "/orders", `{"items":[{"productId":"10001","quantity":1,"unitPrice":"0.01"}]}`, 400, "unknown-field"},
			{"unknown field in the total", "/orders", `{"items":[` + item + `],"total":{"amount":"2.55","currency":"GBP","x":1}}`, 400, "unknown-field"},
			{"half a unit", "/orders", `{"items":[{"productId":"10001","quantity":0.5}]}`, 400, "malformed-json"},
			{"broken", "/orders", `{"items":[`, 400, "malformed-json"},
			{"two values", "/orders", `{"items":[` + item + `]} {}`, 400, "malformed-json"},
			{"too many lines", "/orders", `{"items":[` + strings.Repeat(item+",", order.LinesMax) + item + `]}`, 422, "too-many-lines"},
			{"too large", "/orders", `{"customerId":"` + strings.Repeat("x", order.BodyBytesMax) + `"}`, 413, "body-too-large"},
			{"too many units", "/orders", `{"items":[{"productId":"10001","quantity":1000000001}]}`, 422, "amount-out-of-range"},
			{"customer too long", "/orders", `{"customerId":"` + strings.Repeat("x", 200) + `","items":[` + item + `]}`, 422, "customer-too-long"},
			{"customer that is no text", "/orders", `{"customerId":"a\u0000","items":[` + item + `]}`, 400, "malformed-json"},
			{"reference that is no text", "/import/orders", `{"reference":"a\u0000","items":[` + item + `]}`, 400, "malformed-json"},
			{"return of an order that is no text", "/returns", `{"orderId":"a\u0000","items":[` + item + `]}`, 404, "unknown-order"},
			{"cancel of an order that is no text", "/orders/a%00/cancel", ``, 404, "unknown-order"},
			{"cancel of an order that is no UTF-8", "/orders/a%ff/cancel", ``, 404, "unknown-order"},
			{"import without reference", "/import/orders", `{"items":[` + item + `]}`, 422, "reference-missing"},
			{"price before product", "/import/orders", `{"reference":"r","items":[{"productId":"x","quantity":1},{"productId":"10001","quantity":1,"unitPrice":"-0.01"}]}`, 422, "price-negative"},
			{"quantity before price", "/import/orders", `{"reference":"r","items":[{"productId":"10001","quantity":1,"unitPrice":-1},{"productId":"10001","quantity":-1}]}`, 422, "quantity-not-positive"},
			{"imported for nothing", "/import/orders", `{"reference":"r","items":[{"productId":"10001","quantity":1,"unitPrice":"0"}]}`, 422, "total-not-positive"},
			{"price without end", "/import/orders", `{"reference":"r","items":[{"productId":"10001","quantity":1,"unitPrice":1e1000000}]}`, 400, "malformed-json"},
			{"price of many digits", "/import/orders", `{"reference":"r","items":[{"productId":"10001","quantity":1,"unitPrice":"` + strings.Repeat("9", 100) + `"}]}`, 400, "malformed-json"},
			{"price that is a word", "/import/orders", `{"reference":"r","items":[{"productId":"10001","quantity":1,"unitPrice":"free"}]}`, 400, "malformed-json"},
			{"price too high", "/import/orders", `{"reference":"r","items":[{"productId":"10001","quantity":1,"unitPrice":1e18}]}`, 422, "amount-out-of-range"},
			{"total overflows", "/import/orders", `{"reference":"r","items":[` + strings.Repeat(`{"productId":"10001","quantity":1,"unitPrice":"20000000000000000"},`, 4) + item + `]}`, 422, "amount-out-of-range"},
			{"return of nothing", "/returns", `{"orderId":"none","items":[]}`, 422, "no-items"},
			{"return of no order", "/returns", `{"orderId":"none","items":[` + item + `]}`, 404, "unknown-order"},
			{"imported return of nothing", "/import/returns", `{"reference":"r","items":[]}`, 422, "no-items"},
		} {
			w, v := r.do("POST", c.path, c.body)
			if w.Code != c.status || v["type"] != problem.Base+c.code || w.Header().Get("Content-Type") != problem.ContentType {
				t.Errorf("%s: %d %v, want %d %s", c.name, w.Code, v, c.status, c.code)
			}
		}
		if n := r.count("orders") + r.count("returns") + r.count("settle_outbox") + r.count("settle_timer"); n != 0 {
			t.Errorf("refused commands left %d rows", n)
		}
	})
}

func TestOrderImport(t *testing.T) {
	inOrderRig(t, func(_ *testing.T, r *orderRig) {
		body := `{"reference":"536365","customerId":"17850","items":[{"productId":"10001","quantity":6,"unitPrice":"2.10"},{"productId":"10002","quantity":1}]}`
		first := r.must(http.StatusAccepted, "POST", "/import/orders", body)
		if first["id"] != order.ImportedID("536365") || fmt.Sprint(first["total"]) != "map[amount:12.94 currency:GBP]" {
			r.t.Errorf("import: %v", first)
		}
		id := as[string](first["id"])
		r.complete(id)
		// A day later, and with another content: the first import stands.
		again := r.must(http.StatusAccepted, "POST", "/import/orders", strings.Replace(body, "2.10", "9.99", 1))
		if again["id"] != id || again["state"] != "COMPLETED" || fmt.Sprint(again["total"]) != fmt.Sprint(first["total"]) {
			r.t.Errorf("again: %v", again)
		}
		r.wantEmitted(id, "OrderCreated", "StockReserveRequested", "OrderPaid", "OrderCompleted")

		ret := `{"reference":"C536379","customerId":"14527","items":[{"productId":"10001","quantity":1,"unitPrice":"27.50"}]}`
		v := r.must(http.StatusAccepted, "POST", "/import/returns", ret)
		rid := as[string](v["id"])
		if rid != order.ImportedReturnID("C536379") || v["state"] != "REQUESTED" || fmt.Sprint(v["amount"]) != "map[amount:27.50 currency:GBP]" {
			r.t.Errorf("return: %v", v)
		}
		back := contract.ReturnRefV1{ReturnID: rid, Amount: contract.NewMoney(2750, contract.GBP)}
		r.tell(contract.PaymentRefunded.New(back), contract.StockReturned.New(back), contract.StockReturned.New(back))
		if v := r.must(http.StatusAccepted, "POST", "/import/returns", ret); v["id"] != rid || v["state"] != "COMPLETED" {
			r.t.Errorf("return again: %v", v)
		}
		r.wantEmitted(rid, "ReturnRequested", "ReturnCompleted")
		if items := as[[]any](r.must(http.StatusOK, "GET", "/internal/returns", "")["items"]); len(items) != 1 {
			r.t.Errorf("returns: %v", items)
		}
	})
}

func TestOrderReturn(t *testing.T) {
	inOrderRig(t, func(_ *testing.T, r *orderRig) {
		v := r.must(http.StatusAccepted, "POST", "/orders", `{"customerId":"c","items":[{"productId":"10002","quantity":3},{"productId":"10001","quantity":1},{"productId":"10002","quantity":1}]}`)
		id := as[string](v["id"])
		give := func(status int, product string, n int) map[string]any {
			return r.must(status, "POST", "/returns", fmt.Sprintf(`{"orderId":%q,"items":[{"productId":%q,"quantity":%d}]}`, id, product, n))
		}
		if v := give(http.StatusConflict, "10002", 1); v["code"] != "order-not-completed" {
			r.t.Errorf("too early: %v", v)
		}
		r.complete(id)
		if v := give(http.StatusUnprocessableEntity, "10003", 1); v["code"] != "unknown-product" {
			r.t.Errorf("not bought: %v", v)
		}
		if v := give(http.StatusConflict, "10002", 5); v["code"] != "return-exceeds-shipped" {
			r.t.Errorf("too many: %v", v)
		}
		// Three units at 0.335 were 1.01 together: one by one they are refunded so that the sum is exact.
		var got []string
		for range 4 {
			got = append(got, as[string](as[map[string]any](give(http.StatusAccepted, "10002", 1)["amount"])["amount"]))
		}
		if fmt.Sprint(got) != "[0.34 0.33 0.34 0.34]" {
			r.t.Errorf("refunds %v", got)
		}
		if v := give(http.StatusConflict, "10002", 1); v["code"] != "return-exceeds-shipped" {
			r.t.Errorf("once more: %v", v)
		}
		give(http.StatusAccepted, "10001", 1)
		v = r.must(http.StatusOK, "GET", "/orders/"+id, "")
		if fmt.Sprint(v["returned"]) != fmt.Sprint(v["total"]) || len(as[[]any](v["returns"])) != 5 {
			r.t.Errorf("order: %v", v)
		}
	})
}

func TestOrderIdempotencyKey(t *testing.T) {
	inOrderRig(t, func(_ *testing.T, r *orderRig) {
		body := `{"customerId":"c","items":[{"productId":"10001","quantity":1}]}`
		first := r.must(http.StatusAccepted, "POST", "/orders", body, "Idempotency-Key", "k1")
		w, again := r.do("POST", "/orders", `{ "items": [{"quantity":1,"productId":"10001"}], "customerId":"c"}`, "Idempotency-Key", "k1")
		if w.Code != http.StatusAccepted || again["id"] != first["id"] || w.Header().Get("Idempotency-Replayed") != "true" || w.Header().Get("Location") == "" {
			r.t.Errorf("%d %v %v", w.Code, w.Header(), again)
		}
		if v := r.must(http.StatusUnprocessableEntity, "POST", "/orders", strings.Replace(body, `"quantity":1`, `"quantity":2`, 1), "Idempotency-Key", "k1"); v["code"] != "idempotency-key-mismatch" {
			r.t.Errorf("another body: %v", v)
		}
		if v := r.must(http.StatusBadRequest, "POST", "/orders", body, "Idempotency-Key", strings.Repeat("k", 300)); v["code"] != "idempotency-key-invalid" {
			r.t.Errorf("long key: %v", v)
		}
		// A refusal is not kept: the key is free for the corrected request.
		r.must(http.StatusUnprocessableEntity, "POST", "/orders", `{"items":[]}`, "Idempotency-Key", "k2")
		r.must(http.StatusAccepted, "POST", "/orders", body, "Idempotency-Key", "k2")
		if n := r.count("orders"); n != 2 {
			r.t.Errorf("%d orders, want 2", n)
		}
	})
}

func TestOrderPages(t *testing.T) {
	inOrderRig(t, func(_ *testing.T, r *orderRig) {
		var want []string
		for i := range 5 {
			want = append(want, r.place())
			if i%2 == 0 {
				r.pass(time.Millisecond) // Some are placed in the same millisecond.
			}
		}
		slices.Reverse(want)
		walk := func(path string) (ids []string) {
			for after := ""; ; {
				v := r.must(http.StatusOK, "GET", path+"?limit=2&after="+after, "")
				for _, it := range as[[]any](v["items"]) {
					ids = append(ids, as[string](as[map[string]any](it)["id"]))
				}
				if after, _ = v["next"].(string); after == "" {
					return ids
				}
			}
		}
		if got := walk("/customers/c1/orders"); !slices.Equal(got, want) {
			r.t.Errorf("newest first: %v\nwant %v", got, want)
		}
		if got := walk("/internal/orders"); len(got) != 5 || !slices.IsSorted(got) {
			r.t.Errorf("all: %v", got)
		}
		if got := walk("/customers/nobody/orders"); len(got) != 0 {
			r.t.Errorf("nobody's: %v", got)
		}
		r.must(http.StatusBadRequest, "GET", "/customers/c1/orders?after=x", "")
		r.must(http.StatusBadRequest, "GET", fmt.Sprintf("/internal/orders?limit=%d", page.LimitMax+1), "")
		r.must(http.StatusNotFound, "GET", "/orders/none", "")
		r.must(http.StatusNotFound, "GET", "/orders/a%00", "")
		r.must(http.StatusBadRequest, "GET", "/internal/orders?after=a%00", "")
		if got := walk("/customers/c%ff/orders"); len(got) != 0 {
			r.t.Errorf("orders of no text: %v", got)
		}
	})
}

// TestOrderQueryPlans: no statement on the way of an order reads more than the rows it needs.
func TestOrderQueryPlans(t *testing.T) {
	inOrderRig(t, func(t *testing.T, r *orderRig) {
		statements, err := statement.Load(order.Migrations("sqlite"))
		if err != nil || len(statements) == 0 {
			t.Fatalf("%d statements, %v", len(statements), err)
		}
		for name, text := range statements {
			args := make([]any, strings.Count(text, "?"))
			for i := range args {
				args[i] = 1
			}
			rows, err := r.store.Query(t.Context(), "EXPLAIN QUERY PLAN "+text, args...)
			if err != nil {
				t.Errorf("%s does not prepare: %v", name, err)
				continue
			}
			for rows.Next() {
				var id, parent, unused int
				var detail string
				if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
					t.Fatal(err)
				}
				// The newest return of an order is sorted among a handful of rows.
				if strings.HasPrefix(detail, "SCAN") || strings.Contains(detail, "TEMP B-TREE") && name != "order.view_returns" {
					t.Errorf("%s: %s", name, detail)
				}
			}
			if err := rows.Err(); err != nil {
				t.Error(err)
			}
			if err := rows.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// BenchmarkOrderPlace places orders of eight lines by HTTP handler, 64 at a time.
func BenchmarkOrderPlace(b *testing.B) {
	store, err := settlesqlite.Open(b.Context(), filepath.Join(b.TempDir(), "order.db"), settlesqlite.Config{
		Migrate: true, Store: sqlstore.Config{Schemas: []sqlstore.Schema{{Name: "order", Files: order.Migrations("sqlite")}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	svc, err := order.New(store, memory.NewBroker(memory.BrokerConfig{}), order.Config{Catalog: orderCatalog{}})
	if err != nil {
		b.Fatal(err)
	}
	h := svc.Handler()
	body := `{"customerId":"c1","items":[` + strings.Repeat(`{"productId":"10001","quantity":2},`, 7) + `{"productId":"10002","quantity":1}]}`
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), "POST", "/orders", strings.NewReader(body)))
			if w.Code != http.StatusAccepted {
				b.Errorf("%d %s", w.Code, w.Body)
				return
			}
		}
	})
	if err := store.Close(); err != nil {
		b.Error(err)
	}
}

// as returns v as a T; another type fails the test with its name.
func as[T any](v any) T {
	out, ok := v.(T)
	if !ok {
		panic(fmt.Sprintf("got %T, want %T: %v", v, out, v))
	}
	return out
}
