package browser_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

const (
	completed = `document.getElementById('status')?.dataset.state === 'COMPLETED'`
	live      = `document.getElementById('link').dataset.link === 'live'`
)

// The whole way of a customer: search, basket, order, and its completion, seen without a reload.
func TestOrderFromSearchToCompletion(t *testing.T) {
	p := open(t)
	p.goTo("/")
	p.until(`document.querySelectorAll('#products > [data-product]').length === 24`)
	p.click("#more")
	p.until(`document.querySelectorAll('#products > [data-product]').length === 48`)
	p.enter("#query", "hanging heart")
	p.until(`[...document.querySelectorAll('#products .name')].every((n) => n.textContent.includes('HANGING') && n.textContent.includes('HEART'))`)
	p.until(`document.querySelector('[data-product="85123A"]') !== null`)
	p.click(`[data-product="85123A"] button`)
	p.click(`[data-product="85123A"] button`)
	p.until(`document.querySelector('[data-line="85123A"] input').value === '2'`)
	price := p.text(`[data-product="85123A"] .price`)
	t.Logf("two at %s: %s", price, p.text("#total"))
	p.run(chromedp.Reload()) // The basket is kept.
	p.until(`document.querySelector('[data-line="85123A"] input')?.value === '2'`)
	p.fill("#customer", "browser-ada")
	total := p.text("#total")
	p.click("#place")
	p.until(`location.pathname.startsWith('/order/')`)
	p.until(`document.getElementById('status')?.dataset.state !== undefined`)
	p.until(completed)
	if got := p.text("#sums .num"); got != total {
		t.Errorf("the order's total is %q, the basket's was %q", got, total)
	}
	for _, event := range []string{"OrderCreated", "StockReserved", "OrderPaid", "ShipmentCreated", "OrderCompleted"} {
		p.until(fmt.Sprintf(`document.querySelector('#events [data-type=%q]') !== null`, event))
	}
	if n := eval[int](p, `document.querySelectorAll('#steps [data-step=done]').length`); n != 5 {
		t.Errorf("%d steps are done, want 5", n)
	}
	if !eval[bool](p, `document.getElementById('cancel').disabled`) {
		t.Error("a completed order can be canceled")
	}
	p.goTo("/")
	p.until(`document.getElementById('basket-empty').hidden === false`)
	if n := eval[int](p, `Object.keys(localStorage).filter((k) => k === 'settle.attempt').length`); n != 0 {
		t.Error("the attempt was kept after its answer")
	}
}

// An order that gets no answer is sent again under its key, also after the page was left, and is placed once.
func TestUnansweredOrderIsPlacedOnce(t *testing.T) {
	p := open(t)
	p.goTo("/")
	p.until(`document.querySelectorAll('#products > [data-product]').length === 24`)
	p.click(`#products > li:not(:has(button:disabled)) button`)
	p.fill("#customer", "browser-retry")
	// The first requests reach the shop, and their answers are lost.
	p.do(`{
		const send = fetch;
		window.fetch = async (path, options) => {
			const answer = await send(path, options);
			if (path === '/orders') throw new TypeError('connection lost');
			return answer;
		}}`)
	p.click("#place")
	p.until(`document.querySelector('#order-note [data-code="no-answer"]') !== null`)
	p.run(chromedp.Reload())
	p.until(`document.querySelector('#again') !== null`)
	p.click("#again")
	p.until(`location.pathname.startsWith('/order/')`)
	p.goTo("/customer/browser-retry")
	p.until(`document.querySelectorAll('#rows [data-order]').length > 0`)
	if n := eval[int](p, `document.querySelectorAll('#rows [data-order]').length`); n != 1 {
		t.Errorf("%d orders were placed, want 1", n)
	}
}

// A refusal is shown as the shop worded it, with its code.
func TestRefusalIsShown(t *testing.T) {
	p := open(t)
	p.goTo("/")
	p.until(`document.querySelectorAll('#products > [data-product]').length === 24`)
	p.do(`localStorage.setItem('settle.basket', JSON.stringify([{id: 'no-such', name: 'A thing', price: {amount: '1.00', currency: 'GBP'}, quantity: 1}]))`)
	p.run(chromedp.Reload())
	p.until(`document.querySelector('[data-line="no-such"]') !== null`)
	p.click("#place")
	p.until(`document.querySelector('#order-note [data-code="unknown-product"]') !== null`)
	if got := p.text("#order-note"); !strings.Contains(got, "no-such") || !strings.Contains(got, "A product is not known") {
		t.Errorf("the refusal reads %q", got)
	}
	p.accessible("refusal")
}

func TestCancel(t *testing.T) {
	p := open(t)
	id := order(t, "browser-cancel")
	p.goTo("/order/" + id)
	p.click("#cancel")
	p.until(`document.getElementById('ask').open`)
	p.accessible("dialog")
	p.shot("dialog")
	p.click("#ask-cancel")
	p.until(`document.getElementById('status').dataset.state === 'CANCELED'`)
	if got := p.text("#sentence"); !strings.Contains(got, "at your request") {
		t.Errorf("the canceled order says %q", got)
	}
	if p.text(`#steps [data-step=failed] .name`) == "" {
		t.Error("no step says that the order ended")
	}
	p.accessible("canceled")
	p.shot("canceled")
}

