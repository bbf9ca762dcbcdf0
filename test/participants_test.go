package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/notify"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/shop/platform"
	"github.com/settledev/settle/shop/platformsim"
	"github.com/settledev/settle/shop/shipping"
	"github.com/settledev/settle/shop/webhook"
	"github.com/settledev/settle/sqlstore"
)

// part is one service of the shop on a real database in a bubble, with everybody else played by the test.
type part struct {
	t      *testing.T
	dir    string
	store  *sqlstore.Store
	broker *memory.Broker
	http   http.Handler
	ctx    context.Context //nolint:containedctx // Of the bubble: what the rig starts ends with it.
	ends   []func()
}

// runs is a service that inPart starts.
type runs interface {
	Run(ctx context.Context) error
}

// made is a service whose construction cannot fail in a test.
func made[T any](svc T, err error) T {
	if err != nil {
		panic(err)
	}
	return svc
}

// inPart runs a test with a service that start makes on the part's store.
func inPart(t *testing.T, files fs.FS, start func(p *part) (runs, http.Handler), test func(p *part)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p := &part{t: t, dir: dir, ctx: ctx, broker: memory.NewBroker(memory.BrokerConfig{})}
		p.store = p.open("service", sqlstore.Schema{Name: "service", Files: files})
		svc, handler := start(p)
		p.http = handler
		p.start(svc)
		test(p)
		stop()
		for _, end := range slices.Backward(p.ends) {
			end()
		}
		if err := p.broker.Close(); err != nil {
			t.Errorf("close broker: %v", err)
		}
	})
}

