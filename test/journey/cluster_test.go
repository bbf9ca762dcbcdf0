package journey_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/shop/gateway"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/test/internal/cluster"
)

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
			broker := "store"
			if kinds[1] != "" {
				broker = server.Shared(t, kinds[1])
			}
			data := retailOfCluster(t)
			twice := []string{"order", "payment", "inventory"}
			c := cluster.New(t, newDir(t), cluster.Config{Data: data, Store: cluster.Databases(t, server.Shared(t, kinds[0])), Broker: broker, Twice: twice})
			replayOn(t, c, func(name string) {
				if name == "payment" { // All at once: afterwards the gateway says nothing for a while.
					for _, name := range twice {
						c.Running[name].Kill()
					}
				}
			})
		})
	}
}

// TestStandby runs two instances of a service that reads one partition: the one that has nothing to do is ready as soon
// as it has seen that the other one lives, keeps nobody waiting, and goes on when the other one dies.
func TestStandby(t *testing.T) {
	binary.NeedsProcesses(t)
	c := cluster.New(t, newDir(t), cluster.Config{
		Data: retailOfCluster(t), Store: cluster.Databases(t, server.Shared(t, server.Postgres)), Broker: server.Shared(t, server.NATS),
		Twice: []string{"notify"},
	})
	for _, name := range []string{"notify#2", "notify"} {
		c.Running[name].Kill()
		at := time.Now()
		c.Start(name)
		c.WaitReady(name)
		took := time.Since(at)
		t.Logf("%s is ready after %.1fs", name, took.Seconds())
		if took > 30*time.Second { // Leases of the one that was killed last for 15s, and a sign of life takes 5s.
			t.Errorf("%s was ready only after %s:\n%s", name, took, c.Running[name])
		}
	}
	replayOn(t, c, func(name string) {
		if name == "payment" {
			c.Running["notify"].Kill()
		}
	})
}

func retailOfCluster(t *testing.T) string {
	t.Helper()
	return retail(t, 600, "C536999,10001,THING 1,-1,2010-12-02 08:26:00,2.55,17850.0,United Kingdom")
}

func replayOnCluster(t *testing.T, broker string) {
	t.Helper()
	data := retailOfCluster(t)
	c := cluster.New(t, newDir(t), cluster.Config{Data: data, Broker: broker})
	replayOn(t, c, func(name string) {
		c.Running[name].Kill()
		c.Start(name)
		c.WaitReady(name)
	})
	for _, name := range cluster.Services() {
		if code := c.Running[name].Terminate(t); code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM\n%s", name, code, c.Running[name])
		}
	}
}

// replayOn replays the file of retailOfCluster through the gateway, hurts services on the way, and wants every
// book to balance.
func replayOn(t *testing.T, c *cluster.Cluster, hurt func(name string)) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	replay := c.Replay(report)
	for i, name := range []string{"payment", "order", "inventory"} {
		binary.Eventually(t, patience, "events are handled", func() bool { return c.Handled() > int64(200+600*i) })
		hurt(name)
	}
	select {
	case <-replay.Done():
	case <-time.After(3 * time.Minute):
		t.Fatalf("the replay does not end:\n%s\n%s", c.States(), replay)
	}
	if code := replay.Code(); code != 0 {
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
	c := cluster.New(t, newDir(t), cluster.Config{Data: retail(t, 20), Broker: nats.URL()})
	c.Running["inventory"].Kill()
	if a := c.Ask("/internal/stock"); a.Status != http.StatusServiceUnavailable || a.Code() != "service-unreachable" || a.Header.Get("Retry-After") == "" {
		t.Errorf("stock of a service that is away: %d %v %s", a.Status, a.Header, a.Body)
	}
	if a := c.Ask("/internal/stats"); a.Status != http.StatusServiceUnavailable {
		t.Errorf("traffic with a part away: %d %s", a.Status, a.Body)
	}
	a := c.Ask("/api/dlq")
	var letters struct{ Unreachable []gateway.Unreachable }
	if a.Decode(t, &letters); a.Status != http.StatusOK || len(letters.Unreachable) != 1 || letters.Unreachable[0].Service != "inventory" {
		t.Errorf("letters with a part away: %d %s", a.Status, a.Body)
	}
	if a := c.Ask("/products?limit=1"); a.Status != http.StatusOK || strings.Contains(a.Body, "available") {
		t.Errorf("products without their stock: %d %s", a.Status, a.Body)
	}
	// An order is taken all the same, and goes on when inventory is back.
	a = binary.Send(t, http.MethodPost, c.URL("gateway")+"/orders", `{"customerId":"c-1","items":[{"productId":"10001","quantity":1}]}`)
	if a.Status != http.StatusAccepted {
		t.Fatalf("order: %d %s", a.Status, a.Body)
	}
	var placed order
	a.Decode(t, &placed)
	c.Start("inventory")
	binary.Eventually(t, patience, "the order is completed", func() bool {
		var o order
		a := c.Ask("/orders/" + placed.ID)
		return a.Status == http.StatusOK && json.Unmarshal([]byte(a.Body), &o) == nil && o.State == "COMPLETED" && len(o.Timeline) > 0
	})
	broker, prefix := c.Broker()
	// A second process of a service on a file is refused, and says why.
	out := binary.Run(t, "serve", "--services", "shipping", "--dir", c.Dir, "--addr", "127.0.0.1:0", "--broker", broker, "--topic-prefix", prefix)
	if out.Code != 1 || !strings.Contains(out.Stderr, "one process") || !strings.Contains(out.Stderr, fmt.Sprintf("pid %d", c.Running["shipping"].PID())) {
		t.Errorf("a second process: exit code %d\n%s", out.Code, out.Stderr)
	}
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
			if kinds[0] != "" {
				flags = append(flags, "--store", cluster.Databases(t, server.Shared(t, kinds[0])))
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

// TestForeignTopics starts a demo with new databases on the topics of another one: it is refused by name, and says
// what to do. Whoever has the topics goes on.
func TestForeignTopics(t *testing.T) {
	binary.NeedsProcesses(t)
	for name, kind := range map[string]server.Kind{"kafka": server.Kafka, "nats": server.NATS, "redis": server.Redis} {
		t.Run(name, func(t *testing.T) {
			broker, data := server.Shared(t, kind), retail(t, 20)
			first, second := newDir(t), newDir(t)
			prefix := fmt.Sprintf("foreign%d", time.Now().UnixNano())
			demo := func(dir string, more ...string) binary.Output {
				t.Helper()
				return binary.Run(t, append([]string{"demo", "--dir", dir, "--addr", "127.0.0.1:0", "--exit", "--data", data, "--broker", broker}, more...)...)
			}
			for range 2 {
				if out := demo(first, "--topic-prefix", prefix); out.Code != 0 {
					t.Fatalf("exit code %d\n%s", out.Code, out.Stderr)
				}
			}
			out := demo(second, "--topic-prefix", prefix)
			for _, want := range []string{"order-events", "shipping-events", "--fresh", "--topic-prefix"} {
				if out.Code != 2 || strings.Count(out.Stderr, "\n") != 1 || !strings.Contains(out.Stderr, want) {
					t.Errorf("topics of another shop: exit code %d, want 2 and %q in one line:\n%s", out.Code, want, out.Stderr)
				}
			}
			if out := demo(second, "--fresh"); out.Code != 0 {
				t.Errorf("with --fresh: exit code %d\n%s", out.Code, out.Stderr)
			}
		})
	}
}
