package app

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlekafka"
	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/driver/settlenats"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/driver/settlerabbit"
	"github.com/settledev/settle/driver/settleredis"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/sqlstore"
)

// Database is one database with settle's tables: a service's, or an adopter's.
type Database struct {
	// Name is the service's, or else what the database is called.
	Name string
	// Dialect is sqlite, postgres or mysql.
	Dialect string
	// Target is a file, or a URL.
	Target string
	// Schemas are the service's own tables.
	Schemas []sqlstore.Schema
}

// DatabaseConfig is how a database is opened.
type DatabaseConfig struct {
	// ConnsMax bounds the connections. Default: the driver's.
	ConnsMax int
	// Pooler says that the URL leads to a pooler in transaction mode.
	Pooler bool
	// Migrate applies missing migrations first.
	Migrate bool
	// Quiet neither rings nor listens: for a look, also through a pooler.
	Quiet bool
	// ReadOnly opens a file beside whoever has it.
	ReadOnly bool
	// Store configures the store.
	Store sqlstore.Config
}

// Databases returns those that a store's URL stands for: with services one for each, as serve names them, and
// without exactly the one of the URL. The error is [ErrUsage].
func Databases(store, dir string, services []string) ([]Database, error) {
	if len(services) == 0 {
		return exactly(store)
	}
	where, err := parseStore(store, dir)
	if err != nil {
		return nil, err
	}
	var all []Database
	for _, name := range services {
		if !slices.Contains(Services(), name) {
			return nil, usage("there is no service %q: the services are %s", name, strings.Join(Services(), ", "))
		}
		all = append(all, where.database(name))
	}
	return all, nil
}

// exactly is the database of a URL as it stands.
func exactly(store string) ([]Database, error) {
	where, err := parseStore(store, "")
	if err != nil {
		return nil, err
	}
	if strings.Contains(store, servicePlace) {
		return nil, usage("--store has %s in it: say which, --services NAME,...", servicePlace)
	}
	if where.dialect == "sqlite" {
		if where.text == "" {
			return nil, usage("--store names no database: postgres://user@host:port/database, mysql://user@host:port/database or sqlite:FILE")
		}
		return []Database{{Name: where.text, Dialect: where.dialect, Target: where.text}}, nil
	}
	u, err := url.Parse(store)
	if err != nil || strings.Trim(u.Path, "/") == "" {
		return nil, usage("--store names no database: %s://user@host:port/database", where.dialect)
	}
	return []Database{{Name: strings.Trim(u.Path, "/"), Dialect: where.dialect, Target: store}}, nil
}

func (u storeURL) database(service string) Database {
	return Database{Name: service, Dialect: u.dialect, Target: u.of(service), Schemas: schemas(service, u.dialect)}
}

// Open opens the database's store: the one place that maps a store's scheme to its driver.
func (d Database) Open(ctx context.Context, cfg DatabaseConfig) (*sqlstore.Store, error) {
	switch d.Dialect {
	case "sqlite":
		if cfg.ReadOnly {
			return settlesqlite.OpenReader(ctx, d.Target, settlesqlite.Config{Store: cfg.Store})
		}
		return settlesqlite.Open(ctx, d.Target, settlesqlite.Config{Migrate: cfg.Migrate, Store: cfg.Store})
	case "postgres":
		return settlepgx.Open(ctx, d.Target, settlepgx.Config{
			Migrate: cfg.Migrate, Store: cfg.Store, ConnsMax: cfg.ConnsMax, Pooler: cfg.Pooler || cfg.Quiet, NoDoorbell: cfg.Quiet,
		})
	case "mysql":
		return settlemysql.Open(ctx, d.Target, settlemysql.Config{Migrate: cfg.Migrate, Store: cfg.Store, ConnsMax: cfg.ConnsMax})
	}
	return nil, usage("there is no store %s", d.Dialect)
}

// Create makes the database when a server does not have it. A file is made when it is opened.
func (d Database) Create(ctx context.Context) error {
	switch d.Dialect {
	case "postgres":
		return settlepgx.EnsureDatabase(ctx, d.Target)
	case "mysql":
		return settlemysql.EnsureDatabase(ctx, d.Target)
	}
	return nil
}

// Migrate applies missing migrations and returns how many.
func (d Database) Migrate(ctx context.Context) (int, error) {
	switch d.Dialect {
	case "postgres":
		return settlepgx.Migrate(ctx, d.Target, d.Schemas...)
	case "mysql":
		return settlemysql.Migrate(ctx, d.Target, d.Schemas...)
	default:
		return settlesqlite.Migrate(ctx, d.Target, d.Schemas...)
	}
}

// AllSchemas are settle's own tables and then the service's.
func (d Database) AllSchemas() []sqlstore.Schema {
	own := sqlstore.SQLite()
	switch d.Dialect {
	case "postgres":
		own = sqlstore.Postgres()
	case "mysql":
		own = sqlstore.MySQL()
	}
	return append([]sqlstore.Schema{own.Schema()}, d.Schemas...)
}

// Raw connects without a store, whose tables may be missing: for who looks at what is there. Nothing is asked of
// a server yet.
func (d Database) Raw() (*sql.DB, error) {
	switch d.Dialect {
	case "postgres":
		return settlepgx.Raw(d.Target)
	case "mysql":
		return settlemysql.Raw(d.Target)
	}
	return sql.Open("sqlite", "file:"+d.Target+"?mode=ro")
}

