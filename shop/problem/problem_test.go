package problem_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/txn"
)

func TestSend(t *testing.T) {
	p := problem.New(http.StatusConflict, "order-already-shipped", "The order is shipped", "order-1", map[string]any{"orderId": "order-1", "type": "x"})
	p.RetryAfter = 1500 * time.Millisecond
	w := httptest.NewRecorder()
	p.Send(w)
	if w.Code != http.StatusConflict || w.Header().Get("Content-Type") != problem.ContentType || w.Header().Get("Retry-After") != "2" {
		t.Errorf("status %d, headers %v", w.Code, w.Header())
	}
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": problem.Base + "order-already-shipped", "title": "The order is shipped", "status": 409.0,
		"detail": "order-1", "code": "order-already-shipped", "orderId": "order-1",
	}
	if fmt.Sprint(doc) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", doc, want)
	}
}

func TestAs(t *testing.T) {
	p, ok := problem.As(fmt.Errorf("order: place: %w", problem.New(422, "no-items", "The order has no items", "", nil)))
	if !ok || p.Code != "no-items" || p.Error() != "no-items" {
		t.Errorf("got %v, %v", p, ok)
	}
	if _, ok := problem.As(fmt.Errorf("x")); ok {
		t.Error("an ordinary error is no problem")
	}
}

func TestInternal(t *testing.T) {
	p := problem.Internal(fmt.Errorf("begin: %w", txn.ErrUnavailable), "The request failed")
	if p.Status != http.StatusServiceUnavailable || p.Code != "store-unavailable" || p.RetryAfter <= 0 {
		t.Errorf("database away: %+v", p)
	}
	if p := problem.Internal(fmt.Errorf("no such column"), "The request failed"); p.Status != http.StatusInternalServerError || p.Code != "internal" {
		t.Errorf("anything else: %+v", p)
	}
}
