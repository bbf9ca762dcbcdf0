package order

import (
	"testing"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/problem"
)

// FuzzImport: whatever comes in is refused with a problem, or makes lines whose amounts add up.
func FuzzImport(f *testing.F) {
	for _, body := range []string{
		`{"reference":"536365","customerId":"17850","items":[{"productId":"85123A","quantity":6,"unitPrice":"2.55"}]}`,
		`{"reference":"x","items":[{"productId":"1","quantity":1,"unitPrice":1e18}],"total":{"amount":"1","currency":"GBP"}}`,
		`{"items":[{"quantity":-1}]}`, `{"items":null}`, `[]`, `{}{}`, ``,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var q importRequest
		if err := decode(body, &q); err != nil {
			if _, ok := problem.As(err); !ok {
				t.Fatalf("%q: %v is no problem", body, err)
			}
			return
		}
		if _, err := q.Total.parse(); err != nil {
			return
		}
		items := importItems(q.Items)
		if checkItems(items) != nil {
			return
		}
		var total contract.Money
		for _, it := range items {
			if it.UnitPrice == nil {
				return
			}
			l, err := line(it, "", *it.UnitPrice, currencyOr(q.Currency))
			if err != nil {
				return
			}
			if l.Amount.Minor() < 0 {
				t.Fatalf("%q: a line of %s", body, l.Amount)
			}
			if total, err = sum(total, l.Amount); err != nil {
				return
			}
		}
		if total.Minor() < 0 {
			t.Fatalf("%q: a total of %s", body, total)
		}
	})
}
