package crash_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/shop/replay"
	"github.com/settledev/settle/test/internal/binary"
)

var (
	kills = flag.Int("kills", 0, "how often to hurt; 0 is what is good for a run of all tests")
	seed  = flag.Uint64("seed", 0, "repeats a run; 0 takes one from the clock")
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const (
	// handledMin is how many events a process must have handled before it may be killed: a process that only
	// starts proves nothing.
	handledMin = 100
	// outside is a kill from outside, at no named point.
	outside = "outside"
)

// points are the named points of the hop, and a kill from outside at a random moment.
func points() []string {
	return []string{
		"relay.before-publish", "relay.after-publish", "relay.before-advance", "relay.after-advance",
		"consumer.before-commit", "consumer.after-commit", "consumer.after-ack",
		"call.before-perform", "call.after-perform", "call.before-commit", "call.after-record",
		"timer.before-commit", "timer.after-commit",
		outside, outside, outside,
	}
}

// demo are the flags of every start. The deadline of 50 ms and the delay of the shipment keep the timers busy,
// and the world outside answers some calls with an error that had their effect, so that calls are repeated for
// other reasons than a kill.
func demo(broker, report string, more ...string) []string {
	return append([]string{
		"demo", "--exit", "--report", report, "--broker", broker, "--stock", "tight=60", "--decline", "7",
		"--delayed", "50ms", "--ship-delay", "100ms",
		"--gateway-faults", `{"errorBeforePercent":2,"errorAfterPercent":3,"webhookDuplicatePercent":10}`,
		"--platform-faults", `{"errorAfterPercent":3}`,
	}, more...)
}

// run is one crash run.
type run struct {
	t      *testing.T
	random *rand.Rand
	deck   []string
	spread map[string]int
	killed int
}

// next returns the point of the next kill: each once before any again. Where outboxes are followed there is no
// relay: its points wait for a replay through a broker.
func (r *run) next(broker string) string {
	for {
		for i, point := range r.deck {
			if broker != "store" || !strings.HasPrefix(point, "relay.") {
				r.deck = slices.Delete(r.deck, i, i+1)
				return point
			}
		}
		more := points()
		r.random.Shuffle(len(more), func(i, j int) { more[i], more[j] = more[j], more[i] })
		r.deck = append(r.deck, more...)
	}
}

// TestCrash kills the process -kills times, each at work, while customers cancel, and wants every book balanced in the end. A replay
// that ends before enough kills have hit it is followed by another, with the other broker.
func TestCrash(t *testing.T) {
	binary.NeedsProcesses(t)
	kills := plan(10)
	t.Logf("repeat with: make crash KILLS=%d SEED=%d", kills, *seed)
	r := &run{t: t, random: rand.New(rand.NewPCG(*seed, 0)), spread: map[string]int{}}
	// Half of the kills of a short run hit each broker; a long one uses more directories.
	perReplay := min(max(kills/4, 5), 12)
	for replays := 0; r.killed < kills; replays++ {
		if replays > 2*kills+4 {
			t.Fatalf("%d replays, and only %d kills hit one at work", replays, r.killed)
		}
		broker := []string{"nats", "store"}[(uint64(replays)+*seed)%2]
		r.replay(broker, min(perReplay, kills-r.killed))
	}
	for _, point := range slices.Sorted(maps.Keys(r.spread)) {
		t.Logf("%3d kills at %s", r.spread[point], point)
	}
}

// plan is how often to hurt, usual unless the command says it, and sets a seed unless the command does.
func plan(usual int) int {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano() % 1_000_000)
	}
	if *kills == 0 {
		return usual
	}
	return *kills
}

