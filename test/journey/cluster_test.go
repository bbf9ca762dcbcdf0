package journey_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/shop/gateway"
	"github.com/settledev/settle/test/internal/binary"
)

// cluster is a shop with one process for each service, and one for the world outside.
type cluster struct {
	t         *testing.T
	dir       string
	data      string
	broker    string
	prefix    string
	store     string            // URL of the databases, files when empty
	addresses map[string]string // of every instance (order, order#2), and of pgsim and platformsim
	running   map[string]*program
}

// program is a running settle command.
type program struct {
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	said bytes.Buffer
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *program) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

func launchProgram(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{done: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), os.Getenv(binary.Variable), args...)
	p.cmd.Stderr, p.cmd.Stdout = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // The state says how it ended.
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// terminate asks it to end and returns its exit code.
func (p *program) terminate(t *testing.T) int {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("no end within %s of SIGTERM:\n%s", patience, p)
	}
	return p.cmd.ProcessState.ExitCode()
}

// freeAddress returns an address that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func services() []string {
	return []string{"order", "inventory", "payment", "shipping", "notify", "platform", "catalog", "gateway"}
}

// newCluster starts everything and returns when all of it is ready; the named services run twice.
func newCluster(t *testing.T, data, store, broker string, twice ...string) *cluster {
	t.Helper()
	c := &cluster{store: store, t: t, dir: newDir(t), data: data, broker: broker, prefix: fmt.Sprintf("journey%d", time.Now().UnixNano()), addresses: map[string]string{}, running: map[string]*program{}}
	instances := services()
	for _, name := range twice {
		instances = append(instances, name+"#2")
	}
	for _, name := range append(slices.Clone(instances), "pgsim", "platformsim") {
		c.addresses[name] = freeAddress(t)
	}
	c.running["outside"] = launchProgram(t, "outside", "--dir", c.dir, "--addr-gateway", c.addresses["pgsim"],
		"--addr-platform", c.addresses["platformsim"], "--webhook-url", c.url("gateway")+"/webhooks/payments")
	for _, name := range instances {
		c.start(name)
	}
	for _, name := range instances {
		c.waitReady(name)
	}
	return c
}

func (c *cluster) url(name string) string { return "http://" + c.addresses[name] }

// start starts an instance of a service.
func (c *cluster) start(name string) {
	c.t.Helper()
	service, _, _ := strings.Cut(name, "#")
	args := []string{
		"serve", "--services", service, "--store", c.store, "--migrate", "--dir", c.dir, "--addr", c.addresses[name], "--broker", c.broker, "--topic-prefix", c.prefix,
		"--data", c.data, "--gateway-url", c.url("pgsim"), "--platform-url", c.url("platformsim"),
	}
	for peer := range c.addresses {
		if service, _, _ := strings.Cut(peer, "#"); slices.Contains(services(), service) {
			args = append(args, "--peer", service+"="+c.url(peer))
		}
	}
	c.running[name] = launchProgram(c.t, args...)
}

func (c *cluster) status(name, path string) int {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url(name)+path, http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (c *cluster) waitReady(name string) {
	c.t.Helper()
	binary.Eventually(c.t, patience, name+" is ready", func() bool {
		select {
		case <-c.running[name].done:
			c.t.Fatalf("%s has ended:\n%s", name, c.running[name])
		default:
		}
		return c.status(name, "/readyz") == http.StatusOK
	})
}

func (c *cluster) token() string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "operator-token"))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// ask asks the gateway as an operator.
func (c *cluster) ask(path string) binary.Answer {
	c.t.Helper()
	return binary.Send(c.t, http.MethodGet, c.url("gateway")+path, "", "Authorization", "Bearer "+c.token())
}

// handled is how many events all processes have handled, -1 while one of them does not say.
func (c *cluster) handled() int64 {
	c.t.Helper()
	a := c.ask("/internal/stats")
	var stats gateway.TrafficAnswer
	if a.Status != http.StatusOK || json.Unmarshal([]byte(a.Body), &stats) != nil {
		return -1
	}
	return stats.Handled
}

// TestCluster runs every service in a process of its own, on files and the server of a broker, and on files
// alone, whose outboxes the others follow. It replays a file through the gateway, kills processes on the way, and wants
// every book to balance.
func TestCluster(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Run("nats", func(t *testing.T) { replayOnCluster(t, server.Start(t, server.NATS, server.Options{}).URL()) })
	t.Run("kafka", func(t *testing.T) { replayOnCluster(t, server.Shared(t, server.Kafka)) })
	t.Run("redis", func(t *testing.T) { replayOnCluster(t, server.Shared(t, server.Redis)) })
	t.Run("store", func(t *testing.T) { replayOnCluster(t, "store") })
}

