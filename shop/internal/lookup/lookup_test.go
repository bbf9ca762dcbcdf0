package lookup_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/settledev/settle/shop/internal/lookup"
)

func TestAsk(t *testing.T) {
	asked := 0
	known := func(_ context.Context, ids []string) (map[string]int64, error) {
		asked++
		found := map[string]int64{}
		for _, id := range ids {
			if id == "broken" {
				return nil, errors.New("secret detail")
			}
			if id != "unknown" {
				found[id] = int64(len(id))
			}
		}
		return found, nil
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token" || r.Header["Idempotency-Key"] != nil {
			t.Errorf("header %v", r.Header)
		}
		lookup.Handler(known).ServeHTTP(w, r)
	}))
	defer srv.Close()
	got, err := lookup.Ask[int64](t.Context(), srv.Client(), srv.URL, "token", []string{"a", "unknown", "ccc"})
	if err != nil || len(got) != 2 || got["a"] != 1 || got["ccc"] != 3 {
		t.Errorf("found %v, %v", got, err)
	}
	var many []string
	for i := range lookup.IDsMax + 1 {
		many = append(many, fmt.Sprint(i))
	}
	asked = 0
	if got, err := lookup.Ask[int64](t.Context(), srv.Client(), srv.URL, "token", many); err != nil || len(got) != len(many) || asked != 2 {
		t.Errorf("%d of %d found in %d parts: %v", len(got), len(many), asked, err)
	}
	if _, err := lookup.Ask[int64](t.Context(), srv.Client(), srv.URL, "token", []string{"broken"}); err == nil ||
		!strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a store that cannot be read: %v", err)
	}
}

func TestHandlerRefuses(t *testing.T) {
	h := lookup.Handler(func(context.Context, []string) (map[string]int, error) { return map[string]int{}, nil })
	tooMany := `{"ids":["x"` + strings.Repeat(`,"x"`, lookup.IDsMax) + `]}`
	for body, want := range map[string]int{`{`: 400, `{"id":[]}`: 400, tooMany: 422, `{"ids":[]}`: 200} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body)))
		if w.Code != want {
			t.Errorf("%.20s: %d %s", body, w.Code, w.Body)
		}
	}
}
