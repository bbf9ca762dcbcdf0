package outside_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/shop/webhook"
	"github.com/settledev/settle/txn"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// TestGatewaySeededFaultsRepeat: who is declined, refused or late depends on seed and reference only.
func TestGatewaySeededFaultsRepeat(t *testing.T) {
	f := pgsim.Faults{DeclinePercent: 20, LateApprovalPercent: 20, CaptureRefusalPercent: 20}
	f.Seed = 11
	run := func(order []int) map[string]string {
		g := newGateway(t, t.TempDir(), pgsim.Config{Faults: f})
		got := map[string]string{}
		for _, i := range order {
			ref := fmt.Sprintf("order-%d", i)
			got[ref] = g.do(t, "authorize "+ref+" 1.00") + ", " + g.do(t, "capture "+ref+" 1.00")
		}
		return got
	}
	forward := make([]int, 100)
	for i := range forward {
		forward[i] = i
	}
	backward := slices.Clone(forward)
	slices.Reverse(backward)
	one, two := run(forward), run(backward)
	kinds := map[string]int{}
	for ref, answer := range one {
		kinds[answer]++
		if two[ref] != answer {
			t.Errorf("%s: %s, then %s", ref, answer, two[ref])
		}
	}
	for _, kind := range []string{
		"201 AUTHORIZED 1.00, 200 CAPTURED 1.00", "201 AUTHORIZED 1.00, 409 CAPTURE_REFUSED",
		"201 DECLINED 1.00 CARD_DECLINED, 409 NOT_AUTHORIZED", "202 PENDING 1.00, 503 PENDING",
	} {
		if kinds[kind] < 5 {
			t.Errorf("%d of 100 orders: %s", kinds[kind], kind)
		}
	}
}

func TestGatewayDown(t *testing.T) {
	g := newGateway(t, t.TempDir(), pgsim.Config{})
	put(t, g, "/v1/faults", `{"down":true}`)
	for _, line := range []string{"authorize o1 1.00", "capture o1 1.00", "void o1", "refund r1 - 1.00", "get o1", "getrefund o1"} {
		if got := g.do(t, line); got != "503 DOWN" {
			t.Errorf("%s: %s", line, got)
		}
	}
	for _, path := range []string{"/v1/ledger", "/healthz"} {
		if w := send(t, g, http.MethodGet, path, "", ""); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if f := decode[pgsim.Faults](t, send(t, g, http.MethodGet, "/v1/faults", "", "")); !f.Down {
		t.Errorf("faults: %+v", f)
	}
	put(t, g, "/v1/faults", `{}`)
	if got := g.do(t, "get o1"); got != "404 NOT_FOUND" {
		t.Errorf("up again: %s", got)
	}
	if w := send(t, g, http.MethodGet, "/healthz", "", ""); w.Code != http.StatusOK {
		t.Errorf("healthz: %d", w.Code)
	}
}

// TestGatewayErrors: a 5xx says nothing about the effect, and the same key finds out.
func TestGatewayErrors(t *testing.T) {
	g := newGateway(t, t.TempDir(), pgsim.Config{})
	for _, tt := range []struct{ faults, call, again string }{
		{`{"errorBeforePercent":100}`, "503 ERROR_BEFORE", "201 AUTHORIZED 1.00"},
		{`{"errorAfterPercent":100}`, "500 ERROR_AFTER", "200 AUTHORIZED 1.00"},
	} {
		ref := "o" + tt.call[:3]
		put(t, g, "/v1/faults", tt.faults)
		if got := g.do(t, "authorize "+ref+" 1.00"); got != tt.call {
			t.Errorf("%s: %s", tt.faults, got)
		}
		put(t, g, "/v1/faults", `{}`)
		if got := g.do(t, "authorize "+ref+" 1.00"); got != tt.again {
			t.Errorf("%s, again: %s", tt.faults, got)
		}
	}
}

// TestGatewaySilence runs over a real connection: the client gives up, some calls have had their effect,
// and a server that shuts down is not held up by one that waits for ever.
func TestGatewaySilence(t *testing.T) {
	g := newGateway(t, t.TempDir(), pgsim.Config{Faults: pgsim.Faults{Transport: faults.Transport{Seed: 5, SilencePercent: 100}}})
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	server := httptest.NewServer(g)
	defer server.Close()
	post := func(ctx context.Context, ref string) error {
		body := fmt.Sprintf(`{"reference":%q,"amount":{"amount":"1.00","currency":"GBP"},"customerId":""}`, ref)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/authorizations", strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Idempotency-Key", ref)
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if err := post(ctx, fmt.Sprintf("order-%d", i)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a silent call ended with %v", err)
			}
		})
	}
	wg.Wait()
	if n := len(g.ledger(t, 1000)); n < 5 || n > 25 {
		t.Errorf("%d of 30 silent calls had their effect, want about half", n)
	}
	cut := make(chan error, 1)
	go func() { cut <- post(context.WithoutCancel(t.Context()), "order-for-ever") }()
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := <-cut; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent call at shutdown ended with %v, want a connection that was cut", err)
	}
}

