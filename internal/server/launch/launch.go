package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Kind names what to start.
type Kind string

// The kinds of servers. A cluster has three nodes.
const (
	Postgres     Kind = "postgres"      // the distribution's PostgreSQL, wal_level=logical
	Postgres17   Kind = "postgres17"    // for failover slots
	MariaDB      Kind = "mariadb"       // row binlog
	Redis        Kind = "redis"         // append-only file
	NATS         Kind = "nats"          // JetStream
	NATSCluster  Kind = "nats-cluster"  // JetStream
	Kafka        Kind = "kafka"         // KRaft, broker and controller in one
	KafkaCluster Kind = "kafka-cluster" // KRaft, replication factor 3
	Rabbit       Kind = "rabbit"        // RabbitMQ
	PgBouncer    Kind = "pgbouncer"     // transaction mode, in front of Options.Upstream
	Connect      Kind = "connect"       // Kafka Connect with Debezium, on the Kafka Options.Upstream
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{
		Postgres, Postgres17, MariaDB, Redis, NATS, NATSCluster, Kafka, KafkaCluster, Rabbit, PgBouncer, Connect,
	}
}

// Variable returns the name of the environment variable by which tests are given the URL of a server that
// runs already, or nothing for a kind that they always start themselves.
func Variable(kind Kind) string {
	switch kind {
	case Postgres:
		return "SETTLE_TEST_POSTGRES_URL"
	case MariaDB:
		return "SETTLE_TEST_MYSQL_URL"
	case Redis:
		return "SETTLE_TEST_REDIS_URL"
	case NATS:
		return "SETTLE_TEST_NATS_URL"
	case Kafka:
		return "SETTLE_TEST_KAFKA_URL"
	case Rabbit:
		return "SETTLE_TEST_RABBIT_URL"
	default:
		return ""
	}
}

// Options of one server.
type Options struct {
	// Settings go to the server as they are, by its own names: max_slot_wal_keep_size of PostgreSQL,
	// message.max.bytes of Kafka. A setting of NATS that starts with "jetstream." goes into that block.
	Settings map[string]string
	// Upstream is the URL of what a PgBouncer (postgres://) or a Connect (kafka://) works on. Required there. A
	// PostgreSQL is a standby of the primary there, which this launcher has started; see [Server.Promote].
	Upstream string
	// TLS has a server refuse plain connections, but for its sign of life; not those of PgBouncer and Connect. CAFile
	// names the authority to trust. The certificate is for 127.0.0.1 and not for localhost.
	TLS bool
	// ClientCerts has a server with TLS demand a certificate of whoever connects: ClientFiles names one. A MariaDB
	// demands it of the accounts that say so.
	ClientCerts bool
	// Users are the names and passwords that a NATS server or a Kafka accepts, the latter by each of PLAIN,
	// SCRAM-SHA-256 and SCRAM-SHA-512; the URL holds the first by name. Default none asked for.
	Users map[string]string
	// Port is where the server listens; the further nodes of a cluster follow it. Default a free one.
	Port int
}

// Config of a Launcher.
type Config struct {
	// Dir keeps the servers' data, and Close leaves it there. A server started again in it finds its data,
	// so it holds one server of each kind. Default a temporary directory that Close removes.
	Dir string
}

// Launcher starts servers and ends with them.
type Launcher struct {
	dir      string
	keep     bool
	unlock   func()
	thread   *thread
	mu       sync.Mutex
	servers  []*Server
	launched int
}

// New makes a launcher, and removes what earlier ones left that were killed.
func New(config Config) (*Launcher, error) {
	l := &Launcher{dir: config.Dir, keep: config.Dir != ""}
	var err error
	if l.keep {
		if l.dir, err = filepath.Abs(l.dir); err != nil {
			return nil, err
		}
		err = os.MkdirAll(l.dir, 0o755)
	} else {
		sweep(filepath.Join(os.TempDir(), tempPrefix+"*"))
		l.dir, err = os.MkdirTemp("", tempPrefix)
	}
	if err != nil {
		return nil, err
	}
	// Servers that refuse to run as root must be able to reach their directories below.
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return nil, err
	}
	if l.unlock, err = l.lock(); err != nil {
		return nil, err
	}
	l.thread = newThread()
	return l, nil
}

func (l *Launcher) lock() (unlock func(), err error) {
	name := filepath.Join(l.dir, lockName)
	if l.keep {
		return lock(name)
	}
	// Under another name until it is held, or a sweep that comes in between takes us for gone.
	if unlock, err = lock(name + ".new"); err != nil {
		return nil, err
	}
	return unlock, os.Rename(name+".new", name)
}

const (
	tempPrefix = "settle-servers-"
	lockName   = "lock"
)

// sweep removes temporary directories whose owner ended without doing so: nobody holds their lock.
func sweep(pattern string) {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
			continue // just being made
		}
		if unlock, err := lock(filepath.Join(dir, lockName)); err == nil {
			_ = os.RemoveAll(dir)
			unlock()
		}
	}
}

// Start starts a server and returns when it is ready, or with the end of its log if it does not get there.
func (l *Launcher) Start(ctx context.Context, kind Kind, options Options) (*Server, error) {
	l.mu.Lock()
	l.launched++
	dir := filepath.Join(l.dir, fmt.Sprintf("%s-%d", kind, l.launched))
	if l.keep {
		dir = filepath.Join(l.dir, string(kind))
	}
	s := &Server{launcher: l, kind: kind, options: options, dir: dir}
	l.servers = append(l.servers, s)
	l.mu.Unlock()

	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", kind, err), s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.plan(); err != nil {
		return err
	}
	return s.Restart(ctx)
}

// Close kills the servers that still run. Then it removes the data, unless Config.Dir keeps it.
func (l *Launcher) Close() error {
	l.mu.Lock()
	servers := l.servers
	l.servers = nil
	l.mu.Unlock()
	var err error
	for _, s := range servers {
		err = errors.Join(err, s.Close())
	}
	if !l.keep {
		err = errors.Join(err, os.RemoveAll(l.dir))
	}
	l.thread.end()
	l.unlock()
	return err
}
