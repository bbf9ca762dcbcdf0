package settlerabbit

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/internal/secure"
)

// Compile-time proof of what a Broker is.
var (
	_ broker.Broker    = (*Broker)(nil)
	_ broker.Publisher = (*Broker)(nil)
	_ broker.Laggard   = (*partition)(nil)
)

// Errors of opening.
var (
	// ErrCredentials says that the server refused who we are.
	ErrCredentials = errors.New("the server refused the credentials")
	// ErrTLS says that one side does not vouch for the other, or does not speak TLS, or that a file of the URL is
	// not usable.
	ErrTLS = secure.ErrTLS
	// ErrVhost says that there is no such virtual host, or that we may not use it.
	ErrVhost = errors.New("the server refused the virtual host")
)

// errClosed says that the Broker was closed.
var errClosed = fmt.Errorf("%w: broker is closed", broker.ErrUnavailable)

// Broker is a client of RabbitMQ: one connection for all that is published, one for each membership. It is
// safe for concurrent use.
type Broker struct {
	cfg      Config
	url      string
	prefetch int // tests have a smaller one
	lines    lines
	helpers  sync.WaitGroup // they end with the connections

	mu      sync.Mutex
	closed  bool
	members map[*member]struct{}
}

// Open connects to a server: amqp or amqps, user:password@host:port/vhost. An amqps URL may name PEM files: ?ca= of
// the authorities to trust instead of the system's, cert= and key= of our own certificate, and
// server_name_indication= for another name of the server's. RabbitMQ's own names for the files, cacertfile, certfile
// and keyfile, say the same. It fails when the server does not answer or is not the one that it should be, or refuses
// the credentials or the virtual host; once open, it reconnects for ever.
func Open(ctx context.Context, target string, cfg Config) (*Broker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(target)
	if err != nil {
		// The error would repeat the text, which may have a password in it.
		return nil, errors.New("settlerabbit: open: not a URL such as amqp://user:password@host:5672/vhost")
	}
	shown := *u
	shown.RawQuery = ""
	where := shown.Redacted()
	if err := cfg.readURL(u); err != nil {
		return nil, fmt.Errorf("settlerabbit: open %s: %w", where, err)
	}
	b := &Broker{cfg: cfg, url: u.String(), prefetch: prefetch, members: map[*member]struct{}{}}
	b.lines.start(b)
	if _, err := b.lines.connect(ctx); err != nil {
		if refusal := secure.Refusal(err); refusal != nil {
			err = refusal
		}
		return nil, fmt.Errorf("settlerabbit: open %s: %w", where, err)
	}
	return b, nil
}

// readURL refuses what the client would take for something else, and takes what is about TLS out of the URL.
func (c *Config) readURL(u *url.URL) error {
	switch {
	case u.Scheme != "amqp" && u.Scheme != "amqps":
		return fmt.Errorf("scheme %q is not amqp or amqps, as in amqp://host:5672/", u.Scheme)
	case u.Hostname() == "":
		return errors.New("no host")
	}
	query := u.Query()
	for theirs, ours := range map[string]string{"cacertfile": "ca", "certfile": "cert", "keyfile": "key"} {
		query[ours] = append(query[ours], query[theirs]...)
		query.Del(theirs)
	}
	files, err := secure.Take(query)
	switch {
	case err != nil:
		return err
	case u.Scheme == "amqp" && files.Any():
		return errors.New("ca, cert and key are for amqps")
	case u.Scheme == "amqps":
		if c.TLS, err = files.Config(c.TLS); err != nil {
			return err
		}
		if name := query.Get("server_name_indication"); name != "" {
			c.TLS.ServerName = name
		}
	}
	u.RawQuery = query.Encode()
	return nil
}

// Subscribe implements [broker.Broker]. The queues of the group are made before it returns: what is
// published from then on waits for it.
func (b *Broker) Subscribe(ctx context.Context, s broker.Subscription) (broker.Membership, error) {
	if err := b.cfg.checkSubscription(s); err != nil {
		return nil, fmt.Errorf("settlerabbit: subscribe: %w", err)
	}
	l, err := b.lines.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("settlerabbit: subscribe %s: %w", s.Group, err)
	}
	heir, fresh, err := b.enlist(ctx, l, s)
	if err != nil {
		return nil, fmt.Errorf("settlerabbit: subscribe %s: %w", s.Group, err)
	}
	if fresh {
		if err := pause(ctx, bindWait); err != nil {
			return nil, err
		}
	}
	m := newMember(b, s, heir)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("settlerabbit: subscribe %s: %w", s.Group, errClosed)
	}
	b.members[m] = struct{}{}
	m.start()
	return m, nil
}

// Close waits for publishes under way, and ends every membership and connection.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	var members []*member
	for m := range b.members {
		members = append(members, m)
	}
	b.mu.Unlock()
	for _, m := range members {
		_ = m.Close() // Without an error of its own.
	}
	b.lines.close()
	b.helpers.Wait()
	return nil
}

func (b *Broker) forget(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.members, m)
}

// pause waits, or returns the error of a context that ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// parts returns the partitions of topics, in the same order in every process.
func (c *Config) parts(topics []string) []part {
	var all []part
	for _, topic := range slices.Compact(slices.Sorted(slices.Values(topics))) {
		for i := range c.Partitions {
			all = append(all, part{topic, i})
		}
	}
	return all
}

// part is one partition of a topic.
type part struct {
	topic string
	index int
}
