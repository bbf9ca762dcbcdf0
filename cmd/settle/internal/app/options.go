package app

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/gateway"
	"github.com/settledev/settle/shop/pgsim"
)

// ErrUsage says that the options contradict one another, or that something needed is missing from them:
// start again with others.
var ErrUsage = errors.New("wrong use")

// usageError is an ErrUsage whose text is all there is to say.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }
func (e *usageError) Unwrap() error { return ErrUsage }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// Options say what to put together.
type Options struct {
	// Dir holds the secrets, and every file where there is no server for it. It is made when it is missing.
	Dir string
	// Addr is where the process listens.
	Addr string
	// Store is where the services' databases are: sqlite:DIR, or the URL of a postgres or mysql server, whose
	// path begins the name of each database (shop is shop_order, shop_payment and so on; none means
	// settle); {service} in the URL stands for the service instead. Default: SQLite files in Dir.
	Store string
	// ConnsMax bounds the connections of each service to a database server. Default 10.
	ConnsMax int
	// Pooler says that the store's URL leads to a pooler in transaction mode, such as PgBouncer.
	Pooler bool
	// Broker is "nats" (embedded JetStream, for a process that has every service), "store" (no broker:
	// outboxes are followed), or the URL of a server: nats, kafka, redis or amqp. Default nats.
	Broker string
	// TopicPrefix begins the names of topics, or of streams, on a broker that others use too. Default: the
	// driver's.
	TopicPrefix string
	// Partitions and Replicas of topics that are new. Default: the driver's.
	Partitions int
	Replicas   int
	// Relay is how outboxes are read: "window" (by polling and doorbells) or "wal" (from the log of
	// Postgres). Default window.
	Relay string
	// Filter is the URL of a redis that remembers which events are handled, so that one that comes again costs no
	// database anything. Default: none; the inboxes are enough.
	Filter string
	// Services are those of this process. Default: all.
	Services []string
	// Peers are the addresses of services in other processes, one for each instance.
	Peers map[string][]string
	// GatewayURL and PlatformURL are the outside world. Default: it runs in this process, which is for a
	// process that has every service.
	GatewayURL  string
	PlatformURL string
	// OperatorTokenFile and WebhookSecretFile hold the secrets, which must be the same in every process.
	// Default: files in Dir, made when they are missing.
	OperatorTokenFile string
	WebhookSecretFile string
	// Migrate applies missing migrations. Without it, a database that is not up to date is refused; a SQLite
	// file that does not exist is made in any case.
	Migrate bool
	// Create makes missing databases on a server, before they are migrated.
	Create bool
	// Wait waits for databases and a broker whose servers are away when the process starts. Without it, that is an
	// error.
	Wait bool
	// DrainDelay is how long the process says that it is not ready before it stops to listen.
	DrainDelay time.Duration
	// Gateway and Platform are the faults of an outside world in this process.
	Gateway  pgsim.Faults
	Platform faults.Transport
	// NoWebhooks keeps the payment gateway from sending webhooks: its answers alone tell what it did.
	NoWebhooks bool
	// PaymentDelayed and PaymentExpired are the order's deadlines; zero means the order's defaults.
	PaymentDelayed time.Duration
	PaymentExpired time.Duration
	// ShipDelay is the time between payment and shipment.
	ShipDelay time.Duration
	// Ended is told how long each order took from its acceptance to its end. Default: nobody.
	Ended func(took time.Duration)
	// Logger receives everything. Default slog.Default().
	Logger *slog.Logger
	// Failpoint is called at every named point of a hop, for crash tests, with the number of events that
	// this process has handled.
	Failpoint func(name string, handled int64)
}

// whole reports whether this process has every service.
func (o Options) whole() bool { return len(o.Services) == len(Services()) }

// withOutside reports whether the outside world runs in this process.
func (o Options) withOutside() bool { return o.whole() && o.GatewayURL == "" && o.PlatformURL == "" }

