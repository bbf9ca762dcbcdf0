package server

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/settledev/settle/internal/server/launch"
)

// Kind names what to start.
type Kind = launch.Kind

// The kinds of servers. A cluster has three nodes.
const (
	Postgres     = launch.Postgres     // the distribution's PostgreSQL, wal_level=logical
	Postgres17   = launch.Postgres17   // for failover slots
	MariaDB      = launch.MariaDB      // row binlog
	Redis        = launch.Redis        // append-only file
	NATS         = launch.NATS         // JetStream
	NATSCluster  = launch.NATSCluster  // JetStream
	Kafka        = launch.Kafka        // KRaft; clients create their topics
	KafkaCluster = launch.KafkaCluster // KRaft, replication factor 3
	Rabbit       = launch.Rabbit       // RabbitMQ
	PgBouncer    = launch.PgBouncer    // transaction mode, in front of Options.Upstream
	Connect      = launch.Connect      // Kafka Connect with Debezium, on the Kafka Options.Upstream
)

// Options of one server.
type Options = launch.Options

// own is what this test binary started. Tests come and go and a shared server serves them all, so it
// belongs to the process, as do the processes that it stands for.
//
//nolint:gochecknoglobals // One per process by its nature; see above.
var own state

type state struct {
	mu       sync.Mutex
	launcher *launch.Launcher
	shared   map[Kind]*shared
}

// shared is a server that tests share, or why there is none.
type shared struct {
	once sync.Once
	url  string
	err  error
}

// Main runs a test binary's tests and stops every server that they started. It returns the exit code.
func Main(m *testing.M) int {
	code := m.Run()
	if err := own.close(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "server:", err)
		return max(code, 1)
	}
	return code
}

// Shared returns the URL of a server that the tests of this binary share. The first test that asks starts
// it, unless the environment names one that runs.
func Shared(tb testing.TB, kind Kind) string {
	tb.Helper()
	skipShort(tb, kind)
	if name := launch.Variable(kind); name != "" && os.Getenv(name) != "" {
		return os.Getenv(name)
	}
	var options Options
	switch kind {
	case PgBouncer:
		options.Upstream = Shared(tb, Postgres)
	case Connect:
		options.Upstream = Shared(tb, Kafka)
	default:
	}
	s := own.sharedOf(kind)
	s.once.Do(func() {
		// It outlives the test that happens to be the first.
		var started *launch.Server
		if started, s.err = own.start(context.WithoutCancel(tb.Context()), kind, options); s.err == nil {
			s.url = started.URL()
		}
	})
	if s.err != nil {
		tb.Fatalf("server: %v", s.err)
	}
	return s.url
}

// Start starts a private server, which the test may kill, pause and start again. It ends with the test.
func Start(tb testing.TB, kind Kind, options Options) *Server {
	tb.Helper()
	skipShort(tb, kind)
	s, err := own.start(tb.Context(), kind, options)
	if err != nil {
		tb.Fatalf("server: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("server: %s: close: %v", kind, err)
		}
	})
	return &Server{tb: tb, server: s}
}

func skipShort(tb testing.TB, kind Kind) {
	tb.Helper()
	if testing.Short() {
		tb.Skipf("starts a real server: %s", kind)
	}
}

func (s *state) start(ctx context.Context, kind Kind, options Options) (*launch.Server, error) {
	s.mu.Lock()
	if s.launcher == nil {
		var err error
		if s.launcher, err = launch.New(launch.Config{}); err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	launcher := s.launcher
	s.mu.Unlock()
	return launcher.Start(ctx, kind, options)
}

func (s *state) sharedOf(kind Kind) *shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared == nil {
		s.shared = map[Kind]*shared{}
	}
	if s.shared[kind] == nil {
		s.shared[kind] = new(shared)
	}
	return s.shared[kind]
}

func (s *state) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.launcher == nil {
		return nil
	}
	err := s.launcher.Close()
	s.launcher, s.shared = nil, nil
	return err
}

// Server is a test's own server. What goes wrong with it fails the test, so only the test's own goroutine
// may call its methods.
type Server struct {
	tb     testing.TB
	server *launch.Server
}

// URL returns where it listens: all nodes of a cluster, separated by commas.
func (s *Server) URL() string { return s.server.URL() }

// CAFile returns the PEM file of the authority to trust, if it was started with TLS.
func (s *Server) CAFile() string { return s.server.CAFile() }

// ClientFiles returns the PEM files of a client's certificate and its key, if it was started with TLS.
func (s *Server) ClientFiles() (cert, key string) { return s.server.ClientFiles() }

// Kill ends all its processes by SIGKILL and returns when they are gone.
func (s *Server) Kill() {
	s.tb.Helper()
	s.must("kill", s.server.Kill())
}

// Stop asks it to end in order and returns when it has.
func (s *Server) Stop() {
	s.tb.Helper()
	s.must("stop", s.server.Stop())
}

// Restart starts it again with its port and data and returns when it is ready. Nodes that run, run on.
func (s *Server) Restart() {
	s.tb.Helper()
	s.must("restart", s.server.Restart(s.context()))
}

// Wipe deletes the data of a stopped server.
func (s *Server) Wipe() {
	s.tb.Helper()
	s.must("wipe", s.server.Wipe())
}

// Pause stops it by SIGSTOP: connections stay open, and nothing answers.
func (s *Server) Pause() {
	s.tb.Helper()
	s.must("pause", s.server.Pause())
}

// Resume lets a paused server go on.
func (s *Server) Resume() {
	s.tb.Helper()
	s.must("resume", s.server.Resume())
}

// Promote makes a primary of a standby (a PostgreSQL with Options.Upstream) and returns when it takes writes.
func (s *Server) Promote() {
	s.tb.Helper()
	s.must("promote", s.server.Promote(s.context()))
}

// KillNode kills node i of a cluster, counted from 0 in the order of the URL.
func (s *Server) KillNode(i int) {
	s.tb.Helper()
	s.must(fmt.Sprintf("kill node %d", i), s.server.KillNode(i))
}

// RestartNode starts node i again and returns when it is ready.
func (s *Server) RestartNode(i int) {
	s.tb.Helper()
	s.must(fmt.Sprintf("restart node %d", i), s.server.RestartNode(s.context(), i))
}

// context lets a test start its server again in a Cleanup, when its own context has ended.
func (s *Server) context() context.Context { return context.WithoutCancel(s.tb.Context()) }

func (s *Server) must(what string, err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatalf("server: %s: %s: %v", s.server.Kind(), what, err)
	}
}

// FreeAddress returns an address that nobody listens at, and that until the test ends nobody gets who wants any free one,
// neither to listen nor for a connection. A process that names it does, as often as it is started.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	free, release, err := launch.FreeAddress()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(release)
	return free
}