// open opens a store that is closed at the end.
func (p *part) open(name string, schemas ...sqlstore.Schema) *sqlstore.Store {
	p.t.Helper()
	store, err := settlesqlite.Open(p.t.Context(), filepath.Join(p.dir, name+".db"), settlesqlite.Config{
		Migrate: true, Store: sqlstore.Config{Schemas: schemas},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.ends = append(p.ends, func() {
		if err := store.Close(); err != nil {
			p.t.Errorf("close %s: %v", name, err)
		}
	})
	return store
}

// start runs something until the test ends.
func (p *part) start(r runs) {
	done := make(chan error, 1)
	go func() { done <- r.Run(p.ctx) }()
	p.ends = append(p.ends, func() {
		if err := <-done; err != nil {
			p.t.Errorf("run: %v", err)
		}
	})
}

func (p *part) config() settle.Config { return settle.Config{Logger: slog.New(slog.DiscardHandler)} }

// pass lets virtual time pass and everybody finish what that brings.
func (p *part) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// tell publishes events, each twice as a broker may, and lets a moment pass after each.
func (p *part) tell(drafts ...event.Draft) {
	p.t.Helper()
	for _, d := range drafts {
		e, err := d.Seal("test", time.Now(), event.Cause{})
		if err != nil {
			p.t.Fatal(err)
		}
		m := broker.Message{Event: e, Origin: "test"}
		if err := errors.Join(p.broker.Publish(p.t.Context(), []broker.Message{m, m})...); err != nil {
			p.t.Fatal(err)
		}
		p.pass(300 * time.Millisecond)
	}
}

// wantEmitted checks the types of the events that the service has added for an aggregate.
func (p *part) wantEmitted(id string, want ...string) {
	p.t.Helper()
	var got string
	err := p.store.QueryRow(p.t.Context(),
		"SELECT coalesce(group_concat(type, ' ' ORDER BY id), '') FROM settle_outbox WHERE aggregate_id = ?", []any{id}, &got)
	if err != nil {
		p.t.Fatal(err)
	}
	if got != strings.Join(want, " ") {
		p.t.Errorf("%s emitted %s, want %s", id, got, want)
	}
}

// lastData returns the data of the newest event of a type.
func (p *part) lastData(eventType string) (data string) {
	p.t.Helper()
	err := p.store.QueryRow(p.t.Context(), "SELECT data FROM settle_outbox WHERE type = ? ORDER BY id DESC LIMIT 1", []any{eventType}, &data)
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}

func (p *part) count(query string) (n int) {
	p.t.Helper()
	if err := p.store.QueryRow(p.t.Context(), query, nil, &n); err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// items reads one page of a list.
func items[T any](p *part, h http.Handler, path string) []T {
	p.t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(p.t.Context(), http.MethodGet, path, nil))
	var page struct{ Items []T }
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK {
		p.t.Fatalf("%s: %d %s %v", path, w.Code, w.Body, err)
	}
	return page.Items
}

// bridge is a client's transport that calls a handler in the bubble, where a real connection would stop
// the time. While lossy, a POST takes effect and its answer is lost.
type bridge struct {
	handler http.Handler
	lossy   atomic.Bool
}

func (b *bridge) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	defer func() {
		if v := recover(); v != nil { // http.ErrAbortHandler: the connection broke.
			resp, err = nil, fmt.Errorf("connection broke: %v", v)
		}
	}()
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	if r.Method == http.MethodPost && b.lossy.Load() {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return w.Result(), nil
}

// lines are products with their quantities: "10001 x3".
func lines(texts ...string) (all []contract.Line) {
	for _, text := range texts {
		var l contract.Line
		if _, err := fmt.Sscanf(text, "%s x%d", &l.ProductID, &l.Quantity); err != nil {
			panic(text) // A mistake in the test.
		}
		all = append(all, l)
	}
	return all
}

func reserve(id string, texts ...string) event.Draft {
	return contract.StockReserveRequested.New(contract.StockRequestV1{
		OrderID: id, CustomerID: "c1", Lines: lines(texts...), Total: contract.NewMoney(765, contract.GBP),
	})
}

func release(id string) event.Draft { return contract.StockReleaseRequested.New(orderRef(id)) }

func shipped(id string) event.Draft { return contract.ShipmentCreated.New(orderShipment(id)) }

func returned(id, order string, texts ...string) event.Draft {
	return contract.ReturnRequested.New(contract.ReturnV1{
		ReturnID: id, OrderID: order, CustomerID: "c1", Lines: lines(texts...), Amount: contract.NewMoney(255, contract.GBP),
	})
}

func TestParticipantInventory(t *testing.T) {
	var svc *inventory.Service
	inPart(t, inventory.Migrations("sqlite"), func(p *part) (runs, http.Handler) {
		svc = made(inventory.New(p.store, p.broker, inventory.Config{Service: p.config()}))
		return svc, svc.Handler()
	}, func(p *part) {
		for _, n := range []int64{10, 99} { // The second seed finds what the first one left.
			if err := svc.Seed(p.t.Context(), map[string]int64{"10001": n, "10002": n / 2}); err != nil {
				p.t.Fatal(err)
			}
		}
		// All or none, lines of one product together, services not at all; the same order once.
		p.tell(reserve("o1", "10001 x4", "POST x1", "10002 x5", "10001 x2"), reserve("o1", "10001 x1"))
		p.wantEmitted("o1", "StockReserved", "PaymentRequested")
		if got := p.lastData("PaymentRequested"); got != `{"orderId":"o1","customerId":"c1","amount":{"amount":"7.65","currency":"GBP"}}` {
			p.t.Errorf("payment requested: %s", got)
		}
		p.tell(reserve("o2", "10001 x1", "10002 x1", "99998 x1"))
		p.wantEmitted("o2", "StockReservationFailed")
		if got := p.lastData("StockReservationFailed"); got != `{"orderId":"o2","short":["10002","99998"]}` {
			p.t.Errorf("shortage: %s", got)
		}
		// Every request to release is answered: of a shortage, of a reservation, and before it came.
		p.tell(release("o2"), release("o3"), reserve("o3", "10001 x1"), reserve("o4", "10001 x4"), release("o4"), release("o4"), shipped("o4"))
		p.wantEmitted("o2", "StockReservationFailed", "StockReleased")
		p.wantEmitted("o3", "StockReleased")
		p.wantEmitted("o4", "StockReserved", "PaymentRequested", "StockReleased", "StockReleased")
		p.tell(shipped("o1"), shipped("o1"), release("o1"))
		p.wantEmitted("o1", "StockReserved", "PaymentRequested", "StockCommitted")
		p.tell(reserve("o5", "POST x1"), reserve("o6", "10001 x3"))
		p.wantEmitted("o5", "StockReserved", "PaymentRequested")
		p.tell(returned("r1", "o1", "10001 x1", "POST x1"), returned("r1", "o1", "10001 x1"), returned("r2", "", "77777 x2"))
		p.wantEmitted("o1", "StockReserved", "PaymentRequested", "StockCommitted", "StockReturned")
		p.wantEmitted("r2", "StockReturned")

		stock := items[inventory.Stock](p, p.http, "/internal/stock")
		want := []inventory.Stock{
			{Product: "10001", Initial: 10, Free: 2, Reserved: 3, Sold: 6, Returned: 1},
			{Product: "10002", Initial: 5, Sold: 5},
			{Product: "77777", Free: 2, Returned: 2},
		}
		if !slices.Equal(stock, want) {
			p.t.Errorf("stock %+v", stock)
		}
		for _, s := range stock {
			if s.Initial-s.Sold+s.Returned != s.Free+s.Reserved {
				p.t.Errorf("%+v does not balance", s)
			}
		}
		var moved []string
		for _, m := range items[inventory.Movement](p, p.http, "/internal/movements") {
			moved = append(moved, fmt.Sprintf("%s %s %v", m.OrderID, m.State, m.Short))
		}
		if got := strings.Join(moved, ", "); got != "o1 COMMITTED [], o2 FAILED [10002 99998], o3 RELEASED [], o4 RELEASED [], o5 RESERVED [], o6 RESERVED []" {
			p.t.Errorf("movements %s", got)
		}
		free, err := svc.Available(p.t.Context(), []string{"10001", "POST", "10002"})
		if err != nil || len(free) != 2 || free["10001"] != 2 || free["10002"] != 0 {
			p.t.Errorf("available %v %v", free, err)
		}
	})
}

// paying is the payment service with a real pgsim.
type paying struct {
	*part

	gateway *pgsim.Server
	wire    *bridge
	calls   atomic.Int64 // lookups that reached the gateway
	secret  string
}

func inPaying(t *testing.T, webhooks bool, f pgsim.Faults, test func(p *paying)) {
	t.Helper()
	p := &paying{secret: webhook.NewSecret()}
	inPart(t, payment.Migrations("sqlite"), func(r *part) (runs, http.Handler) {
		p.part = r
		ledger := r.open("gateway")
		if err := pgsim.Migrate(r.t.Context(), ledger); err != nil {
			r.t.Fatal(err)
		}
		back := &bridge{}
		cfg := pgsim.Config{Faults: f, WebhookSecret: p.secret, Client: &http.Client{Transport: back}, Logger: slog.New(slog.DiscardHandler)}
		if webhooks {
			cfg.WebhookURL = "http://shop/webhooks/payments"
		}
		var err error
		if p.gateway, err = pgsim.New(ledger, cfg); err != nil {
			r.t.Fatal(err)
		}
		p.wire = &bridge{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				p.calls.Add(1)
			}
			p.gateway.ServeHTTP(w, r)
		})}
		svc := made(payment.New(r.store, r.broker, payment.Config{
			Service: r.config(), GatewayURL: "http://gateway", Client: &http.Client{Transport: p.wire}, WebhookSecret: p.secret,
		}))
		back.handler = svc.Handler()
		r.start(p.gateway)
		return svc, back.handler
	}, func(*part) { test(p) })
}

