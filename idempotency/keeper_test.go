package idempotency_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

// request is a keyed request to POST /orders of principal ada.
func request(t *testing.T, key, body string) idempotency.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", http.NoBody)
	r.Header.Set("Idempotency-Key", key)
	q, err := idempotency.NewRequest(r, "/orders", "ada", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// answering is a command that counts its runs and answers with their number.
func answering(runs *int) func(context.Context, *txn.Tx) (idempotency.Answer, error) {
	return func(context.Context, *txn.Tx) (idempotency.Answer, error) {
		*runs++
		return idempotency.Answer{
			Status: http.StatusAccepted, Header: map[string]string{"Location": "/orders/1"},
			Body: []byte(strings.Repeat("x", *runs)),
		}, nil
	}
}

func TestFirstAnswerIsReplayed(t *testing.T) {
	s := memory.New()
	k := idempotency.NewKeeper(s, s.Answers())
	runs := 0
	for i := range 3 {
		a, replayed, err := k.Do(t.Context(), request(t, "k1", `{"a":1}`), answering(&runs))
		if err != nil || a.Status != http.StatusAccepted || string(a.Body) != "x" || a.Header["Location"] != "/orders/1" {
			t.Fatalf("answer %d: %+v, %v", i, a, err)
		}
		if replayed != (i > 0) {
			t.Errorf("answer %d: replayed is %v", i, replayed)
		}
		w := httptest.NewRecorder()
		a.Write(w, replayed)
		if got := w.Header().Get("Idempotency-Replayed") == "true"; got != replayed || w.Code != http.StatusAccepted || w.Body.String() != "x" {
			t.Errorf("written %d: %d %q, marked %v", i, w.Code, w.Body, got)
		}
	}
	// The next process has the answer too: it is in the store.
	if _, replayed, err := idempotency.NewKeeper(s, s.Answers()).Do(t.Context(), request(t, "k1", `{"a":1}`), answering(&runs)); err != nil || !replayed {
		t.Errorf("another keeper: replayed %v, %v", replayed, err)
	}
	if runs != 1 {
		t.Errorf("%d runs, want 1", runs)
	}
}

func TestWithoutKeyEveryRequestRuns(t *testing.T) {
	s := memory.New()
	k := idempotency.NewKeeper(s, s.Answers())
	runs := 0
	for range 2 {
		if _, replayed, err := k.Do(t.Context(), idempotency.Request{}, answering(&runs)); err != nil || replayed {
			t.Fatalf("replayed %v, %v", replayed, err)
		}
	}
	if runs != 2 {
		t.Errorf("%d runs, want 2", runs)
	}
}

func TestSecondRequestWaitsWhileTheFirstRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		k := idempotency.NewKeeper(s, s.Answers())
		q := request(t, "k1", "{}")
		finish, done := make(chan struct{}), make(chan error, 1)
		go func() {
			_, _, err := k.Do(t.Context(), q, func(context.Context, *txn.Tx) (idempotency.Answer, error) {
				<-finish
				return idempotency.Answer{Status: http.StatusAccepted}, nil
			})
			done <- err
		}()
		synctest.Wait()
		runs := 0
		if _, _, err := k.Do(t.Context(), q, answering(&runs)); !errors.Is(err, idempotency.ErrInFlight) {
			t.Errorf("meanwhile: %v, want ErrInFlight", err)
		}
		close(finish)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, replayed, err := k.Do(t.Context(), q, answering(&runs)); err != nil || !replayed {
			t.Errorf("afterwards: replayed %v, %v", replayed, err)
		}
		if runs != 0 {
			t.Errorf("%d further runs", runs)
		}
	})
}

