package journey_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/shop/gateway"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/test/internal/cluster"
)

// nextVersion builds the command as it may look in its next version: an order has one more column, and its
// event says one thing more. Nothing of that is in the code: the compiler is told to read other files.
func nextVersion(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	contract := filepath.Join(root, "shop", "contract", "order.go")
	b, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	const last = "PlacedAt   time.Time `json:\"placedAt\"`\n"
	if strings.Count(string(b), last) != 1 {
		t.Fatalf("%s has no %q", contract, last)
	}
	files := map[string]string{
		contract: strings.Replace(string(b), last, last+"\tChannel string `json:\"channel\"`\n", 1),
		filepath.Join(root, "shop", "order", "postgres", "0002_channel.sql"): "ALTER TABLE orders ADD COLUMN channel text NOT NULL DEFAULT 'shop';\n",
	}
	replace := map[string]string{}
	for path, text := range files {
		replace[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(dir, "settle")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", next, "github.com/settledev/settle/cmd/settle")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return next
}

// front stands before the gateways as a load balancer does, lets commands pass as the test says, and notes every
// answer that is no acceptance.
type front struct {
	url  string
	pass chan struct{} // one for each command
	next http.Handler

	mu      sync.Mutex
	passed  int
	refused []string
}

func newFront(t *testing.T, gateways ...string) *front {
	t.Helper()
	p, err := gateway.NewPeer("gateway", gateways)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{pass: make(chan struct{}), next: p.Handler(slog.New(slog.DiscardHandler))}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

// pace parts two commands.
const pace = 25 * time.Millisecond

// let lets n more commands pass, one after another.
func (f *front) let(n int) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for range n {
		f.pass <- struct{}{}
		<-tick.C
	}
}

// ServeHTTP implements [http.Handler].
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		f.next.ServeHTTP(w, r)
		return
	}
	select {
	case <-f.pass:
	case <-r.Context().Done():
		return
	}
	answer := httptest.NewRecorder()
	f.next.ServeHTTP(answer, r)
	f.mu.Lock()
	if f.passed++; answer.Code != http.StatusAccepted {
		f.refused = append(f.refused, fmt.Sprintf("%s: %d %s", r.URL.Path, answer.Code, answer.Body))
	}
	f.mu.Unlock()
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (f *front) seen() (passed int, refused []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.passed, slices.Clone(f.refused)
}

// TestRollingDeploy replaces every process of a shop by its next version while orders come in: first the tables, by
// command, and then one instance after another. An old instance starts on the new tables, old services understand
// new events, no command is refused, and every book balances.
func TestRollingDeploy(t *testing.T) {
	binary.NeedsProcesses(t)
	next := nextVersion(t)
	store := cluster.Databases(t, server.Shared(t, server.Postgres))
	c := cluster.New(t, newDir(t), cluster.Config{
		Data: retailOfCluster(t), Store: store, Broker: server.Shared(t, server.Kafka),
		Twice: []string{"order", "payment", "inventory", "catalog", "gateway"},
	})
	// The order service first: whoever is replaced later reads new events with the old program.
	instances := []string{
		"order", "order#2", "catalog", "catalog#2", "payment", "payment#2", "inventory", "inventory#2",
		"shipping", "notify", "platform", "gateway", "gateway#2",
	}
	const commands = 601
	share := commands / (len(instances) + 2)
	f := newFront(t, c.URL("gateway"), c.URL("gateway#2"))
	report := filepath.Join(t.TempDir(), "report.json")
	replay := c.ReplayAt(f.url, report)
	var old []*cluster.Program
	replaced := func(name string) {
		var load sync.WaitGroup
		defer load.Wait()
		load.Go(func() { f.let(share) })
		at := time.Now()
		if code := c.Running[name].Terminate(t); code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM\n%s", name, code, c.Running[name])
		}
		down := time.Now()
		old = append(old, c.Running[name])
		c.Start(name)
		c.WaitReady(name)
		passed, _ := f.seen()
		t.Logf("%-11s ended in %3.1fs, ready in %3.1fs, %d commands passed", name, down.Sub(at).Seconds(), time.Since(down).Seconds(), passed)
	}
	migrated := cluster.Launch(t, next, "migrate", "up", "--services", "all", "--store", store)
	<-migrated.Done()
	if !strings.Contains(migrated.String(), "order: 1 migrations applied") {
		t.Fatalf("migrate: exit code %d\n%s", migrated.Code(), migrated)
	}
	replaced("order#2") // By the old version again, as a crash or a rollback does.
	c.Binary = next
	for _, name := range instances {
		replaced(name)
	}
	close(f.pass) // The others, and whatever has to be sent again.
	last := time.Now()
	select {
	case <-replay.Done():
	case <-time.After(2 * patience):
		t.Fatalf("the replay does not end:\n%s\n%s", c.States(), replay)
	}
	t.Logf("ended %.1fs after the last instance was replaced", time.Since(last).Seconds())
	if passed, refused := f.seen(); passed != commands || len(refused) > 0 {
		t.Errorf("%d commands for %d invoices, refused were\n%s\n%s", passed, commands, strings.Join(refused, "\n"), warnings(c, old))
	}
	if code := replay.Code(); code != 0 {
		t.Fatalf("replay: exit code %d\n%s", code, replay)
	}
	r := binary.ReadReport(t, report)
	if !r.Balanced || r.Accepted != 600 || r.Terminal["COMPLETED"] != 600 || r.Returns["COMPLETED"] != 1 || r.Events.Parked != 0 {
		t.Errorf("report: balanced %t, %d accepted, terminal %v, returns %v, events %+v", r.Balanced, r.Accepted, r.Terminal, r.Returns, r.Events)
	}
	bothVersions(t, cluster.DatabaseOf(t, store, "order"))
}

// warnings are what the processes of both versions have warned of.
func warnings(c *cluster.Cluster, old []*cluster.Program) string {
	var all []string
	for _, p := range append(slices.Collect(maps.Values(c.Running)), old...) {
		for line := range strings.Lines(p.String()) {
			if strings.Contains(line, "level=WARN") {
				all = append(all, line)
			}
		}
	}
	slices.Sort(all) // By their times.
	return strings.Join(all, "")
}

// bothVersions wants orders that the old version has accepted, and such that the new one has.
func bothVersions(t *testing.T, database string) {
	t.Helper()
	s, err := settlepgx.Open(t.Context(), database, settlepgx.Config{NoDoorbell: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var before, after int
	const count = `SELECT count(*) FILTER (WHERE convert_from(data, 'UTF8') NOT LIKE $1), count(*) FILTER (WHERE convert_from(data, 'UTF8') LIKE $1)
		FROM settle_outbox WHERE type = 'OrderCreated'`
	if err := s.QueryRow(t.Context(), count, []any{`%"channel"%`}, &before, &after); err != nil {
		t.Fatal(err)
	}
	if before == 0 || after == 0 || before+after != 600 {
		t.Errorf("the old version accepted %d orders, the new one %d", before, after)
	}
}