// TestInstances runs services twice on one database server, divided by a broker and by leases, and kills one
// instance of each for good: the other one goes on with its work.
func TestInstances(t *testing.T) {
	binary.NeedsProcesses(t)
	for name, kinds := range map[string][2]server.Kind{
		"postgres kafka": {server.Postgres, server.Kafka},
		"postgres store": {server.Postgres, ""},
		"postgres nats":  {server.Postgres, server.NATS},
		"mysql redis":    {server.MariaDB, server.Redis},
	} {
		t.Run(name, func(t *testing.T) {
			store := databases(t, server.Shared(t, kinds[0]), fmt.Sprintf("twice%d", time.Now().UnixNano()))
			ensure := settlepgx.EnsureDatabase
			if kinds[0] == server.MariaDB {
				ensure = settlemysql.EnsureDatabase
			}
			for _, service := range services() {
				if err := ensure(t.Context(), databaseOf(t, store, service)); err != nil {
					t.Fatal(err)
				}
			}
			broker := "store"
			if kinds[1] != "" {
				broker = server.Shared(t, kinds[1])
			}
			data := retailOfCluster(t)
			twice := []string{"order", "payment", "inventory"}
			c := newCluster(t, data, store, broker, twice...)
			c.replay(data, func(name string) {
				if name == "payment" { // All at once: afterwards the gateway says nothing for a while.
					for _, name := range twice {
						c.running[name].kill()
					}
				}
			})
		})
	}
}

func retailOfCluster(t *testing.T) string {
	t.Helper()
	return retail(t, 600, "C536999,10001,THING 1,-1,2010-12-02 08:26:00,2.55,17850.0,United Kingdom")
}

func replayOnCluster(t *testing.T, broker string) {
	t.Helper()
	data := retailOfCluster(t)
	c := newCluster(t, data, "", broker)
	c.replay(data, func(name string) {
		c.running[name].kill()
		c.start(name)
		c.waitReady(name)
	})
	for _, name := range services() {
		if code := c.running[name].terminate(t); code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM\n%s", name, code, c.running[name])
		}
	}
}

// replay replays a file of retailOfCluster through the gateway, hurts services on the way, and wants every
// book to balance.
func (c *cluster) replay(data string, hurt func(name string)) {
	t := c.t
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	replay := launchProgram(t, "replay-data", "--url", c.url("gateway"), "--token-file", filepath.Join(c.dir, "operator-token"),
		"--gateway-url", c.url("pgsim"), "--platform-url", c.url("platformsim"),
		"--journal", filepath.Join(t.TempDir(), "journal"), "--report", report, data)
	for i, name := range []string{"payment", "order", "inventory"} {
		binary.Eventually(t, patience, "events are handled", func() bool { return c.handled() > int64(200+600*i) })
		hurt(name)
	}
	select {
	case <-replay.done:
	case <-time.After(3 * time.Minute):
		t.Fatalf("the replay does not end:\n%s", replay)
	}
	if code := replay.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("replay: exit code %d\n%s", code, replay)
	}
	r := binary.ReadReport(t, report)
	if !r.Balanced || r.Accepted != 600 || r.Terminal["COMPLETED"] != 600 || r.Returns["COMPLETED"] != 1 {
		t.Errorf("report: balanced %t, %d accepted, terminal %v, returns %v", r.Balanced, r.Accepted, r.Terminal, r.Returns)
	}
}

