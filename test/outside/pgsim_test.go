package outside_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/sqlstore"
)

type gateway struct {
	*pgsim.Server
	store *sqlstore.Store
}

func newGateway(tb testing.TB, dir string, cfg pgsim.Config) gateway {
	tb.Helper()
	store := open(tb, dir)
	if err := pgsim.Migrate(tb.Context(), store); err != nil {
		tb.Fatal(err)
	}
	s, err := pgsim.New(store, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return gateway{s, store}
}

// do performs one line of a script and returns the brief answer:
//
//	authorize REF AMOUNT [CURRENCY [CUSTOMER [KEY]]]   capture REF AMOUNT [CURRENCY]   void REF
//	refund REF AUTHORIZATION|- AMOUNT [CURRENCY]       get REF                         getrefund REF
func (g gateway) do(tb testing.TB, line string) string {
	tb.Helper()
	f := strings.Fields(line)
	arg := func(i int, or string) string {
		if i < len(f) {
			return f[i]
		}
		return or
	}
	amount := func(i int) string {
		return fmt.Sprintf(`{"amount":%q,"currency":%q}`, arg(i, ""), arg(i+1, "GBP"))
	}
	base := "/v1/authorizations"
	one := base + "/" + url.PathEscape(f[1])
	switch f[0] {
	case "authorize":
		body := fmt.Sprintf(`{"reference":%q,"amount":%s,"customerId":%q}`, f[1], amount(2), arg(4, "c1"))
		return brief(tb, send(tb, g, http.MethodPost, base, arg(5, "pay:"+f[1]+"#authorize"), body))
	case "capture":
		return brief(tb, send(tb, g, http.MethodPost, one+"/capture", "", `{"amount":`+amount(2)+`}`))
	case "void":
		return brief(tb, send(tb, g, http.MethodPost, one+"/void", "", arg(2, "")))
	case "refund":
		authorization := ""
		if f[2] != "-" {
			authorization = fmt.Sprintf(`"authorization":%q,`, f[2])
		}
		body := fmt.Sprintf(`{"reference":%q,%s"amount":%s}`, f[1], authorization, amount(3))
		return brief(tb, send(tb, g, http.MethodPost, "/v1/refunds", "", body))
	case "get":
		return brief(tb, send(tb, g, http.MethodGet, one, "", ""))
	case "getrefund":
		return brief(tb, send(tb, g, http.MethodGet, "/v1/refunds/"+url.PathEscape(f[1]), "", ""))
	}
	tb.Fatalf("no such line: %s", line)
	return ""
}

type ledgerItem struct {
	Reference, Kind, Status, Authorized, Captured, Voided, Refunded, Code string
	Calls                                                                 int64
}

func (i ledgerItem) String() string {
	return fmt.Sprintf("%s %s %s a=%s c=%s v=%s r=%s %d %s", i.Reference, i.Kind, i.Status, i.Authorized, i.Captured,
		i.Voided, i.Refunded, i.Calls, i.Code)
}

// ledger reads every page.
func (g gateway) ledger(tb testing.TB, limit int) (items []ledgerItem) {
	tb.Helper()
	for after := ""; ; {
		w := send(tb, g, http.MethodGet, fmt.Sprintf("/v1/ledger?limit=%d&after=%s", limit, url.QueryEscape(after)), "", "")
		page := decode[struct {
			Items []ledgerItem
			Next  string
		}](tb, w)
		if w.Code != http.StatusOK || len(page.Items) > limit {
			tb.Fatalf("ledger: %d with %d items of %d", w.Code, len(page.Items), limit)
		}
		items = append(items, page.Items...)
		if page.Next == "" {
			return items
		}
		after = page.Next
	}
}

func (g gateway) entry(tb testing.TB, reference string) ledgerItem {
	tb.Helper()
	for _, i := range g.ledger(tb, 1000) {
		if i.Reference == reference {
			return i
		}
	}
	return ledgerItem{}
}

// TestGatewayRules runs scripts of "line -> answer", and compares the ledger at their end.
func TestGatewayRules(t *testing.T) {
	for _, tt := range []struct{ name, faults, script, ledger string }{
		{name: "authorize and capture", script: `
			authorize o1 10.00 -> 201 AUTHORIZED 10.00
			get o1             -> 200 AUTHORIZED 10.00
			capture o1 10.00   -> 200 CAPTURED 10.00
			capture o1 10.00   -> 200 CAPTURED 10.00
			capture o1 9.00    -> 422 IDEMPOTENCY_MISMATCH
			get o1             -> 200 CAPTURED 10.00
			authorize o1 10.00 -> 200 AUTHORIZED 10.00
			void o1            -> 409 CAPTURED
		`, ledger: "o1 authorization CAPTURED a=10.00 c=10.00 v=0.00 r=0.00 6"},
		{name: "partial capture releases the rest", script: `
			authorize o1 10.00 -> 201 AUTHORIZED 10.00
			capture o1 10.01   -> 409 CAPTURE_EXCEEDS
			capture o1 9 EUR   -> 409 CURRENCY_MISMATCH
			capture o1 9.5     -> 200 CAPTURED 9.50
		`, ledger: "o1 authorization CAPTURED a=10.00 c=9.50 v=0.50 r=0.00 4"},
		{name: "void", script: `
			authorize o1 10.00 -> 201 AUTHORIZED 10.00
			void o1 {}         -> 200 VOIDED 10.00
			void o1            -> 200 VOIDED 10.00
			capture o1 10.00   -> 409 VOIDED
			get o1             -> 200 VOIDED 10.00
			authorize o1 10.00 -> 200 DECLINED 10.00 VOIDED
		`, ledger: "o1 authorization VOIDED a=10.00 c=0.00 v=10.00 r=0.00 5"},
		{name: "void overtakes its authorization", script: `
			void o1            -> 200 VOIDED 0
			void o1            -> 200 VOIDED 0
			get o1             -> 200 VOIDED 0
			capture o1 10.00   -> 409 VOIDED
			authorize o2 1 GBP c1 k2    -> 201 AUTHORIZED 1.00
			authorize o1 10.00 GBP c1 k2 -> 422 IDEMPOTENCY_MISMATCH
			authorize o1 10.00 -> 201 DECLINED 10.00 VOIDED
			authorize o1 10.00 -> 200 DECLINED 10.00 VOIDED
			authorize o1 11.00 -> 422 IDEMPOTENCY_MISMATCH
			void o1            -> 200 VOIDED 0.00 VOIDED
		`, ledger: `o1 authorization VOIDED a=0.00 c=0.00 v=0.00 r=0.00 6 VOIDED
			o2 authorization AUTHORIZED a=1.00 c=0.00 v=0.00 r=0.00 1`},
		{name: "idempotency", script: `
			authorize o1 10.00             -> 201 AUTHORIZED 10.00
			authorize o1 10                -> 200 AUTHORIZED 10.00
			authorize o1 10.00 GBP c1 k9   -> 200 AUTHORIZED 10.00
			authorize o1 10.01             -> 422 IDEMPOTENCY_MISMATCH
			authorize o1 10.00 EUR         -> 422 IDEMPOTENCY_MISMATCH
			authorize o1 10.00 GBP c2      -> 422 IDEMPOTENCY_MISMATCH
			authorize o2 10.00 GBP c1 pay:o1#authorize -> 422 IDEMPOTENCY_MISMATCH
			authorize o2 5.00              -> 201 AUTHORIZED 5.00
			authorize o1 10.00 GBP c1 pay:o2#authorize -> 422 IDEMPOTENCY_MISMATCH
		`, ledger: `o1 authorization AUTHORIZED a=10.00 c=0.00 v=0.00 r=0.00 3
			o2 authorization AUTHORIZED a=5.00 c=0.00 v=0.00 r=0.00 1`},
		{name: "unknown", script: `
			get o1           -> 404 NOT_FOUND
			getrefund r1     -> 404 NOT_FOUND
			capture o1 10.00 -> 409 NOT_AUTHORIZED
			refund r1 o1 1   -> 409 NOT_CAPTURED
			getrefund r1     -> 404 NOT_FOUND
		`},
		{name: "refunds of an authorization", script: `
			authorize o1 10.00 -> 201 AUTHORIZED 10.00
			refund r1 o1 1.00  -> 409 NOT_CAPTURED
			capture o1 9.00    -> 200 CAPTURED 9.00
			refund r1 o1 4.00  -> 201 REFUNDED 4.00
			refund r1 o1 4.00  -> 200 REFUNDED 4.00
			refund r1 o1 4.01  -> 422 IDEMPOTENCY_MISMATCH
			refund r1 - 4.00   -> 422 IDEMPOTENCY_MISMATCH
			refund r2 o1 5.01  -> 409 REFUND_EXCEEDS
			refund r2 o1 5 EUR -> 409 CURRENCY_MISMATCH
			refund r2 o1 5.00  -> 201 REFUNDED 5.00
			refund r3 o1 0.01  -> 409 REFUND_EXCEEDS
			getrefund r2       -> 200 REFUNDED 5.00
			get r2             -> 404 NOT_FOUND
			getrefund o1       -> 404 NOT_FOUND
			get o1             -> 200 CAPTURED 9.00
		`, ledger: `o1 authorization CAPTURED a=10.00 c=9.00 v=1.00 r=9.00 4
			r1 refund REFUNDED a=0.00 c=0.00 v=0.00 r=4.00 2
			r2 refund REFUNDED a=0.00 c=0.00 v=0.00 r=5.00 1`},
		{name: "unreferenced credit, and one name space", script: `
			refund r1 - 99.99     -> 201 REFUNDED 99.99
			refund r1 - 99.99     -> 200 REFUNDED 99.99
			authorize r1 99.99    -> 422 IDEMPOTENCY_MISMATCH
			void r1               -> 422 IDEMPOTENCY_MISMATCH
			capture r1 1          -> 409 NOT_AUTHORIZED
			refund r2 r1 1        -> 409 NOT_CAPTURED
			authorize o1 1        -> 201 AUTHORIZED 1.00
			refund o1 - 1         -> 422 IDEMPOTENCY_MISMATCH
		`, ledger: `o1 authorization AUTHORIZED a=1.00 c=0.00 v=0.00 r=0.00 1
			r1 refund REFUNDED a=0.00 c=0.00 v=0.00 r=99.99 2`},
		{name: "declined", faults: `{"declinePercent":100}`, script: `
			authorize o1 10.00 -> 201 DECLINED 10.00 CARD_DECLINED
			authorize o1 10.00 -> 200 DECLINED 10.00 CARD_DECLINED
			capture o1 10.00   -> 409 NOT_AUTHORIZED
			void o1            -> 200 DECLINED 10.00 CARD_DECLINED
			get o1             -> 200 DECLINED 10.00 CARD_DECLINED
			refund r1 o1 1     -> 409 NOT_CAPTURED
		`, ledger: "o1 authorization DECLINED a=0.00 c=0.00 v=0.00 r=0.00 4 CARD_DECLINED"},
		{name: "late approval", faults: `{"lateApprovalPercent":100,"lateApprovalDelay":"1h"}`, script: `
			authorize o1 10.00 -> 202 PENDING 10.00
			authorize o1 10.00 -> 202 PENDING 10.00
			get o1             -> 200 PENDING 10.00
			capture o1 10.00   -> 503 PENDING
			void o1            -> 200 VOIDED 0.00
			authorize o1 10.00 -> 200 DECLINED 10.00 VOIDED
		`, ledger: "o1 authorization VOIDED a=0.00 c=0.00 v=0.00 r=0.00 5"},
		{name: "capture refused, and voided", faults: `{"captureRefusalPercent":100}`, script: `
			authorize o1 10.00 -> 201 AUTHORIZED 10.00
			capture o1 10.01   -> 409 CAPTURE_EXCEEDS
			capture o1 10.00   -> 409 CAPTURE_REFUSED
			get o1             -> 200 AUTHORIZED 10.00 CAPTURE_REFUSED
			authorize o1 10.00 -> 200 AUTHORIZED 10.00
			void o1            -> 200 VOIDED 10.00 CAPTURE_REFUSED
		`, ledger: "o1 authorization VOIDED a=10.00 c=0.00 v=10.00 r=0.00 5 CAPTURE_REFUSED"},
		{name: "yen have no minor unit", script: `
			authorize o1 1200 JPY -> 201 AUTHORIZED 1200
			capture o1 1200 JPY   -> 200 CAPTURED 1200
		`, ledger: "o1 authorization CAPTURED a=1200.00 c=1200.00 v=0.00 r=0.00 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, t.TempDir(), pgsim.Config{})
			if tt.faults != "" {
				put(t, g, "/v1/faults", tt.faults)
			}
			for line := range strings.Lines(tt.script) {
				call, want, ok := strings.Cut(strings.TrimSpace(line), "->")
				if !ok {
					continue
				}
				if got := g.do(t, call); got != strings.TrimSpace(want) {
					t.Errorf("%s: got %s, want%s", strings.TrimSpace(call), got, want)
				}
			}
			var got, want []string
			for _, i := range g.ledger(t, 1000) {
				got = append(got, strings.TrimSpace(i.String()))
			}
			for line := range strings.Lines(tt.ledger) {
				want = append(want, strings.TrimSpace(line))
			}
			if !slices.Equal(got, want) {
				t.Errorf("ledger:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestGatewayRefusesRequests(t *testing.T) {
	g := newGateway(t, t.TempDir(), pgsim.Config{})
	const good = `{"reference":"o1","amount":{"amount":"1.00","currency":"GBP"},"customerId":"c1"}`
	const amount = `{"amount":{"amount":"1.00","currency":"GBP"}}`
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, tt := range []struct{ name, method, path, key, body, want string }{
		{"no key", "POST", "/v1/authorizations", "", good, "400 IDEMPOTENCY_KEY_MISSING"},
		{"key too long", "POST", "/v1/authorizations", strings.Repeat("k", 129), good, "422 INVALID"},
		{"key not ASCII", "POST", "/v1/authorizations", "schlüssel", good, "422 INVALID"},
		{"no body", "POST", "/v1/authorizations", "k", "", "400 MALFORMED_JSON"},
		{"cut off", "POST", "/v1/authorizations", "k", good[:20], "400 MALFORMED_JSON"},
		{"two bodies", "POST", "/v1/authorizations", "k", good + good, "400 MALFORMED_JSON"},
		{"unknown field", "POST", "/v1/authorizations", "k", swap(`"reference"`, `"card":"4111","reference"`), "400 UNKNOWN_FIELD"},
		{"unknown field of money", "POST", "/v1/authorizations", "k", swap(`"currency"`, `"minor":1,"currency"`), "400 UNKNOWN_FIELD"},
		{"amount as number", "POST", "/v1/authorizations", "k", swap(`"1.00"`, `1.00`), "400 MALFORMED_JSON"},
		{"too large", "POST", "/v1/authorizations", "k", swap("c1", strings.Repeat("x", 64<<10)), "413 BODY_TOO_LARGE"},
		{"no reference", "POST", "/v1/authorizations", "k", swap("o1", ""), "422 INVALID"},
		{"reference with space", "POST", "/v1/authorizations", "k", swap("o1", "o 1"), "422 INVALID"},
		{"reference too long", "POST", "/v1/authorizations", "k", swap("o1", strings.Repeat("o", 129)), "422 INVALID"},
		{"customer with line break", "POST", "/v1/authorizations", "k", swap("c1", `c\n1`), "422 INVALID"},
		{"zero", "POST", "/v1/authorizations", "k", swap("1.00", "0.00"), "422 AMOUNT_NOT_POSITIVE"},
		{"negative", "POST", "/v1/authorizations", "k", swap("1.00", "-1.00"), "422 AMOUNT_NOT_POSITIVE"},
		{"three digits", "POST", "/v1/authorizations", "k", swap("1.00", "1.001"), "422 AMOUNT_MALFORMED"},
		{"no number", "POST", "/v1/authorizations", "k", swap("1.00", "ten"), "422 AMOUNT_MALFORMED"},
		{"huge exponent", "POST", "/v1/authorizations", "k", swap("1.00", "1e999999999"), "422 AMOUNT_MALFORMED"},
		{"too much", "POST", "/v1/authorizations", "k", swap("1.00", "99999999999999999999"), "422 AMOUNT_MALFORMED"},
		{"long number", "POST", "/v1/authorizations", "k", swap("1.00", strings.Repeat("1", 10_000)), "422 AMOUNT_MALFORMED"},
		{"unknown currency", "POST", "/v1/authorizations", "k", swap("GBP", "XXX"), "422 AMOUNT_MALFORMED"},
		{"no amount", "POST", "/v1/authorizations", "k", `{"reference":"o1","customerId":"c1"}`, "422 AMOUNT_MALFORMED"},
		{"capture of nothing", "POST", "/v1/authorizations/o1/capture", "", `{}`, "422 AMOUNT_MALFORMED"},
		{"capture with reference", "POST", "/v1/authorizations/o1/capture", "", good, "400 UNKNOWN_FIELD"},
		{"capture of a bad reference", "POST", "/v1/authorizations/o%201/capture", "", amount, "422 INVALID"},
		{"void with amount", "POST", "/v1/authorizations/o1/void", "", amount, "400 UNKNOWN_FIELD"},
		{"void of a bad reference", "POST", "/v1/authorizations/%00/void", "", "", "422 INVALID"},
		{"refund without reference", "POST", "/v1/refunds", "", amount, "422 INVALID"},
		{"refund of a bad authorization", "POST", "/v1/refunds", "", `{"reference":"r1","authorization":" ",` + amount[1:], "422 INVALID"},
		{"ledger limit", "GET", "/v1/ledger?limit=1001", "", "", "422 LIMIT"},
		{"faults out of range", "PUT", "/v1/faults", "", `{"declinePercent":101}`, "422 INVALID"},
		{"negative delay", "PUT", "/v1/faults", "", `{"lateApprovalDelay":"-1s"}`, "422 INVALID"},
		{"unknown fault", "PUT", "/v1/faults", "", `{"declinePerCent":1,"fire":true}`, "400 UNKNOWN_FIELD"},
		{"webhooks without secret", "PUT", "/v1/webhook", "", `{"url":"http://127.0.0.1:1/"}`, "422 INVALID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(t, send(t, g, tt.method, tt.path, tt.key, tt.body)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if items := g.ledger(t, 1000); len(items) != 0 {
		t.Errorf("refused requests left %v", items)
	}
	if f := g.Faults(); f.DeclinePercent != 0 || f.LateApprovalDelay == 0 {
		t.Errorf("refused faults were set: %+v", f)
	}
}

func TestGatewayConfig(t *testing.T) {
	store := open(t, t.TempDir())
	for _, tt := range []struct {
		name string
		cfg  pgsim.Config
	}{
		{"faults", pgsim.Config{Faults: pgsim.Faults{DeclinePercent: 101}}},
		{"webhooks without secret", pgsim.Config{WebhookURL: "http://127.0.0.1/"}},
		{"weak secret", pgsim.Config{WebhookSecret: "whsec_"}},
		{"no URL", pgsim.Config{WebhookURL: "localhost:80", WebhookSecret: secret}},
		{"another scheme", pgsim.Config{WebhookURL: "file:///etc/passwd", WebhookSecret: secret}},
		{"negative", pgsim.Config{WebhookInFlight: -1}},
	} {
		if _, err := pgsim.New(store, tt.cfg); err == nil {
			t.Errorf("%s: taken", tt.name)
		}
	}
	if _, err := pgsim.New(nil, pgsim.Config{}); err == nil {
		t.Error("no ledger: taken")
	}
}

func TestGatewayLedgerPages(t *testing.T) {
	g := newGateway(t, t.TempDir(), pgsim.Config{})
	var want []string
	for i := range 25 {
		ref := fmt.Sprintf("o-%02d", i)
		g.do(t, "authorize "+ref+" 1.00")
		want = append(want, ref)
	}
	for _, limit := range []int{1, 5, 24, 25, 26} {
		var got []string
		for _, i := range g.ledger(t, limit) {
			got = append(got, i.Reference)
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", limit, got)
		}
	}
}

// race runs fn n times at once and counts what it returns.
func race(n int, fn func(i int) string) map[string]int {
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			answer := fn(i)
			mu.Lock()
			defer mu.Unlock()
			got[answer]++
		})
	}
	wg.Wait()
	return got
}

func TestGatewayRacers(t *testing.T) {
	g := newGateway(t, t.TempDir(), pgsim.Config{})
	t.Run("the same authorization", func(t *testing.T) {
		got := race(32, func(int) string { return g.do(t, "authorize a1 10.00") })
		if got["201 AUTHORIZED 10.00"] != 1 || got["200 AUTHORIZED 10.00"] != 31 {
			t.Errorf("%v", got)
		}
		if e := g.entry(t, "a1"); e.Calls != 32 {
			t.Errorf("%d calls counted, want 32", e.Calls)
		}
	})
	t.Run("one key, two bodies", func(t *testing.T) {
		got := race(32, func(i int) string { return g.do(t, fmt.Sprintf("authorize b1 %d.00", 1+i%2)) })
		if got["422 IDEMPOTENCY_MISMATCH"] != 16 || len(got) != 3 {
			t.Errorf("%v", got)
		}
	})
	t.Run("one key, two references", func(t *testing.T) {
		got := race(32, func(i int) string { return g.do(t, fmt.Sprintf("authorize c%d 1.00 GBP c1 same-key", i%2)) })
		if got["201 AUTHORIZED 1.00"] != 1 || got["200 AUTHORIZED 1.00"] != 15 || got["422 IDEMPOTENCY_MISMATCH"] != 16 {
			t.Errorf("%v", got)
		}
	})
	t.Run("capture and void", func(t *testing.T) {
		for n := range 20 {
			ref := fmt.Sprintf("d%d", n)
			g.do(t, "authorize "+ref+" 10.00")
			got := race(8, func(i int) string {
				if i%2 == 0 {
					return g.do(t, "void "+ref)
				}
				return g.do(t, "capture "+ref+" 10.00")
			})
			captured, voided := got["200 CAPTURED 10.00"], got["200 VOIDED 10.00"]
			if captured+voided != 4 || captured*voided != 0 || got["409 CAPTURED"]+got["409 VOIDED"] != 4 {
				t.Fatalf("%s: %v", ref, got)
			}
		}
	})
	t.Run("authorize and void", func(t *testing.T) {
		for n := range 20 {
			ref := fmt.Sprintf("e%d", n)
			race(8, func(i int) string {
				if i%2 == 0 {
					return g.do(t, "void "+ref)
				}
				return g.do(t, "authorize "+ref+" 10.00")
			})
			if e := g.entry(t, ref); e.Status != "VOIDED" || e.Authorized != e.Voided {
				t.Fatalf("%s", e)
			}
		}
	})
	t.Run("refunds", func(t *testing.T) {
		g.do(t, "authorize f1 10.00")
		g.do(t, "capture f1 10.00")
		got := race(32, func(i int) string { return g.do(t, fmt.Sprintf("refund fr%d f1 1.00", i)) })
		if got["201 REFUNDED 1.00"] != 10 || got["409 REFUND_EXCEEDS"] != 22 {
			t.Errorf("%v", got)
		}
	})
}

// TestGatewayIsDurable: what has been answered is there when the process was killed without warning.
func TestGatewayIsDurable(t *testing.T) {
	dir := t.TempDir()
	g := newGateway(t, dir, pgsim.Config{Faults: pgsim.Faults{CaptureRefusalPercent: 0}})
	race(40, func(i int) string {
		ref := fmt.Sprintf("o%d", i)
		g.do(t, "authorize "+ref+" 10.00")
		switch i % 4 {
		case 0:
			return g.do(t, "capture "+ref+" 10.00")
		case 1:
			return g.do(t, "void "+ref)
		case 2:
			g.do(t, "capture "+ref+" 10.00")
			return g.do(t, "refund r-"+ref+" "+ref+" 3.00")
		}
		return ""
	})
	put(t, g, "/v1/faults", `{"captureRefusalPercent":100}`)
	g.do(t, "capture o3 10.00")
	before := g.ledger(t, 7)
	again := newGateway(t, asKilled(t, dir), pgsim.Config{})
	if after := again.ledger(t, 11); !slices.Equal(before, after) || len(after) != 50 {
		t.Errorf("%d entries before, %d after the restart", len(before), len(after))
	}
	for line, want := range map[string]string{
		"authorize o0 10.00":  "200 AUTHORIZED 10.00",
		"capture o0 10.00":    "200 CAPTURED 10.00",
		"void o1":             "200 VOIDED 10.00",
		"refund r-o2 o2 3.00": "200 REFUNDED 3.00",
		"capture o3 10.00":    "409 CAPTURE_REFUSED",
		"capture o7 10.00":    "200 CAPTURED 10.00",
	} {
		if got := again.do(t, line); got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

// TestGatewayHotQueriesUseAnIndex pins the plans of what every call and every turn of Run does.
func TestGatewayHotQueriesUseAnIndex(t *testing.T) {
	g := newGateway(t, t.TempDir(), pgsim.Config{})
	for query, want := range map[string]string{
		"SELECT 1 FROM pg_ledger WHERE reference = ?":                                         "USING PRIMARY KEY (reference=?)",
		"SELECT status FROM pg_ledger WHERE reference > ? ORDER BY reference LIMIT ?":         "USING PRIMARY KEY (reference>?)",
		"SELECT reference FROM pg_ledger WHERE idempotency_key = ?":                           "(idempotency_key=?)",
		"SELECT reference FROM pg_ledger WHERE due_at <= ? ORDER BY due_at LIMIT ?":           "INDEX pg_ledger_due (due_at<?)",
		"SELECT payload FROM pg_webhooks WHERE due_at <= ? ORDER BY due_at, position LIMIT ?": "INDEX pg_webhooks_due (due_at<?)",
	} {
		args := make([]any, strings.Count(query, "?"))
		rows, err := g.store.Query(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		rows.Close()
		if got := strings.Join(plan, "; "); !strings.Contains(got, want) || strings.Contains(got, "TEMP B-TREE") {
			t.Errorf("%s: %s", query, got)
		}
	}
}

// TestGatewayBooksAlwaysAgree performs random calls on few references, so that most are repeats,
// conflicts and refusals, and checks the ledger's promises by the answers that were given.
func TestGatewayBooksAlwaysAgree(t *testing.T) {
	g := newGateway(t, t.TempDir(), pgsim.Config{})
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		put(t, g, "/v1/faults", rapid.SampledFrom([]string{`{}`, `{"seed":1,"declinePercent":30,"captureRefusalPercent":20}`}).Draw(r, "faults"))
		captured, refunded := map[string]string{}, map[string]bool{}
		for range rapid.IntRange(1, 12).Draw(r, "calls") {
			ref := fmt.Sprintf("p%d-%d", run, rapid.IntRange(0, 1).Draw(r, "reference"))
			amount := rapid.SampledFrom([]string{"1.00", "2.00", "3.00"}).Draw(r, "amount")
			line := rapid.SampledFrom([]string{
				"authorize " + ref + " 2.00", "capture " + ref + " " + amount, "void " + ref,
				fmt.Sprintf("refund %s-r%d %s 1.00", ref, rapid.IntRange(0, 3).Draw(r, "refund"), ref),
			}).Draw(r, "line")
			answer := g.do(t, line)
			if strings.HasPrefix(answer, "200 CAPTURED") {
				if was := captured[ref]; was != "" && was != answer {
					r.Fatalf("%s was captured twice: %s, then %s", ref, was, answer)
				}
				captured[ref] = answer
			}
			if strings.HasPrefix(answer, "201 REFUNDED") {
				if id := strings.Fields(line)[1]; refunded[id] {
					r.Fatalf("%s was refunded twice", id)
				} else {
					refunded[id] = true
				}
			}
		}
		var rows int64
		err := g.store.QueryRow(context.Background(), `SELECT COUNT(*) FROM pg_ledger a WHERE kind = 'authorization' AND
(status IN ('CAPTURED', 'VOIDED') AND authorized <> captured + voided OR refunded > captured OR
refunded <> (SELECT COALESCE(SUM(refunded), 0) FROM pg_ledger r WHERE r.kind = 'refund' AND r.party = a.reference))`, nil, &rows)
		if err != nil || rows != 0 {
			r.Fatalf("%d entries disagree, %v", rows, err)
		}
	})
}

func BenchmarkGatewayOrder(b *testing.B) {
	g := newGateway(b, b.TempDir(), pgsim.Config{})
	b.SetParallelism(64)
	var mu sync.Mutex
	n := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			ref := fmt.Sprintf("order-%d", n)
			mu.Unlock()
			g.do(b, "authorize "+ref+" 10.00")
			g.do(b, "capture "+ref+" 10.00")
		}
	})
}