// Redacted is the target without its password.
func (d Database) Redacted() string {
	if d.Dialect == "sqlite" {
		return d.Target
	}
	return Redact(d.Target)
}

// Redact returns a URL, or several parted by commas, without passwords.
func Redact(target string) string {
	parts := strings.Split(target, ",")
	for i, part := range parts {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil {
			return "(unreadable URL)"
		}
		if u.RawQuery != "" {
			u.RawQuery = "..." // Drivers take passwords there too.
		}
		parts[i] = u.Redacted()
	}
	return strings.Join(parts, ",")
}

// Carrier is what may be decided about a broker's server.
type Carrier struct {
	// Prefix begins the names of topics. Default: the driver's.
	Prefix string
	// Partitions and Replicas of topics that are new. Default: the driver's.
	Partitions int
	Replicas   int
	// Groups are who listens, for brokers that keep an event only for the groups they know.
	Groups []broker.Subscription
	// Leases are those by which processes divide the partitions of a group where the broker does not.
	Leases func(group string) lock.Leases
	Logger *slog.Logger
}

// isBroker reports whether OpenBroker knows the scheme of a URL.
func isBroker(target string) bool {
	scheme, _, ok := strings.Cut(target, "://")
	return ok && slices.Contains([]string{"nats", "tls", "kafka", "kafka+tls", "redis", "rediss", "amqp", "amqps"}, scheme)
}

// OpenBroker connects to a broker's server: the one place that maps a broker's scheme to its driver.
func OpenBroker(ctx context.Context, target string, c Carrier) (broker.Broker, error) {
	scheme, _, _ := strings.Cut(target, ":")
	if c.Replicas != 0 && slices.Contains([]string{"redis", "rediss", "amqp", "amqps"}, scheme) {
		return nil, usage("replicas say nothing to a broker %s", scheme)
	}
	switch scheme {
	case "nats", "tls":
		return opened(settlenats.Open(ctx, target, settlenats.Config{
			Logger: c.Logger, Prefix: c.Prefix, Partitions: c.Partitions, Replicas: c.Replicas, Leases: c.Leases,
		}))
	case "kafka", "kafka+tls":
		return opened(settlekafka.Open(ctx, target, settlekafka.Config{
			Logger: c.Logger, Prefix: c.Prefix, Partitions: c.Partitions, Replication: c.Replicas,
		}))
	case "redis", "rediss":
		return opened(settleredis.Open(ctx, target, settleredis.Config{Logger: c.Logger, Prefix: c.Prefix, Partitions: c.Partitions}))
	case "amqp", "amqps":
		return opened(settlerabbit.Open(ctx, target, settlerabbit.Config{
			Logger: c.Logger, Prefix: c.Prefix, Partitions: c.Partitions, Groups: c.Groups,
		}))
	}
	return nil, usage("broker %q is none of nats://, kafka://, redis://, amqp://", scheme)
}

// Fault says what a person has to do about an error of opening a store or a broker; "" when it may end by
// itself, as an outage does.
func Fault(err error) string {
	switch {
	case isTLS(err):
		return "mend the certificates, or what the URL says of TLS"
	case errors.Is(err, settlepgx.ErrNoDatabase), errors.Is(err, settlemysql.ErrNoDatabase), errors.Is(err, fs.ErrNotExist):
		return "make the database, then: settle migrate up --store URL"
	case errors.Is(err, sqlstore.ErrSchema):
		return "settle migrate up --store URL"
	case errors.Is(err, settlepgx.ErrCredentials), errors.Is(err, settlemysql.ErrCredentials),
		errors.Is(err, settlekafka.ErrCredentials), errors.Is(err, settlenats.ErrCredentials),
		errors.Is(err, settleredis.ErrCredentials), errors.Is(err, settlerabbit.ErrCredentials):
		return "mend user, password or rights"
	case errors.Is(err, settlepgx.ErrPooler):
		return "say so with --pooler, or name the server itself"
	case errors.Is(err, sqlstore.ErrRebase):
		return "settle outbox rebase --store URL"
	case errors.Is(err, settlepgx.ErrSlotLost):
		return "make a new slot: what the lost one had is gone, read it from the table by hand"
	case errors.Is(err, settlenats.ErrNoJetStream), errors.Is(err, settleredis.ErrUnsuitable), errors.Is(err, settlerabbit.ErrVhost):
		return "mend the broker's settings"
	case errors.Is(err, ErrUsage), errors.Is(err, errors.ErrUnsupported):
		return "mend the configuration"
	}
	return ""
}

// isTLS reports whether one side does not vouch for the other.
func isTLS(err error) bool {
	for _, one := range []error{
		settlepgx.ErrTLS, settlemysql.ErrTLS, settlekafka.ErrTLS, settlenats.ErrTLS, settleredis.ErrTLS, settlerabbit.ErrTLS,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// IsOutage reports whether an error ends by itself.
func IsOutage(err error) bool {
	if isTLS(err) { // Which comes by the network too.
		return false
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, sqlstore.ErrUnavailable) || errors.Is(err, broker.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}
