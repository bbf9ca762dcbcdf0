package replay

import (
	"slices"
	"strconv"
	"strings"

	"github.com/settledev/settle/shop/contract"
)

// Plan is what a replay was asked to do, so that the report knows what must come of it.
type Plan struct {
	StockPercent int64 // of what the valid orders need; 100 is plenty
	Declines     bool  // whether the gateway declines some
}

// Reconcile compares the books. The caller waits until all is quiet before it reads them.
func Reconcile(file *File, plan Plan, answers map[string]Answer, b *Books) *Report {
	c := &reconciler{file: file, plan: plan, answers: answers, books: b, report: &Report{
		Rejected: map[string]int{}, Terminal: map[string]int{"COMPLETED": 0, "CANCELED": 0},
		Canceled: map[string]int{}, Returns: map[string]int{"COMPLETED": 0, "open": 0}, Mismatches: []Mismatch{},
	}}
	c.index()
	c.counts()
	c.journal()
	c.orders()
	c.returns()
	c.stock()
	c.outside()
	c.events()
	c.latency()
	r := c.report
	r.Balanced = len(r.Mismatches) == 0 && r.Open == 0 && r.Returns["open"] == 0 &&
		r.Events.Parked == 0 && r.Events.Unpublished == 0 && r.Events.Lag == 0 && r.Events.CallsPending == 0
	return r
}

type reconciler struct {
	file    *File
	plan    Plan
	answers map[string]Answer
	books   *Books
	report  *Report

	orderByRef  map[string]orderEntry
	orderByID   map[string]orderEntry
	returnByRef map[string]returnEntry
	ledger      map[string]ledgerEntry   // by kind and reference
	payments    map[string]string        // order id to state
	movements   map[string]movementEntry // by order id
	received    map[string]receivedEntry
}

func (c *reconciler) index() {
	c.orderByRef, c.orderByID = map[string]orderEntry{}, map[string]orderEntry{}
	for _, o := range c.books.Orders {
		if o.Reference == "" {
			continue // Placed by a person beside the replay.
		}
		if twin, ok := c.orderByRef[o.Reference]; ok {
			c.differ("orders", o.Reference, twin.ID, o.ID)
		}
		c.orderByRef[o.Reference], c.orderByID[o.ID] = o, o
	}
	c.returnByRef = map[string]returnEntry{}
	for _, r := range c.books.Returns {
		if r.Reference == "" {
			continue
		}
		if twin, ok := c.returnByRef[r.Reference]; ok {
			c.differ("returns", r.Reference, twin.ID, r.ID)
		}
		c.returnByRef[r.Reference] = r
	}
	c.ledger = map[string]ledgerEntry{}
	for _, l := range c.books.Ledger {
		c.ledger[l.Kind+" "+l.Reference] = l
	}
	c.payments = map[string]string{}
	for _, p := range c.books.Payments {
		c.payments[p.OrderID] = p.State
	}
	c.movements = map[string]movementEntry{}
	for _, m := range c.books.Movements {
		c.movements[m.OrderID] = m
	}
	c.received = map[string]receivedEntry{}
	for _, r := range c.books.Received {
		c.received[r.EventID] = r
	}
}

func (c *reconciler) differ(book, reference, ours, theirs string) {
	if len(c.report.Mismatches) == mismatchesMax {
		c.report.MismatchesMore++
		return
	}
	c.report.Mismatches = append(c.report.Mismatches, Mismatch{book, reference, ours, theirs})
}

func (c *reconciler) counts() {
	f := &c.report.File
	f.Rows, f.Invoices, f.Products = c.file.Rows, len(c.file.Invoices), len(c.file.Products)
	for i := range c.file.Invoices {
		if c.file.Invoices[i].Return {
			f.Returns++
		} else {
			f.Orders++
		}
	}
	for _, e := range c.file.Corrupt {
		c.report.Corrupt = append(c.report.Corrupt, CorruptReport{e.Line, e.Err.Error()})
	}
}

