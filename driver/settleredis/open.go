package settleredis

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/broker"
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
)

// Errors of opening.
var (
	// ErrCredentials says that the server refused who we are, or what this user may do.
	ErrCredentials = errors.New("the server refused the credentials")
	// ErrTLS says that one side does not vouch for the other, or does not speak TLS, or that a file of the URL is
	// not usable.
	ErrTLS = secure.ErrTLS
	// ErrUnsuitable says that the server, as it is set up, would lose events: change its settings.
	ErrUnsuitable = errors.New("the server cannot carry events")
)

// versionMin is the first major version with ids of the form 0-* and safe script effects.
const versionMin = 7

// Broker is a connection to Redis. It is safe for concurrent use.
type Broker struct {
	cfg     Config
	db      *redis.Client
	scripts scripts
	gate    gate
	topics  topics
	bells   bells

	mu      sync.Mutex
	closed  bool
	members map[*member]bool

	stop    context.CancelFunc
	working sync.WaitGroup
}

// Open connects to a server: url is redis://user:password@host:port/db, or rediss:// for TLS, which may end with
// ?ca=file&cert=file&key=file: the authorities to trust instead of the system's, and our own certificate. It fails
// when no server answers, credentials or certificates are wrong, or the server is one that would lose events; once
// open, it reconnects for ever.
func Open(ctx context.Context, url string, cfg Config) (*Broker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	db, err := connect(ctx, url, func(o *redis.Options) {
		o.ReadTimeout, o.WriteTimeout = cfg.Timeout, cfg.Timeout
		if cfg.Options != nil {
			cfg.Options(o)
		}
		o.Protocol, o.MaxRetries = 2, -1
	})
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, db: db, scripts: newScripts(), members: map[*member]bool{}}
	if err := b.begin(ctx); err != nil {
		_ = db.Close()
		return nil, openError(redact(url), err)
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = stop
	b.bells.start(work, b)
	b.working.Go(func() { b.bells.run(work) })
	b.working.Go(func() { b.tend(work) })
	return b, nil
}

// Connect returns a client for [NewFilter], [NewCache] and [NewHints]; Open has its own. It refuses the
// same URLs and servers that do not answer, and the caller closes it.
func Connect(ctx context.Context, url string) (*redis.Client, error) {
	return connect(ctx, url, func(*redis.Options) {})
}

func connect(ctx context.Context, url string, edit func(*redis.Options)) (*redis.Client, error) {
	db, err := newClient(url, edit)
	if err != nil {
		return nil, err
	}
	if err := db.Ping(ctx).Err(); err != nil {
		_ = db.Close()
		return nil, openError(redact(url), err)
	}
	return db, nil
}

// newClient connects when it is used.
func newClient(url string, edit func(*redis.Options)) (*redis.Client, error) {
	u, files, err := readURL(url)
	if err != nil {
		return nil, err
	}
	o, err := redis.ParseURL(u.String())
	if err != nil {
		// The error may repeat the text, which may have a password in it.
		return nil, fmt.Errorf("settleredis: open %s: not a URL such as redis://host:6379/0", redact(url))
	}
	if o.TLSConfig != nil {
		if o.TLSConfig, err = files.Config(o.TLSConfig); err != nil {
			return nil, fmt.Errorf("settleredis: open %s: %w", redact(url), err)
		}
	}
	o.ClientName = "settle"
	o.ContextTimeoutEnabled = true
	o.DialerRetries = 1
	edit(o)
	return redis.NewClient(o), nil
}

// readURL refuses what the client would take for something else, and takes the files from the URL's query, which is
// the client's otherwise.
func readURL(text string) (*url.URL, secure.Files, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, secure.Files{}, errors.New("settleredis: open: not a URL such as redis://host:6379/0")
	}
	query := u.Query()
	files, err := secure.Take(query)
	switch {
	case u.Scheme != "redis" && u.Scheme != "rediss":
		err = fmt.Errorf("scheme %q is not redis or rediss", u.Scheme)
	case u.Hostname() == "":
		err = errors.New("no host")
	case err == nil && files.Any() && u.Scheme == "redis":
		err = errors.New("ca, cert and key are for rediss")
	}
	if err != nil {
		return nil, secure.Files{}, fmt.Errorf("settleredis: open %s: %w", redact(text), err)
	}
	u.RawQuery = query.Encode()
	return u, files, nil
}