// ledger returns what the gateway knows of a reference, in one line.
func (p *paying) ledger(reference string) string {
	p.t.Helper()
	type entry struct{ Reference, Status, Authorized, Captured, Voided, Refunded, Code string }
	for _, e := range items[entry](p.part, p.gateway, "/v1/ledger") {
		if e.Reference == reference {
			return strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s %s", e.Status, e.Authorized, e.Captured, e.Voided, e.Refunded, e.Code))
		}
	}
	return ""
}

func (p *paying) wantLedger(reference, want string) {
	p.t.Helper()
	if got := p.ledger(reference); got != want {
		p.t.Errorf("gateway has %q of %s, want %q", got, reference, want)
	}
}

func (p *paying) set(f pgsim.Faults) {
	p.t.Helper()
	if err := p.gateway.SetFaults(f); err != nil {
		p.t.Fatal(err)
	}
}

func request(id string) event.Draft {
	return contract.PaymentRequested.New(contract.PaymentRequestV1{OrderID: id, CustomerID: "Zoë", Amount: contract.NewMoney(765, contract.GBP)})
}

func void(id string) event.Draft { return contract.PaymentVoidRequested.New(orderRef(id)) }

func TestParticipantPaymentForward(t *testing.T) {
	for _, webhooks := range []bool{false, true} {
		inPaying(t, webhooks, pgsim.Faults{WebhookDuplicatePercent: 100}, func(p *paying) {
			p.tell(request("o1"), request("o1"), shipped("o1"), shipped("o1"))
			p.wantEmitted("o1", "PaymentAuthorized", "PaymentSucceeded")
			p.wantLedger("o1", "CAPTURED 7.65 7.65 0.00 0.00")
			p.tell(returned("r1", "o1"), returned("r1", "o1"), returned("r2", ""))
			p.wantEmitted("o1", "PaymentAuthorized", "PaymentSucceeded", "PaymentRefunded")
			p.wantEmitted("r2", "PaymentRefunded")
			p.wantLedger("r1", "REFUNDED 0.00 0.00 0.00 2.55")
			p.wantLedger("r2", "REFUNDED 0.00 0.00 0.00 2.55")
			p.wantLedger("o1", "CAPTURED 7.65 7.65 0.00 2.55")
			// More than is left is refused for good: the return stays open and visible.
			p.tell(returned("r3", "o1"), returned("r4", "o1"))
			var got []string
			for _, r := range items[payment.Refund](p.part, p.http, "/internal/refunds") {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.ReturnID, r.State, r.Code)))
			}
			if text := strings.Join(got, ", "); text != "r1 REFUNDED, r2 REFUNDED, r3 REFUNDED, r4 REFUNDED" {
				p.t.Errorf("refunds %s", text)
			}
			p.tell(returned("r5", "o1"))
			p.wantLedger("r5", "")
			if all := items[payment.Refund](p.part, p.http, "/internal/refunds?after=r4"); len(all) != 1 || all[0].State != "REFUSED" || all[0].Code != "REFUND_EXCEEDS" {
				p.t.Errorf("refund beyond the capture: %+v", all)
			}
		})
	}
}