// journal holds the answers against the file's rules and the orders: every 202 is one order, and every
// imported order one 202.
func (c *reconciler) journal() {
	accepted := contract.NewMoney(0, contract.GBP)
	for i := range c.file.Invoices {
		inv := &c.file.Invoices[i]
		a, ok := c.answers[inv.Number]
		if !ok {
			c.differ("journal", inv.Number, "not answered", "")
			continue
		}
		want := ""
		if !inv.Return {
			want = c.file.Code(inv)
		}
		if want != a.Code {
			c.differ("journal", inv.Number, "expected "+orAccepted(want), orAccepted(a.Code))
		}
		if !a.Accepted() {
			c.report.Rejected[a.Code]++
			if o, ok := c.orderByRef[inv.Number]; ok {
				c.differ("orders", inv.Number, "refused", o.State)
			}
			continue
		}
		if inv.Return {
			continue
		}
		c.report.Accepted++
		accepted = accepted.Add(inv.Amount())
		o, ok := c.orderByRef[inv.Number]
		if !ok || o.ID != a.ID {
			c.differ("orders", inv.Number, a.ID, o.ID)
		}
	}
	for ref, o := range c.orderByRef {
		if _, ok := c.answers[ref]; !ok {
			c.differ("journal", ref, "order without an answer", o.ID)
		}
	}
	for ref, r := range c.returnByRef {
		if _, ok := c.answers[ref]; !ok {
			c.differ("journal", ref, "return without an answer", r.ID)
		}
	}
	c.report.Money.Accepted = accepted.Amount()
}

func orAccepted(code string) string {
	if code == "" {
		return "accepted"
	}
	return code
}

// orders holds every order against the file, the payments and the gateway's ledger.
func (c *reconciler) orders() {
	zero := contract.NewMoney(0, contract.GBP)
	completed, canceled, captured, authorized, gatewayCaptured, voided := zero, zero, zero, zero, zero, zero
	amounts := map[string]contract.Money{}
	for i := range c.file.Invoices {
		amounts[c.file.Invoices[i].Number] = c.file.Invoices[i].Amount()
	}
	for ref, o := range c.orderByRef {
		if o.Total != amounts[ref] {
			c.differ("order total", ref, amounts[ref].Amount(), o.Total.Amount())
		}
		l := c.ledger["authorization "+o.ID]
		la, lc, lv := amount(l.Authorized), amount(l.Captured), amount(l.Voided)
		authorized, gatewayCaptured, voided = authorized.Add(la), gatewayCaptured.Add(lc), voided.Add(lv)
		if c.payments[o.ID] == "CAPTURED" {
			captured = captured.Add(o.Total)
		}
		if la != lc.Add(lv) {
			c.differ("gateway: authorized = captured + voided", ref, la.Amount(), lc.Add(lv).Amount())
		}
		want := zero
		switch o.State {
		case "COMPLETED":
			c.report.Terminal["COMPLETED"]++
			completed = completed.Add(o.Total)
			want = o.Total
			if c.payments[o.ID] != "CAPTURED" {
				c.differ("payment", ref, "COMPLETED", c.payments[o.ID])
			}
			if s := c.movements[o.ID].State; s != "COMMITTED" {
				c.differ("movements", ref, "COMPLETED", s)
			}
		case "CANCELED":
			c.report.Terminal["CANCELED"]++
			c.report.Canceled[string(o.Reason)]++
			canceled = canceled.Add(o.Total)
			if s := c.movements[o.ID].State; s == "COMMITTED" || s == "RESERVED" {
				c.differ("movements", ref, "CANCELED", s)
			}
			c.reason(ref, o, l)
		default:
			c.report.Open++
			c.differ("open order", ref, o.State, c.payments[o.ID])
		}
		if lc != want {
			c.differ("gateway: captured", ref, want.Amount(), lc.Amount())
		}
	}
	c.strangers()
	m := &c.report.Money
	m.Completed, m.Canceled, m.PaymentCaptured = completed.Amount(), canceled.Amount(), captured.Amount()
	m.GatewayAuthorized, m.GatewayCaptured, m.GatewayVoided = authorized.Amount(), gatewayCaptured.Amount(), voided.Amount()
}