// Whoever hesitates until the order is shipped is told so.
func TestCancelRefused(t *testing.T) {
	p := open(t)
	id := order(t, "browser-late")
	p.goTo("/order/" + id)
	p.click("#cancel")
	p.until(`document.getElementById('ask').open`)
	p.until(completed)
	p.click("#ask-cancel")
	p.until(`document.querySelector('#cancel-note [data-code="order-already-shipped"]') !== null`)
	if got := p.text("#cancel-note"); !strings.Contains(got, "shipped") {
		t.Errorf("the refusal reads %q", got)
	}
	p.shot("refused")
}

func TestUnknownOrder(t *testing.T) {
	p := open(t)
	p.goTo("/order/nobody-has-this")
	p.until(`document.querySelector('#note [data-code="unknown-order"]') !== null`)
	p.accessible("unknown")
}

func TestCustomerListIsLive(t *testing.T) {
	p := open(t)
	p.goTo("/customer/browser-list")
	p.until(live)
	p.until(`document.querySelector('#empty strong') !== null`)
	id := order(t, "browser-list")
	row := fmt.Sprintf(`document.querySelector('[data-order=%q]')`, id)
	p.until(row + ` !== null`)
	p.until(row + `.dataset.state === 'COMPLETED'`)
}

func TestLivePage(t *testing.T) {
	p := open(t)
	p.goTo("/live")
	p.until(live)
	id := order(t, "browser-live")
	p.until(`document.querySelector('[data-type=OrderCompleted]') !== null`)
	p.enter("#key", id)
	p.fill("#service", "payment")
	p.do(`document.getElementById('service').dispatchEvent(new Event('change'))`)
	p.until(fmt.Sprintf(`(() => { const rows = [...document.querySelectorAll('#rows tr')];
		return rows.length > 0 && rows.every((r) => r.cells[2].innerText === 'payment' && r.cells[3].innerText === %q); })()`, id))
	p.click("#pause")
	before := eval[int](p, `document.querySelectorAll('#rows tr').length`)
	order(t, "browser-live")
	p.until(`/Resume \([1-9]/.test(document.getElementById('pause').innerText)`)
	if n := eval[int](p, `document.querySelectorAll('#rows tr').length`); n != before {
		t.Errorf("a paused page went from %d to %d rows", before, n)
	}
}

// Without server-sent events the page polls, says so, and the order still completes on it.
func TestPollingWhenTheFeedFails(t *testing.T) {
	p := open(t)
	command(p, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{{
		URLPattern: "http://*:*/orders/*/events", Block: true,
	}}})
	p.size(360, 800)
	id := order(t, "browser-poll")
	p.goTo("/order/" + id)
	p.until(`document.getElementById('link').innerText === 'Connection lost, retrying'`)
	p.until(completed)
	p.steady("an order that completes")
	p.shot("polling")
	p.accessible("polling")
	// The feed comes back by itself.
	command(p, network.SetBlockedURLs, network.SetBlockedURLsParams{})
	p.until(live)
}

// Every page, in light and dark, on a desk and on a phone: accessible, never wider than the window,
// small.
func TestPagesLookRight(t *testing.T) {
	p := open(t)
	id := order(t, "browser-look")
	order(t, "browser-look")
	p.goTo("/order/" + id)
	p.until(completed)
	pages := []struct{ name, path, ready string }{
		{"shop", "/", `document.querySelectorAll('#products > [data-product]').length === 24`},
		{"order", "/order/" + id, completed},
		{"customer", "/customer/browser-look", `document.querySelectorAll('#rows [data-order]').length === 2`},
		{"live", "/live", live},
	}
	for _, page := range pages {
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 360} {
				name := fmt.Sprintf("%s-%s-%d", page.name, scheme, width)
				p.size(width, 800)
				p.scheme(scheme)
				p.goTo(page.path)
				p.until(page.ready)
				switch page.name {
				case "shop":
					p.do(`document.querySelectorAll('#products button:enabled').forEach((b, i) => i < 3 && b.click())`)
				case "live":
					order(t, "browser-look")
					p.until(`document.querySelector('[data-type=OrderPaid]') !== null`)
				}
				p.steady(name)
				p.noSidewaysScroll(name)
				p.accessible(name)
				p.shot(name)
			}
		}
	}
}

// First load: what a browser fetches for the shop's page, its data included.
func TestFirstLoadIsSmall(t *testing.T) {
	p := open(t)
	p.goTo("/")
	p.until(`document.querySelectorAll('#products > [data-product]').length === 24`)
	type load struct {
		Bytes int
		Ready float64
	}
	l := eval[load](p, `(() => { const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
		return {bytes: all.reduce((n, e) => n + e.transferSize, 0), ready: Math.max(...all.map((e) => e.responseEnd))}; })()`)
	t.Logf("first load: %d bytes, data there after %.0f ms", l.Bytes, l.Ready)
	if l.Bytes == 0 || l.Bytes > 100_000 {
		t.Errorf("first load is %d bytes, 100000 allowed", l.Bytes)
	}
}
