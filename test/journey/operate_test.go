package journey_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/txn"
)

// TestCorruptRow replays a file with rows that cannot be read: each is reported with its line, the rest goes on.
func TestCorruptRow(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	data := retail(t, 5,
		"536999,10001,THING 1,many,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
		"536998,10001,too few fields",
		"536997,10001,THING 1,1,2010-12-01 08:26:00,2.55,17850.0,United Kingdom")
	dir := newDir(t)
	report := filepath.Join(t.TempDir(), "report.json")
	out := binary.Run(t, "demo", "--dir", dir, "--addr", "127.0.0.1:0", "--exit", "--data", data, "--report", report)
	if out.Code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", out.Code, out.Stdout, out.Stderr)
	}
	r := binary.ReadReport(t, report)
	var lines []int
	for _, c := range r.Corrupt {
		lines = append(lines, c.Line)
	}
	if !slices.Equal(lines, []int{7, 8}) || r.Accepted != 6 || !r.Balanced {
		t.Errorf("corrupt lines %v, %d accepted, balanced %t; want lines 7 and 8, 6 accepted", lines, r.Accepted, r.Balanced)
	}
	if !strings.Contains(out.Stdout, "line 7 skipped") || !strings.Contains(out.Stdout, "line 8 skipped") {
		t.Errorf("the table does not name the lines:\n%s", out.Stdout)
	}
}

// TestSecondProcess starts a second shop on the directory of a running one.
func TestSecondProcess(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	p := serve(t, dir, "--broker", "store")
	for _, args := range [][]string{{"serve"}, {"demo", "--exit"}, {"demo", "--fresh", "--exit"}} {
		out := binary.Run(t, append(args, "--dir", dir, "--addr", "127.0.0.1:0")...)
		if out.Code != 1 || strings.Count(out.Stderr, "\n") != 1 || !strings.Contains(out.Stderr, fmt.Sprintf("pid %d", p.PID())) || !strings.Contains(out.Stderr, dir) {
			t.Errorf("%v: exit code %d, %q; want 1 and one line with the directory and pid %d", args, out.Code, out.Stderr, p.PID())
		}
	}
	until(t, p, place(t, p), "COMPLETED")
}

// TestWrongUse wants exit code 2 and one line that says what is wrong.
func TestWrongUse(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	for _, test := range []struct{ args, says string }{
		{"demo --no-such-flag", "--no-such-flag"},
		{"demo --stock some", `--stock "some"`},
		{"demo --stock tight=101", `--stock "tight=101"`},
		{"demo --decline 101", "--decline 101"},
		{"demo --data /no/such/file.csv", "/no/such/file.csv"},
		{"demo --delayed soon", "--delayed"},
		{"demo --gateway-faults {\"dwon\":true}", "dwon"},
		{"serve --platform-faults {", "--platform-faults"},
		{"serve --crash here", "--crash"},
		{"dlq list --token-file /no/such/token", "/no/such/token"},
		{"dlq replay --token-file " + filepath.Join(dir, "x"), "name a message"},
		{"outbox list --dir " + dir, dir},
		{"outbox list --service nobody", "nobody"},
		{"order", "<id>"},
		{"fly", "fly"},
	} {
		args := strings.Fields(test.args)
		if args[0] == "demo" || args[0] == "serve" {
			args = append(args, "--dir", dir, "--addr", "127.0.0.1:0")
		}
		out := binary.Run(t, args...)
		if out.Code != 2 || strings.Count(out.Stderr, "\n") != 1 || !strings.Contains(out.Stderr, test.says) || out.Stdout != "" {
			t.Errorf("settle %s: exit code %d, %q, %q; want 2 and one line with %q", test.args, out.Code, out.Stdout, out.Stderr, test.says)
		}
	}
}

// TestInterrupt presses Ctrl-C during a replay: it drains and ends well, and the next one goes on and balances.
func TestInterrupt(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	const orders = 1500
	dir := newDir(t)
	report := filepath.Join(t.TempDir(), "report.json")
	args := []string{"demo", "--exit", "--report", report, "--data", retail(t, orders)}
	p := binary.Start(t, dir, args...)
	binary.Eventually(t, patience, "the replay is at work", func() bool {
		traffic, err := p.Traffic()
		return err == nil && traffic.Handled > 500
	})
	stop(t, p)
	if done := len(binary.Outbox(t, dir, "order")); done == 0 {
		t.Error("nothing was done before Ctrl-C")
	}
	p = binary.Start(t, dir, args...)
	if code := p.Wait(); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, p.Stdout(), p.Stderr())
	}
	if r := binary.ReadReport(t, report); !r.Balanced || r.Terminal["COMPLETED"] != orders {
		t.Errorf("report %+v", r)
	}
	binary.CheckEvents(t, dir)
}