// TestClusterPartAway asks a gateway whose services are away in part: what it can answer it answers, and it
// says what is missing.
func TestClusterPartAway(t *testing.T) {
	binary.NeedsProcesses(t)
	nats := server.Start(t, server.NATS, server.Options{})
	c := newCluster(t, retail(t, 20), "", nats.URL())
	c.running["inventory"].kill()
	if a := c.ask("/internal/stock"); a.Status != http.StatusServiceUnavailable || a.Code() != "service-unreachable" || a.Header.Get("Retry-After") == "" {
		t.Errorf("stock of a service that is away: %d %v %s", a.Status, a.Header, a.Body)
	}
	if a := c.ask("/internal/stats"); a.Status != http.StatusServiceUnavailable {
		t.Errorf("traffic with a part away: %d %s", a.Status, a.Body)
	}
	a := c.ask("/api/dlq")
	var letters struct{ Unreachable []gateway.Unreachable }
	if a.Decode(t, &letters); a.Status != http.StatusOK || len(letters.Unreachable) != 1 || letters.Unreachable[0].Service != "inventory" {
		t.Errorf("letters with a part away: %d %s", a.Status, a.Body)
	}
	if a := c.ask("/products?limit=1"); a.Status != http.StatusOK || strings.Contains(a.Body, "available") {
		t.Errorf("products without their stock: %d %s", a.Status, a.Body)
	}
	// An order is taken all the same, and goes on when inventory is back.
	a = binary.Send(t, http.MethodPost, c.url("gateway")+"/orders", `{"customerId":"c-1","items":[{"productId":"10001","quantity":1}]}`)
	if a.Status != http.StatusAccepted {
		t.Fatalf("order: %d %s", a.Status, a.Body)
	}
	var placed order
	a.Decode(t, &placed)
	c.start("inventory")
	binary.Eventually(t, patience, "the order is completed", func() bool {
		var o order
		a := c.ask("/orders/" + placed.ID)
		return a.Status == http.StatusOK && json.Unmarshal([]byte(a.Body), &o) == nil && o.State == "COMPLETED" && len(o.Timeline) > 0
	})
	// A second process of a service on a file is refused, and says why.
	out := binary.Run(t, "serve", "--services", "shipping", "--dir", c.dir, "--addr", "127.0.0.1:0", "--broker", c.broker, "--topic-prefix", c.prefix)
	if out.Code != 1 || !strings.Contains(out.Stderr, "one process") || !strings.Contains(out.Stderr, fmt.Sprintf("pid %d", c.running["shipping"].cmd.Process.Pid)) {
		t.Errorf("a second process: exit code %d\n%s", out.Code, out.Stderr)
	}
}

// databases is the store's URL for a prefix of databases on a server.
func databases(t *testing.T, server, prefix string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + prefix
	return u.String()
}

// databaseOf is the URL of a service's database.
func databaseOf(t *testing.T, store, service string) string {
	t.Helper()
	u, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	u.Path += "_" + service
	return u.String()
}

// TestDemoOnServers replays a file in one process on database and broker servers, twice: the second time it
// finds its answers in the journal, and with --fresh it begins anew beside what the broker still has.
func TestDemoOnServers(t *testing.T) {
	binary.NeedsProcesses(t)
	for name, kinds := range map[string][2]server.Kind{
		"postgres store":     {server.Postgres, ""},
		"postgres nats":      {server.Postgres, server.NATS},
		"postgres kafka":     {server.Postgres, server.Kafka},
		"postgres kafka wal": {server.Postgres, server.Kafka},
		"files rabbit":       {"", server.Rabbit},
		"mysql store":        {server.MariaDB, ""},
		"mysql redis":        {server.MariaDB, server.Redis},
		"files nats":         {"", server.NATS},
		"files kafka":        {"", server.Kafka},
		"files redis":        {"", server.Redis},
	} {
		t.Run(name, func(t *testing.T) {
			dir, data := newDir(t), retail(t, 100)
			flags := []string{"demo", "--dir", dir, "--addr", "127.0.0.1:0", "--exit", "--data", data, "--broker", "store"}
			prefix := fmt.Sprintf("demo%d", time.Now().UnixNano())
			if kinds[0] != "" {
				flags = append(flags, "--store", databases(t, server.Shared(t, kinds[0]), prefix))
			}
			if kinds[1] != "" {
				flags = append(flags, "--broker", server.Shared(t, kinds[1]))
			}
			if strings.HasSuffix(name, "wal") {
				flags = append(flags, "--relay", "wal")
			}
			for _, more := range [][]string{{"--fresh"}, nil, {"--fresh"}} {
				report := filepath.Join(t.TempDir(), "report.json")
				out := binary.Run(t, append(append(flags, "--report", report), more...)...)
				if out.Code != 0 {
					t.Fatalf("%v: exit code %d\n%s\n%s", more, out.Code, out.Stdout, out.Stderr)
				}
				if r := binary.ReadReport(t, report); !r.Balanced || r.Accepted != 100 || r.Terminal["COMPLETED"] != 100 {
					t.Errorf("%v: balanced %t, %d accepted, %v", more, r.Balanced, r.Accepted, r.Terminal)
				}
			}
		})
	}
}
