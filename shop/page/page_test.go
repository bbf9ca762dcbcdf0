package page_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

func TestParse(t *testing.T) {
	for query, want := range map[string]page.Ask{
		"":                   {Limit: page.LimitDefault},
		"?limit=1&after=x":   {After: "x", Limit: 1},
		"?limit=5000":        {Limit: page.LimitMax},
		"?after=a%26b%3D%2F": {After: "a&b=/", Limit: page.LimitDefault},
	} {
		if got, err := page.Parse(httptest.NewRequest(http.MethodGet, "/"+query, nil)); got != want || err != nil {
			t.Errorf("%q: %+v %v", query, got, err)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=-1", "?limit=5001", "?limit=x", "?limit=1.5", "?limit=99999999999999999999"} {
		if got, err := page.Parse(httptest.NewRequest(http.MethodGet, "/"+query, nil)); err == nil {
			t.Errorf("%q: %+v", query, got)
		}
	}
}

// numbers is a table of the numbers 1 to n, as texts of two digits.
type numbers int

type numberRows struct{ at, end int }

func (n numbers) Query(_ context.Context, _ string, args ...any) (txn.Rows, error) {
	after, _ := strconv.Atoi(fmt.Sprint(args[0])) // Empty is 0.
	limit, ok := args[1].(int)
	if !ok {
		return nil, fmt.Errorf("limit %v", args[1])
	}
	return &numberRows{after, min(int(n), after+limit)}, nil
}
func (r *numberRows) Next() bool { r.at++; return r.at <= r.end }
func (r *numberRows) Scan(dest ...any) error {
	_, err := fmt.Sscan(fmt.Sprintf("%02d", r.at), dest[0])
	return err
}
func (r *numberRows) Err() error   { return nil }
func (r *numberRows) Close() error { return nil }

func numberList(db page.Reader) http.Handler {
	return page.List(db, "", func(rows txn.Rows) (s string, err error) { return s, rows.Scan(&s) }, func(s string) string { return s })
}

// TestList walks lists of several lengths to their end: every item comes once.
func TestList(t *testing.T) {
	for n := range 8 {
		var got []string
		after, pages := "", 0
		for {
			w := httptest.NewRecorder()
			numberList(numbers(n)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?limit=3&after="+after, nil))
			var p page.Page[string]
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusOK || p.Items == nil {
				t.Fatalf("%d %s: %v", w.Code, w.Body, err)
			}
			got = append(got, p.Items...)
			if pages++; p.Next == "" {
				break
			}
			after = p.Next
		}
		if len(got) != n || n > 0 && got[n-1] != fmt.Sprintf("%02d", n) || pages != n/3+1 {
			t.Errorf("%d items: %v in %d pages", n, got, pages)
		}
	}
}

func TestListFails(t *testing.T) {
	for path, want := range map[string]int{"/?limit=x": 400, "/": 500} {
		w := httptest.NewRecorder()
		numberList(page.ReaderOf(nil)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if _, err := page.ReaderOf(nil).Query(t.Context(), ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a store without queries: %v", err)
	}
	if r := page.ReaderOf(numbers(1)); r != page.Reader(numbers(1)) {
		t.Errorf("reader %v", r)
	}
}
