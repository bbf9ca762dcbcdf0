package browser_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// A payment that takes its time shows as such, its refusal as what it is, and the end of the shop as a
// lost connection.
func TestSlowPaymentThenDeclinedThenGone(t *testing.T) {
	p := open(t)
	stop, url, err := serve(
		t.Context(), fixture.binary, filepath.Join(t.TempDir(), "data"), "--delayed", "300ms", "--decline", "100",
		"--gateway-faults", `{"latency":{"min":"3s","median":"3s","p99":"3s"},"declinePercent":100}`,
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	p.url = url
	id := orderAt(t, url, "browser-slow")
	p.goTo("/order/" + id)
	p.until(`document.getElementById('status')?.dataset.state === 'PAYMENT_IN_PROGRESS'`)
	if got := p.text("#sentence"); !strings.Contains(got, "up to 2 minutes") {
		t.Errorf("an order that waits for its payment says %q", got)
	}
	if got := p.text("#steps [data-step=now] .name"); !strings.HasPrefix(got, "Paid") {
		t.Errorf("the step that is waited for is %q", got)
	}
	p.accessible("in progress")
	p.shot("in-progress")
	p.until(`document.getElementById('status').dataset.state === 'CANCELED'`)
	if got := p.text("#sentence"); !strings.Contains(got, "declined") || !strings.Contains(got, "Nothing was charged") {
		t.Errorf("a declined order says %q", got)
	}
	stop()
	p.until(`document.getElementById('link').innerText === 'Connection lost, retrying'`)
	p.accessible("lost")
	p.shot("lost")
}
