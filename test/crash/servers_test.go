package crash_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/test/internal/cluster"
)

var (
	storeName  = flag.String("store", "postgres", "the server of the databases: postgres or mysql")
	brokerName = flag.String("broker", "kafka", "what carries events: kafka, nats, redis, rabbit or store")
	pauses     = flag.String("pause", "", "the service whose processes are paused; default order, payment and inventory")
)

// The ways to hurt.
const (
	killProcess   = "kill a process"
	killReplay    = "kill the replay"
	killServer    = "kill a server"
	endProcess    = "end a process"
	pauseProcess  = "pause a process"
	pauseServer   = "pause a server"
	hurtsOfReplay = 12 // A replay of the month is long enough for so many.
)

const (
	// eventsMin is how many events must have been handled since the last hurt: a shop that only starts proves
	// nothing.
	eventsMin = 100
	// beyondLeases is longer than a process keeps anything that it gives no sign of life for: leases of relays
	// and of partitions are 15s by default, sessions 10s.
	beyondLeases = 17 * time.Second
	// serverPauseMax is longer than most timeouts of a request.
	serverPauseMax = 8 * time.Second
	// endWait is how long a replay may take to end when nothing is hurt any more.
	endWait = 2 * time.Minute
)

// ways are the ways to hurt, the first six each once. The replay comes first, as it places its orders within seconds, and
// the pause of a process after the others: meanwhile the rest of the shop may do all that is left.
func ways(random *rand.Rand) []string {
	each := []string{killProcess, killServer, endProcess, pauseServer}
	again := []string{killProcess, killProcess, killServer, killServer, endProcess, killReplay}
	for _, some := range [][]string{each, again} {
		random.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	}
	return slices.Concat([]string{killReplay}, each, []string{pauseProcess}, again)
}

// twice are the services that have two instances.
func twice() []string { return []string{"order", "payment", "inventory"} }

// campaign is one run on servers.
type campaign struct {
	t      *testing.T
	random *rand.Rand
	deck   []string
	hurts  int
	spread map[string]int
}

// TestServers runs every service in processes of its own, some of them twice, on a database server and a broker, replays
// the month, and hurts processes, servers and the replay itself at work -kills times while customers cancel. It wants
// every book balanced, no order placed twice, and every event once and in its order everywhere. A replay that ends before
// enough hurts is followed by another, in a new cluster.
func TestServers(t *testing.T) {
	binary.NeedsProcesses(t)
	hurts := plan(6)
	t.Logf("repeat with: make crash STORE=%s BROKER=%s PAUSE=%s KILLS=%d SEED=%d", *storeName, *brokerName, *pauses, hurts, *seed)
	if *pauses != "" && !slices.Contains(twice(), *pauses) {
		t.Fatalf("-pause %s: none of %v", *pauses, twice())
	}
	c := &campaign{t: t, random: rand.New(rand.NewPCG(*seed, 1)), spread: map[string]int{}}
	for replays := 0; c.hurts < hurts; replays++ {
		if replays > hurts {
			t.Fatalf("%d replays, and only %d hurts hit one at work", replays, c.hurts)
		}
		t.Run(fmt.Sprintf("replay %d", replays+1), func(t *testing.T) {
			c.replay(t, min(hurtsOfReplay, hurts-c.hurts))
		})
		if t.Failed() {
			return
		}
	}
	for _, what := range slices.Sorted(maps.Keys(c.spread)) {
		t.Logf("%3d times: %s", c.spread[what], what)
	}
}

// next returns the next way to hurt.
func (c *campaign) next() string {
	if len(c.deck) == 0 {
		c.deck = ways(c.random)
	}
	way := c.deck[0]
	c.deck = c.deck[1:]
	return way
}

// shop is one cluster of a campaign, at work on one replay.
type shop struct {
	*cluster.Cluster

	t       *testing.T
	random  *rand.Rand
	servers map[string]*server.Server
	gateway *sqlstore.Store
	report  string
	replay  *cluster.Program
	revived int
}

