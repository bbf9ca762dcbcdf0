// Package cluster runs the shop as it runs in production: a process for each service, and one for the world
// outside.
package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/shop/gateway"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/test/internal/binary"
)

// Patience is how long a cluster may take for what it does at once when nothing is in its way.
const Patience = 2 * time.Minute

// Config says where a cluster runs.
type Config struct {
	// Data is the file of the month, whose products the catalogue has. Default: the bundled one.
	Data string
	// Store is the URL of databases on a server, see [Databases]; missing ones are made. Default: files.
	Store string
	// Broker is store or the URL of a broker's server.
	Broker string
	// Twice names services that have two instances: order and order#2.
	Twice []string
	// Roles says that each service has a role of its own on the store's server, whose name is that of its
	// database. Default: all have the URL's.
	Roles bool
	// Serve, Outside and Flags are more flags of the services, of the world outside and of replays.
	Serve, Outside, Flags []string
}

// Outside is the name of the process that is the world outside.
const Outside = "outside"

// Cluster is a running shop.
type Cluster struct {
	// Dir holds the files and the operator's token.
	Dir string
	// Binary is the command of instances that are started from now on. Default: the tests' own.
	Binary string
	// Running are the processes by instance, and outside.
	Running map[string]*Program

	t         *testing.T
	cfg       Config
	prefix    string
	addresses map[string]string // of every instance, and of pgsim and platformsim
	launched  map[string][]*Program
}

// Services are the names of the services.
func Services() []string {
	return []string{"order", "inventory", "payment", "shipping", "notify", "platform", "catalog", "gateway"}
}

// New starts everything and returns when all of it is ready. It ends with the test.
func New(t *testing.T, dir string, cfg Config) *Cluster {
	t.Helper()
	c := &Cluster{
		Dir: dir, Binary: os.Getenv(binary.Variable), Running: map[string]*Program{}, t: t, cfg: cfg,
		prefix: fmt.Sprintf("cluster%d", time.Now().UnixNano()), addresses: map[string]string{}, launched: map[string][]*Program{},
	}
	c.ensure()
	instances := Services()
	for _, name := range cfg.Twice {
		instances = append(instances, name+"#2")
	}
	for _, name := range append(slices.Clone(instances), "pgsim", "platformsim") {
		c.addresses[name] = server.FreeAddress(t)
	}
	c.Start(Outside)
	for _, name := range instances {
		c.Start(name)
	}
	for _, name := range instances {
		c.WaitReady(name)
	}
	return c
}

// URL is an instance's, or that of pgsim and platformsim.
func (c *Cluster) URL(name string) string { return "http://" + c.addresses[name] }

// Broker is the broker's URL, and the prefix of its topics.
func (c *Cluster) Broker() (url, prefix string) { return c.cfg.Broker, c.prefix }

// Start starts an instance, or the world outside.
func (c *Cluster) Start(name string) {
	c.t.Helper()
	args := c.flags(name)
	if name == Outside {
		args = append([]string{
			"outside", "--dir", c.Dir, "--addr-gateway", c.addresses["pgsim"], "--addr-platform", c.addresses["platformsim"],
			"--webhook-url", c.URL("gateway") + "/webhooks/payments",
		}, c.cfg.Outside...)
	}
	c.Running[name] = Launch(c.t, c.Binary, args...)
	c.launched[name] = append(c.launched[name], c.Running[name])
}

// flags are those of an instance.
func (c *Cluster) flags(name string) []string {
	service, _, _ := strings.Cut(name, "#")
	args := append([]string{
		"serve", "--services", service, "--store", c.storeOf(service), "--migrate", "--dir", c.Dir, "--addr", c.addresses[name],
		"--broker", c.cfg.Broker, "--topic-prefix", c.prefix,
		"--gateway-url", c.URL("pgsim"), "--platform-url", c.URL("platformsim"),
	}, c.cfg.Serve...)
	if c.cfg.Data != "" {
		args = append(args, "--data", c.cfg.Data)
	}
	for peer := range c.addresses {
		if service, _, _ := strings.Cut(peer, "#"); slices.Contains(Services(), service) {
			args = append(args, "--peer", service+"="+c.URL(peer))
		}
	}
	return args
}

// storeOf is the store's URL as a service has it.
func (c *Cluster) storeOf(service string) string {
	u, err := url.Parse(c.cfg.Store)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.cfg.Roles {
		u.User = url.User(strings.TrimPrefix(u.Path, "/") + "_" + service)
	}
	return u.String()
}

// Revive starts again what has ended by itself, as a supervisor does, and returns what that said in its end,
// by name.
func (c *Cluster) Revive() map[string]string {
	c.t.Helper()
	ended := map[string]string{}
	for name, p := range c.Running {
		if p.Ended() {
			ended[name] = p.String()
			c.Start(name)
		}
	}
	return ended
}

