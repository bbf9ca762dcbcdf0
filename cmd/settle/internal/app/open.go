package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/driver/settlenats"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/catalog"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/notify"
	"github.com/settledev/settle/shop/order"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/platform"
	"github.com/settledev/settle/shop/shipping"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/storebroker"
)

// storeURL is where the services' databases are.
type storeURL struct {
	dialect string // sqlite, postgres or mysql
	text    string // a directory, or a URL with {service}
}

// parseStore reads what names the stores. A server's URL gets its {service}.
func parseStore(text, dir string) (storeURL, error) {
	scheme, rest, _ := strings.Cut(text, ":")
	switch scheme {
	case "":
		return storeURL{"sqlite", dir}, nil
	case "sqlite":
		if rest = strings.TrimPrefix(rest, "//"); rest == "" {
			rest = dir
		}
		return storeURL{"sqlite", rest}, nil
	case "postgres", "postgresql":
		return serverURL("postgres", text)
	case "mysql", "mariadb":
		return serverURL("mysql", text)
	}
	return storeURL{}, usage("--store %q is none of sqlite:DIR, postgres://user@host:port/prefix, mysql://user@host:port/prefix", scheme)
}

const servicePlace = "{service}"

func serverURL(dialect, text string) (storeURL, error) {
	if strings.Contains(text, servicePlace) {
		return storeURL{dialect, text}, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" { // The error would repeat the text, which may have a password in it.
		return storeURL{}, usage("--store is no URL such as %s://user@host:port/prefix", dialect)
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix == "" {
		prefix = "settle"
	}
	u.Path = "/" + prefix + "_service-goes-here"
	return storeURL{dialect, strings.Replace(u.String(), "service-goes-here", servicePlace, 1)}, nil
}

// of is where one service's database is: a file, or a URL.
func (u storeURL) of(service string) string {
	if u.dialect == "sqlite" {
		return filepath.Join(u.text, service+".db")
	}
	return strings.ReplaceAll(u.text, servicePlace, service)
}

// schemas are a service's own tables; the gateway has none.
func schemas(service, dialect string) []sqlstore.Schema {
	var files fs.FS
	switch service {
	case "order":
		files = order.Migrations(dialect)
	case "inventory":
		files = inventory.Migrations(dialect)
	case "payment":
		files = payment.Migrations(dialect)
	case "shipping":
		files = shipping.Migrations(dialect)
	case "notify":
		files = notify.Migrations(dialect)
	case "platform":
		files = platform.Migrations(dialect)
	case "catalog":
		files = catalog.Migrations(dialect)
	default:
		return nil
	}
	return []sqlstore.Schema{{Name: service, Files: files, Newer: true}} // See docs/operate.md, rolling deploys.
}

// openStore opens a service's database; see [Database.Open].
func openStore(ctx context.Context, where storeURL, service string, opts Options) (*sqlstore.Store, error) {
	cfg := sqlstore.Config{Logger: opts.Logger, Schemas: schemas(service, where.dialect)}
	var s *sqlstore.Store
	var err error
	switch where.dialect {
	case "sqlite":
		s, err = openFile(ctx, where.of(service), opts, cfg)
	default:
		s, err = where.database(service).Open(ctx, DatabaseConfig{
			Migrate: opts.Migrate, Store: cfg, ConnsMax: opts.ConnsMax, Pooler: opts.Pooler,
		})
	}
	if errors.Is(err, sqlstore.ErrSchema) && !opts.Migrate {
		return nil, fmt.Errorf("%s: %w: stop whatever uses it, then migrate it: settle migrate up --services %s, with the same --store",
			service, err, service)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", service, explained(err))
	}
	return s, nil
}

// explained says what to do about an error that waiting does not mend.
func explained(err error) error {
	if do := Fault(err); do != "" && !IsOutage(err) && !errors.Is(err, ErrUsage) {
		return fmt.Errorf("%w: %s", err, do)
	}
	return err
}

// logged is a store whose outbox is heard of from the log of Postgres.
type logged struct {
	*sqlstore.Store

	wal *settlepgx.WAL
}

// Outbox implements [relay.Provider].
func (l logged) Outbox() relay.Source { return l.wal }

// storeOf is a service's store as its relay is to see it.
func (a *App) storeOf(service string) (settle.Store, error) {
	s := a.stores[service]
	if a.opts.Relay != "wal" || !slices.Contains(producers(), service) {
		return s, nil // A slot is worth having where there are events.
	}
	wal, err := settlepgx.NewWAL(s, a.where.of(service), settlepgx.WALConfig{Failover: true, Logger: a.opts.Logger})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", service, err)
	}
	return logged{s, wal}, nil
}