// replay kills one replay up to n times and lets it go on to its end.
func (r *run) replay(broker string, n int) {
	t := r.t
	dir := filepath.Join(t.TempDir(), "shop")
	report := filepath.Join(filepath.Dir(dir), "report.json")
	started := time.Now()
	for range n {
		point := r.next(broker)
		handled, hit := r.kill(dir, broker, report, point)
		if !hit {
			r.deck = slices.Insert(r.deck, 0, point) // The replay was over: this point's turn comes in the next one.
			break
		}
		r.killed++
		r.spread[point]++
		t.Logf("kill %d: %s at %s, %d events handled since the start", r.killed, broker, point, handled)
	}
	p, wait := r.start(dir, demo(broker, report)...)
	code := p.Wait()
	if wait(); code != 0 {
		t.Errorf("%s: exit code %d\n%s\n%s", broker, code, p.Stdout(), p.Stderr())
		r.keep(dir)
		return
	}
	rep := check(t, binary.Files(dir), report)
	if t.Failed() {
		r.keep(dir)
	}
	t.Logf("%s: balanced after %.1fs: %v, canceled %v", broker, time.Since(started).Seconds(), rep.Terminal, rep.Canceled)
}

// start starts the process, and customers of it.
func (r *run) start(dir string, args ...string) (p *binary.Process, wait func() map[string]int) {
	r.t.Helper()
	p = binary.Start(r.t, dir, args...)
	return p, customers(r.t, p.URL, p.Done())
}

// keep saves the data of a failure.
func (r *run) keep(dir string) {
	to := filepath.Join(os.TempDir(), fmt.Sprintf("settle-crash-%d-%d", *seed, r.killed))
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		r.t.Log(err)
	}
	r.t.Fatalf("seed %d: the data is kept in %s", *seed, to)
}

// crashed is what the process says before it kills itself.
var crashed = regexp.MustCompile(`crash at \S+, (\d+) events handled`)

// kill starts the process and kills it at a point. hit is false when the replay was over before.
func (r *run) kill(dir, broker, report, point string) (handled int64, hit bool) {
	from := handledMin + r.random.Int64N(2500)
	if point == outside {
		return r.killOutside(dir, broker, report, from)
	}
	spec := fmt.Sprintf("%s:%d@%d", point, 1+r.random.Int64N(8), from)
	p, wait := r.start(dir, demo(broker, report, "--crash", spec)...)
	code := p.Wait()
	wait()
	said := crashed.FindStringSubmatch(p.Stderr())
	switch {
	case code == 0:
		return 0, false
	case code != -1 || said == nil:
		r.t.Fatalf("%s --crash %s: exit code %d\n%s\n%s", broker, spec, code, p.Stdout(), p.Stderr())
	}
	handled, err := strconv.ParseInt(said[1], 10, 64)
	if err != nil || handled < handledMin {
		r.t.Fatalf("%s: %q, at least %d events expected", spec, said[0], handledMin)
	}
	return handled, true
}

// killOutside kills the process a random moment after it has handled enough.
func (r *run) killOutside(dir, broker, report string, from int64) (handled int64, hit bool) {
	moment := time.Duration(r.random.Int64N(int64(30 * time.Millisecond)))
	p, wait := r.start(dir, demo(broker, report)...)
	defer wait()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for handled < from {
		select {
		case <-p.Done():
			if code := p.Wait(); code != 0 {
				r.t.Fatalf("%s: exit code %d\n%s\n%s", broker, code, p.Stdout(), p.Stderr())
			}
			return 0, false
		case <-tick.C:
		}
		if traffic, err := p.Traffic(); err == nil { // At the very start and end nobody answers.
			handled = traffic.Handled
		}
	}
	select {
	case <-time.After(moment):
	case <-p.Done():
	}
	p.Kill()
	return handled, p.Wait() == -1
}