// redact returns a URL without its password, wherever it stands.
func redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(unreadable URL)"
	}
	u.RawQuery, u.Fragment = "", ""
	if u.Opaque != "" {
		return u.Scheme + ":(opaque)"
	}
	return u.Redacted()
}

func openError(where string, err error) error {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "WRONGPASS"), strings.HasPrefix(text, "NOAUTH"), strings.HasPrefix(text, "NOPERM"),
		strings.Contains(text, "without any password configured"), strings.HasPrefix(text, "ERR invalid password"):
		return fmt.Errorf("settleredis: open %s: %w: %w", where, ErrCredentials, err)
	case errors.Is(err, ErrUnsuitable), errors.Is(err, context.Canceled):
		return fmt.Errorf("settleredis: open %s: %w", where, err)
	}
	if refusal := secure.Refusal(err); refusal != nil {
		return fmt.Errorf("settleredis: open %s: %w", where, refusal)
	}
	return fmt.Errorf("settleredis: open %s: %w: %w", where, broker.ErrUnavailable, err)
}

// begin looks at the server and at the logs.
func (b *Broker) begin(ctx context.Context) error {
	info := map[string]string{}
	for _, section := range []string{"server", "memory", "persistence", "replication"} {
		text, err := b.db.Info(ctx, section).Result()
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(text, "\r\n") {
			if name, value, ok := strings.Cut(line, ":"); ok {
				info[name] = value
			}
		}
	}
	if err := suitable(info); err != nil {
		return err
	}
	if info["aof_enabled"] != "1" {
		b.cfg.Logger.Warn("broker has no append-only file: a restart loses what it took since its last snapshot, and relays publish it again")
	}
	s, err := b.look(ctx)
	if err != nil {
		return err
	}
	b.gate.open(s.epoch)
	return nil
}

func suitable(info map[string]string) error {
	major, _, _ := strings.Cut(info["redis_version"], ".")
	n, err := strconv.Atoi(major)
	switch {
	case err != nil || n < versionMin:
		return fmt.Errorf("version %q, %d or later needed: %w", info["redis_version"], versionMin, ErrUnsuitable)
	case info["redis_mode"] == "cluster":
		return fmt.Errorf("it is part of a cluster, one server or one with replicas needed: %w", ErrUnsuitable)
	case info["role"] == "slave":
		return fmt.Errorf("it is a replica, the primary needed: %w", ErrUnsuitable)
	case strings.HasPrefix(info["maxmemory_policy"], "allkeys-"):
		return fmt.Errorf("maxmemory-policy %s evicts events, noeviction needed: %w", info["maxmemory_policy"], ErrUnsuitable)
	}
	return nil
}

// Close makes every member leave its group and closes the connection. Publishes under way become
// unavailable.
func (b *Broker) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	var members []*member
	for m := range b.members {
		members = append(members, m)
	}
	b.mu.Unlock()
	var leaving sync.WaitGroup
	for _, m := range members {
		leaving.Go(func() { _ = m.Close() }) // A lease that stays behind ends by itself.
	}
	leaving.Wait()
	b.stop()
	b.bells.close()
	b.working.Wait()
	return b.db.Close()
}

// Subscribe implements [broker.Broker]. Topics that are new are created.
func (b *Broker) Subscribe(ctx context.Context, s broker.Subscription) (broker.Membership, error) {
	if err := event.CheckName(s.Group); err != nil {
		return nil, fmt.Errorf("settleredis: subscribe: group: %w", err)
	}
	for _, name := range s.Topics {
		if _, _, err := b.topic(ctx, name); err != nil {
			return nil, fmt.Errorf("settleredis: subscribe %s to %s: %w", s.Group, name, err)
		}
	}
	m := newMember(b, s.Group, s.Topics)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("settleredis: subscribe %s: %w: broker is closed", s.Group, broker.ErrUnavailable)
	}
	b.members[m] = true
	m.start()
	return m, nil
}

func (b *Broker) forget(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.members, m)
}

// unavailable makes an error of the server one that callers wait out. A context that has ended is its own.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}