// replay hurts one replay up to n times and lets it go on to its end.
func (c *campaign) replay(t *testing.T, n int) {
	t.Helper()
	s := c.start(t)
	s.replay = s.Replay(s.report)
	// Who is away, or whose database is.
	over := make(chan struct{})
	wait := customers(t, s.URL("gateway"), over,
		http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout) // The latter two: done or not.
	defer c.keep(t, s) // No cleanup: by then the processes are gone.
	started := time.Now()
	for hit := 0; hit < n; {
		way := c.next()
		if !s.work(eventsMin + c.random.Int64N(900)) {
			c.deck = slices.Insert(c.deck, 0, way) // The replay was over: its turn comes in the next one.
			break
		}
		victim := s.hurt(way)
		hit++
		c.hurts++
		c.spread[way]++
		t.Logf("%5.1fs: hurt %d: %s: %s", time.Since(started).Seconds(), c.hurts, way, victim)
	}
	for end := time.Now().Add(endWait); !s.replay.Ended(); s.rest(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the replay does not end:\n%s", s.replay)
		}
	}
	close(over)
	answers := wait()
	if code := s.replay.Code(); code != 0 {
		t.Fatalf("replay: exit code %d\n%s", code, s.replay)
	}
	rep := check(t, s.Books(), s.report)
	answered := s.tooLate(answers)
	t.Logf("balanced after %.1fs: %v, canceled %v; customers were answered %v", time.Since(started).Seconds(), rep.Terminal, rep.Canceled, answered)
}

// tooLate counts the customers' answers, and wants every order that could not be canceled any more to be completed.
func (s *shop) tooLate(answers map[string]int) map[int]int {
	s.t.Helper()
	counts := map[int]int{}
	for id, status := range answers {
		counts[status]++
		if status != http.StatusConflict {
			continue
		}
		var order struct{ State string }
		if s.Ask("/orders/"+id).Decode(s.t, &order); order.State != "COMPLETED" {
			s.t.Errorf("order %s was too late to be canceled, and is %s", id, order.State)
		}
	}
	return counts
}

// start starts the servers, and the shop on them.
func (c *campaign) start(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, random: c.random, servers: map[string]*server.Server{}, report: filepath.Join(t.TempDir(), "report.json")}
	kinds := map[string]server.Kind{
		"postgres": server.Postgres, "mysql": server.MariaDB,
		"kafka": server.Kafka, "nats": server.NATS, "redis": server.Redis, "rabbit": server.Rabbit,
	}
	broker := "store"
	for _, name := range []string{*storeName, *brokerName} {
		if name == broker {
			continue
		}
		kind, ok := kinds[name]
		if !ok {
			t.Fatalf("no server %q", name)
		}
		s.servers[name] = server.Start(t, kind, server.Options{})
	}
	if b := s.servers[*brokerName]; b != nil {
		broker = b.URL()
	}
	const stock = "tight=60"
	s.Cluster = cluster.New(t, filepath.Join(t.TempDir(), "shop"), cluster.Config{
		Store: cluster.Databases(t, s.servers[*storeName].URL()), Broker: broker, Twice: twice(),
		Serve: []string{"--stock", stock, "--delayed", "50ms", "--ship-delay", "100ms"},
		Outside: []string{
			"--decline", "7", "--platform-faults", `{"errorAfterPercent":3}`,
			"--gateway-faults", `{"errorBeforePercent":2,"errorAfterPercent":3,"webhookDuplicatePercent":10}`,
		},
		Flags: []string{"--stock", stock, "--declines"},
	})
	s.gateway = s.Books()(t, "gateway")
	t.Cleanup(func() { _ = s.gateway.Close() })
	return s
}

// keep saves what explains a failure.
func (c *campaign) keep(t *testing.T, s *shop) {
	t.Helper()
	if !t.Failed() {
		return
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("settle-crash-%d-%d", *seed, c.hurts))
	if err := s.Keep(dir); err != nil {
		t.Log(err)
	}
	s.replay.Quit()
	said := map[string][]byte{"replay.log": []byte(s.replay.String())}
	for name, path := range map[string]string{"report.json": s.report, "replay.journal": cluster.Journal(s.report)} {
		if b, err := os.ReadFile(path); err == nil {
			said[name] = b
		}
	}
	for name, b := range said {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Log(err)
		}
	}
	t.Logf("seed %d: what everybody said is kept in %s", *seed, dir)
}

