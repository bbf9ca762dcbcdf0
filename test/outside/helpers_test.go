package outside_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/sqlstore"
)

// open opens the store of a directory, making it where it is missing.
func open(tb testing.TB, dir string) *sqlstore.Store {
	tb.Helper()
	store, err := settlesqlite.Open(tb.Context(), filepath.Join(dir, "ledger.db"), settlesqlite.Config{Migrate: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	return store
}

// asKilled returns a directory with the files as they are now, without a clean end: what a process that
// is killed leaves behind.
func asKilled(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		// The shared memory file is rebuilt by whoever opens the database after a crash.
		if err != nil || d.IsDir() || strings.HasSuffix(path, "-shm") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, filepath.Base(path)), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// send serves one request and returns the answer.
func send(tb testing.TB, h http.Handler, method, path, key, body string) *httptest.ResponseRecorder {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// decode reads an answer's body.
func decode[T any](tb testing.TB, w *httptest.ResponseRecorder) (v T) {
	tb.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		tb.Fatalf("answer %d %q: %v", w.Code, w.Body, err)
	}
	return v
}

// put sets faults from JSON and fails the test when they are refused.
func put(tb testing.TB, h http.Handler, path, body string) {
	tb.Helper()
	if w := send(tb, h, http.MethodPut, path, "", body); w.Code != http.StatusOK {
		tb.Fatalf("PUT %s %s: %d %s", path, body, w.Code, w.Body)
	}
}

// brief is an answer in one line: "201 AUTHORIZED 10.00", "409 CAPTURED".
func brief(tb testing.TB, w *httptest.ResponseRecorder) string {
	tb.Helper()
	a := decode[struct {
		Reference string
		Status    any
		Code      string
		Amount    *struct{ Amount, Currency string }
	}](tb, w)
	problem := w.Header().Get("Content-Type") == "application/problem+json"
	if problem != (w.Code >= 400) {
		tb.Errorf("%d with content type %s", w.Code, w.Header().Get("Content-Type"))
	}
	if problem {
		return fmt.Sprintf("%d %s", w.Code, a.Code)
	}
	if a.Amount == nil {
		tb.Fatalf("answer without amount: %s", w.Body)
	}
	return strings.TrimSpace(fmt.Sprintf("%d %v %s %s", w.Code, a.Status, a.Amount.Amount, a.Code))
}

// inProcess is a client's transport that calls a handler, so that time can be virtual.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	return w.Result(), nil
}