// letter is a dead letter as `settle dlq list --json` prints it.
type letter struct{ MessageID, Service, State, Type, Key, Cause string }

// operator runs a command against a running shop.
func operator(t *testing.T, p *binary.Process, args ...string) binary.Output {
	t.Helper()
	return binary.Run(t, append(args, "--url", p.URL, "--token-file", filepath.Join(p.Dir, "operator-token"))...)
}

// jsonLines reads what a command with --json printed.
func jsonLines[T any](t *testing.T, out binary.Output) []T {
	t.Helper()
	if out.Code != 0 {
		t.Fatalf("exit code %d: %s", out.Code, out.Stderr)
	}
	var all []T
	for line := range strings.Lines(out.Stdout) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

// TestUnknownEvents has the order service emit what nobody knows: an event type, and a version of a known
// one. They are parked, not lost; an operator sees them, tries them again, and gives them up; all of it is audited,
// and orders go on meanwhile.
func TestUnknownEvents(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	p := serve(t, dir)
	stop(t, p)
	type dataV9 struct{ OrderID string }
	spec := event.Spec[dataV9]{Topic: contract.OrderTopic, Aggregate: "order", Key: func(d dataV9) string { return d.OrderID }}
	teleported := event.Define("OrderTeleported", 1, spec)
	paid := event.Define("OrderPaid", 9, event.Spec[dataV9]{
		Topic: spec.Topic, Aggregate: spec.Aggregate, Key: spec.Key,
	})
	inject(t, dir, teleported.New(dataV9{"order-t"}), paid.New(dataV9{"order-9"}))
	p = serve(t, dir)
	letters := func() []letter { return jsonLines[letter](t, operator(t, p, "dlq", "list", "--json")) }
	binary.Eventually(t, patience, "both events are parked", func() bool {
		dead := map[string]bool{}
		for _, l := range letters() {
			if l.State == "DEAD" && l.Service == "shipping" {
				dead[l.Type] = true
			}
		}
		return dead["OrderTeleported"] && dead["OrderPaid"]
	})
	until(t, p, place(t, p), "COMPLETED")
	all := letters()
	one := all[slices.IndexFunc(all, func(l letter) bool { return l.Type == "OrderTeleported" })]
	if out := operator(t, p, "dlq", "replay", one.MessageID); out.Code != 0 || out.Stdout != "1 replayed\n" {
		t.Errorf("replay: %+v", out)
	}
	binary.Eventually(t, patience, "it is parked again", func() bool {
		return slices.ContainsFunc(letters(), func(l letter) bool { return l.MessageID == one.MessageID && l.State == "DEAD" })
	})
	if out := operator(t, p, "dlq", "replay", "--all"); out.Code != 0 || out.Stdout != fmt.Sprintf("%d replayed\n", len(all)) {
		t.Errorf("replay of %d: %+v", len(all), out)
	}
	for _, l := range all {
		if out := operator(t, p, "dlq", "discard", l.MessageID); out.Code != 0 || out.Stdout != "1 discarded\n" {
			t.Errorf("discard %s: %+v", l.MessageID, out)
		}
	}
	if rest := letters(); len(rest) != 0 {
		t.Errorf("discarded letters are still there: %v", rest)
	}
	if out := operator(t, p, "dlq", "discard", one.MessageID); out.Code != 1 || strings.Count(out.Stderr, "\n") != 1 {
		t.Errorf("discarded twice: %+v", out)
	}
	audit(t, p, one.MessageID, len(all))
	until(t, p, place(t, p), "COMPLETED")
	p.WaitQuiet(patience)
}

// inject adds events to the outbox of the order service while the shop is stopped.
func inject(t *testing.T, dir string, drafts ...event.Draft) {
	t.Helper()
	store, err := settlesqlite.Open(t.Context(), filepath.Join(dir, "order.db"), settlesqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	err = store.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("order", nil)
		return outbox.Add(ctx, tx, drafts...)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// audit wants what the operator did to one letter, and as many discards as there were letters.
func audit(t *testing.T, p *binary.Process, id string, letters int) {
	t.Helper()
	type entry struct{ Operator, Action, Letter string }
	discards, tried := 0, false
	var did []string
	for _, e := range jsonLines[entry](t, operator(t, p, "dlq", "audit", "--json")) {
		if e.Operator == "" {
			t.Errorf("nobody did %+v", e)
		}
		if e.Action == "discard" {
			discards++
		}
		switch {
		case e.Letter != id:
		case e.Action == deadletter.ActionReplayed: // What came of it: the engine's own entry.
			tried = true
		default:
			did = append(did, e.Action)
		}
	}
	slices.Sort(did)
	if !tried || discards != letters || !slices.Equal(did, []string{"discard", "replay", "replay"}) {
		t.Errorf("audit: %d discards of %d letters; to %s was done %v, outcome kept: %t", discards, letters, id, did, tried)
	}
}
