package journey_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/test/internal/cluster"
)

// started is a shop that may still wait for its servers.
type started struct {
	*cluster.Program

	t        *testing.T
	url, dir string
}

// begin starts a shop in one process and waits for nothing but its first answer.
func begin(t *testing.T, flags ...string) *started {
	t.Helper()
	addr, dir := server.FreeAddress(t), newDir(t)
	args := append([]string{"serve", "--dir", dir, "--addr", addr}, flags...)
	s := &started{cluster.Launch(t, os.Getenv(binary.Variable), args...), t, "http://" + addr, dir}
	binary.Eventually(t, patience, "the process lives", func() bool {
		if s.Ended() {
			t.Fatalf("it has ended:\n%s", s)
		}
		return s.ask("/healthz").Status == http.StatusOK
	})
	return s
}

// ask returns an answer, or nothing while nobody answers.
func (s *started) ask(path string) binary.Answer {
	s.t.Helper()
	return binary.Ask(s.t, s.url+path)
}

// waits waits until the process says that it waits for something.
func (s *started) waits(what string) {
	s.t.Helper()
	binary.Eventually(s.t, patience, "it waits for "+what, func() bool {
		if s.Ended() {
			s.t.Fatalf("it has ended:\n%s", s)
		}
		a := s.ask("/readyz")
		var doc struct{ Detail string }
		return a.Status == http.StatusServiceUnavailable && a.Code() == "not-ready" &&
			a.Header.Get("Content-Type") == "application/problem+json" &&
			json.Unmarshal([]byte(a.Body), &doc) == nil && doc.Detail == "waits for "+what
	})
}

// TestStartWaits starts a shop whose database and broker are away: it lives, says what it waits for, and begins
// when both are there.
func TestStartWaits(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	for name, kinds := range map[string][2]server.Kind{
		"postgres nats":  {server.Postgres, server.NATS},
		"mysql redis":    {server.MariaDB, server.Redis},
		"postgres kafka": {server.Postgres, server.Kafka},
	} {
		t.Run(name, func(t *testing.T) {
			database, broker := server.Start(t, kinds[0], server.Options{}), server.Start(t, kinds[1], server.Options{})
			store := cluster.Databases(t, database.URL())
			if out := binary.Run(t, "migrate", "up", "--create", "--services", "all", "--store", store); out.Code != 0 {
				t.Fatalf("migrate: exit code %d\n%s", out.Code, out.Stderr)
			}
			database.Stop()
			broker.Stop()
			s := begin(t, "--store", store, "--broker", broker.URL(), "--data", retail(t, 20))
			s.waits("the database of order")
			a := binary.Send(t, http.MethodPost, s.url+"/orders", `{"customerId":"c-1","items":[{"productId":"10001","quantity":1}]}`)
			if a.Status != http.StatusServiceUnavailable || a.Code() != "not-ready" || a.Header.Get("Retry-After") == "" {
				t.Errorf("an order that comes too early: %d %v %s", a.Status, a.Header, a.Body)
			}
			database.Restart()
			s.waits("the broker")
			broker.Restart()
			binary.Eventually(t, patience, "it is ready", func() bool { return s.ask("/readyz").Status == http.StatusOK })
			if n := strings.Count(s.String(), "cannot be opened"); n != 2 {
				t.Errorf("said %d times that something cannot be opened, once for each was enough:\n%s", n, s)
			}
			a = binary.Send(t, http.MethodPost, s.url+"/orders", `{"customerId":"c-1","items":[{"productId":"10001","quantity":1}]}`)
			if a.Status != http.StatusAccepted {
				t.Fatalf("order: %d %s", a.Status, a.Body)
			}
			binary.Eventually(t, patience, "the order is completed", func() bool {
				var o order
				a := s.ask(a.Header.Get("Location"))
				return a.Status == http.StatusOK && json.Unmarshal([]byte(a.Body), &o) == nil && o.State == "COMPLETED"
			})
			if code := s.Terminate(t); code != 0 {
				t.Errorf("exit code %d after SIGTERM\n%s", code, s)
			}
		})
	}
}

// TestStartInterrupted ends a shop that waits: at once, and well.
func TestStartInterrupted(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	nobody := server.FreeAddress(t)
	for _, flags := range [][]string{
		{"--store", "postgres://shop@" + nobody + "/shop", "--broker", "kafka://" + nobody},
		{"--broker", "kafka://" + nobody},
		{"--broker", "amqp://" + nobody},
	} {
		s := begin(t, flags...)
		binary.Eventually(t, patience, "it waits", func() bool { return strings.Contains(s.String(), "cannot be opened") })
		at := time.Now()
		if code := s.Terminate(t); code != 0 || time.Since(at) > 30*time.Second {
			t.Errorf("%v: exit code %d %s after SIGTERM\n%s", flags, code, time.Since(at), s)
		}
	}
}

// TestStartRefused starts shops with what no waiting mends: they end at once, and say what it is in one line.
func TestStartRefused(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	postgres := server.Shared(t, server.Postgres)
	nats := server.Start(t, server.NATS, server.Options{Users: map[string]string{"shop": "geheim"}})
	as := func(text string, user *url.Userinfo) string {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		u.User = user
		return u.String()
	}
	nobody := "kafka://" + server.FreeAddress(t)
	made := cluster.Databases(t, postgres)
	for _, service := range cluster.Services() {
		if out := binary.Run(t, "migrate", "up", "--create", "--store", cluster.DatabaseOf(t, made, service)); out.Code != 0 {
			t.Fatalf("migrate: exit code %d\n%s", out.Code, out.Stderr)
		}
	}
	for name, test := range map[string]struct {
		code  int
		flags []string
		says  string
	}{
		"no such role":     {1, []string{"--store", as(made, url.User("nobody")), "--broker", nobody}, "credentials"},
		"wrong password":   {1, []string{"--broker", as(nats.URL(), url.UserPassword("shop", "falsch"))}, "credentials"},
		"no database":      {1, []string{"--store", cluster.Databases(t, postgres), "--broker", nobody}, "settle migrate up"},
		"another schema":   {1, []string{"--store", made, "--broker", nobody}, "settle migrate up --services order"},
		"unknown database": {2, []string{"--store", "oracle://shop@db/shop", "--broker", nobody}, "oracle"},
		"unknown broker":   {2, []string{"--store", made, "--broker", "smoke://signals"}, "smoke"},
	} {
		t.Run(name, func(t *testing.T) {
			out := binary.Run(t, append([]string{"serve", "--dir", newDir(t), "--addr", "127.0.0.1:0"}, test.flags...)...)
			if out.Code != test.code || strings.Count(out.Stderr, "\n") != 1 || !strings.Contains(out.Stderr, test.says) || strings.Contains(out.Stderr, "falsch") {
				t.Errorf("exit code %d, want %d and %q in one line, without the password:\n%s", out.Code, test.code, test.says, out.Stderr)
			}
		})
	}
}
