package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/internal/statement"
	"github.com/settledev/settle/shop/catalog"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/notify"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/platform"
	"github.com/settledev/settle/shop/shipping"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

func price(t *testing.T, s string) contract.Price {
	t.Helper()
	p, err := contract.ParsePrice(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// inCatalog runs a test with a catalogue of six products of which some are counted.
func inCatalog(t *testing.T, test func(p *part, svc *catalog.Service)) {
	t.Helper()
	var svc *catalog.Service
	inPart(t, catalog.Migrations("sqlite"), func(p *part) (runs, http.Handler) {
		svc = made(catalog.New(p.store, p.broker, catalog.Config{Service: p.config(), Available: func(_ context.Context, ids []string) (map[string]int64, error) {
			if len(ids) == 1 {
				return nil, errors.New("inventory is away")
			}
			return map[string]int64{"22423": 7}, nil
		}}))
		return svc, svc.Handler()
	}, func(p *part) {
		for i := range 2 { // The second time changes nothing.
			err := svc.Seed(p.t.Context(), []catalog.Product{
				{ID: "22423", Name: "REGENCY CAKESTAND 3 TIER", Price: price(p.t, "12.75"), Currency: contract.GBP},
				{ID: "85123A", Name: "WHITE HANGING T-LIGHT HOLDER", Price: price(p.t, "2.55"), Currency: contract.GBP},
				{ID: "10100", Name: "100% COTTON_BAG", Price: price(p.t, "0.335"), Currency: contract.GBP},
				{ID: "10101", Name: "1000 COTTON BAGS", Price: price(p.t, "1"), Currency: contract.GBP},
				{ID: "10102", Name: `CAFÉ \ CRÈME`, Price: price(p.t, "3"), Currency: contract.GBP},
				{ID: "POST", Name: fmt.Sprint("POSTAGE", i), Price: price(p.t, "18"), Currency: contract.GBP},
			})
			if err != nil {
				p.t.Fatal(err)
			}
		}
		test(p, svc)
	})
}

func TestCatalogSearch(t *testing.T) {
	inCatalog(t, func(p *part, _ *catalog.Service) {
		for query, want := range map[string]string{
			"":               "10100 10101 10102 22423 85123A POST",
			"cotton":         "10100 10101",
			"100%":           "10100", // No wildcards from outside.
			"n_b":            "10100",
			"%":              "10100",
			"_":              "10100",
			`\`:              "10102",
			"!":              "", // The escape character of the pattern.
			"100!%":          "",
			"café":           "10102",
			"CAFÉ":           "10102",
			"crème":          "10102",
			"white holder":   "85123A",
			"holder white":   "",
			"  Cake   tier ": "22423",
			"85123a":         "85123A",
			"postage0":       "POST",
			"postage1":       "",
			"'; DROP TABLE":  "",
		} {
			var ids []string
			for _, i := range items[catalog.Item](p, p.http, "/products?query="+url.QueryEscape(query)) {
				ids = append(ids, i.ID)
			}
			if got := strings.Join(ids, " "); got != want {
				p.t.Errorf("%q: %s, want %s", query, got, want)
			}
		}
		two := items[catalog.Item](p, p.http, "/products?limit=2&after=10102")
		if len(two) != 2 || two[0].Available == nil || *two[0].Available != 7 || two[1].Available != nil || two[0].Price.Amount() != "12.75" {
			p.t.Errorf("page %+v", two)
		}
	})
}

// TestCatalogInStock proves that a page of what can be sold is a full one, in order, and walks on.
func TestCatalogInStock(t *testing.T) {
	var svc *catalog.Service
	inPart(t, catalog.Migrations("sqlite"), func(p *part) (runs, http.Handler) {
		svc = made(catalog.New(p.store, p.broker, catalog.Config{Service: p.config(), Available: func(_ context.Context, ids []string) (map[string]int64, error) {
			free := map[string]int64{}
			for _, id := range ids { // Every tenth product is there; those that begin with X are not counted.
				if id[0] != 'X' {
					free[id] = 0
					if id[len(id)-1] == '0' {
						free[id] = 3
					}
				}
			}
			return free, nil
		}}))
		return svc, svc.Handler()
	}, func(p *part) {
		var products []catalog.Product
		for i := range 1200 {
			products = append(products, catalog.Product{ID: fmt.Sprintf("%05d", i), Name: "THING", Price: price(p.t, "1"), Currency: contract.GBP})
		}
		products = append(products, catalog.Product{ID: "X", Name: "SERVICE", Price: price(p.t, "1"), Currency: contract.GBP})
		if err := svc.Seed(p.t.Context(), products); err != nil {
			p.t.Fatal(err)
		}
		var got []string
		for after := ""; ; {
			var page struct {
				Items []struct{ ID string }
				Next  string
			}
			w := httptest.NewRecorder()
			p.http.ServeHTTP(w, httptest.NewRequestWithContext(p.t.Context(), http.MethodGet, "/products?inStock=true&limit=50&after="+url.QueryEscape(after), nil))
			if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
				p.t.Fatalf("%v: %.200s", err, w.Body)
			}
			for _, it := range page.Items {
				got = append(got, it.ID)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if len(got) != 121 || got[0] != "00000" || got[119] != "01190" || got[120] != "X" {
			p.t.Errorf("%d products in stock: %v", len(got), got)
		}
	})
}

// ask sends a request and returns the status and the code of a refusal.
func (p *part) ask(method, path string) string {
	p.t.Helper()
	w := httptest.NewRecorder()
	p.http.ServeHTTP(w, httptest.NewRequestWithContext(p.t.Context(), method, path, nil))
	var doc struct{ Type string }
	if w.Header().Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			p.t.Errorf("%s: %v", w.Body, err)
		}
	}
	return strings.TrimSpace(fmt.Sprint(w.Code, " ", doc.Type[strings.LastIndexAny(doc.Type, "/:")+1:]))
}

func TestCatalogActs(t *testing.T) {
	inCatalog(t, func(p *part, svc *catalog.Service) {
		for _, c := range []struct{ method, path, want string }{
			{"POST", "/products/22423/views", "202"},
			{"POST", "/products/22423/views", "202"},
			{"PUT", "/products/22423/likes/ann", "204"},
			{"PUT", "/products/22423/likes/ann", "204"},
			{"PUT", "/products/22423/likes/bob", "204"},
			{"DELETE", "/products/22423/likes/ann", "204"},
			{"DELETE", "/products/22423/likes/ann", "204"},
			{"DELETE", "/products/22423/likes/eve", "204"},
			{"GET", "/products/22423", "200"}, // Also while inventory is away.
			{"GET", "/products/none", "404 unknown-product"},
			{"POST", "/products/none/views", "404 unknown-product"},
			{"PUT", "/products/none/likes/ann", "404 unknown-product"},
			{"DELETE", "/products/none/likes/ann", "404 unknown-product"},
			{"PUT", "/products/22423/likes/" + strings.Repeat("x", 65), "400 bad-user"},
			{"PUT", "/products/22423/likes/%ff", "400 bad-user"},
			{"PUT", "/products/22423/likes/", "404"},
			{"GET", "/products?limit=0", "400 bad-page"},
			{"GET", "/products?query=" + strings.Repeat("x", 101), "400 bad-page"},
			{"GET", "/products?query=%ff", "400 bad-page"},
		} {
			if got := p.ask(c.method, c.path); got != c.want {
				p.t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
			}
		}
		p.wantEmitted("22423", "ProductViewed", "ProductViewed", "ProductLiked", "ProductLiked", "ProductUnliked")
		all := items[catalog.Item](p, p.http, "/products?query=22423")
		if len(all) != 1 || all[0].Likes != 1 || all[0].Views != 2 {
			p.t.Errorf("%+v", all)
		}

		// Orders see a new price at once, and nothing changes for a price that is refused.
		known := func() string {
			found, err := svc.Products(p.t.Context(), []string{"22423", "85123A", "none"})
			if err != nil || len(found) != 2 {
				p.t.Errorf("products %+v %v", found, err)
			}
			return found["22423"].Price.String()
		}
		before := known()
		for _, c := range []struct {
			id, currency string
		}{{"none", contract.GBP}, {"22423", "EUR"}} {
			if err := svc.SetPrice(p.t.Context(), c.id, contract.NewMoney(100, c.currency)); !errors.Is(err, catalog.ErrUnknownProduct) {
				p.t.Errorf("price of %s in %s: %v", c.id, c.currency, err)
			}
		}
		if got := known(); before != "12.75" || got != before {
			p.t.Errorf("price %s, before %s", got, before)
		}
		if err := svc.SetPrice(p.t.Context(), "22423", contract.NewMoney(1095, contract.GBP)); err != nil {
			p.t.Error(err)
		}
		if got := known(); got != "10.95" {
			p.t.Errorf("price %s", got)
		}
		if got := p.lastData("PriceChanged"); got != `{"productId":"22423","price":{"amount":"10.95","currency":"GBP"}}` {
			p.t.Errorf("price changed: %s", got)
		}
		// What another process has changed is known here after a while.
		err := p.store.Run(p.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE product SET price = '9.95' WHERE id = '22423'")
			return err
		})
		if got := known(); err != nil || got != "10.95" {
			p.t.Errorf("price %s at once, %v", got, err)
		}
		p.pass(2 * time.Second)
		if got := known(); got != "9.95" {
			p.t.Errorf("price %s after a while", got)
		}
	})
}

// TestParticipantPlans holds every statement of the services against their tables: it prepares, and none
// but the operator's stock list reads a table from end to end.
func TestParticipantPlans(t *testing.T) {
	for name, files := range map[string]fs.FS{
		"inventory": inventory.Migrations("sqlite"), "payment": payment.Migrations("sqlite"), "shipping": shipping.Migrations("sqlite"),
		"notify": notify.Migrations("sqlite"), "platform": platform.Migrations("sqlite"), "catalog": catalog.Migrations("sqlite"),
	} {
		store, err := settlesqlite.Open(t.Context(), filepath.Join(t.TempDir(), name+".db"), settlesqlite.Config{
			Migrate: true, Store: sqlstore.Config{Schemas: []sqlstore.Schema{{Name: name, Files: files}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		statements, err := statement.Load(files)
		if err != nil || len(statements) < 2 {
			t.Errorf("%s: %d statements found, %v", name, len(statements), err)
		}
		for which, s := range statements {
			for _, detail := range explain(t, store, s) {
				table, scans := strings.CutPrefix(detail, "SCAN ")
				small := strings.Contains(table, "VIRTUAL TABLE") || strings.Contains(table, "CONSTANT ROW")
				if (scans && !small || strings.Contains(detail, "TEMP B-TREE")) && which != "inventory.list_stock" {
					t.Errorf("%s: %s\n%s", which, detail, s)
				}
			}
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

// explain returns the steps of a statement's plan.
func explain(t *testing.T, store *sqlstore.Store, text string) (details []string) {
	t.Helper()
	args := make([]any, strings.Count(text, "?"))
	for i := range args {
		args[i] = "[]"
	}
	rows, err := store.Query(t.Context(), "EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return nil
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		details = append(details, detail)
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
	return details
}
