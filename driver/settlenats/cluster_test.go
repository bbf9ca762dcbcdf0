package settlenats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/brokertest"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

func openURL(t *testing.T, url string, cfg Config) *Broker {
	t.Helper()
	cfg.Logger = quiet()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b, err := Open(ctx, url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// TestCluster runs the suite on three nodes that keep every message three times.
func TestCluster(t *testing.T) {
	url := server.Shared(t, server.NATSCluster)
	n := 0
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		n++
		cfg := Config{Partitions: 2, Replicas: 3, Wait: 50 * time.Millisecond, Prefix: fmt.Sprintf("c%d-%d", time.Now().Unix(), n)}
		b := openURL(t, url, cfg)
		return brokertest.Harness{
			Broker: patient{b}, Partitions: 2,
			Reopen: func(t *testing.T) broker.Broker {
				_ = b.Close()
				b = openURL(t, url, cfg)
				return patient{b}
			},
			Expire: func(t *testing.T, n int) { expire(t, b, n) },
			Garble: func(t *testing.T, key string) { garble(t, b, key) },
			Revoke: func(_ *testing.T, group string) { b.table.Revoke(group) },
		}
	})
}

// patient publishes until nothing is unavailable, as a relay does: other nodes hear of a new stream a moment
// later.
type patient struct{ *Broker }

func (p patient) Publish(ctx context.Context, messages []broker.Message) []error {
	errs := p.Broker.Publish(ctx, messages)
	for i := range errs {
		for errors.Is(errs[i], broker.ErrUnavailable) && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond) // The servers' own time passes.
			errs[i] = p.Broker.Publish(ctx, messages[i:i+1])[0]
		}
	}
	return errs
}

type step struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

// walk is a producer with its relay, and what a group has read.
type walk struct {
	t     *testing.T
	to    *Broker
	store *memory.Store
	each  int // events of each of walkKeys
}

const walkKeys = 5

func define() event.Type[step] {
	return event.Define("Stepped", 1, event.Spec[step]{Topic: "steps", Aggregate: "walk", Key: func(s step) string { return s.Key }})
}