func TestAnotherRequestUnderTheKeyIsRefused(t *testing.T) {
	s := memory.New()
	k := idempotency.NewKeeper(s, s.Answers())
	runs := 0
	if _, _, err := k.Do(t.Context(), request(t, "k1", `{"a":1}`), answering(&runs)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Do(t.Context(), request(t, "k1", `{"a":2}`), answering(&runs)); !errors.Is(err, idempotency.ErrMismatch) {
		t.Errorf("another body: %v, want ErrMismatch", err)
	}
	// The same key of somebody else, or on another route, has nothing to do with it.
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", http.NoBody)
	r.Header.Set("Idempotency-Key", "k1")
	for _, other := range []struct{ route, principal string }{{"/returns", "ada"}, {"/orders", "bob"}} {
		q, err := idempotency.NewRequest(r, other.route, other.principal, []byte(`{"a":1}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, replayed, err := k.Do(t.Context(), q, answering(&runs)); err != nil || replayed {
			t.Errorf("%+v: replayed %v, %v", other, replayed, err)
		}
	}
	if runs != 3 {
		t.Errorf("%d runs, want 3", runs)
	}
}

func TestFailedCommandLeavesNothing(t *testing.T) {
	s := memory.New()
	k := idempotency.NewKeeper(s, s.Answers())
	q := request(t, "k1", "{}")
	refused := errors.New("no stock")
	if _, _, err := k.Do(t.Context(), q, func(context.Context, *txn.Tx) (idempotency.Answer, error) {
		return idempotency.Answer{}, refused
	}); !errors.Is(err, refused) {
		t.Fatalf("error is %v", err)
	}
	if _, ok, err := s.Answers().Lookup(t.Context(), q.Scope, q.Key); ok || err != nil {
		t.Errorf("an answer was kept: %v, %v", ok, err)
	}
	runs := 0
	if _, replayed, err := k.Do(t.Context(), q, answering(&runs)); err != nil || replayed || runs != 1 {
		t.Errorf("again: replayed %v, runs %d, %v", replayed, runs, err)
	}
	// An answer that is too large to keep rolls its command back.
	big := request(t, "k2", "{}")
	if _, _, err := k.Do(t.Context(), big, func(context.Context, *txn.Tx) (idempotency.Answer, error) {
		return idempotency.Answer{Body: make([]byte, idempotency.BodyBytesMax+1)}, nil
	}); err == nil {
		t.Error("an answer without bound was accepted")
	}
}

// Two processes have nothing in common but the store: the first one to commit answers for both.
func TestRacingProcessesAgree(t *testing.T) {
	s := memory.New()
	late := idempotency.NewKeeper(s, s.Answers())
	first := idempotency.NewKeeper(s, s.Answers())
	q := request(t, "k1", "{}")
	runs := 0
	if _, _, err := first.Do(t.Context(), q, answering(&runs)); err != nil {
		t.Fatal(err)
	}
	// The late one looked before the first one committed.
	blind := idempotency.NewKeeper(s, &blindOnce{Store: s.Answers()})
	for _, k := range []*idempotency.Keeper{blind, late} {
		a, replayed, err := k.Do(t.Context(), q, answering(&runs))
		if err != nil || !replayed || string(a.Body) != "x" {
			t.Errorf("answer %q, replayed %v, %v", a.Body, replayed, err)
		}
	}
	// One with another body learns of the mismatch as late as that.
	other := idempotency.NewKeeper(s, &blindOnce{Store: s.Answers()})
	if _, _, err := other.Do(t.Context(), request(t, "k1", `{"b":1}`), answering(&runs)); !errors.Is(err, idempotency.ErrMismatch) {
		t.Errorf("error is %v, want ErrMismatch", err)
	}
}

// blindOnce is a store whose first look comes before what it looks for.
type blindOnce struct {
	idempotency.Store
	looked bool
}

func (b *blindOnce) Lookup(ctx context.Context, scope, key string) (idempotency.Answer, bool, error) {
	if !b.looked {
		b.looked = true
		return idempotency.Answer{}, false, nil
	}
	return b.Store.Lookup(ctx, scope, key)
}

func TestKeys(t *testing.T) {
	ask := func(key string) (idempotency.Request, error) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", http.NoBody)
		r.Header["Idempotency-Key"] = []string{key}
		return idempotency.NewRequest(r, "/orders", "ada", nil)
	}
	for key, want := range map[string]string{
		"bare": "bare", `"8e03978e"`: "8e03978e", "  spaced  ": "spaced", "": "", "   ": "",
		strings.Repeat("k", idempotency.KeyBytesMax): strings.Repeat("k", idempotency.KeyBytesMax),
	} {
		if q, err := ask(key); err != nil || q.Key != want {
			t.Errorf("key %.20q: read as %.20q, %v", key, q.Key, err)
		}
	}
	for _, key := range []string{`""`, strings.Repeat("k", idempotency.KeyBytesMax+1), "tab\there", "naïve", "new\nline"} {
		if _, err := ask(key); !errors.Is(err, idempotency.ErrKey) {
			t.Errorf("key %.20q: %v, want ErrKey", key, err)
		}
	}
}

func TestSameJSONIsTheSameRequest(t *testing.T) {
	base := request(t, "k", `{"a":1,"b":[1,2.50,"x"]}`).Fingerprint
	same := []string{"{ \"b\" : [1,2.50,\"\\u0078\"],\n\"a\":1 }", `{"b":[1,2.50,"x"],"a":1}`}
	for _, body := range same {
		if request(t, "k", body).Fingerprint != base {
			t.Errorf("%s is another request", body)
		}
	}
	other := []string{
		`{"a":1,"b":[2.50,1,"x"]}`, `{"a":"1","b":[1,2.50,"x"]}`, `{"a":1,"b":[1,2.50,"x"]}{}`, `{"a":1}`, ``, `not json`,
		`{"a":10000000000000001,"b":[1,2.50,"x"]}`,
	}
	seen := map[[32]byte]string{base: "the first one"}
	for _, body := range append(other, `{"a":10000000000000002,"b":[1,2.50,"x"]}`, `not  json`) {
		f := request(t, "k", body).Fingerprint
		if twin, ok := seen[f]; ok {
			t.Errorf("%q has the fingerprint of %q", body, twin)
		}
		seen[f] = body
	}
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		k := idempotency.NewKeeper(s, s.Answers())
		runs := 0
		if _, _, err := k.Do(t.Context(), request(t, "old", "{}"), answering(&runs)); err != nil {
			t.Fatal(err)
		}
		<-time.After(25 * time.Hour)
		if _, _, err := k.Do(t.Context(), request(t, "new", "{}"), answering(&runs)); err != nil {
			t.Fatal(err)
		}
		n, err := s.Answers().Forget(t.Context(), time.Now().Add(-24*time.Hour), 100)
		if n != 1 || err != nil {
			t.Errorf("forgot %d, %v", n, err)
		}
		if _, replayed, _ := k.Do(t.Context(), request(t, "old", "{}"), answering(&runs)); replayed {
			t.Error("a forgotten answer was replayed")
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add("bare", `{"a":1}`)
	f.Add(`"quoted"`, `[1, 2]`)
	f.Add("\x00", "")
	f.Fuzz(func(t *testing.T, key, body string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", http.NoBody)
		r.Header["Idempotency-Key"] = []string{key}
		q, err := idempotency.NewRequest(r, "/orders", "ada", []byte(body))
		if err != nil && !errors.Is(err, idempotency.ErrKey) {
			t.Errorf("error %v is no ErrKey", err)
		}
		if len(q.Key) > idempotency.KeyBytesMax || (err != nil && q.Key != "") {
			t.Errorf("key of %d bytes with error %v", len(q.Key), err)
		}
	})
}
