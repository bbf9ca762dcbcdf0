package browser_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

//go:embed testdata/axe/axe.min.js
var axe string

// tab is a page of a browser profile of its own: no test sees another one's basket.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// open opens a tab, or skips the test in a -short run. Errors of the page's scripts fail the test.
func open(t *testing.T) *tab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a browser")
	}
	ctx, cancel := chromedp.NewContext(fixture.browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, 45*time.Second)
	t.Cleanup(stop)
	p := &tab{t, ctx}
	chromedp.ListenTarget(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("the page threw: %s", ev.ExceptionDetails.Error())
		case *network.EventLoadingFailed:
			if ev.BlockedReason == network.BlockedReasonCsp {
				t.Errorf("the page's own policy blocked a %s", ev.Type)
			}
		}
	})
	p.run(network.Enable())
	p.size(1280, 900)
	return p
}

func (p *tab) run(actions ...chromedp.Action) {
	p.t.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.shot("failed")
		p.t.Fatal(err)
	}
}

func (p *tab) goTo(path string) {
	p.t.Helper()
	p.run(chromedp.Navigate(fixture.url + path))
}

func (p *tab) size(width, height int64) {
	p.t.Helper()
	p.run(chromedp.EmulateViewport(width, height))
}

// scheme makes the page light or dark.
func (p *tab) scheme(name string) {
	p.t.Helper()
	p.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}))
}

// eval runs an expression in the page.
func eval[T any](p *tab, expression string) (v T) {
	p.t.Helper()
	p.run(chromedp.Evaluate(expression, &v, func(q *runtime.EvaluateParams) *runtime.EvaluateParams { return q.WithAwaitPromise(true) }))
	return v
}

// until waits until an expression of the page is true.
func (p *tab) until(expression string) {
	p.t.Helper()
	var ok bool
	err := chromedp.Run(p.ctx, chromedp.Poll(expression, &ok, chromedp.WithPollingInterval(30*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second)))
	if err != nil {
		p.shot("failed")
		p.t.Fatalf("waiting for %s: %v\n%s", expression, err, eval[string](p, "document.body.innerText.slice(0, 2000)"))
	}
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.run(chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeVisible))
}

func (p *tab) text(selector string) string {
	p.t.Helper()
	return strings.TrimSpace(eval[string](p, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
}

// shot writes a screenshot to the test's artifacts (go test -artifacts).
func (p *tab) shot(name string) {
	p.t.Helper()
	var png []byte
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 10*time.Second)
	defer cancel()
	if err := chromedp.Run(ctx, chromedp.FullScreenshot(&png, 100)); err != nil {
		p.t.Logf("screenshot %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(p.t.ArtifactDir(), name+".png"), png, 0o600); err != nil {
		p.t.Error(err)
	}
}

// noSidewaysScroll fails when the page is wider than the window.
func (p *tab) noSidewaysScroll(name string) {
	p.t.Helper()
	type wide struct {
		Page, Window int
		Widest       string
	}
	w := eval[wide](p, `(() => {
		const over = [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .sr'));
		return {page: document.documentElement.scrollWidth, window: innerWidth, widest: over.map((e) => e.outerHTML.slice(0, 120)).slice(0, 3).join('\n')};
	})()`)
	if w.Page > w.Window {
		p.t.Errorf("%s: the page is %d px wide in a window of %d:\n%s", name, w.Page, w.Window, w.Widest)
	}
}

// accessible fails on serious violations of the accessibility rules.
func (p *tab) accessible(name string) {
	p.t.Helper()
	type violation struct {
		ID, Impact, Help string
		Nodes            []string
	}
	found := eval[[]violation](p, axe+`;axe.run().then((r) => r.violations.map((v) => ({
		id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + ' -- ' + n.failureSummary)})))`)
	for _, v := range found {
		say := p.t.Logf
		if v.Impact == "serious" || v.Impact == "critical" {
			say = p.t.Errorf
		}
		say("%s: %s (%s): %s\n%s", name, v.ID, v.Impact, v.Help, strings.Join(v.Nodes, "\n"))
	}
}

// order places an order through the API and returns its id.
func order(t *testing.T, customer string) string {
	t.Helper()
	body := fmt.Sprintf(`{"customerId":%q,"items":[{"productId":"85123A","quantity":2},{"productId":"22423","quantity":1}]}`, customer)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fixture.url+"/orders", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var v struct{ ID, Code string }
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil || v.ID == "" {
		t.Fatalf("order: status %d, %+v, %v", resp.StatusCode, v, err)
	}
	return v.ID
}