func TestParticipantPaymentRefused(t *testing.T) {
	inPaying(t, false, pgsim.Faults{DeclinePercent: 100}, func(p *paying) {
		p.tell(request("o1"), void("o1"), void("o1"), shipped("o1"))
		p.wantEmitted("o1", "PaymentFailed", "PaymentVoided", "PaymentVoided")
		if got := p.lastData("PaymentFailed"); got != `{"orderId":"o1","amount":{"amount":"7.65","currency":"GBP"},"code":"CARD_DECLINED"}` {
			p.t.Errorf("declined: %s", got)
		}
		p.wantLedger("o1", "DECLINED 0.00 0.00 0.00 0.00 CARD_DECLINED")
	})
	inPaying(t, false, pgsim.Faults{CaptureRefusalPercent: 100}, func(p *paying) {
		p.tell(request("o1"), shipped("o1"), void("o1"))
		p.wantEmitted("o1", "PaymentAuthorized", "PaymentCaptureFailed")
		all := items[payment.Payment](p.part, p.http, "/internal/payments")
		if len(all) != 1 || all[0].State != payment.StateCaptureFailed || all[0].Code != "CAPTURE_REFUSED" {
			p.t.Errorf("payments %+v", all)
		}
	})
}

// TestParticipantPaymentVoid lets a void come at every moment: the gateway holds nothing in the end.
func TestParticipantPaymentVoid(t *testing.T) {
	inPaying(t, false, pgsim.Faults{}, func(p *paying) {
		p.tell(void("before"), request("before"))
		p.wantEmitted("before", "PaymentVoided")
		p.wantLedger("before", "")
		p.tell(request("after"), void("after"), shipped("after"))
		p.wantEmitted("after", "PaymentAuthorized", "PaymentVoided")
		p.wantLedger("after", "VOIDED 7.65 0.00 7.65 0.00")
		if got := p.lastData("PaymentVoided"); got != `{"orderId":"after","amount":{"amount":"7.65","currency":"GBP"}}` {
			p.t.Errorf("voided: %s", got)
		}
	})
	// During: the gateway is silent, and has done it or not, or approves late.
	for name, f := range map[string]pgsim.Faults{
		"silent":     {Transport: faults.Transport{SilencePercent: 100}},
		"down":       {Transport: faults.Transport{Down: true}},
		"no effect":  {Transport: faults.Transport{ErrorBeforePercent: 100}},
		"effect":     {Transport: faults.Transport{ErrorAfterPercent: 100}},
		"still open": {LateApprovalPercent: 100, LateApprovalDelay: faults.Duration(time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			inPaying(t, false, f, func(p *paying) {
				for i := range 4 {
					p.tell(request(fmt.Sprint("o", i)))
				}
				p.pass(7 * time.Second)
				for i := range 4 {
					p.tell(void(fmt.Sprint("o", i)))
				}
				p.pass(12 * time.Second)
				p.set(pgsim.Faults{})
				p.pass(90 * time.Second)
				for i := range 4 {
					id := fmt.Sprint("o", i)
					p.wantEmitted(id, "PaymentVoided")
					if got := p.ledger(id); !strings.HasPrefix(got, "VOIDED") || got != "VOIDED 0.00 0.00 0.00 0.00" && got != "VOIDED 0.00 0.00 0.00 0.00 VOIDED" && got != "VOIDED 7.65 0.00 7.65 0.00" {
						p.t.Errorf("gateway has %q of %s", got, id)
					}
				}
				if n := p.count("SELECT count(*) FROM settle_call"); n != 0 {
					p.t.Errorf("%d calls are left", n)
				}
			})
		})
	}
}