// work waits until the shop has handled so many more events. It is false when the replay ends before.
func (s *shop) work(events int64) bool {
	s.t.Helper()
	from := int64(-1)
	for end := time.Now().Add(endWait); !s.replay.Ended(); s.rest(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("no %d events handled within %s:\n%s", events, endWait, s.replay)
		}
		_, _, last, err := s.gateway.Feed().Bounds(s.t.Context())
		if err != nil {
			continue // Its server has just come back.
		}
		if from < 0 {
			from = last
		}
		if last >= from+events {
			return true
		}
	}
	return false
}

// rest waits, and meanwhile starts again what ends by itself.
func (s *shop) rest(d time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(d); ; {
		for name, said := range s.Revive() {
			lines := strings.Split(strings.TrimSpace(said), "\n")
			s.t.Logf("%s ended and is started again: %.500s", name, lines[len(lines)-1])
			if s.revived++; s.revived > 50 {
				s.t.Fatalf("it ends again and again:\n%s", said)
			}
		}
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, 100*time.Millisecond))
	}
}

// hurt does it to a process or a server, and says to which.
func (s *shop) hurt(way string) (victim string) {
	s.t.Helper()
	switch way {
	case killServer, pauseServer:
		names := slices.Sorted(maps.Keys(s.servers))
		victim = names[s.random.IntN(len(names))]
	case pauseProcess: // One that another one can replace.
		names := twice()
		if *pauses != "" {
			names = []string{*pauses}
		}
		victim = names[s.random.IntN(len(names))] + []string{"", "#2"}[s.random.IntN(2)]
	case killReplay:
		return s.killReplay()
	default:
		names := slices.Sorted(maps.Keys(s.Running))
		victim = names[s.random.IntN(len(names))]
	}
	pause := time.Duration(s.random.Int64N(int64(serverPauseMax)))
	switch way {
	case killProcess:
		s.Running[victim].Kill()
		s.Start(victim)
	case endProcess:
		s.awaitAnswer(victim)
		if code := s.Running[victim].Terminate(s.t); code != 0 {
			s.t.Errorf("%s: exit code %d after SIGTERM\n%s", victim, code, s.Running[victim])
		}
		s.Start(victim)
	case pauseProcess:
		p := s.Running[victim]
		before := len(p.String())
		p.Pause()
		s.rest(beyondLeases)
		p.Resume()
		s.rest(2 * time.Second)
		victim += ", which then says: " + abridged(p.String()[before:])
	case killServer:
		s.servers[victim].Kill()
		s.servers[victim].Restart()
	case pauseServer:
		s.servers[victim].Pause()
		s.rest(pause)
		s.servers[victim].Resume()
		victim += " for " + pause.Round(time.Millisecond).String()
	}
	return victim
}

// awaitAnswer waits until a process answers, whatever it says: one that was started a moment ago does not hear SIGTERM yet,
// and ends as by SIGKILL.
func (s *shop) awaitAnswer(name string) {
	s.t.Helper()
	if name == cluster.Outside {
		name = "pgsim"
	}
	for end := time.Now().Add(cluster.Patience); s.Status(name, "/healthz") == 0; s.rest(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s does not answer", name)
		}
	}
}

// killReplay kills whoever places the orders, and has it go on from its journal.
func (s *shop) killReplay() string {
	s.t.Helper()
	s.replay.Kill()
	answers := 0
	if b, err := os.ReadFile(cluster.Journal(s.report)); err == nil {
		answers = bytes.Count(b, []byte("\n"))
	}
	s.replay = s.Replay(s.report)
	return fmt.Sprintf("after %d answers", answers)
}

// abridged are the messages of log lines, each once.
func abridged(lines string) string {
	var all []string
	for line := range strings.Lines(lines) {
		_, text, _ := strings.Cut(line, "msg=")
		if text = strings.TrimSpace(text); text != "" && !slices.Contains(all, text) {
			all = append(all, fmt.Sprintf("%.160s", text))
		}
	}
	return strings.Join(all, "; ")
}