// OpenReader opens a service's database only to read it.
func OpenReader(ctx context.Context, store, dir, service string) (*sqlstore.Store, error) {
	where, err := parseStore(store, dir)
	if err != nil {
		return nil, err
	}
	return openReader(ctx, where, service, Options{})
}

// readerConnsMax bounds the connections to another service's database.
const readerConnsMax = 4

// openReader is openStore for reading what another process writes.
func openReader(ctx context.Context, where storeURL, service string, o Options) (*sqlstore.Store, error) {
	return where.database(service).Open(ctx, DatabaseConfig{
		ReadOnly: true, ConnsMax: readerConnsMax, Pooler: o.Pooler, Store: sqlstore.Config{Logger: o.Logger},
	})
}

// openFile opens a SQLite file. One that does not exist is made whole under another name first, so that a
// process that dies meanwhile leaves none that has to be migrated.
func openFile(ctx context.Context, path string, opts Options, cfg sqlstore.Config) (*sqlstore.Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := makeFile(ctx, path, cfg.Schemas); err != nil {
			return nil, err
		}
	}
	s, err := settlesqlite.Open(ctx, path, settlesqlite.Config{Migrate: opts.Migrate, Store: cfg})
	if errors.Is(err, settlesqlite.ErrLocked) && !opts.whole() {
		return nil, fmt.Errorf("a service on SQLite has one process, for several instances use postgres or mysql: %w", err)
	}
	return s, err
}