// check wants the books balanced, the figures that no race can change, and every event once and in order.
func check(t *testing.T, books binary.Books, report string) replay.Report {
	t.Helper()
	rep := binary.ReadReport(t, report)
	if !rep.Balanced {
		t.Errorf("not balanced: %+v", rep)
	}
	sameMonth(t, rep)
	if rep.Terminal["COMPLETED"]+rep.Terminal["CANCELED"] != rep.Accepted || rep.Open != 0 {
		t.Errorf("%v of %d accepted orders ended, %d open", rep.Terminal, rep.Accepted, rep.Open)
	}
	for reason, n := range rep.Canceled {
		if n == 0 || reason != "OUT_OF_STOCK" && reason != "CARD_DECLINED" && reason != "CUSTOMER" {
			t.Errorf("canceled: %v", rep.Canceled)
		}
	}
	if rep.Canceled["OUT_OF_STOCK"] == 0 || rep.Canceled["CARD_DECLINED"] == 0 {
		t.Errorf("canceled: %v", rep.Canceled)
	}
	books.CheckInboxes(t)
	events, orders := books.Check(t)
	if orders != rep.Accepted || int64(events) != rep.Events.Emitted {
		t.Errorf("the outboxes have %d orders, %d events; the report %d, %d", orders, events, rep.Accepted, rep.Events.Emitted)
	}
	return rep
}

// sameMonth wants the figures of shop.md that stock and declines don't change.
func sameMonth(t *testing.T, r replay.Report) {
	t.Helper()
	got := fmt.Sprintln(r.File.Rows, r.File.Invoices, r.File.Orders, r.File.Returns, r.File.Products,
		r.Accepted, r.Money.Accepted, r.Rejected, r.Returns, r.Money.Returned, r.Money.GatewayRefunded, r.Units.Returned,
		r.Platform.Expected, r.Platform.Received)
	want := fmt.Sprintln(42481, 2025, 1699, 326, 2799,
		1557, "821523.15", map[string]int{"quantity-not-positive": 70, "total-not-positive": 55, "unknown-product": 17},
		map[string]int{"COMPLETED": 326, "open": 0}, "74789.12", "74789.12", 16009,
		1557, 1557)
	if got != want {
		t.Errorf("figures of the month:\n got %s want %s", got, want)
	}
}

// TestMonth replays without a kill: the clean month has the figures at the end of shop.md, one with tight
// stock and declines balances.
func TestMonth(t *testing.T) {
	binary.NeedsProcesses(t)
	for _, broker := range []string{"nats", "store"} {
		t.Run(broker, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "shop")
			report := filepath.Join(filepath.Dir(dir), "report.json")
			p := binary.Start(t, dir, "demo", "--exit", "--broker", broker, "--report", report)
			if code := p.Wait(); code != 0 {
				t.Fatalf("exit code %d\n%s\n%s", code, p.Stdout(), p.Stderr())
			}
			r := binary.ReadReport(t, report)
			sameMonth(t, r)
			got := fmt.Sprintln(r.Balanced, r.Terminal["COMPLETED"], r.Terminal["CANCELED"], r.Open, len(r.Canceled),
				r.Money.Completed, r.Money.Canceled, r.Money.PaymentCaptured, r.Money.GatewayAuthorized, r.Money.GatewayCaptured,
				r.Money.GatewayVoided, r.Units.Sold, r.Units.Initial-r.Units.Sold+r.Units.Returned-r.Units.OnHand, r.Notify)
			want := fmt.Sprintln(true, 1557, 0, 0, 0,
				"821523.15", "0.00", "821523.15", "821523.15", "821523.15",
				"0.00", 358768, 0, replay.NotifyReport{Expected: 1557, Sent: 1557})
			if got != want {
				t.Errorf("clean month:\n got %s want %s", got, want)
			}
			if !strings.Contains(p.Stdout(), "BALANCED: every book agrees") {
				t.Errorf("the table does not say so:\n%s", p.Stdout())
			}
			binary.CheckEvents(t, dir)
		})
	}
	t.Run("tight stock and declines", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "shop")
		report := filepath.Join(filepath.Dir(dir), "report.json")
		p := binary.Start(t, dir, "demo", "--exit", "--stock", "tight=60", "--decline", "7", "--report", report)
		if code := p.Wait(); code != 0 {
			t.Fatalf("exit code %d\n%s\n%s", code, p.Stdout(), p.Stderr())
		}
		check(t, binary.Files(dir), report)
	})
}