// TestParticipantPaymentUnknown proves that an unknown outcome is asked for again under the same key.
func TestParticipantPaymentUnknown(t *testing.T) {
	for name, f := range map[string]faults.Transport{
		"silent": {SilencePercent: 100}, "effect": {ErrorAfterPercent: 100}, "no effect": {ErrorBeforePercent: 100}, "down": {Down: true},
	} {
		t.Run(name, func(t *testing.T) {
			inPaying(t, false, pgsim.Faults{Transport: f}, func(p *paying) {
				p.tell(request("o1"))
				p.pass(20 * time.Second)
				p.wantEmitted("o1")
				p.set(pgsim.Faults{})
				p.pass(15 * time.Second)
				p.wantEmitted("o1", "PaymentAuthorized")
				p.wantLedger("o1", "AUTHORIZED 7.65 0.00 0.00 0.00")
				p.set(pgsim.Faults{Transport: f})
				p.tell(shipped("o1"))
				p.pass(20 * time.Second)
				p.set(pgsim.Faults{})
				p.pass(15 * time.Second)
				p.wantEmitted("o1", "PaymentAuthorized", "PaymentSucceeded")
				p.wantLedger("o1", "CAPTURED 7.65 7.65 0.00 0.00")
			})
		})
	}
}

// TestParticipantPaymentLate proves that a late approval is noticed within about a second, and with
// webhooks sooner.
func TestParticipantPaymentLate(t *testing.T) {
	late := pgsim.Faults{LateApprovalPercent: 100, LateApprovalDelay: faults.Duration(30 * time.Second)}
	for _, webhooks := range []bool{false, true} {
		inPaying(t, webhooks, late, func(p *paying) {
			p.tell(request("o1"))
			p.pass(29 * time.Second)
			p.wantEmitted("o1")
			p.pass(2200 * time.Millisecond)
			p.wantEmitted("o1", "PaymentAuthorized")
			p.wantLedger("o1", "AUTHORIZED 7.65 0.00 0.00 0.00")
		})
	}
}

