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

	"github.com/chromedp/cdproto/cdp"
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
	ctx context.Context //nolint:containedctx // To chromedp a tab is a context.
	url string          // of the shop
}

// open opens a tab, or skips the test in a -short run. Errors of the page's scripts fail the test.
func open(t *testing.T) *tab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a browser")
	}
	ctx, cancel := chromedp.NewContext(fixture.browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("the page threw: %s %v", ev.ExceptionDetails.Text, ev.ExceptionDetails.Exception)
		case *network.EventLoadingFailed:
			if ev.BlockedReason == network.BlockedReasonCsp {
				t.Errorf("the page's own policy blocked a %s", ev.Type)
			}
		}
	}); err != nil { // This opens the tab, whose life is that of ctx.
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(stop)
	p := &tab{t, ctx, fixture.url}
	command(p, network.Enable, network.EnableParams{})
	p.size(1280, 900)
	return p
}

// command sends a command of the DevTools protocol.
func command[P, R any](p *tab, c cdp.Command[P, R], params P) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, c, params); err != nil {
		p.t.Fatal(err)
	}
}

func (p *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.shot("failed")
		p.t.Fatal(err)
	}
}

func (p *tab) goTo(path string) {
	p.t.Helper()
	p.run(chromedp.Navigate(p.url + path))
}

func (p *tab) size(width, height int64) {
	p.t.Helper()
	p.run(chromedp.EmulateViewport(width, height))
}

// scheme makes the page light or dark.
func (p *tab) scheme(name string) {
	p.t.Helper()
	command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// eval runs an expression in the page.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.shot("failed")
		p.t.Fatalf("%.300s: %v", expression, err)
	}
	return v
}

// do runs statements in the page.
func (p *tab) do(statements string) {
	p.t.Helper()
	p.run(chromedp.Evaluate[chromedp.Void](statements))
}

// until waits until an expression of the page is true, also across navigations.
func (p *tab) until(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if ok {
			return
		}
		if err != nil && ctx.Err() == nil {
			last = err // The page may be on its way to another one.
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.shot("failed")
			p.t.Fatalf("waited in vain for %s (%v)\n%s", expression, last, eval[string](p, "document.body.innerText.slice(0, 2000)"))
		}
	}
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.run(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

func (p *tab) fill(selector, text string) {
	p.t.Helper()
	p.run(chromedp.SetValue(chromedp.CSS(selector), text))
}

func (p *tab) enter(selector, text string) {
	p.t.Helper()
	p.run(chromedp.SendKeys(chromedp.CSS(selector), text))
}

func (p *tab) text(selector string) string {
	p.t.Helper()
	return strings.TrimSpace(eval[string](p, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
}

// shot writes a screenshot to the test's artifacts (go test -artifacts).
func (p *tab) shot(name string) {
	p.t.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err != nil {
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

// shiftMax is what Core Web Vitals calls good (Cumulative Layout Shift).
const shiftMax = 0.1

// steady fails when what was shown moved without the user's doing.
func (p *tab) steady(name string) {
	p.t.Helper()
	type shift struct {
		Sum   float64
		Moved string
	}
	s := eval[shift](p, `new Promise((done) => {
		const found = [];
		new PerformanceObserver((list) => found.push(...list.getEntries().filter((e) => !e.hadRecentInput))).observe({type: 'layout-shift', buffered: true});
		setTimeout(() => done({
			sum: found.reduce((sum, e) => sum + e.value, 0),
			moved: found.flatMap((e) => e.sources).map((s) => (s.node?.outerHTML ?? s.node?.nodeName ?? '').slice(0, 80)
				+ ' from ' + Math.round(s.previousRect.top) + ' to ' + Math.round(s.currentRect.top)).slice(0, 8).join('\n'),
		}), 50);
	})`)
	if s.Sum > shiftMax {
		p.t.Errorf("%s: layout shift of %.3f, %.1f allowed:\n%s", name, s.Sum, shiftMax, s.Moved)
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
	return orderAt(t, fixture.url, customer)
}

func orderAt(t *testing.T, url, customer string) string {
	t.Helper()
	body := fmt.Sprintf(`{"customerId":%q,"items":[{"productId":"85123A","quantity":2},{"productId":"22423","quantity":1}]}`, customer)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/orders", strings.NewReader(body))
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
