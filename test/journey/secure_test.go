package journey_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/test/internal/cluster"
)

// TestUntrustedServers starts shops whose server nobody vouches for: they end at once and say so in their last line,
// instead of waiting for it as for one that is away.
func TestUntrustedServers(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	for _, kind := range []server.Kind{server.Postgres, server.MariaDB, server.Redis, server.NATS, server.Kafka, server.Rabbit} {
		t.Run(string(kind), func(t *testing.T) {
			s := server.Start(t, kind, server.Options{TLS: true})
			flags := []string{"--broker", s.URL()}
			switch kind {
			case server.Postgres:
				flags = []string{"--broker", "store", "--store", cluster.Databases(t, s.URL())}
			case server.MariaDB:
				flags = []string{"--broker", "store", "--store", cluster.Databases(t, s.URL()+"?tls=true")}
			default:
			}
			began := time.Now()
			out := binary.Run(t, append([]string{"serve", "--dir", newDir(t), "--addr", "127.0.0.1:0"}, flags...)...)
			lines := strings.Split(strings.TrimSpace(out.Stderr), "\n") // Some clients have a warning of their own.
			last := lines[len(lines)-1]
			if out.Code != 1 || len(lines) > 2 || !strings.HasPrefix(last, "settle: ") || !strings.Contains(last, "certificate signed by unknown authority: mend") {
				t.Errorf("exit code %d, want 1 and the unknown authority in the last line:\n%s", out.Code, out.Stderr)
			}
			if took := time.Since(began); took > 40*time.Second {
				t.Errorf("it ended after %s", took)
			}
		})
	}
}

// TestMutualTLS runs the whole shop on a database and a broker that demand its certificate.
func TestMutualTLS(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	of := func(s *server.Server, ca, cert, key string) string {
		file, secret := s.ClientFiles()
		join := "?"
		if strings.Contains(s.URL(), "?") {
			join = "&"
		}
		return s.URL() + join + url.Values{ca: {s.CAFile()}, cert: {file}, key: {secret}}.Encode()
	}
	options := server.Options{TLS: true, ClientCerts: true}
	store := of(server.Start(t, server.Postgres, options), "sslrootcert", "sslcert", "sslkey")
	broker := of(server.Start(t, server.NATS, options), "ca", "cert", "key")
	out := binary.Run(
		t, "demo", "--exit", "--dir", newDir(t), "--addr", "127.0.0.1:0", "--data", retail(t, 100),
		"--store", cluster.Databases(t, store), "--broker", broker,
	)
	if out.Code != 0 || strings.Contains(out.Stderr, "level=") {
		t.Errorf("exit code %d\n%s\n%s", out.Code, out.Stdout, out.Stderr)
	}
}
