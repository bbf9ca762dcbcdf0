package journey_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/settledev/settle/test/internal/binary"
)

// cancel asks to cancel an order and returns the answer.
func cancel(p *binary.Process, id string) binary.Answer {
	return p.Send(http.MethodPost, "/orders/"+id+"/cancel", "")
}

// TestCancelBeforePayment cancels an order that waits for a gateway that cannot be reached.
func TestCancelBeforePayment(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	p := serve(t, dir, "--gateway-faults", `{"down":true}`)
	id := place(t, p)
	until(t, p, id, "STOCK_RESERVED")
	first := cancel(p, id)
	if first.Status != http.StatusAccepted {
		t.Fatalf("cancel: %d %s", first.Status, first.Body)
	}
	if again := cancel(p, id); again.Status != first.Status || again.Body != first.Body {
		t.Errorf("cancelled twice: %d %s, first %d %s", again.Status, again.Body, first.Status, first.Body)
	}
	until(t, p, id, "CANCELING")
	p.Faults(p.Gateway, `{}`)
	if o := until(t, p, id, "CANCELED"); o.Reason != "CUSTOMER" {
		t.Errorf("reason %q", o.Reason)
	}
	p.WaitQuiet(patience)
	if l, ok := authorization(t, p, id); ok && (l.Captured != "0.00" || l.Authorized != l.Voided) {
		t.Errorf("the gateway has %+v", l)
	}
	if again := cancel(p, id); again.Status != http.StatusAccepted || again.Body != first.Body {
		t.Errorf("cancelled when it was: %d %s", again.Status, again.Body)
	}
	binary.CheckEvents(t, dir)
}

// TestCancelAfterPaid cancels a paid order before its shipment, and one after it.
func TestCancelAfterPaid(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	p := serve(t, dir, "--ship-delay", "5s", "--broker", "store")
	shipped, kept := place(t, p), place(t, p)
	until(t, p, kept, "PAID")
	if a := cancel(p, kept); a.Status != http.StatusAccepted {
		t.Fatalf("cancel: %d %s", a.Status, a.Body)
	}
	if o := until(t, p, kept, "CANCELED"); o.Reason != "CUSTOMER" {
		t.Errorf("reason %q", o.Reason)
	}
	if l, _ := authorization(t, p, kept); l.Captured != "0.00" || l.Authorized == "0.00" || l.Voided != l.Authorized {
		t.Errorf("the gateway has %+v, want all of it voided", l)
	}
	until(t, p, shipped, "COMPLETED")
	if a := cancel(p, shipped); a.Status != http.StatusConflict || a.Code() != "order-already-shipped" {
		t.Errorf("cancel after the shipment: %d %s", a.Status, a.Body)
	}
	if l, _ := authorization(t, p, shipped); l.Captured != l.Authorized || l.Captured == "0.00" {
		t.Errorf("the gateway has %+v, want all of it captured", l)
	}
	p.WaitQuiet(patience)
	binary.CheckEvents(t, dir)
}

// TestReturn returns a part of a completed order, then the rest, and never more.
func TestReturn(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	p := serve(t, dir)
	type stock struct {
		Product                                 string
		Initial, Sold, Returned, Free, Reserved int64
	}
	of := func() stock {
		for _, s := range binary.List[stock](t, p, p.URL+"/internal/stock") {
			if s.Product == "85123A" {
				return s
			}
		}
		t.Fatal("85123A is not stocked")
		return stock{}
	}
	id := place(t, p)
	back := func(quantity int) binary.Answer {
		return p.Send(http.MethodPost, "/returns", fmt.Sprintf(`{"orderId":%q,"items":[{"productId":"85123A","quantity":%d}]}`, id, quantity))
	}
	o := until(t, p, id, "COMPLETED")
	if a := back(3); a.Status != http.StatusConflict || a.Code() != "return-exceeds-shipped" {
		t.Errorf("more than was shipped: %d %s", a.Status, a.Body)
	}
	var refunds []string
	for range 2 {
		a := back(1)
		if a.Status != http.StatusAccepted {
			t.Fatalf("return: %d %s", a.Status, a.Body)
		}
		var r struct{ ID string }
		a.Decode(t, &r)
		refunds = append(refunds, r.ID)
	}
	if a := back(1); a.Status != http.StatusConflict || a.Code() != "return-exceeds-shipped" {
		t.Errorf("more than is left: %d %s", a.Status, a.Body)
	}
	p.WaitQuiet(patience)
	for _, r := range binary.List[order](t, p, p.URL+"/internal/returns") {
		if r.State != "COMPLETED" {
			t.Errorf("return %+v is open", r)
		}
	}
	if len(refunds) != 2 || refunds[0] == refunds[1] {
		t.Errorf("returns %v", refunds)
	}
	if l, _ := authorization(t, p, id); l.Refunded != o.Total.Amount || l.Captured != o.Total.Amount {
		t.Errorf("the gateway has %+v, want %s captured and refunded", l, o.Total.Amount)
	}
	if s := of(); s.Sold != 2 || s.Returned != 2 || s.Free != s.Initial || s.Reserved != 0 {
		t.Errorf("stock %+v", s)
	}
	binary.CheckEvents(t, dir)
}
