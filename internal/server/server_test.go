package server_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/internal/server/launch"
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
			default:
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
			if kind == server.KafkaCluster || kind == server.Rabbit || kind == server.Connect {
				return // many seconds, and nothing that the others don't show
			}
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

// TestStandby kills a primary: the standby has what it had, and takes over.
func TestStandby(t *testing.T) {
	for _, kind := range []server.Kind{server.Postgres, server.Postgres17} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			primary := server.Start(t, kind, server.Options{})
			psql(t, primary.URL(), "CREATE TABLE kept (i integer); INSERT INTO kept VALUES (1)")
			standby := server.Start(t, kind, server.Options{Upstream: primary.URL()})
			psql(t, primary.URL(), "INSERT INTO kept VALUES (2)")
			for deadline := time.Now().Add(time.Minute); psql(t, standby.URL(), "SELECT count(*) FROM kept") != "2"; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("it does not follow")
				}
			}
			primary.Kill()
			standby.Promote()
			if got := psql(t, standby.URL(), "INSERT INTO kept VALUES (3); SELECT count(*) FROM kept"); got != "3" {
				t.Errorf("the new primary has %s rows", got)
			}
			standby.Kill()
			standby.Restart()
			if got := psql(t, standby.URL(), "SELECT count(*) FROM kept"); got != "3" {
				t.Errorf("started again, it has %s rows", got)
			}
		})
	}
}

func psql(t *testing.T, url, query string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", query, url).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", query, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestTLSAndUsers speaks enough of the protocol of NATS to be let in, and to be refused.
func TestTLSAndUsers(t *testing.T) {
	t.Parallel()
	s := server.Start(t, server.NATS, server.Options{TLS: true, Users: map[string]string{"ann": "secret"}})
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", s.CAFile())
	}
	for password, want := range map[string]string{"secret": "PONG", "wrong": "-ERR"} {
		raw, err := net.Dial("tcp", first(t, s.URL()))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		// The server speaks first, in the clear, and then wants TLS.
		if _, err := bufio.NewReaderSize(raw, 16).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
		connect := fmt.Sprintf(`CONNECT {"user":"ann","pass":%q,"verbose":false}`, password)
		if _, err := fmt.Fprintf(conn, "%s\r\nPING\r\n", connect); err != nil {
			t.Fatal(err)
		}
		got, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("password %q: got %q, want %s", password, got, want)
		}
	}
}

// childVariable has this test binary start servers, print their URLs and wait to be killed.
const childVariable = "SETTLE_TEST_SERVER_CHILD"

// TestDeath kills a test binary, as a timeout of go test does, and expects its servers to be gone.
func TestDeath(t *testing.T) {
	kinds := []server.Kind{server.Postgres, server.MariaDB, server.Redis, server.NATS, server.Rabbit}
	if os.Getenv(childVariable) != "" {
		for _, kind := range kinds {
			fmt.Println(server.Shared(t, kind))
		}
		select {}
	}
	if testing.Short() {
		t.Skip("starts real servers")
	}
	t.Parallel()
	temp := t.TempDir()
	if err := os.Chmod(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(temp), 0o755); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDeath$", "-test.timeout=2m")
	child.Env = append(os.Environ(), childVariable+"=1", "TMPDIR="+temp)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for scanner := bufio.NewScanner(out); len(lines) < len(kinds) && scanner.Scan(); {
		lines = append(lines, scanner.Text())
		alive(t, first(t, scanner.Text()))
	}
	before := runningIn(t, temp)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed, as it says
	if len(lines) < len(kinds) || len(before) < len(kinds) {
		t.Fatalf("it started %q only, in %q", lines, before)
	}
	// Their ports say nothing: other tests take free ports too.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := runningIn(t, temp)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running: %q", left)
		}
	}
}

// runningIn lists the processes that work in a directory or below: the commands of our servers.
func runningIn(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			command, err := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
			if err == nil {
				commands = append(commands, strings.ReplaceAll(string(command), "\x00", " "))
			}
		}
	}
	return commands
}

func TestRefusals(t *testing.T) {
	if testing.Short() {
		t.Skip("a short run skips before it refuses")
	}
	tests := []struct {
		name    string
		kind    server.Kind
		options server.Options
		cache   string
		want    string
	}{
		{"no such kind", "oracle", server.Options{}, "", "no such kind"},
		{"no upstream", server.PgBouncer, server.Options{}, "", "no postgres:// URL"},
		{"no primary", server.Postgres, server.Options{Upstream: "postgres://postgres@127.0.0.1:1/postgres"}, "", "no server of this launcher"},
		{"not installed", server.NATS, server.Options{}, t.TempDir(), "make services-setup"},
		{"bad setting", server.Redis, server.Options{Settings: map[string]string{"no-such": "1"}}, "", "no-such"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SETTLE_CACHE", tt.cache)
			launcher, err := launch.New(launch.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer launcher.Close()
			start := time.Now()
			_, err = launcher.Start(t.Context(), tt.kind, tt.options)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %s to refuse", took)
			}
		})
	}
}
