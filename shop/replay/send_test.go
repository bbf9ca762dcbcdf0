package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/shop/replay"
)

// served is a client's transport that calls a handler, so that time can be virtual.
type served struct{ http.HandlerFunc }

func (s served) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code == 599 { // Stands for a connection that breaks.
		return nil, errors.New("broken")
	}
	return w.Result(), nil
}

func target(h http.HandlerFunc) replay.Target {
	return replay.Target{ShopURL: "http://shop", Token: "secret", Client: &http.Client{Transport: served{h}}}
}

func invoices(n int) *replay.File {
	f := &replay.File{}
	for i := range n {
		f.Invoices = append(f.Invoices, replay.Invoice{
			Number: fmt.Sprint(i), Return: i%2 == 1, Items: []replay.Item{{Product: "22423", Quantity: 2, Price: "2.55"}},
		})
	}
	return f
}

// TestSend repeats what fails, remembers what was answered, and sends nothing twice that has an answer.
func TestSend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, path)
		var mu sync.Mutex
		tries := map[string]int{}
		shop := target(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			var doc struct{ Reference, CustomerID string }
			if err := json.Unmarshal(body, &doc); err != nil || doc.CustomerID != replay.Guest || r.Header.Get("Authorization") != "Bearer secret" {
				t.Errorf("%s: %v", body, err)
			}
			if want := map[bool]string{true: "/import/returns", false: "/import/orders"}[strings.ContainsAny(doc.Reference[len(doc.Reference)-1:], "13579")]; r.URL.Path != want {
				t.Errorf("%s went to %s", doc.Reference, r.URL.Path)
			}
			mu.Lock()
			defer mu.Unlock()
			tries[doc.Reference]++
			switch n := tries[doc.Reference]; {
			case n < 5: // 500, 503, 429 and a broken connection first.
				w.WriteHeader([]int{500, 503, 429, 599}[n-1])
			case doc.Reference == "2":
				w.WriteHeader(http.StatusUnprocessableEntity)
				_, _ = io.WriteString(w, `{"type":"https://settle.dev/problems/unknown-product"}`)
			case doc.Reference == "3":
				_, _ = io.WriteString(w, `{"id":"again"}`)
			default:
				w.WriteHeader(http.StatusAccepted)
				_, _ = io.WriteString(w, `{"id":"o`+doc.Reference+`"}`)
			}
		})
		if err := replay.Send(t.Context(), invoices(6), j, replay.Config{Target: shop, Workers: 3}); err != nil {
			t.Fatal(err)
		}
		var handedOut int
		cfg := replay.Config{Target: shop, Progress: func(done, total int) { handedOut = 10*done + total }}
		if err := replay.Send(t.Context(), invoices(6), j, cfg); err != nil || handedOut != 66 {
			t.Errorf("again: %v, progress %d", err, handedOut)
		}
		for ref, n := range tries {
			if n != 5 {
				t.Errorf("%s was sent %d times", ref, n)
			}
		}
		all := j.Answers()
		if len(all) != 6 || all["0"].ID != "o0" || all["2"].Code != "unknown-product" || all["2"].Accepted() || all["3"].ID != "again" || all["3"].Status != 202 {
			t.Errorf("answers %+v", all)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestSendStops at what no repetition mends.
func TestSendStops(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"no token":               {401, ""},
		"no route":               {404, ""},
		"accepted without an id": {202, "{}"},
		"refused without reason": {422, "{}"},
	} {
		j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
		var asked atomic.Int32
		shop := target(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		err := replay.Send(t.Context(), invoices(100), j, replay.Config{Target: shop, Workers: 1})
		if err == nil || asked.Load() > 2 || len(j.Answers()) != 0 {
			t.Errorf("%s: %v after %d requests", name, err, asked.Load())
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := replay.Send(t.Context(), invoices(1), nil, replay.Config{Workers: 1025}); err == nil {
		t.Error("1025 workers were allowed")
	}
}

func TestSendEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, path)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		shop := target(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		if err := replay.Send(ctx, invoices(3), j, replay.Config{Target: shop}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("down for ever: %v", err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestWaitQuiet plays a shop that is busy, looks quiet once, is away for a while, and then is quiet.
func TestWaitQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := []string{
			`{"lag":1}`, `{"timers":1}`, `{"retrying":1}`, `{"callsPending":1}`, `{"unpublished":1}`,
			`{"emitted":1}`, `{"emitted":2}`, `{"emitted":2}`, "away", `{"emitted":2}`, `{"emitted":2,"parked":1}`,
		}
		asked := 0
		err := replay.WaitQuiet(t.Context(), target(func(w http.ResponseWriter, _ *http.Request) {
			text := plan[min(asked, len(plan)-1)]
			asked++
			if text == "away" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.WriteString(w, text)
		}))
		if err != nil || asked != len(plan)+25 {
			t.Errorf("%v after %d of %d answers", err, asked, len(plan)+25)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = replay.WaitQuiet(ctx, target(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"lag":1}`) }))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("busy for ever: %v", err)
		}
		err = replay.WaitQuiet(t.Context(), target(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
		if err == nil {
			t.Error("no token: no error")
		}
	})
}
