package replay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/shop/contract"
)

// world is a small replay that balances: an order completed, one declined, one short of stock, one refused,
// one return.
type world struct {
	plan    Plan
	file    *File
	answers map[string]Answer
	books   *Books
}

func newWorld(t *testing.T) *world {
	t.Helper()
	const head = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
	file, err := Read(strings.NewReader(head +
		"1,22423,STAND,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n" +
		"1,POST,POSTAGE,1,2010-12-01 08:26:00,1.00,17850.0,United Kingdom\n" +
		"2,22423,STAND,6,2010-12-01 08:26:00,2.55,,United Kingdom\n" +
		"3,22423,STAND,12,2010-12-01 08:26:00,2.55,,United Kingdom\n" +
		"4,22423,STAND,-1,2010-12-01 08:26:00,2.55,,United Kingdom\n" +
		"C5,22423,STAND,-1,2010-12-01 08:26:00,2.55,,United Kingdom\n"))
	if err != nil {
		t.Fatal(err)
	}
	pence := func(n int64) contract.Money { return contract.NewMoney(n, contract.GBP) }
	at := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)
	order := func(ref, state string, reason contract.Reason, total int64) orderEntry {
		return orderEntry{"o" + ref, ref, state, reason, pence(total), at, at.Add(20 * time.Millisecond)}
	}
	return &world{
		plan: Plan{StockPercent: 50, Declines: true}, file: file,
		answers: map[string]Answer{
			"1": {"1", 202, "o1", ""}, "2": {"2", 202, "o2", ""}, "3": {"3", 202, "o3", ""},
			"4": {"4", 422, "", "quantity-not-positive"}, "C5": {"C5", 202, "r5", ""},
		},
		books: &Books{
			Orders: []orderEntry{
				order("1", "COMPLETED", "", 1630), order("2", "CANCELED", contract.ReasonCardDeclined, 1530),
				order("3", "CANCELED", contract.ReasonOutOfStock, 3060),
				{ID: "person", State: "PENDING"}, // Placed beside the replay: nobody's business here.
			},
			Returns:    []returnEntry{{"r5", "C5", "COMPLETED", pence(255)}},
			Stock:      []stockEntry{{"22423", 12, 7, 0, 6, 1}},
			Movements:  []movementEntry{{"o1", "COMMITTED", nil}, {"o2", "RELEASED", nil}, {"o3", "FAILED", []string{"22423"}}},
			Payments:   []paymentEntry{{"o1", "CAPTURED"}, {"o2", "DECLINED"}},
			Refunds:    []refundEntry{{"r5"}},
			Messages:   []deliveryEntry{{"m1", "o1", "SENT"}},
			Deliveries: []deliveryEntry{{"d1", "o1", "SENT"}, {"d2", "o2", "SENT"}, {"d3", "o3", "SENT"}},
			Ledger: []ledgerEntry{
				{"o1", "authorization", "CAPTURED", "16.30", "16.30", "0.00", "0.00", ""},
				{"o2", "authorization", "DECLINED", "0.00", "0.00", "0.00", "0.00", "CARD_DECLINED"},
				{"person", "authorization", "AUTHORIZED", "1.00", "0.00", "0.00", "0.00", ""},
				{"r5", "refund", "REFUNDED", "0.00", "0.00", "0.00", "2.55", ""},
			},
			Received: []receivedEntry{
				{"d1", "order", "o1", 1}, {"d2", "order", "o2", 3}, {"d3", "order", "o3", 1}, {"m1", "message", "o1", 1},
			},
			Traffic: Traffic{Emitted: 20, Published: 20, Handled: 60, Duplicates: 2},
		},
	}
}

func (w *world) reconcile() *Report { return Reconcile(w.file, w.plan, w.answers, w.books) }