func newWalk(t *testing.T, to *Broker) *walk {
	t.Helper()
	w := &walk{t: t, to: to, store: memory.New()}
	r, err := relay.New(w.store.Outbox(), to, relay.Config{
		Logger: quiet(), PublishTimeout: 2 * time.Second, RetryMax: 500 * time.Millisecond, MarkEvery: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// write commits n more events of each key.
func (w *walk) write(n int) {
	stepped := define()
	var writers sync.WaitGroup
	for k := range walkKeys {
		writers.Go(func() {
			for i := range n {
				err := w.store.Run(w.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
					tx.Bind("walker", nil)
					return outbox.Add(ctx, tx, stepped.New(step{fmt.Sprint("k", k), w.each + i + 1}))
				})
				if err != nil {
					w.t.Error(err)
				}
				time.Sleep(20 * time.Millisecond) // The server's own time passes.
			}
		})
	}
	writers.Wait()
	w.each += n
}

// join takes every partition for a new group.
func (w *walk) join(group string) (parts []broker.Partition) {
	w.t.Helper()
	var m broker.Membership
	for deadline := time.Now().Add(time.Minute); ; {
		var err error
		if m, err = w.to.Subscribe(w.t.Context(), broker.Subscription{Group: group, Topics: []string{"steps"}}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			w.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // A leader is being elected.
	}
	for range w.to.cfg.Partitions {
		p, err := m.Next(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		parts = append(parts, p)
	}
	return parts
}

// expect reads until every event was there, each key's first deliveries in order. seen and last are what the
// group has had before.
func (w *walk) expect(parts []broker.Partition, seen map[event.ID]bool, last map[string]int) {
	w.t.Helper()
	stepped := define()
	deadline := time.Now().Add(time.Minute)
	for len(seen) < walkKeys*w.each && time.Now().Before(deadline) {
		for _, p := range parts {
			messages, err := p.Fetch(w.t.Context(), 500)
			if err != nil {
				continue // A leader is being elected.
			}
			for _, msg := range messages {
				if seen[msg.Event.ID] {
					continue
				}
				seen[msg.Event.ID] = true
				of, err := stepped.Decode(msg.Event)
				if err != nil {
					w.t.Fatal(err)
				}
				if last[of.Data.Key]++; of.Data.N != last[of.Data.Key] {
					w.t.Fatalf("%s: number %d came as %d", of.Data.Key, of.Data.N, last[of.Data.Key])
				}
			}
		}
	}
	if len(seen) != walkKeys*w.each {
		w.t.Errorf("%d of %d events", len(seen), walkKeys*w.each)
	}
}

// TestClusterFaults has nodes die under a relay and a group: nothing is lost, every key in order, to a group
// that has read before and to one that has not.
func TestClusterFaults(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T, srv *server.Server){
		"OneByOne": func(_ *testing.T, srv *server.Server) {
			for node := range 3 {
				srv.KillNode(node)
				time.Sleep(300 * time.Millisecond)
				srv.RestartNode(node)
			}
		},
		"All": func(_ *testing.T, srv *server.Server) { srv.Kill(); srv.Restart() },
		"AllAndOneIsWiped": func(t *testing.T, srv *server.Server) {
			dirs := nodeDirs(t, srv)
			srv.Kill()
			if err := os.RemoveAll(filepath.Join(dirs[0], "data")); err != nil {
				t.Fatal(err)
			}
			srv.Restart()
		},
		"AllAreWiped": func(_ *testing.T, srv *server.Server) { srv.Kill(); srv.Wipe(); srv.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			srv := server.Start(t, server.NATSCluster, server.Options{})
			b := openURL(t, srv.URL(), Config{Partitions: 2, Prefix: "kill", AckWait: time.Second, CheckEvery: 200 * time.Millisecond})
			w := newWalk(t, b)
			w.write(20)
			early, seen, last := w.join("early"), map[event.ID]bool{}, map[string]int{}
			w.expect(early, seen, last)
			written := make(chan struct{})
			go func() {
				defer close(written)
				w.write(60)
			}()
			time.Sleep(200 * time.Millisecond)
			fault(t, srv)
			<-written
			w.expect(early, seen, last)
			w.expect(w.join("late"), map[event.ID]bool{}, map[string]int{})
			stream, err := b.js.Stream(t.Context(), b.cfg.streamName("steps"))
			if err != nil || stream.CachedInfo().Config.Replicas != clusterReplicas {
				t.Errorf("the stream has not %d replicas (%v)", clusterReplicas, err)
			}
		})
	}
}

// nodeDirs finds the directories of a cluster's nodes: each is in the command line of its process.
func nodeDirs(t *testing.T, srv *server.Server) (dirs []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		line, _ := os.ReadFile(name) // It may have ended.
		args := strings.Split(string(line), "\x00")
		if len(args) < 3 || filepath.Base(args[2]) != "nats.conf" {
			continue
		}
		config, _ := os.ReadFile(args[2])
		_, address, _ := strings.Cut(string(config), "listen: ")
		address, _, _ = strings.Cut(address, "\n")
		if strings.Contains(srv.URL(), strings.Trim(address, `"`)) {
			dirs = append(dirs, filepath.Dir(args[2]))
		}
	}
	if len(dirs) != 3 {
		t.Fatalf("found the nodes %v, want 3", dirs)
	}
	return dirs
}

// TestProcessesShareAGroup lets two brokers, as two processes have them, divide a group's partitions.
func TestProcessesShareAGroup(t *testing.T) {
	url := server.Shared(t, server.NATSCluster)
	store := memory.New()
	cfg := Config{
		Partitions: 4, Prefix: fmt.Sprintf("share%d", time.Now().UnixNano()), LeaseTTL: time.Second,
		Leases: func(string) lock.Leases { return store.Leases() },
	}
	var mu sync.Mutex
	live := [2]map[string]broker.Partition{{}, {}}
	var memberships [2]broker.Membership
	for i := range memberships {
		m, err := openURL(t, url, cfg).Subscribe(t.Context(), broker.Subscription{Group: "g", Topics: []string{"shared"}})
		if err != nil {
			t.Fatal(err)
		}
		memberships[i] = m
		go func() {
			for {
				p, err := m.Next(t.Context())
				if err != nil {
					return
				}
				mu.Lock()
				live[i][p.Name()] = p
				mu.Unlock()
			}
		}()
	}
	holds := func(i int) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for name, p := range live[i] {
			select {
			case <-p.Revoked():
				delete(live[i], name)
			default:
				n++
			}
		}
		return n
	}
	wait := func(what string, first, second int) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); holds(0) != first || holds(1) != second; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d and %d partitions, want %d and %d", what, holds(0), holds(1), first, second)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	wait("two processes", 2, 2)
	if err := memberships[0].Close(); err != nil {
		t.Fatal(err)
	}
	wait("one has left", 0, 4)
	if err := memberships[1].Close(); err != nil {
		t.Fatal(err)
	}
}