// Keep ends every process and writes to a directory, which it makes, what was on its way, how each process was, and
// what it has said, one file for each start: in the end, what its goroutines were doing.
func (c *Cluster) Keep(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range c.Running {
		p.Resume() // One that is paused would never answer.
	}
	if err := os.WriteFile(filepath.Join(dir, "states.txt"), []byte(c.States()), 0o600); err != nil {
		return err
	}
	for _, p := range c.Running {
		p.Quit()
	}
	for name, programs := range c.launched {
		for i, p := range programs {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s.%d.log", name, i+1)), []byte(p.String()), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// Books open the databases of the services.
func (c *Cluster) Books() binary.Books {
	if c.cfg.Store == "" {
		return binary.Files(c.Dir)
	}
	return func(t *testing.T, service string) *sqlstore.Store {
		t.Helper()
		var store *sqlstore.Store
		var err error
		if where := DatabaseOf(t, c.cfg.Store, service); c.mysql() {
			store, err = settlemysql.Open(t.Context(), where, settlemysql.Config{})
		} else {
			store, err = settlepgx.Open(t.Context(), where, settlepgx.Config{})
		}
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
}

// States are what each process says of itself: whether it is ready, and what is on its way in it. The gateway also
// says it of the whole shop.
func (c *Cluster) States() string {
	c.t.Helper()
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.Running)) {
		if name == Outside {
			continue
		}
		for _, path := range []string{"/readyz", "/internal/stats"} {
			a := binary.Ask(c.t, c.URL(name)+path, "Authorization", "Bearer "+c.Token())
			fmt.Fprintf(&all, "%s %s: %d %s\n", name, path, a.Status, strings.TrimSpace(a.Body))
		}
	}
	return all.String()
}

func (c *Cluster) mysql() bool { return strings.HasPrefix(c.cfg.Store, "mysql:") }

// Status asks an instance and returns the answer's status, 0 when there is none.
func (c *Cluster) Status(name, path string) int {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.URL(name)+path, http.NoBody)
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

// WaitReady waits until an instance says that it is ready.
func (c *Cluster) WaitReady(name string) {
	c.t.Helper()
	defer func() {
		if c.t.Failed() {
			c.t.Logf("%s\n%s", c.States(), c.Running[name])
		}
	}()
	binary.Eventually(c.t, Patience, name+" is ready", func() bool {
		if c.Running[name].Ended() {
			c.t.Fatalf("%s has ended:\n%s", name, c.Running[name])
		}
		return c.Status(name, "/readyz") == http.StatusOK
	})
}

// Token is the operator's.
func (c *Cluster) Token() string {
	c.t.Helper()
	token, err := os.ReadFile(filepath.Join(c.Dir, "operator-token"))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(token))
}

// Ask asks the gateway as an operator.
func (c *Cluster) Ask(path string) binary.Answer {
	c.t.Helper()
	return binary.Send(c.t, http.MethodGet, c.URL("gateway")+path, "", "Authorization", "Bearer "+c.Token())
}

// Handled is how many events all processes have handled, -1 while one of them does not say.
func (c *Cluster) Handled() int64 {
	c.t.Helper()
	a := c.Ask("/internal/stats")
	var stats gateway.TrafficAnswer
	if a.Status != http.StatusOK || json.Unmarshal([]byte(a.Body), &stats) != nil {
		return -1
	}
	return stats.Handled
}

// Replay starts a replay of the data through the gateway. It writes its report to a file, and keeps its journal beside
// it: one with the same report goes on where the last one was ended.
func (c *Cluster) Replay(report string) *Program {
	c.t.Helper()
	return c.ReplayAt(c.URL("gateway"), report)
}

// Journal is where the replay that writes a report keeps its answers.
func Journal(report string) string { return report + ".journal" }

// ReplayAt is Replay through whatever leads to gateways.
func (c *Cluster) ReplayAt(url, report string) *Program {
	c.t.Helper()
	args := append([]string{
		"replay-data", "--url", url, "--token-file", filepath.Join(c.Dir, "operator-token"),
		"--gateway-url", c.URL("pgsim"), "--platform-url", c.URL("platformsim"),
		"--journal", Journal(report), "--report", report,
	}, c.cfg.Flags...)
	if c.cfg.Data != "" {
		args = append(args, c.cfg.Data)
	}
	return Launch(c.t, c.Binary, args...)
}

// Databases is the store's URL for databases on a server whose names nobody else has.
func Databases(t *testing.T, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = fmt.Sprintf("/cluster%d", time.Now().UnixNano())
	return u.String()
}

// ensure makes the databases that are not there.
func (c *Cluster) ensure() {
	c.t.Helper()
	if c.cfg.Store == "" {
		return
	}
	ensure := settlepgx.EnsureDatabase
	if c.mysql() {
		ensure = settlemysql.EnsureDatabase
	}
	for _, service := range Services() {
		if err := ensure(c.t.Context(), DatabaseOf(c.t, c.cfg.Store, service)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// DatabaseOf is the URL of a service's database.
func DatabaseOf(t *testing.T, store, service string) string {
	t.Helper()
	u, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	u.Path += "_" + service
	return u.String()
}