// hint sends a webhook as the gateway would and returns the answer's status.
func (p *paying) hint(secret, id, body string) int {
	p.t.Helper()
	header, err := webhook.Sign(secret, id, time.Now(), []byte(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(p.t.Context(), http.MethodPost, "/webhooks/payments", strings.NewReader(body))
	r.Header = header
	w := httptest.NewRecorder()
	p.http.ServeHTTP(w, r)
	p.pass(300 * time.Millisecond)
	return w.Code
}

func TestParticipantPaymentWebhook(t *testing.T) {
	inPaying(t, false, pgsim.Faults{}, func(p *paying) {
		// The gateway approves, and its answers are lost.
		p.wire.lossy.Store(true)
		p.tell(request("o1"))
		p.wantEmitted("o1")
		const approved = `{"type":"authorization.approved","data":{"reference":"o1"}}`
		for _, c := range []struct {
			secret, id, body string
			status           int
			lookups          int64
		}{
			{webhook.NewSecret(), "w1", approved, 401, 0},
			{p.secret, "w2", `{"type":"x"}`, 400, 0},
			{p.secret, "w3", `{`, 400, 0},
			{p.secret, "w4", `{"data":{"reference":"` + strings.Repeat("x", 1<<17) + `"}}`, 413, 0},
			{p.secret, "w5", `{"type":"authorization.approved","data":{"reference":"nobody"}}`, 204, 0},
			{p.secret, "w6", approved, 204, 1}, // An open question: looked up.
			{p.secret, "w6", approved, 204, 1},
			{p.secret, "w7", approved, 204, 1}, // Closed by now.
		} {
			if got := p.hint(c.secret, c.id, c.body); got != c.status || p.calls.Load() != c.lookups {
				p.t.Errorf("%s: %d after %d lookups, want %d after %d", c.id, got, p.calls.Load(), c.status, c.lookups)
			}
		}
		p.wantEmitted("o1", "PaymentAuthorized")
		if n := p.count("SELECT count(*) FROM webhook"); n != 1 {
			p.t.Errorf("%d webhooks are remembered", n)
		}
		// The answer that comes after all changes nothing.
		p.wire.lossy.Store(false)
		p.pass(time.Minute)
		p.wantEmitted("o1", "PaymentAuthorized")
		if n := p.count("SELECT count(*) FROM settle_call"); n != 0 {
			p.t.Errorf("%d calls are left", n)
		}
	})
}

func shippingPart(cfg shipping.Config) func(p *part) (runs, http.Handler) {
	return func(p *part) (runs, http.Handler) {
		cfg.Service = p.config()
		return made(shipping.New(p.store, p.broker, cfg)), nil
	}
}

func paid(id string) event.Draft {
	return contract.OrderPaid.New(contract.OrderStateV1{OrderID: id, CustomerID: "c1", State: "PAID", Total: contract.NewMoney(765, contract.GBP)})
}

func cancel(id string) event.Draft { return contract.ShipmentCancelRequested.New(orderShipment(id)) }

func TestParticipantShipping(t *testing.T) {
	cfg := shipping.Config{Impossible: func(id string) bool { return strings.HasPrefix(id, "x") }}
	inPart(t, shipping.Migrations("sqlite"), shippingPart(cfg), func(p *part) {
		p.tell(paid("o1"), paid("o1"), cancel("o1"), cancel("o2"), paid("o2"), paid("x1"), cancel("x1"))
		p.wantEmitted("o1", "ShipmentCreated", "ShipmentCancelRefused")
		p.wantEmitted("o2", "ShipmentCanceled")
		p.wantEmitted("x1", "ShipmentFailed", "ShipmentCanceled")
	})
	cfg.Delay = 10 * time.Second
	inPart(t, shipping.Migrations("sqlite"), shippingPart(cfg), func(p *part) {
		p.tell(paid("o1"), paid("o2"), paid("x1"), paid("o1"), cancel("o2"), cancel("o3"), paid("o3"))
		p.wantEmitted("o1")
		p.wantEmitted("o2", "ShipmentCanceled")
		p.wantEmitted("o3", "ShipmentCanceled")
		if n := p.count("SELECT count(*) FROM settle_timer"); n != 2 {
			p.t.Errorf("%d timers wait, want those of o1 and x1", n)
		}
		p.pass(10 * time.Second)
		p.wantEmitted("o1", "ShipmentDue", "ShipmentCreated")
		p.wantEmitted("o2", "ShipmentCanceled")
		p.wantEmitted("x1", "ShipmentDue", "ShipmentFailed")
		p.tell(cancel("o1"))
		p.wantEmitted("o1", "ShipmentDue", "ShipmentCreated", "ShipmentCancelRefused")
	})
}

// TestParticipantDeliveries proves that the platform has each event once, whatever it answers.
func TestParticipantDeliveries(t *testing.T) {
	type entry struct{ EventID, OrderID, State string }
	type received struct {
		EventID, Kind, Reference string
		Deliveries               int
	}
	ended := func(id string) event.Draft {
		return contract.OrderCompleted.New(contract.OrderStateV1{OrderID: id, CustomerID: "c1", State: "COMPLETED"})
	}
	for _, c := range []struct {
		name, kind, list string
		files            fs.FS
		told             []event.Draft
		make             func(p *part, client *http.Client) (runs, http.Handler)
	}{
		{"notify", "message", "/internal/messages", notify.Migrations("sqlite"), []event.Draft{paid("o1"), paid("o2")}, func(p *part, client *http.Client) (runs, http.Handler) {
			s := made(notify.New(p.store, p.broker, notify.Config{Service: p.config(), PlatformURL: "http://platform", Client: client}))
			return s, s.Handler()
		}},
		{"platform", "order", "/internal/deliveries", platform.Migrations("sqlite"), []event.Draft{
			ended("o1"), contract.OrderCanceled.New(contract.OrderStateV1{OrderID: "o2", State: "CANCELED", Reason: contract.ReasonCustomer}),
		}, func(p *part, client *http.Client) (runs, http.Handler) {
			s := made(platform.New(p.store, p.broker, platform.Config{Service: p.config(), PlatformURL: "http://platform", Client: client}))
			return s, s.Handler()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sim *platformsim.Server
			inPart(t, c.files, func(p *part) (runs, http.Handler) {
				ledger := p.open("platform")
				if err := platformsim.Migrate(p.t.Context(), ledger); err != nil {
					p.t.Fatal(err)
				}
				var err error
				sim, err = platformsim.New(ledger, platformsim.Config{Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					p.t.Fatal(err)
				}
				p.start(sim)
				return c.make(p, &http.Client{Transport: &bridge{handler: sim}})
			}, func(p *part) {
				set := func(f faults.Transport) {
					if err := sim.SetFaults(f); err != nil {
						p.t.Fatal(err)
					}
				}
				set(faults.Transport{ErrorAfterPercent: 100})
				p.tell(c.told[0])
				p.pass(5 * time.Second)
				if all := items[entry](p, p.http, c.list); len(all) != 1 || all[0].State != "PENDING" || all[0].OrderID != "o1" {
					p.t.Errorf("with errors: %+v", all)
				}
				set(faults.Transport{Down: true}) // That only delays.
				p.tell(c.told[1])
				p.pass(10 * time.Minute)
				set(faults.Transport{})
				p.pass(15 * time.Second)
				ours, theirs := items[entry](p, p.http, c.list), items[received](p, sim, "/v1/ledger")
				if len(ours) != 2 || len(theirs) != 2 {
					p.t.Fatalf("ours %+v, theirs %+v", ours, theirs)
				}
				for i, e := range ours {
					r := theirs[i]
					if e.State != "SENT" || r.EventID != e.EventID || r.Reference != e.OrderID || r.Kind != c.kind || (r.Deliveries > 1) != (e.OrderID == "o1") {
						p.t.Errorf("ours %+v, theirs %+v", e, r)
					}
				}
				p.wantEmitted("o1")
			})
		})
	}
}
