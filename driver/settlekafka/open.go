package settlekafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/internal/secure"
	"github.com/settledev/settle/event"
)

// Compile-time proof of what a Broker is.
var (
	_ broker.Broker    = (*Broker)(nil)
	_ broker.Publisher = (*Broker)(nil)
	_ broker.Ordered   = (*Broker)(nil)
	_ broker.Seeker    = (*partition)(nil)
	_ broker.Laggard   = (*partition)(nil)
)

// batchBytesMax bounds one batch, whatever a topic would take.
const batchBytesMax = 64 << 20

// Broker is a connection to a cluster. It is safe for concurrent use.
type Broker struct {
	cfg   Config
	where *address
	cl    *kgo.Client // publishes without transactions, and asks
	admin *kadm.Client
	plain idempotent
	txn   transactional

	mu      sync.Mutex
	topics  map[string]*topic // by the name without prefix
	sizes   map[string]int    // the largest batch by the name on the cluster, kept when a topic is forgotten
	members map[*membership]bool
	closed  bool

	publishing sync.WaitGroup
}

// Open connects to a cluster: url is kafka://host:9092, with more hosts parted by commas, or
// kafka+tls://user:password@host:9093?sasl=scram-sha-512&ca=file.pem, where sasl is the mechanism, ca has the
// authorities to trust instead of the system's, and cert and key are our own certificate. It fails when no broker
// answers ([broker.ErrUnavailable]), the credentials are wrong ([ErrCredentials]) or the certificates are
// ([ErrTLS]); once open, it reconnects for ever.
func Open(ctx context.Context, url string, cfg Config) (*Broker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	where, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("settlekafka: open: %w", err)
	}
	b := newBroker(cfg, where)
	if err := b.connect(); err != nil {
		return nil, fmt.Errorf("settlekafka: open %s: %w", where, err)
	}
	limited, cancel := context.WithTimeout(ctx, 2*cfg.AckWait)
	defer cancel()
	if err := b.cl.Ping(limited); err != nil {
		b.cl.Close()
		return nil, openError(where, err)
	}
	return b, nil
}

func newBroker(cfg Config, where *address) *Broker {
	b := &Broker{
		cfg: cfg, where: where,
		topics: map[string]*topic{}, sizes: map[string]int{}, members: map[*membership]bool{},
	}
	b.plain.broker, b.txn.broker = b, b
	return b
}

// connect makes the client that every broker has. Nothing is asked of the cluster yet.
func (b *Broker) connect() error {
	cl, err := b.newClient(b.producing()...)
	if err != nil {
		return err
	}
	b.cl, b.admin = cl, kadm.NewClient(cl)
	return nil
}

func openError(where *address, err error) error {
	if isCredentials(err) {
		return fmt.Errorf("settlekafka: open %s: %w: %w", where, ErrCredentials, err)
	}
	if refusal := secure.Refusal(err); refusal != nil {
		return fmt.Errorf("settlekafka: open %s: %w", where, refusal)
	}
	if strings.Contains(err.Error(), "tls alert record") { // The client has no value for it.
		return fmt.Errorf("settlekafka: open %s: %w: it is for kafka+tls URLs: %w", where, ErrTLS, err)
	}
	return fmt.Errorf("settlekafka: open %s: %w: %w", where, broker.ErrUnavailable, err)
}

// newClient makes a client with what all have in common and some options more. It connects when used.
func (b *Broker) newClient(options ...kgo.Opt) (*kgo.Client, error) {
	common, err := b.common()
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(append(append(common, options...), b.cfg.Options...)...)
}

func (b *Broker) common() ([]kgo.Opt, error) {
	mechanism, err := b.mechanism()
	if err != nil {
		return nil, err
	}
	options := []kgo.Opt{
		kgo.ClientID("settle"),
		kgo.SeedBrokers(b.where.seeds...),
		kgo.WithLogger(clientLog{b.cfg.Logger}),
		kgo.DialTimeout(b.cfg.AckWait),
		// A broker that went silent is given up after the time that it was given, and this much more.
		kgo.RequestTimeoutOverhead(b.cfg.AckWait),
		// A leader that moved is found as soon as it is there.
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(50*time.Millisecond<<min(n, 5), time.Second) }),
	}
	if b.where.tls {
		config, err := b.where.files.Config(b.cfg.TLS)
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.DialTLSConfig(config))
	}
	if mechanism != nil {
		options = append(options, kgo.SASL(mechanism))
	}
	return options, nil
}

func (b *Broker) mechanism() (sasl.Mechanism, error) {
	user, password, name := b.cfg.User, b.cfg.Password, b.cfg.Mechanism
	if b.where.user != "" {
		user, password = b.where.user, b.where.password
	}
	if b.where.mechanism != "" {
		name = b.where.mechanism
	}
	if user == "" {
		if name != "" {
			return nil, fmt.Errorf("mechanism %.40s without a user", name)
		}
		return nil, nil
	}
	switch name {
	case "", "PLAIN":
		return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("mechanism %.40q is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", name)
}

// Subscribe implements [broker.Broker]. Topics that are missing are created where Config allows it.
func (b *Broker) Subscribe(ctx context.Context, s broker.Subscription) (broker.Membership, error) {
	if err := event.CheckName(s.Group); err != nil {
		return nil, fmt.Errorf("settlekafka: subscribe: group: %w", err)
	}
	if len(s.Topics) == 0 {
		return nil, fmt.Errorf("settlekafka: subscribe %s: no topics", s.Group)
	}
	if b.isClosed() {
		return nil, errClosed("subscribe " + s.Group)
	}
	m := newMembership(b, s)
	first, err := m.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("settlekafka: subscribe %s: %w", s.Group, err)
	}
	b.mu.Lock()
	refused := b.closed
	if !refused {
		b.members[m] = true
	}
	b.mu.Unlock()
	m.start(ctx, first)
	if refused {
		_ = m.Close()
		return nil, errClosed("subscribe " + s.Group)
	}
	return m, nil
}

func errClosed(what string) error {
	return fmt.Errorf("settlekafka: %s: %w: broker is closed", what, broker.ErrUnavailable)
}

func (b *Broker) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// Close waits for publishes under way, which end within Config.AckWait, leaves every group and ends the
// connections.
func (b *Broker) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	members := make([]*membership, 0, len(b.members))
	for m := range b.members {
		members = append(members, m)
	}
	b.mu.Unlock()
	b.publishing.Wait()
	var errs []error
	for _, m := range members {
		errs = append(errs, m.Close())
	}
	b.txn.close()
	b.cl.Close()
	return errors.Join(errs...)
}