// checked returns the options with their defaults, and where the stores are.
func (o Options) checked() (Options, storeURL, error) {
	if len(o.Services) == 0 {
		o.Services = Services()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	for _, name := range append(slices.Clone(o.Services), slices.Collect(maps.Keys(o.Peers))...) {
		if !slices.Contains(Services(), name) {
			return o, storeURL{}, usage("there is no service %q: the services are %s", name, strings.Join(Services(), ", "))
		}
	}
	o.Services = slices.DeleteFunc(Services(), func(name string) bool { return !slices.Contains(o.Services, name) })
	if o.Broker == "" {
		o.Broker = "nats"
	}
	if o.ConnsMax == 0 {
		o.ConnsMax = 10
	}
	if o.Relay == "" {
		o.Relay = "window"
	}
	where, err := parseStore(o.Store, o.Dir)
	if err != nil {
		return o, where, err
	}
	switch {
	case o.Broker == "nats" && !o.whole():
		return o, where, usage("--broker nats is inside one process that has every service: name a server, or store, for %s", strings.Join(o.Services, ", "))
	case o.Broker != "nats" && o.Broker != "store" && !isBroker(o.Broker):
		return o, where, usage("--broker %.20q is none of nats, store, nats://, kafka://, redis://, amqp://", o.Broker)
	case o.Relay != "window" && o.Relay != "wal":
		return o, where, usage("--relay %q is neither window nor wal", o.Relay)
	case o.Relay == "wal" && where.dialect != "postgres":
		return o, where, usage("--relay wal reads the log of postgres, and the store is %s", where.dialect)
	case o.Relay == "wal" && o.Broker == "store":
		return o, where, usage("--relay wal has nobody to carry events to: --broker store runs no relay")
	case o.Pooler && where.dialect != "postgres":
		return o, where, usage("--pooler is for postgres, and the store is %s", where.dialect)
	case o.Filter != "" && !strings.HasPrefix(o.Filter, "redis://") && !strings.HasPrefix(o.Filter, "rediss://"):
		return o, where, usage("--filter %.20q is neither redis:// nor rediss://", o.Filter)
	case o.ConnsMax < 2:
		return o, where, usage("--conns %d is below 2", o.ConnsMax)
	case o.Partitions < 0 || o.Replicas < 0:
		return o, where, usage("%d partitions, %d replicas: neither can be negative", o.Partitions, o.Replicas)
	}
	return o, where, o.checkNeighbours()
}

// checkNeighbours refuses services without those they ask.
func (o Options) checkNeighbours() error {
	here := func(names ...string) string {
		for _, name := range names {
			if slices.Contains(o.Services, name) {
				return name
			}
		}
		return ""
	}
	known := func(name string) bool { return here(name) != "" || len(o.Peers[name]) > 0 }
	if here("order") != "" && !known("catalog") {
		return usage("order asks the catalogue for prices: say where it is, --peer catalog=URL")
	}
	if here("gateway") != "" {
		for _, name := range slices.Sorted(maps.Keys(gateway.Routes())) {
			if !known(name) {
				return usage("gateway passes requests on to %s: say where it is, --peer %s=URL", name, name)
			}
		}
	}
	if o.withOutside() {
		return nil
	}
	if here("payment") != "" && o.GatewayURL == "" {
		return usage("payment needs the payment gateway, --gateway-url URL (settle outside runs one)")
	}
	if name := here("notify", "platform"); name != "" && o.PlatformURL == "" {
		return usage("%s needs the data platform, --platform-url URL (settle outside runs one)", name)
	}
	return nil
}

// peers are the services of other processes.
func (o Options) peers() (map[string]*gateway.Peer, error) {
	all := map[string]*gateway.Peer{}
	for name, urls := range o.Peers {
		p, err := gateway.NewPeer(name, urls)
		if err != nil {
			return nil, usage("--peer: %v", err)
		}
		all[name] = p
	}
	return all, nil
}
