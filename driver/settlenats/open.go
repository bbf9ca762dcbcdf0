package settlenats

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/driver/internal/secure"
	"github.com/settledev/settle/event"
)

// Compile-time proof of what a Broker is.
var (
	_ broker.Broker    = (*Broker)(nil)
	_ broker.Publisher = (*Broker)(nil)
	_ broker.Tailer    = (*Broker)(nil)
	_ broker.Seeker    = (*partition)(nil)
	_ broker.Laggard   = (*partition)(nil)
	_ broker.Standby   = (*membership)(nil)
)

const (
	// clusterReplicas survives the loss of one node.
	clusterReplicas = 3
	// beginWaits is how many times AckWait a server has for what it must answer before it is used.
	beginWaits = 2
	beginPause = 200 * time.Millisecond
)

// Errors of opening.
var (
	// ErrCredentials says that the server refused who we are.
	ErrCredentials = errors.New("the server refused the credentials")
	// ErrTLS says that one side does not vouch for the other, or does not speak TLS, or that a file is not usable.
	ErrTLS = secure.ErrTLS
	// ErrNoJetStream says that the server, or this account on it, has no JetStream.
	ErrNoJetStream = errors.New("the server has no JetStream for this account")
	// ErrLocked says that another process uses the directory.
	ErrLocked = errors.New("directory is in use")
	// ErrCorrupt says that the embedded server could not read a stream that is in the directory.
	ErrCorrupt = errors.New("directory is damaged")
)

// Broker is a connection to JetStream. It is safe for concurrent use.
type Broker struct {
	cfg      Config
	nc       *nats.Conn
	js       jetstream.JetStream
	embedded *embedded // nil for a remote one
	table    assign.Table
	pub      publisher
	life     lives

	reconnects atomic.Uint64
	topicsMu   sync.Mutex
	topics     map[string]*topic

	stopWatch context.CancelFunc
	watching  sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Open connects to a server or cluster: url is one or more NATS URLs, parted by commas. The last may end with
// ?ca=file&cert=file&key=file&creds=file&nkey=file, which stand for the files of the config. It fails when
// no server answers, credentials or certificates are wrong or JetStream is off; once open, it reconnects for ever.
func Open(ctx context.Context, url string, cfg Config) (*Broker, error) {
	url, err := cfg.readURL(url)
	if err != nil {
		return nil, err
	}
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	return open(ctx, url, cfg, nil)
}

// readURL refuses what the client would take for something else, and takes the files from the URL's query,
// which is not the client's.
func (c *Config) readURL(list string) (string, error) {
	servers, query, _ := strings.Cut(list, "?")
	for _, one := range split(servers) {
		u, err := url.Parse(one)
		if err != nil {
			// The error would repeat the text, which may have a password in it.
			return "", errors.New("settlenats: open: not a URL such as nats://host:4222")
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return "", fmt.Errorf("settlenats: open %s: scheme %q is not nats, tls, ws or wss", redact(one), u.Scheme)
		}
		if u.Hostname() == "" {
			return "", fmt.Errorf("settlenats: open %s: no host", redact(one))
		}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", errors.New("settlenats: open: the URL's query is not one such as ?ca=file")
	}
	fields := map[string]*string{"ca": &c.CAFile, "cert": &c.CertFile, "key": &c.KeyFile, "creds": &c.CredsFile, "nkey": &c.NKeyFile}
	for name, value := range values {
		field := fields[name]
		if field == nil || len(value) != 1 {
			return "", fmt.Errorf("settlenats: open %s: the URL may have ca, cert, key, creds and nkey, once each, not %q", redact(servers), name)
		}
		*field = value[0]
	}
	return servers, nil
}

// redact returns URLs without their passwords.
func redact(list string) string {
	var clean []string
	for _, one := range split(list) {
		u, err := url.Parse(one)
		if err != nil {
			clean = append(clean, "(unreadable URL)")
			continue
		}
		clean = append(clean, u.Redacted())
	}
	return strings.Join(clean, ",")
}

// split returns the URLs of a list. Those after the first may lack a scheme, as the client allows.
func split(list string) []string {
	all := strings.Split(list, ",")
	for i, one := range all {
		if all[i] = strings.TrimSpace(one); i > 0 && all[i] != "" && !strings.Contains(one, "://") {
			all[i] = "nats://" + all[i]
		}
	}
	return all
}

func open(ctx context.Context, url string, cfg Config, e *embedded) (*Broker, error) {
	b := &Broker{cfg: cfg, embedded: e, topics: map[string]*topic{}}
	where := "embedded server"
	if e == nil {
		where = redact(url)
	}
	options, err := b.options(ctx)
	if err == nil {
		b.nc, err = nats.Connect(url, options...)
	}
	if err != nil {
		return nil, openError(where, err)
	}
	if b.cfg.Replicas == 0 {
		b.cfg.Replicas = 1
		if b.nc.ConnectedClusterName() != "" {
			b.cfg.Replicas = clusterReplicas
		}
	}
	if b.js, err = jetstream.New(b.nc); err == nil {
		err = b.begin(ctx)
	}
	if err != nil {
		b.nc.Close()
		return nil, openError(where, err)
	}
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stopWatch = stop
	b.watching.Go(func() { b.watch(watch) })
	return b, nil
}

func (b *Broker) begin(ctx context.Context) error {
	if _, err := b.js.AccountInfo(ctx); err != nil {
		return err
	}
	for began := time.Now(); ; {
		// A cluster that has just started may lose a request for good, or has no leader for the stream yet.
		patience, cancel := context.WithTimeout(ctx, b.cfg.AckWait)
		err := b.openLife(patience)
		cancel()
		if err == nil {
			return b.pub.start(b)
		}
		if time.Since(began) > beginWaits*b.cfg.AckWait || pause(ctx, beginPause) != nil {
			return err
		}
	}
}

func openError(where string, err error) error {
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
		errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return fmt.Errorf("settlenats: open %s: %w: %w", where, ErrCredentials, err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("settlenats: open %s: %w: %w", where, ErrNoJetStream, err)
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("settlenats: open %s: %w: no server answers", where, broker.ErrUnavailable)
	case errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired),
		errors.Is(err, nats.ErrTLS): // The last when the end of the connection has overtaken its reason.
		return fmt.Errorf("settlenats: open %s: %w: %w", where, ErrTLS, err)
	}
	if refusal := secure.Refusal(err); refusal != nil {
		err = refusal
	}
	return fmt.Errorf("settlenats: open %s: %w", where, err)
}

