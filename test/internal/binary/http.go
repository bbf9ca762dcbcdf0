package binary

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/shop/replay"
)

// Answer is what a server said.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Code is the code of a problem, or nothing.
func (a Answer) Code() string {
	var doc struct{ Type string }
	if json.Unmarshal([]byte(a.Body), &doc) != nil {
		return ""
	}
	return doc.Type[strings.LastIndexAny(doc.Type, "/:")+1:]
}

// Decode reads the body, which must be JSON.
func (a Answer) Decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), into); err != nil {
		t.Fatalf("answer %d %.300q: %v", a.Status, a.Body, err)
	}
}

// Send makes one request. header are names and values in turn.
func Send(t *testing.T, method, url, body string, header ...string) Answer {
	t.Helper()
	a, err := send(t, method, url, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

func send(t *testing.T, method, url, body string, header ...string) (a Answer, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	b, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, string(b)}, errors.Join(err, resp.Body.Close())
}

// Send makes one request to the shop, as an operator.
func (p *Process) Send(method, path, body string, header ...string) Answer {
	p.t.Helper()
	return Send(p.t, method, p.URL+path, body, append(header, "Authorization", "Bearer "+p.Token)...)
}

// Faults sets the faults of pgsim (p.Gateway) or platformsim (p.Platform), as JSON.
func (p *Process) Faults(outside, faults string) {
	p.t.Helper()
	if a := Send(p.t, http.MethodPut, outside+"/v1/faults", faults); a.Status != http.StatusOK {
		p.t.Fatalf("faults %s: %d %s", faults, a.Status, a.Body)
	}
}

// Traffic asks the shop how much it has done and how much is on its way. It is an error when nobody answers.
func (p *Process) Traffic() (replay.Traffic, error) {
	p.t.Helper()
	var traffic replay.Traffic
	a, err := send(p.t, http.MethodGet, p.URL+"/internal/stats", "", "Authorization", "Bearer "+p.Token)
	if err != nil {
		return traffic, err
	}
	if a.Status != http.StatusOK {
		return traffic, fmt.Errorf("answer %d: %.200s", a.Status, a.Body)
	}
	return traffic, json.Unmarshal([]byte(a.Body), &traffic)
}

// List reads every page of a list of the shop or of a program outside.
func List[T any](t *testing.T, p *Process, url string) []T {
	t.Helper()
	var all []T
	for after := ""; ; {
		a := Send(t, http.MethodGet, url+"?limit=1000&after="+after, "", "Authorization", "Bearer "+p.Token)
		if a.Status != http.StatusOK {
			t.Fatalf("GET %s: %d %s", url, a.Status, a.Body)
		}
		var page struct {
			Items []T
			Next  string
		}
		a.Decode(t, &page)
		all = append(all, page.Items...)
		if after = page.Next; after == "" {
			return all
		}
	}
}

// Eventually asks until the answer is yes; what says what is waited for.
func Eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// WaitQuiet waits until nothing is on its way in the shop.
func (p *Process) WaitQuiet(limit time.Duration) replay.Traffic {
	p.t.Helper()
	var last replay.Traffic
	quiet := 0
	Eventually(p.t, limit, "all is quiet", func() bool {
		now, err := p.Traffic()
		if err != nil {
			p.t.Fatalf("%v\n%s", err, p.Stderr())
		}
		if now.Quiet() && now == last {
			quiet++
		} else {
			quiet = 0
		}
		last = now
		return quiet >= 3 // Between two steps everything can look quiet for a moment.
	})
	return last
}

// Ask asks for a page; the answer is empty while nobody answers.
func Ask(t *testing.T, url string, header ...string) Answer {
	t.Helper()
	a, err := send(t, http.MethodGet, url, "", header...)
	if err != nil {
		return Answer{}
	}
	return a
}
