package pgsim

import (
	"net/http"
	"strings"
	"testing"

	"github.com/settledev/settle/shop/internal/jsonhttp"
)

// FuzzRequests: whatever the body, it is refused as a client's mistake or it holds names and amounts
// within their bounds.
func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"reference":"o1","amount":{"amount":"1.00","currency":"GBP"},"customerId":"c1"}`))
	f.Add([]byte(`{"reference":"r1","authorization":"o1","amount":{"amount":"1e2","currency":"JPY"}}`))
	f.Add([]byte(`{"reference":"r1","amount":{"amount":"-0.001","currency":""}}`))
	f.Add([]byte(`{"reference":null,"amount":null}`))
	f.Add([]byte(`[1e999999999]`))
	refused := func(t *testing.T, p *jsonhttp.Problem) bool {
		t.Helper()
		if p != nil && (p.Status < 400 || p.Status > 499 || !strings.HasSuffix(p.Type, p.Code) || p.Title != http.StatusText(p.Status)) {
			t.Errorf("refused with %+v", p)
		}
		return p != nil
	}
	named := func(t *testing.T, name string) {
		t.Helper()
		if name == "" || len(name) > ReferenceBytesMax || strings.ContainsAny(name, " \x00\n\x7f") {
			t.Errorf("name %q was taken", name)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var j authorizationJSON
		if !refused(t, jsonhttp.Unmarshal(body, &j)) {
			if a, p := j.check("key"); !refused(t, p) {
				named(t, a.reference)
				if a.amount.Minor() <= 0 || a.amount.Currency() == "" {
					t.Errorf("amount %s was taken", a.amount)
				}
			}
		}
		var r refundJSON
		if !refused(t, jsonhttp.Unmarshal(body, &r)) {
			if a, p := r.check(); !refused(t, p) {
				named(t, a.reference)
				if a.amount.Minor() <= 0 {
					t.Errorf("amount %s was taken", a.amount)
				}
			}
		}
		var set Faults
		if !refused(t, jsonhttp.Unmarshal(body, &set)) {
			if set, err := set.withDefaults(); err == nil && (set.DeclinePercent < 0 || set.DeclinePercent > 100 || set.LateApprovalDelay <= 0) {
				t.Errorf("faults %+v were taken", set)
			}
		}
	})
}
