package outside_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/platformsim"
)

func newPlatform(tb testing.TB, dir string, cfg platformsim.Config) *platformsim.Server {
	tb.Helper()
	store := open(tb, dir)
	if err := platformsim.Migrate(tb.Context(), store); err != nil {
		tb.Fatal(err)
	}
	p, err := platformsim.New(store, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// deliver delivers and returns "202 false", or the refusal.
func deliver(tb testing.TB, p *platformsim.Server, id, kind, reference string) string {
	tb.Helper()
	body := fmt.Sprintf(`{"eventId":%q,"kind":%q,"reference":%q,"data":{"total":"1.00"}}`, id, kind, reference)
	w := send(tb, p, http.MethodPost, "/v1/deliveries", id, body)
	if w.Code >= 400 {
		return brief(tb, w)
	}
	return fmt.Sprintf("%d %v", w.Code, decode[struct{ Duplicate bool }](tb, w).Duplicate)
}

func stats(tb testing.TB, p *platformsim.Server) string {
	tb.Helper()
	return strings.TrimSpace(send(tb, p, http.MethodGet, "/v1/stats", "", "").Body.String())
}

func TestPlatformCountsDuplicates(t *testing.T) {
	dir := t.TempDir()
	p := newPlatform(t, dir, platformsim.Config{})
	for _, tt := range []struct{ id, kind, reference, want string }{
		{"e1", "order", "o1", "202 false"},
		{"e2", "reservation", "o1", "202 false"},
		{"e3", "message", "o1", "202 false"},
		{"e1", "order", "o1", "202 true"},
		{"e1", "order", "o1", "202 true"},
		{"e1", "message", "o1", "422 EVENT_ID_REUSED"},
		{"e1", "order", "o2", "422 EVENT_ID_REUSED"},
	} {
		if got := deliver(t, p, tt.id, tt.kind, tt.reference); got != tt.want {
			t.Errorf("%v: %s", tt, got)
		}
	}
	const want = `{"received":3,"duplicates":2}`
	if got := stats(t, p); got != want {
		t.Errorf("stats %s", got)
	}
	again := newPlatform(t, asKilled(t, dir), platformsim.Config{})
	if got := stats(t, again); got != want {
		t.Errorf("stats after a kill %s", got)
	}
	if got := deliver(t, again, "e2", "reservation", "o1"); got != "202 true" {
		t.Errorf("a duplicate after a kill: %s", got)
	}
	w := send(t, again, http.MethodGet, "/v1/ledger?limit=2&after=e1", "", "")
	const page = `{"items":[{"eventId":"e2","kind":"reservation","reference":"o1","deliveries":2},` +
		`{"eventId":"e3","kind":"message","reference":"o1","deliveries":1}]}`
	if w.Body.String() != page {
		t.Errorf("ledger %s", w.Body)
	}
}

func TestPlatformRacers(t *testing.T) {
	p := newPlatform(t, t.TempDir(), platformsim.Config{})
	got := race(32, func(int) string { return deliver(t, p, "e1", "order", "o1") })
	if got["202 false"] != 1 || got["202 true"] != 31 {
		t.Errorf("%v", got)
	}
	if got := stats(t, p); got != `{"received":1,"duplicates":31}` {
		t.Errorf("stats %s", got)
	}
}

func TestPlatformLedgerPages(t *testing.T) {
	p := newPlatform(t, t.TempDir(), platformsim.Config{})
	var want, got []string
	for i := range 12 {
		want = append(want, fmt.Sprintf("e-%02d", i))
		deliver(t, p, want[i], "order", "o1")
	}
	for after := ""; ; {
		page := decode[struct {
			Items []struct{ EventID string }
			Next  string
		}](t, send(t, p, http.MethodGet, "/v1/ledger?limit=4&after="+after, "", ""))
		for _, i := range page.Items {
			got = append(got, i.EventID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestPlatformRefusesRequests(t *testing.T) {
	p := newPlatform(t, t.TempDir(), platformsim.Config{})
	const good = `{"eventId":"e1","kind":"order","reference":"o1","data":{}}`
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, tt := range []struct{ name, method, path, key, body, want string }{
		{"no key", "POST", "/v1/deliveries", "", good, "422 IDEMPOTENCY_KEY_MISMATCH"},
		{"another key", "POST", "/v1/deliveries", "e2", good, "422 IDEMPOTENCY_KEY_MISMATCH"},
		{"no id", "POST", "/v1/deliveries", "", swap("e1", ""), "422 INVALID"},
		{"id with space", "POST", "/v1/deliveries", "e 1", swap("e1", "e 1"), "422 INVALID"},
		{"no reference", "POST", "/v1/deliveries", "e1", swap("o1", ""), "422 INVALID"},
		{"kind", "POST", "/v1/deliveries", "e1", swap("order", "invoice"), "422 INVALID"},
		{"no data", "POST", "/v1/deliveries", "e1", swap(`,"data":{}`, ""), "422 INVALID"},
		{"data is null", "POST", "/v1/deliveries", "e1", swap("{}", "null"), "422 INVALID"},
		{"data is a list", "POST", "/v1/deliveries", "e1", swap("{}", "[]"), "422 INVALID"},
		{"unknown field", "POST", "/v1/deliveries", "e1", swap("{}", `{},"x":1`), "400 UNKNOWN_FIELD"},
		{"malformed", "POST", "/v1/deliveries", "e1", good[1:], "400 MALFORMED_JSON"},
		{"too large", "POST", "/v1/deliveries", "e1", swap("{}", `{"x":"`+strings.Repeat("x", 1<<20)+`"}`), "413 BODY_TOO_LARGE"},
		{"limit", "GET", "/v1/ledger?limit=0", "", "", "422 LIMIT"},
		{"faults", "PUT", "/v1/faults", "", `{"silencePercent":-1}`, "422 INVALID"},
		{"no such fault", "PUT", "/v1/faults", "", `{"declinePercent":1}`, "400 UNKNOWN_FIELD"},
	} {
		if got := brief(t, send(t, p, tt.method, tt.path, tt.key, tt.body)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := stats(t, p); got != `{"received":0,"duplicates":0}` {
		t.Errorf("refused deliveries left %s", got)
	}
}

func TestPlatformFaults(t *testing.T) {
	p := newPlatform(t, t.TempDir(), platformsim.Config{Faults: faults.Transport{Down: true}})
	if got := deliver(t, p, "e1", "order", "o1"); got != "503 DOWN" {
		t.Errorf("down: %s", got)
	}
	put(t, p, "/v1/faults", `{"errorBeforePercent":100}`)
	if got := deliver(t, p, "e1", "order", "o1"); got != "503 ERROR_BEFORE" {
		t.Errorf("before: %s", got)
	}
	put(t, p, "/v1/faults", `{"errorAfterPercent":100}`)
	if got := deliver(t, p, "e1", "order", "o1"); got != "500 ERROR_AFTER" {
		t.Errorf("after: %s", got)
	}
	put(t, p, "/v1/faults", `{"latency":{"min":"1ms","median":"2ms","p99":"3ms"}}`)
	if got := deliver(t, p, "e1", "order", "o1"); got != "202 true" {
		t.Errorf("the delivery before the error: %s", got)
	}
	if f := decode[faults.Transport](t, send(t, p, http.MethodGet, "/v1/faults", "", "")); f != p.Faults() || f.Latency.P99 == 0 {
		t.Errorf("faults %+v", f)
	}
	if _, err := platformsim.New(open(t, t.TempDir()), platformsim.Config{Faults: faults.Transport{SilencePercent: 101}}); err == nil {
		t.Error("faults out of range were taken")
	}
	if _, err := platformsim.New(nil, platformsim.Config{}); err == nil {
		t.Error("no ledger was taken")
	}
	broken, err := platformsim.New(failing{errors.New("disk is full")}, platformsim.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if got := deliver(t, broken, "e1", "order", "o1"); got != "500 LEDGER_FAILED" {
		t.Errorf("a ledger that fails: %s", got)
	}
}

func BenchmarkPlatformDelivery(b *testing.B) {
	p := newPlatform(b, b.TempDir(), platformsim.Config{})
	b.SetParallelism(64)
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			deliver(b, p, fmt.Sprintf("e-%d", n.Add(1)), "order", "o1")
		}
	})
}
