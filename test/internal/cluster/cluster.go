// Package cluster runs the shop as it runs in production: a process for each service, and one for the world
// outside.
package cluster

import (
	"encoding/json"
	"fmt"
	"net"
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
	"github.com/settledev/settle/shop/gateway"
	"github.com/settledev/settle/test/internal/binary"
)

// Patience is how long a cluster may take for what it does at once when nothing is in its way.
const Patience = time.Minute

// Config says where a cluster runs.
type Config struct {
	// Data is the file of the month, whose products the catalogue has.
	Data string
	// Store is the URL of databases on a server, see [Databases]; missing ones are made. Default: files.
	Store string
	// Broker is store or the URL of a broker's server.
	Broker string
	// Twice names services that have two instances: order and order#2.
	Twice []string
}

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
		prefix: fmt.Sprintf("cluster%d", time.Now().UnixNano()), addresses: map[string]string{},
	}
	c.ensure()
	instances := Services()
	for _, name := range cfg.Twice {
		instances = append(instances, name+"#2")
	}
	for _, name := range append(slices.Clone(instances), "pgsim", "platformsim") {
		c.addresses[name] = FreeAddress(t)
	}
	c.Running["outside"] = Launch(t, c.Binary, "outside", "--dir", c.Dir, "--addr-gateway", c.addresses["pgsim"],
		"--addr-platform", c.addresses["platformsim"], "--webhook-url", c.URL("gateway")+"/webhooks/payments")
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

// Start starts an instance.
func (c *Cluster) Start(name string) {
	c.t.Helper()
	service, _, _ := strings.Cut(name, "#")
	args := []string{
		"serve", "--services", service, "--store", c.cfg.Store, "--migrate", "--dir", c.Dir, "--addr", c.addresses[name],
		"--broker", c.cfg.Broker, "--topic-prefix", c.prefix,
		"--data", c.cfg.Data, "--gateway-url", c.URL("pgsim"), "--platform-url", c.URL("platformsim"),
	}
	for peer := range c.addresses {
		if service, _, _ := strings.Cut(peer, "#"); slices.Contains(Services(), service) {
			args = append(args, "--peer", service+"="+c.URL(peer))
		}
	}
	c.Running[name] = Launch(c.t, c.Binary, args...)
}

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
	binary.Eventually(c.t, Patience, name+" is ready", func() bool {
		if c.Running[name].Ended() {
			c.t.Fatalf("%s has ended:\n%s", name, c.Running[name])
		}
		return c.Status(name, "/readyz") == http.StatusOK
	})
}

// Ask asks the gateway as an operator.
func (c *Cluster) Ask(path string) binary.Answer {
	c.t.Helper()
	token, err := os.ReadFile(filepath.Join(c.Dir, "operator-token"))
	if err != nil {
		c.t.Fatal(err)
	}
	return binary.Send(c.t, http.MethodGet, c.URL("gateway")+path, "", "Authorization", "Bearer "+strings.TrimSpace(string(token)))
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

// Replay starts a replay of the data through the gateway. It writes its report to a file.
func (c *Cluster) Replay(report string) *Program {
	c.t.Helper()
	return Launch(c.t, c.Binary, "replay-data", "--url", c.URL("gateway"), "--token-file", filepath.Join(c.Dir, "operator-token"),
		"--gateway-url", c.URL("pgsim"), "--platform-url", c.URL("platformsim"),
		"--journal", filepath.Join(c.t.TempDir(), "journal"), "--report", report, c.cfg.Data)
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
	if strings.HasPrefix(c.cfg.Store, "mysql:") {
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

// FreeAddress returns an address that nobody listens at.
func FreeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