// strangers finds authorizations of nobody's order: somebody would pay for nothing.
func (c *reconciler) strangers() {
	ours := map[string]bool{} // With those that a person placed beside the replay.
	for _, o := range c.books.Orders {
		ours[o.ID] = true
	}
	for _, l := range c.books.Ledger {
		if l.Kind == "authorization" && !ours[l.Reference] {
			c.differ("gateway: authorization", l.Reference, "no order", l.Status)
		}
	}
}

// reason asks the owner of a cancel reason whether it is so.
func (c *reconciler) reason(ref string, o orderEntry, l ledgerEntry) {
	switch o.Reason {
	case contract.ReasonOutOfStock:
		if m := c.movements[o.ID]; m.State != "FAILED" || len(m.Short) == 0 {
			c.differ("cancel reason", ref, string(o.Reason), "no shortage in the movements ledger")
		}
		if c.plan.StockPercent >= 100 {
			c.differ("cancel reason", ref, string(o.Reason), "there was plenty of stock")
		}
	case contract.ReasonCardDeclined:
		if l.Status != "DECLINED" || l.Code != string(o.Reason) {
			c.differ("cancel reason", ref, string(o.Reason), "gateway says "+l.Status+" "+l.Code)
		}
		if !c.plan.Declines {
			c.differ("cancel reason", ref, string(o.Reason), "the gateway was told to decline nothing")
		}
	case contract.ReasonPaymentTimeout, contract.ReasonCustomer, contract.ReasonShipmentFailed:
		// The gateway's row has been compared: what was authorized is voided.
	default:
		c.differ("cancel reason", ref, string(o.Reason), "no reason that is known")
	}
}

func amount(s string) contract.Money {
	if s == "" {
		return contract.NewMoney(0, contract.GBP)
	}
	m, err := contract.ParseMoney(s, contract.GBP)
	if err != nil {
		return contract.NewMoney(-1, contract.GBP) // Never equal to an amount of ours: shows as a mismatch.
	}
	return m
}

// returns holds each imported return against the gateway's credits: one of its amount.
func (c *reconciler) returns() {
	returned, refunded := contract.NewMoney(0, contract.GBP), contract.NewMoney(0, contract.GBP)
	credits := map[string]bool{}
	for i := range c.file.Invoices {
		inv := &c.file.Invoices[i]
		a := c.answers[inv.Number]
		if !inv.Return || !a.Accepted() {
			continue
		}
		r, ok := c.returnByRef[inv.Number]
		if ok && r.ID != a.ID {
			c.differ("returns", inv.Number, a.ID, r.ID)
		}
		if !ok || r.Amount != inv.Amount() {
			c.differ("returns", inv.Number, inv.Amount().Amount(), r.Amount.Amount())
		}
		returned = returned.Add(r.Amount)
		if r.State == "COMPLETED" {
			c.report.Returns["COMPLETED"]++
		} else {
			c.report.Returns["open"]++
			c.differ("open return", inv.Number, r.State, "")
		}
		l := c.ledger["refund "+r.ID]
		credits[r.ID] = true
		refunded = refunded.Add(amount(l.Refunded))
		if amount(l.Refunded) != r.Amount {
			c.differ("gateway: refund", inv.Number, r.Amount.Amount(), l.Refunded)
		}
	}
	ours := map[string]bool{}
	for _, r := range c.books.Refunds {
		ours[r.ReturnID] = true
	}
	for _, l := range c.books.Ledger {
		if l.Kind == "refund" && !ours[l.Reference] {
			c.differ("gateway: refund", l.Reference, "", l.Refunded)
		}
	}
	c.report.Money.Returned, c.report.Money.GatewayRefunded = returned.Amount(), refunded.Amount()
}