// receiver takes webhooks as the shop does and notes their times.
type receiver struct {
	t       *testing.T
	mu      sync.Mutex
	start   time.Time
	got     []string // "3s authorization.approved o1"
	ids     map[string]int
	refuse  int // that many attempts are answered 500
	blocked chan struct{}
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	return &receiver{t: t, start: time.Now(), ids: map[string]int{}}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Error(err)
	}
	if err := webhook.Verify(secret, req.Header, body, time.Now()); err != nil {
		r.t.Errorf("%s: %v", body, err)
	}
	if r.blocked != nil {
		<-r.blocked
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse > 0 {
		r.refuse--
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	rec := httptest.NewRecorder()
	rec.Body.Write(body)
	told := decode[struct {
		Type      string
		Timestamp time.Time
		Data      struct{ Reference, Status, Code string }
	}](r.t, rec)
	r.ids[webhook.ID(req.Header)]++
	r.got = append(r.got, fmt.Sprintf("%s %s %s", time.Since(r.start), told.Type, told.Data.Reference))
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) take() (got []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got, r.got = r.got, nil
	slices.Sort(got)
	return got
}

// told starts a gateway whose webhooks reach r, in virtual time.
func (r *receiver) gateway(t *testing.T, dir string, f pgsim.Faults) gateway {
	t.Helper()
	g := newGateway(t, dir, pgsim.Config{
		Faults: f, WebhookURL: "http://shop.test/webhooks", WebhookSecret: secret,
		Client:       &http.Client{Transport: inProcess{r}},
		WebhookRetry: retry.Policy{NoJitter: true, TotalMax: time.Minute},
		PollInterval: time.Second,
		Logger:       slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return g
}

// rest lets virtual time pass.
func rest(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWebhooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t)
		g := r.gateway(t, t.TempDir(), pgsim.Faults{})
		g.do(t, "authorize o1 2.00")
		g.do(t, "authorize o1 2.00")
		g.do(t, "capture o1 2.00")
		g.do(t, "refund r1 o1 1.00")
		g.do(t, "refund r2 o1 9.00") // refused: nothing to tell
		g.do(t, "void o2")
		g.do(t, "authorize o2 1.00")
		rest(time.Second)
		var got []string
		for _, line := range r.take() {
			got = append(got, line[strings.Index(line, " ")+1:])
		}
		slices.Sort(got)
		check(t, got, "authorization.approved o1", "capture.completed o1", "refund.completed r1", "void.completed o2",
			"authorization.declined o2")
		for id, n := range r.ids {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
		queued(t, g, 0)
	})
}

func queued(t *testing.T, g gateway, want int64) {
	t.Helper()
	if j := decode[struct{ Queued int64 }](t, send(t, g, http.MethodGet, "/v1/webhook", "", "")); j.Queued != want {
		t.Errorf("%d webhooks wait, want %d", j.Queued, want)
	}
}

func TestWebhookDuplicatesAndDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t)
		g := r.gateway(t, t.TempDir(), pgsim.Faults{WebhookDuplicatePercent: 100, WebhookLatePercent: 100})
		r.start = time.Now()
		g.do(t, "authorize o1 2.00")
		rest(29 * time.Second)
		check(t, r.take())
		queued(t, g, 2)
		rest(5 * time.Second)
		got := r.take()
		if len(got) != 2 || len(r.ids) != 1 {
			t.Errorf("got %q of ids %v, want one webhook twice", got, r.ids)
		}
		queued(t, g, 0)
	})
}

// TestWebhookRetries: a receiver that fails is tried again after 1, 2 and 4 seconds.
func TestWebhookRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t)
		g := r.gateway(t, t.TempDir(), pgsim.Faults{})
		r.refuse = 3
		g.do(t, "authorize o1 2.00")
		rest(6 * time.Second)
		check(t, r.take())
		rest(4 * time.Second) // 7 s and up to a second of polling for each
		if got := r.take(); len(got) != 1 || r.refuse != 0 {
			t.Errorf("got %q", got)
		}
		queued(t, g, 0)
	})
}

func TestWebhookGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t)
		g := r.gateway(t, t.TempDir(), pgsim.Faults{})
		r.refuse = 1000
		g.do(t, "authorize o1 2.00")
		rest(2 * time.Minute)
		queued(t, g, 0)
		if tried := 1000 - r.refuse; tried != 6 { // at 0, 1, 3, 7, 15 and 31 s; the next would be after the minute
			t.Errorf("%d attempts within a minute", tried)
		}
	})
}

// TestWebhookSurvivesAKill: a webhook is in the ledger with its effect, and another process sends it.
func TestWebhookSurvivesAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := newReceiver(t)
		r.refuse = 1000
		g := r.gateway(t, dir, pgsim.Faults{})
		g.do(t, "authorize o1 2.00")
		rest(time.Second)
		later := newReceiver(t)
		later.gateway(t, asKilled(t, dir), pgsim.Faults{})
		rest(5 * time.Second)
		if got := later.take(); len(got) != 1 {
			t.Errorf("got %q", got)
		}
	})
}

func TestWebhookURLAtRunTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t)
		g := r.gateway(t, t.TempDir(), pgsim.Faults{})
		put(t, g, "/v1/webhook", `{"url":""}`)
		g.do(t, "authorize o1 2.00")
		rest(time.Minute)
		check(t, r.take())
		put(t, g, "/v1/webhook", `{"url":"http://shop.test/other"}`)
		g.do(t, "authorize o2 2.00")
		rest(time.Second)
		if got := r.take(); len(got) != 1 || !strings.HasSuffix(got[0], "approved o2") {
			t.Errorf("got %q", got)
		}
		if w := send(t, g, http.MethodPut, "/v1/webhook", "", `{"url":"ftp://x/"}`); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("ftp: %d", w.Code)
		}
		if g.WebhookURL() != "http://shop.test/other" {
			t.Errorf("URL %s", g.WebhookURL())
		}
	})
}

func TestLateApproval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t)
		g := r.gateway(t, t.TempDir(), pgsim.Faults{LateApprovalPercent: 100})
		for _, ref := range []string{"o1", "o2"} {
			if got := g.do(t, "authorize "+ref+" 2.00"); got != "202 PENDING 2.00" {
				t.Errorf("%s: %s", ref, got)
			}
		}
		rest(5 * time.Second)
		g.do(t, "void o2")
		rest(4 * time.Second)
		if got := g.do(t, "get o1"); got != "200 PENDING 2.00" {
			t.Errorf("after 9 s: %s", got)
		}
		rest(3 * time.Second)
		for line, want := range map[string]string{
			"get o1": "200 AUTHORIZED 2.00", "authorize o1 2.00": "200 AUTHORIZED 2.00", "get o2": "200 VOIDED 0.00",
		} {
			if got := g.do(t, line); got != want {
				t.Errorf("after 12 s: %s: %s", line, got)
			}
		}
		var got []string
		for _, line := range r.take() {
			got = append(got, line[strings.Index(line, " ")+1:])
		}
		slices.Sort(got)
		check(t, got, "authorization.approved o1", "void.completed o2")
	})
}

// TestRunFinishesWhatItSends: at the end, the attempts under way are finished and recorded, and the
// others wait in the ledger.
func TestRunFinishesWhatItSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t)
		r.blocked = make(chan struct{})
		g := newGateway(t, t.TempDir(), pgsim.Config{
			WebhookURL: "http://shop.test/", WebhookSecret: secret, WebhookInFlight: 2,
			Client: &http.Client{Transport: inProcess{r}},
		})
		for i := range 6 {
			g.do(t, fmt.Sprintf("authorize o%d 1.00", i))
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = g.Run(ctx) }()
		synctest.Wait()
		stop()
		synctest.Wait()
		close(r.blocked)
		<-done
		sent := int64(len(r.take()))
		if sent < 2 || sent > 3 {
			t.Errorf("%d sent after the end, want the 2 under way", sent)
		}
		queued(t, g, 6-sent)
	})
}

// failing is a ledger whose disk is full.
type failing struct{ err error }

func (f failing) Run(context.Context, func(context.Context, *txn.Tx) error) error { return f.err }

func TestGatewayLedgerFails(t *testing.T) {
	s, err := pgsim.New(failing{errors.New("disk is full")}, pgsim.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	g := gateway{Server: s}
	for _, line := range []string{"authorize o1 1.00", "capture o1 1.00", "void o1", "refund r1 - 1", "get o1"} {
		if got := g.do(t, line); got != "500 LEDGER_FAILED" {
			t.Errorf("%s: %s", line, got)
		}
	}
}