func TestReconcileBalanced(t *testing.T) {
	r := newWorld(t).reconcile()
	if !r.Balanced || len(r.Mismatches) != 0 {
		t.Fatalf("mismatches %+v", r.Mismatches)
	}
	if r.Accepted != 3 || r.Rejected["quantity-not-positive"] != 1 || r.Terminal["COMPLETED"] != 1 || r.Terminal["CANCELED"] != 2 ||
		r.Canceled["CARD_DECLINED"] != 1 || r.Canceled["OUT_OF_STOCK"] != 1 || r.Open != 0 || r.Returns["COMPLETED"] != 1 {
		t.Errorf("%+v", r)
	}
	want := MoneyReport{
		Accepted: "62.20", Completed: "16.30", Canceled: "45.90", PaymentCaptured: "16.30",
		GatewayAuthorized: "16.30", GatewayCaptured: "16.30", GatewayVoided: "0.00", Returned: "2.55", GatewayRefunded: "2.55",
	}
	if r.Money != want {
		t.Errorf("money %+v", r.Money)
	}
	if want := (UnitsReport{Initial: 12, Sold: 6, Returned: 1, OnHand: 7}); r.Units != want {
		t.Errorf("units %+v", r.Units)
	}
	if want := (PlatformReport{Expected: 3, Received: 3, Duplicates: 2}); r.Platform != want {
		t.Errorf("platform %+v", r.Platform)
	}
	if r.Notify != (NotifyReport{1, 1}) || r.Latency != (LatencyReport{20, 20, 20}) {
		t.Errorf("notify %+v, latency %+v", r.Notify, r.Latency)
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil || !strings.Contains(b.String(), "BALANCED: every book agrees") || strings.Contains(b.String(), "DIFFER") {
		t.Errorf("%v\n%s", err, &b)
	}
}

// planted is one mistake in the books and the mismatch that must name it.
type planted struct {
	name, book, reference string
	plant                 func(w *world)
}

func plantedInOrders() []planted {
	return []planted{
		{"an invoice without an answer", "journal", "2", func(w *world) { delete(w.answers, "2") }},
		{"an order without an answer", "journal", "9", func(w *world) {
			w.books.Orders = append(w.books.Orders, orderEntry{ID: "o9", Reference: "9"})
		}},
		{"a return without an answer", "journal", "C9", func(w *world) {
			w.books.Returns = append(w.books.Returns, returnEntry{ID: "r9", Reference: "C9"})
		}},
		{"a dirty invoice accepted", "journal", "4", func(w *world) { w.answers["4"] = Answer{"4", 202, "o4", ""} }},
		{"a good invoice refused", "journal", "2", func(w *world) { w.answers["2"] = Answer{"2", 422, "", "no-items"} }},
		{"a refused invoice that is an order", "orders", "4", func(w *world) {
			w.books.Orders = append(w.books.Orders, orderEntry{ID: "o4", Reference: "4", State: "CANCELED"})
		}},
		{"a 202 without an order", "orders", "2", func(w *world) { w.books.Orders = slices.Delete(w.books.Orders, 1, 2) }},
		{"an invoice that is two orders", "orders", "2", func(w *world) {
			w.books.Orders = append(w.books.Orders, orderEntry{ID: "o2b", Reference: "2", State: "CANCELED"})
		}},
		{"an order of another total", "order total", "1", func(w *world) { w.books.Orders[0].Total = contract.NewMoney(1, contract.GBP) }},
		{"an open order", "open order", "2", func(w *world) { w.books.Orders[1].State = "CANCELING" }},
		{"no such reason", "cancel reason", "2", func(w *world) { w.books.Orders[1].Reason = "WEATHER" }},
		{"a decline that the gateway denies", "cancel reason", "2", func(w *world) { w.books.Ledger[1].Status = "VOIDED" }},
		{"a decline that nobody asked for", "cancel reason", "2", func(w *world) { w.plan.Declines = false }},
		{"a shortage that inventory denies", "cancel reason", "3", func(w *world) { w.books.Movements[2].Short = nil }},
		{"a shortage of plenty", "cancel reason", "3", func(w *world) { w.plan.StockPercent = 100 }},
		{"a sale of a canceled order", "movements", "2", func(w *world) { w.books.Movements[1].State = "COMMITTED" }},
		{"stock held for a canceled order", "movements", "2", func(w *world) { w.books.Movements[1].State = "RESERVED" }},
		{"a completed order that is no sale", "movements", "1", func(w *world) { w.books.Movements[0].State = "RELEASED" }},
	}
}

func plantedOutside() []planted {
	return []planted{
		{"a completed order not captured by payment", "payment", "1", func(w *world) { w.books.Payments[0].State = "CAPTURING" }},
		{"a completed order not captured at the gateway", "gateway: captured", "1", func(w *world) {
			w.books.Ledger[0].Captured, w.books.Ledger[0].Voided = "0.00", "16.30"
		}},
		{"a canceled order captured at the gateway", "gateway: captured", "2", func(w *world) {
			w.books.Ledger[1].Authorized, w.books.Ledger[1].Captured = "15.30", "15.30"
		}},
		{"an authorization left open", "gateway: authorized = captured + voided", "2", func(w *world) { w.books.Ledger[1].Authorized = "15.30" }},
		{"an amount that is none", "gateway: captured", "1", func(w *world) { w.books.Ledger[0].Captured = "x" }},
		{"an authorization of nobody", "gateway: authorization", "o9", func(w *world) { w.books.Ledger[2].Reference = "o9" }},
		{"a refund that is missing", "gateway: refund", "C5", func(w *world) { w.books.Ledger = w.books.Ledger[:3] }},
		{"a refund of another amount", "gateway: refund", "C5", func(w *world) { w.books.Ledger[3].Refunded = "2.54" }},
		{"a refund of nobody", "gateway: refund", "r9", func(w *world) {
			w.books.Ledger = append(w.books.Ledger, ledgerEntry{Reference: "r9", Kind: "refund", Refunded: "1.00"})
		}},
		{"a return of another amount", "returns", "C5", func(w *world) { w.books.Returns[0].Amount = contract.NewMoney(1, contract.GBP) }},
		{"a return that is missing", "returns", "C5", func(w *world) { w.books.Returns = nil }},
		{"a return under another id", "returns", "C5", func(w *world) { w.answers["C5"] = Answer{"C5", 202, "r6", ""} }},
		{"an invoice that is two returns", "returns", "C5", func(w *world) { w.books.Returns = append(w.books.Returns, w.books.Returns[0]) }},
		{"an open return", "open return", "C5", func(w *world) { w.books.Returns[0].State = "REQUESTED" }},
		{"another initial stock", "stock: initial", "22423", func(w *world) { w.books.Stock[0].Initial, w.books.Stock[0].Free = 13, 8 }},
		{"a unit lost", "stock: initial - sold + returned = on hand", "22423", func(w *world) { w.books.Stock[0].Free = 6 }},
		{"a product that is not stocked", "stock", "22423", func(w *world) { w.books.Stock = nil }},
		{"an order not delivered", "platform: orders", "3", func(w *world) { w.books.Received = slices.Delete(w.books.Received, 2, 3) }},
		{"an order delivered under two events", "platform: orders", "3", func(w *world) {
			w.books.Received = append(w.books.Received, receivedEntry{"d9", "order", "o3", 1})
		}},
		{"a delivery that nobody sent", "platform: delivery", "d9", func(w *world) {
			w.books.Received = append(w.books.Received, receivedEntry{"d9", "order", "person", 1})
		}},
		{"a delivery of another order", "platform: delivery", "d3", func(w *world) { w.books.Received[2].Reference = "o1" }},
		{"a delivery that waits", "platform: delivery", "d3", func(w *world) { w.books.Deliveries[2].State = "PENDING" }},
		{"a message not sent", "platform: messages", "1", func(w *world) { w.books.Received = w.books.Received[:3] }},
		{"a message sent twice", "platform: messages", "1", func(w *world) {
			w.books.Received = append(w.books.Received, receivedEntry{"m2", "message", "o1", 1})
		}},
		{"a message refused", "platform: message", "m1", func(w *world) { w.books.Messages[0].State = "REFUSED" }},
	}
}

// TestReconcileFinds plants one mistake of every kind into books that balance.
func TestReconcileFinds(t *testing.T) {
	for _, c := range slices.Concat(plantedInOrders(), plantedOutside()) {
		w := newWorld(t)
		c.plant(w)
		r := w.reconcile()
		found := slices.ContainsFunc(r.Mismatches, func(m Mismatch) bool { return m.Book == c.book && m.Reference == c.reference })
		if !found || r.Balanced {
			t.Errorf("%s: balanced %t, mismatches %+v", c.name, r.Balanced, r.Mismatches)
		}
		var b strings.Builder
		if err := r.Print(&b); err != nil || !strings.Contains(b.String(), "NOT BALANCED") {
			t.Errorf("%s: %v\n%s", c.name, err, &b)
		}
	}
	for name, plant := range map[string]func(*Traffic){
		"parked":      func(t *Traffic) { t.Parked = 1 },
		"unpublished": func(t *Traffic) { t.Unpublished = 1 },
		"lag":         func(t *Traffic) { t.Lag = 1 },
		"calls":       func(t *Traffic) { t.CallsPending = 1 },
	} {
		w := newWorld(t)
		plant(&w.books.Traffic)
		if w.reconcile().Balanced {
			t.Errorf("%s: balanced", name)
		}
	}
}

// TestReconcileMany proves that a report stays readable, and counts what it leaves out.
func TestReconcileMany(t *testing.T) {
	w := newWorld(t)
	for range mismatchesMax + 5 {
		w.books.Ledger = append(w.books.Ledger, ledgerEntry{Reference: "x", Kind: "refund"})
	}
	if r := w.reconcile(); len(r.Mismatches) != mismatchesMax || r.MismatchesMore != 5 || r.Balanced {
		t.Errorf("%d mismatches and %d more", len(r.Mismatches), r.MismatchesMore)
	}
}