func (b *Broker) options(ctx context.Context) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("settle"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		// Nothing waits in the client while it is away: the relay repeats, in order.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(10 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			b.pub.fail(fmt.Errorf("settlenats: publish: %w: connection lost", broker.ErrUnavailable))
			if err != nil {
				b.cfg.Logger.Warn("broker connection lost", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			b.reconnects.Add(1)
			b.life.poke()
			b.cfg.Logger.Info("broker connection is back", "server", nc.ConnectedServerName())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				b.pub.deny(err.Error())
			}
			b.cfg.Logger.Warn("broker connection", "err", err)
		}),
	}
	if deadline, ok := ctx.Deadline(); ok {
		options = append(options, nats.Timeout(min(max(time.Until(deadline), time.Millisecond), nats.DefaultTimeout)))
	}
	if b.embedded != nil {
		options = append(options, nats.InProcessServer(b.embedded.server))
	}
	files, err := b.cfg.files()
	return append(append(options, files...), b.cfg.Options...), err
}

// files returns the options that stand for the files of the config.
func (c *Config) files() (options []nats.Option, err error) {
	// The client reads them again for each connection; an error is ours to tell.
	if _, err := (secure.Files{CA: c.CAFile, Cert: c.CertFile, Key: c.KeyFile}).Config(nil); err != nil {
		return nil, err
	}
	if c.CAFile != "" {
		options = append(options, nats.RootCAs(c.CAFile))
	}
	if c.CertFile != "" {
		options = append(options, nats.ClientCert(c.CertFile, c.KeyFile))
	}
	if c.CredsFile != "" {
		options = append(options, nats.UserCredentials(c.CredsFile))
	}
	if c.NKeyFile != "" {
		option, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCredentials, err)
		}
		options = append(options, option)
	}
	return options, nil
}

// Close waits for publishes under way, ends every membership and the connection, and stops an embedded
// server after it has written everything.
func (b *Broker) Close() error {
	b.closeOnce.Do(func() {
		b.pub.close()
		b.table.Close()
		b.stopWatch()
		b.watching.Wait()
		b.nc.Close()
		if b.embedded != nil {
			b.closeErr = b.embedded.close()
		}
	})
	return b.closeErr
}

// Subscribe implements [broker.Broker]. Streams of topics that are new are created.
func (b *Broker) Subscribe(ctx context.Context, s broker.Subscription) (broker.Membership, error) {
	if err := event.CheckName(s.Group); err != nil {
		return nil, fmt.Errorf("settlenats: subscribe: group: %w", err)
	}
	if b.pub.closing() {
		return nil, fmt.Errorf("settlenats: subscribe %s: %w: broker is closed", s.Group, broker.ErrUnavailable)
	}
	var names []string
	for _, name := range s.Topics {
		t, err := b.topic(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("settlenats: subscribe %s to %s: %w", s.Group, name, err)
		}
		for i := range t.partitions {
			names = append(names, partitionName(name, i))
		}
	}
	m := &membership{broker: b, group: s.Group, member: b.table.Join(s.Group, names)}
	if b.cfg.Leases != nil {
		if leases := b.cfg.Leases(s.Group); leases != nil {
			m.share = assign.NewShare(m.member, assign.ShareConfig{Leases: leases, Group: s.Group, TTL: b.cfg.LeaseTTL, Logger: b.cfg.Logger})
		}
	}
	return m, nil
}

type membership struct {
	broker *Broker
	group  string
	member *assign.Member
	share  *assign.Share // with other processes; nil without leases
}

func (m *membership) Next(ctx context.Context) (broker.Partition, error) {
	if m.share != nil {
		held, err := m.share.Next(ctx)
		if err != nil {
			return nil, m.ending(err)
		}
		return m.partition(held.Name, held), nil
	}
	claim, err := m.member.Next(ctx)
	if err != nil {
		return nil, m.ending(err)
	}
	return m.partition(claim.Name, claim), nil
}

// Standby implements [broker.Standby].
func (m *membership) Standby() bool {
	if m.share != nil {
		return m.share.Standby()
	}
	return m.member.Standby()
}

func (m *membership) ending(err error) error {
	if errors.Is(err, assign.ErrClosed) {
		return fmt.Errorf("settlenats: group %s: %w", m.group, err)
	}
	return err
}

func (m *membership) partition(name string, claim claim) *partition {
	topic, index := splitPartition(name)
	return &partition{
		broker: m.broker, group: m.group, name: name, claim: claim, topic: topic,
		stream: m.broker.cfg.streamName(topic), subject: m.broker.cfg.subject(topic, index),
	}
}

func (m *membership) Close() error {
	m.member.Close()
	if m.share != nil {
		m.share.Close()
	}
	return nil
}

// unavailable makes an error of the server one that callers wait out. A context that has ended is its own.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}
