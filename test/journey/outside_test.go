package journey_test

import (
	"path/filepath"
	"testing"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/test/internal/binary"
)

// states counts the orders by state and reason.
func states(t *testing.T, p *binary.Process) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, o := range binary.List[order](t, p, p.URL+"/internal/orders") {
		count[o.State+o.Reason]++
	}
	return count
}

// count counts an outbox's events by type.
func count(t *testing.T, dir, service string) map[string]int {
	t.Helper()
	types := map[string]int{}
	for _, e := range binary.Outbox(t, dir, service) {
		types[e.Type]++
	}
	return types
}

// TestGatewayDown lets a whole replay begin while the gateway is down, for longer than orders wait before they
// say so: none is lost, and none is canceled, because it is back before they expire.
func TestGatewayDown(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	const orders = 100
	dir := newDir(t)
	report := filepath.Join(t.TempDir(), "report.json")
	p := binary.Start(t, dir, "demo", "--exit", "--report", report, "--data", retail(t, orders),
		"--delayed", "1s", "--expired", "1m", "--gateway-faults", `{"down":true}`)
	binary.Eventually(t, patience, "every order says that it waits for its payment", func() bool {
		return !p.Ended() && states(t, p)["PAYMENT_IN_PROGRESS"] == orders
	})
	// The waits of the retries double: after three in vain the next is seconds away, as after a minute.
	binary.Eventually(t, patience, "every payment was tried three times", func() bool {
		return number(t, p, "payment", "SELECT count(*) FROM settle_call WHERE attempts >= 3") == orders
	})
	p.Faults(p.Gateway, `{}`)
	if code := p.Wait(); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, p.Stdout(), p.Stderr())
	}
	r := binary.ReadReport(t, report)
	if !r.Balanced || r.Accepted != orders || r.Terminal["COMPLETED"] != orders {
		t.Errorf("report %+v", r)
	}
	if n := count(t, dir, "order")["OrderPaymentDelayed"]; n != orders {
		t.Errorf("%d orders said that they wait, want %d", n, orders)
	}
	binary.CheckEvents(t, dir)
}

// TestPlatformDown replays while the data platform is down: no order notices, and when it is back everything
// is delivered once.
func TestPlatformDown(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	const orders = 300
	dir := newDir(t)
	report := filepath.Join(t.TempDir(), "report.json")
	p := binary.Start(t, dir, "demo", "--exit", "--report", report, "--data", retail(t, orders),
		"--broker", "store", "--platform-faults", `{"down":true}`)
	binary.Eventually(t, patience, "every order is completed", func() bool {
		return !p.Ended() && states(t, p)["COMPLETED"] == orders
	})
	if n := number(t, p, "platformsim", "SELECT count(*) FROM platform_deliveries"); n != 0 {
		t.Errorf("the platform is down and has %d deliveries", n)
	}
	p.Faults(p.Platform, `{}`)
	if code := p.Wait(); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, p.Stdout(), p.Stderr())
	}
	r := binary.ReadReport(t, report)
	if !r.Balanced || r.Terminal["COMPLETED"] != orders || r.Platform.Expected != orders || r.Platform.Received != orders || r.Notify.Sent != orders {
		t.Errorf("report %+v", r)
	}
	if r.Money.Completed != r.Money.GatewayCaptured {
		t.Errorf("money %+v", r.Money)
	}
	binary.CheckEvents(t, dir)
}

// TestGatewaySilent lets the gateway swallow every call: the order says that its payment is in progress, then
// it is canceled, and whatever the gateway did it takes back.
func TestGatewaySilent(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	p := serve(t, dir, "--delayed", "500ms", "--expired", "10s", "--gateway-faults", `{"silencePercent":100}`)
	var ids []string
	for range 8 {
		ids = append(ids, place(t, p))
	}
	for _, id := range ids {
		until(t, p, id, "PAYMENT_IN_PROGRESS")
	}
	for _, id := range ids {
		until(t, p, id, "CANCELING")
	}
	p.Faults(p.Gateway, `{}`)
	taken := 0
	for _, id := range ids {
		if o := until(t, p, id, "CANCELED"); o.Reason != "PAYMENT_TIMEOUT" {
			t.Errorf("order %s: reason %q", id, o.Reason)
		}
		taken += voided(t, p, id)
	}
	if taken == 0 {
		t.Error("none of the silent calls had its effect: nothing was to be voided")
	}
	p.WaitQuiet(patience)
	if got := states(t, p); got["CANCELEDPAYMENT_TIMEOUT"] != len(ids) {
		t.Errorf("orders %v", got)
	}
	binary.CheckEvents(t, dir)
}

// voided wants nothing of an order's money left at the gateway, and returns 1 when it had been authorized.
func voided(t *testing.T, p *binary.Process, id string) int {
	t.Helper()
	l, ok := authorization(t, p, id)
	if !ok || l.Status != "VOIDED" || l.Captured != "0.00" || l.Voided != l.Authorized {
		t.Errorf("order %s: the gateway has %+v", id, l)
	}
	if l.Authorized == "0.00" {
		return 0
	}
	return 1
}

// TestLateApproval lets the gateway approve when the order has expired: it is voided, never captured.
func TestLateApproval(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	const late = `{"lateApprovalPercent":100,"lateApprovalDelay":"9s"}`
	// Between asking for a payment and giving it up there is time to take the gateway down, on a busy machine too.
	p := serve(t, dir, "--broker", "store", "--delayed", "300ms", "--expired", "6s", "--gateway-faults", late)
	id := place(t, p)
	until(t, p, id, "PAYMENT_IN_PROGRESS")
	if o := until(t, p, id, "CANCELED"); o.Reason != "PAYMENT_TIMEOUT" {
		t.Errorf("reason %q", o.Reason)
	}
	// The void cannot be answered while the gateway is down; the approval comes meanwhile.
	second := place(t, p)
	until(t, p, second, "PAYMENT_IN_PROGRESS")
	p.Faults(p.Gateway, `{"down":true}`)
	until(t, p, second, "CANCELING")
	binary.Eventually(t, patience, "the gateway approves late", func() bool { return approved(t, p, second) })
	p.Faults(p.Gateway, `{}`)
	until(t, p, second, "CANCELED")
	p.WaitQuiet(patience)
	voided(t, p, id)
	if voided(t, p, second) == 0 {
		t.Error("the second order was never approved: nothing was to be voided")
	}
	binary.CheckEvents(t, dir)
}

// approved reads in the gateway's own file whether it has approved an order: it is down for everybody else.
func approved(t *testing.T, p *binary.Process, id string) bool {
	t.Helper()
	return number(t, p, "pgsim", "SELECT count(*) FROM pg_ledger WHERE reference = ? AND status = 'AUTHORIZED'", id) == 1
}

// number asks a program's own file for a number, beside the program.
func number(t *testing.T, p *binary.Process, program, query string, args ...any) (n int) {
	t.Helper()
	store, err := settlesqlite.OpenReader(t.Context(), filepath.Join(p.Dir, program+".db"), settlesqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.QueryRow(t.Context(), query, args, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