func makeFile(ctx context.Context, path string, schemas []sqlstore.Schema) error {
	fresh := path + ".new"
	for _, suffix := range []string{"", "-wal", "-shm"} { // Of a process that died while making it.
		if err := os.Remove(fresh + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if _, err := settlesqlite.Migrate(ctx, fresh, schemas...); err != nil {
		return err
	}
	return errors.Join(os.Rename(fresh, path), os.Remove(fresh+".lock"))
}

// openBroker opens what carries events: a server, or what stands in for one.
func (a *App) openBroker(ctx context.Context) (err error) {
	o := a.opts
	scheme, _, _ := strings.Cut(o.Broker, ":")
	if o.Replicas != 0 && slices.Contains([]string{"store", "redis", "rediss", "amqp", "amqps"}, scheme) {
		return usage("--replicas says nothing to --broker %s", scheme)
	}
	switch o.Broker {
	case "nats":
		a.broker, err = opened(settlenats.OpenEmbedded(ctx, settlenats.Config{
			Dir: filepath.Join(o.Dir, "jetstream"), Logger: o.Logger, Prefix: o.TopicPrefix, Partitions: o.Partitions, Replicas: o.Replicas,
		}))
	case "store":
		err = a.openFollowers(ctx)
	default:
		c := Carrier{Logger: o.Logger, Prefix: o.TopicPrefix, Partitions: o.Partitions, Replicas: o.Replicas, Groups: subscriptions()}
		if a.where.dialect != "sqlite" { // A file has one process anyway.
			c.Leases = a.leasesOf
		}
		err = a.await(ctx, "the broker", func(ctx context.Context) (err error) {
			a.broker, err = OpenBroker(ctx, o.Broker, c)
			return explained(err)
		})
	}
	return err
}

// subscriptions are who listens to what, for brokers that keep an event only for the groups they know.
func subscriptions() []broker.Subscription {
	return []broker.Subscription{
		{Group: "order", Topics: []string{contract.OrderTopic, contract.InventoryTopic, contract.PaymentTopic, contract.ShippingTopic}},
		{Group: "inventory", Topics: []string{contract.OrderTopic, contract.InventoryTopic, contract.ShippingTopic}},
		{Group: "payment", Topics: []string{contract.OrderTopic, contract.PaymentTopic, contract.ShippingTopic}},
		{Group: "shipping", Topics: []string{contract.OrderTopic, contract.ShippingTopic}},
		{Group: "notify", Topics: []string{contract.OrderTopic}},
		{Group: "platform", Topics: []string{contract.OrderTopic}},
		{Group: "gateway", Topics: []string{
			contract.OrderTopic, contract.InventoryTopic, contract.PaymentTopic, contract.ShippingTopic, contract.CatalogTopic,
		}},
	}
}

// leasesOf are the leases of a group's own database: groups are named after their services.
func (a *App) leasesOf(group string) lock.Leases {
	if s := a.stores[group]; s != nil {
		return s.Leases()
	}
	return nil
}

// opened is what a driver opened, and nothing at all when it failed.
func opened[B broker.Broker](b B, err error) (broker.Broker, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

// openFollowers opens brokers that follow the producers' outboxes: those of this process where they are, the
// others' for reading. A process that has all files of a shop needs one; elsewhere each service has its
// own, whose partitions its instances divide by leases in their database.
func (a *App) openFollowers(ctx context.Context) error {
	sources := map[string]relay.Source{}
	for _, name := range producers() {
		s := a.stores[name]
		if s == nil {
			var err error
			if s, err = a.awaitReader(ctx, name); err != nil {
				return err
			}
			a.readers = append(a.readers, s)
		}
		sources[name] = s.Outbox()
	}
	if a.opts.whole() && a.where.dialect == "sqlite" {
		b, err := storebroker.New(sources, storebroker.Config{Logger: a.opts.Logger})
		if err != nil {
			return err
		}
		a.broker, a.followers = b, []*storebroker.Broker{b}
		return nil
	}
	for _, name := range a.opts.Services {
		cfg := storebroker.Config{Shared: true, Own: []string{name}, Logger: a.opts.Logger}
		if a.where.dialect == "sqlite" {
			cfg.Wait = filePoll
		}
		emits := slices.Contains(producers(), name)
		if !emits {
			cfg.Own = nil // Which would be all of them, but nobody runs this one.
		}
		if p, ok := any(a.stores[name]).(lock.Provider); ok && a.where.dialect != "sqlite" {
			cfg.Leases = p.Leases()
		}
		b, err := storebroker.New(sources, cfg)
		if err != nil {
			return err
		}
		a.brokers[name] = b
		if emits {
			a.followers = append(a.followers, b)
		}
	}
	return nil
}

// filePoll is how late an event in another process's file is seen: nothing rings between files.
const filePoll = 50 * time.Millisecond

// brokerOf is the broker of a service.
func (a *App) brokerOf(service string) broker.Broker {
	if b := a.brokers[service]; b != nil {
		return b
	}
	return a.broker
}

// missing reports whether a database is still to be made, or its tables.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, sqlstore.ErrSchema) ||
		errors.Is(err, settlepgx.ErrNoDatabase) || errors.Is(err, settlemysql.ErrNoDatabase)
}

// readerPatience is how long a process waits for another one to make its database: they start together.
const readerPatience = time.Minute

func (a *App) awaitReader(ctx context.Context, service string) (*sqlstore.Store, error) {
	limit := time.NewTimer(readerPatience)
	defer limit.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		var s *sqlstore.Store
		err := a.awaitDatabase(ctx, service, func(ctx context.Context) (err error) {
			s, err = openReader(ctx, a.where, service, a.opts)
			return err
		})
		if err == nil || !missing(err) {
			return s, err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return nil, fmt.Errorf("%s: no database after %s: start it: %w", service, readerPatience, err)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
