package server_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// TestLife takes each kind of server through what tests do to theirs.
func TestLife(t *testing.T) {
	kinds := []server.Kind{
		server.Postgres, server.Postgres17, server.MariaDB, server.Redis, server.NATS, server.NATSCluster,
		server.Kafka, server.KafkaCluster, server.Rabbit, server.PgBouncer, server.Connect,
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			var options server.Options
			switch kind {
			case server.PgBouncer:
				options.Upstream = server.Shared(t, server.Postgres)
			case server.Connect:
				options.Upstream = server.Shared(t, server.Kafka)
			}
			start := time.Now()
			s := server.Start(t, kind, options)
			t.Logf("%s: ready in %s", s.URL(), time.Since(start).Round(time.Millisecond))
			address := first(t, s.URL())
			alive(t, address)

			s.Kill()
			dead(t, address)
			start = time.Now()
			s.Restart()
			t.Logf("killed, ready again in %s", time.Since(start).Round(time.Millisecond))
			alive(t, address)

			s.Pause()
			s.Resume()
			alive(t, address)

			start = time.Now()
			s.Stop()
			t.Logf("stopped in %s", time.Since(start).Round(time.Millisecond))
			dead(t, address)
			s.Wipe()
			s.Restart()
			alive(t, address)
			if got := first(t, s.URL()); got != address {
				t.Errorf("it moved from %s to %s", address, got)
			}
		})
	}
}

// first returns the first address of a URL.
func first(t *testing.T, text string) string {
	t.Helper()
	text, _, _ = strings.Cut(text, ",")
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func alive(t *testing.T, address string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func dead(t *testing.T, address string) {
	t.Helper()
	if conn, err := net.DialTimeout("tcp", address, 5*time.Second); err == nil {
		_ = conn.Close()
		t.Fatalf("%s still accepts connections", address)
	}
}

// redis sends one command on a connection of its own and returns the first line of the answer.
func redis(address, command string, timeout time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

func mustRedis(t *testing.T, address, command, want string) {
	t.Helper()
	got, err := redis(address, command, 5*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if got != want {
		t.Fatalf("%s: got %q, want %q", command, got, want)
	}
}

func TestDataAndPause(t *testing.T) {
	t.Parallel()
	s := server.Start(t, server.Redis, server.Options{Settings: map[string]string{"appendfsync": "always"}})
	address := first(t, s.URL())
	mustRedis(t, address, "SET k v", "+OK")

	s.Pause()
	if got, err := redis(address, "PING", 200*time.Millisecond); err == nil {
		t.Fatalf("paused, it answered %q", got)
	}
	s.Resume()
	mustRedis(t, address, "PING", "+PONG")

	s.Kill()
	s.Restart()
	mustRedis(t, address, "EXISTS k", ":1")

	s.Kill()
	s.Wipe()
	s.Restart()
	mustRedis(t, address, "EXISTS k", ":0")
}

func TestShared(t *testing.T) {
	t.Parallel()
	if a, b := server.Shared(t, server.Redis), server.Shared(t, server.Redis); a != b {
		t.Errorf("two shared servers: %s and %s", a, b)
	}
}

func TestSharedByVariable(t *testing.T) {
	const want = "nats://example.test:4222"
	t.Setenv("SETTLE_TEST_NATS_URL", want)
	if got := server.Shared(t, server.NATS); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	s := server.Start(t, server.NATSCluster, server.Options{})
	address := first(t, s.URL())
	s.KillNode(0)
	dead(t, address)
	s.RestartNode(0)
	alive(t, address)
}

func TestConnectREST(t *testing.T) {
	t.Parallel()
	response, err := http.Get(server.Shared(t, server.Connect) + "/connectors")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("got %s", response.Status)
	}
}