// stock checks each product: initial - sold + returned = on hand, and initial is what the file says.
func (c *reconciler) stock() {
	initial := c.file.Stock(c.plan.StockPercent)
	u := &c.report.Units
	seen := map[string]bool{}
	for _, s := range c.books.Stock {
		seen[s.Product] = true
		onHand := s.Free + s.Reserved
		if s.Initial != initial[s.Product] {
			c.differ("stock: initial", s.Product, itoa(initial[s.Product]), itoa(s.Initial))
		}
		if s.Initial-s.Sold+s.Returned != onHand {
			c.differ("stock: initial - sold + returned = on hand", s.Product, itoa(s.Initial-s.Sold+s.Returned), itoa(onHand))
		}
		u.Initial += s.Initial
		u.Sold += s.Sold
		u.Returned += s.Returned
		u.OnHand += onHand
	}
	for code := range initial {
		if !seen[code] {
			c.differ("stock", code, itoa(initial[code]), "not stocked")
		}
	}
}

// outside holds the platform's ledger against the orders: every terminal order once by event id, every paid
// one has one message.
func (c *reconciler) outside() {
	p, n := &c.report.Platform, &c.report.Notify
	delivered := c.kind("delivery", c.books.Deliveries, "order")
	messaged := c.kind("message", c.books.Messages, "message")
	for ref, o := range c.orderByRef {
		terminal := o.State == "COMPLETED" || o.State == "CANCELED"
		if terminal {
			p.Expected++
		}
		p.Received += delivered[o.ID]
		if (delivered[o.ID] == 1) != terminal {
			c.differ("platform: orders", ref, o.State, itoa(int64(delivered[o.ID]))+" received")
		}
		paid := o.State == "COMPLETED"
		if paid {
			n.Expected++
		}
		n.Sent += messaged[o.ID]
		// An order that was paid and canceled later has its message too: only COMPLETED ones must.
		if paid && messaged[o.ID] != 1 || messaged[o.ID] > 1 {
			c.differ("platform: messages", ref, o.State, itoa(int64(messaged[o.ID]))+" received")
		}
	}
	for _, r := range c.books.Received {
		p.Duplicates += r.Deliveries - 1
	}
}

// kind returns how many events of a kind the platform has for each order, and compares the service's book
// with the platform's by event id.
func (c *reconciler) kind(book string, ours []deliveryEntry, kind string) map[string]int {
	byOrder := map[string]int{}
	known := map[string]bool{}
	for _, d := range ours {
		known[d.EventID] = true
		r, ok := c.received[d.EventID]
		switch {
		case d.State == "SENT" && (!ok || r.Kind != kind || r.Reference != d.OrderID):
			c.differ("platform: "+book, d.EventID, d.OrderID, r.Reference)
		case d.State != "SENT":
			c.differ("platform: "+book, d.EventID, d.State, r.Reference)
		}
	}
	for _, r := range c.books.Received {
		if r.Kind != kind {
			continue
		}
		byOrder[r.Reference]++
		if !known[r.EventID] {
			c.differ("platform: "+book, r.EventID, "", r.Reference)
		}
	}
	return byOrder
}

func (c *reconciler) events() {
	t := c.books.Traffic
	c.report.Events = EventsReport{
		t.Emitted, t.Published, t.Handled, t.Duplicates, t.Parked, t.Unpublished, t.Lag, t.CallsPending,
	}
	// A stable order: maps have none, and a report is compared with the one before.
	slices.SortFunc(c.report.Mismatches, func(a, b Mismatch) int {
		return strings.Compare(a.Book+"\x00"+a.Reference, b.Book+"\x00"+b.Reference)
	})
}

// latency is the time from an order's acceptance to its end.
func (c *reconciler) latency() {
	var ms []float64
	for _, o := range c.orderByRef {
		if o.State == "COMPLETED" || o.State == "CANCELED" { // Nothing updates an order after its end but a return.
			ms = append(ms, float64(o.UpdatedAt.Sub(o.PlacedAt).Microseconds())/1000)
		}
	}
	if len(ms) == 0 {
		return
	}
	slices.Sort(ms)
	c.report.Latency = LatencyReport{P50: ms[len(ms)/2], P99: ms[len(ms)*99/100], Max: ms[len(ms)-1]}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
