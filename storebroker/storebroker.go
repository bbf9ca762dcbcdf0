package storebroker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

// Compile-time proof of what a Broker is.
var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.Seeker  = (*partition)(nil)
	_ broker.Laggard = (*partition)(nil)
	_ broker.Standby = (*membership)(nil)
)

// prefix begins the name of each partition, so that its positions never meet those of a real broker.
const prefix = "store:"

// Config is how a [Broker] behaves. The zero Config is ready to use.
type Config struct {
	// Wait is how long a Fetch waits for the doorbell when there is nothing; it is also how late an
	// event of another process is seen, whose ring does not arrive. Default 250ms.
	Wait time.Duration
	// SettleEvery is how often Run tells the outboxes what every group has settled. Default 1s.
	SettleEvery time.Duration
	// SettleLease is how long the right to do so outlives its owner; it must exceed SettleEvery
	// threefold. Default 15s.
	SettleLease time.Duration
	// Own are the producers whose outboxes Run keeps; the others' processes keep theirs. Default all.
	Own []string
	// Shared says that other processes follow the outboxes too: what is settled there is not known here, and
	// a follower that is away for longer than Retention loses events (and is told so).
	Shared bool
	// Retention is how long Run lets an outbox keep settled events. Default 24h.
	Retention time.Duration
	// Leases divide the partitions of a group among processes, see [assign.Share]: leases of the group's own
	// database. Default: this process is the only one.
	Leases lock.Leases
	// LeaseTTL is how long a partition rests after its holder crashed. Default 15s.
	LeaseTTL time.Duration
	// Logger receives failures of leases. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults(producers map[string]relay.Source) (Config, error) {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
		name  string
	}{
		{&c.Wait, 250 * time.Millisecond, "wait"},
		{&c.SettleEvery, time.Second, "settle every"},
		{&c.SettleLease, 15 * time.Second, "settle lease"},
		{&c.Retention, 24 * time.Hour, "retention"},
		{&c.LeaseTTL, 15 * time.Second, "lease"},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return c, fmt.Errorf("storebroker: %s %s is negative", d.name, *d.field)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if len(producers) == 0 {
		return c, errors.New("storebroker: no producer to follow")
	}
	if c.SettleLease < 3*c.SettleEvery {
		return c, fmt.Errorf("storebroker: settle lease %s must exceed settle every %s threefold", c.SettleLease, c.SettleEvery)
	}
	if len(c.Own) == 0 {
		c.Own = slices.Sorted(maps.Keys(producers))
	}
	for _, name := range c.Own {
		if producers[name] == nil {
			return c, fmt.Errorf("storebroker: own producer %s has no outbox", name)
		}
	}
	return c, nil
}

// Broker follows outboxes. See the package's comment.
type Broker struct {
	cfg     Config
	sources map[string]relay.Source // by producer; never changes
	table   assign.Table

	mu        sync.Mutex
	closed    bool
	followers map[followerID]*follower
}

type followerID struct{ producer, group string }

// follower is how far one group has come with one producer. The broker's mu guards it.
type follower struct {
	acked    outbox.Position
	returned outbox.Position // the last one given to the consumer
	scanned  outbox.Position // everything up to it was given or is of other topics
}

// settled is how far the group needs nothing any more.
func (f *follower) settled() outbox.Position {
	if f.acked.Compare(f.returned) >= 0 {
		return f.scanned
	}
	return f.acked
}

// New returns a broker over the outboxes of producers, by their names. Sources that are a
// [relay.Bell] ring when there is something new; others are polled.
func New(producers map[string]relay.Source, cfg Config) (*Broker, error) {
	cfg, err := cfg.withDefaults(producers)
	if err != nil {
		return nil, err
	}
	for name, source := range producers {
		if err := event.CheckName(name); err != nil {
			return nil, fmt.Errorf("storebroker: producer: %w", err)
		}
		if source == nil {
			return nil, fmt.Errorf("storebroker: producer %s has no outbox", name)
		}
	}
	return &Broker{cfg: cfg, sources: maps.Clone(producers), followers: map[followerID]*follower{}}, nil
}

// Subscribe implements [broker.Broker]. Topics need not exist: any event may carry any.
func (b *Broker) Subscribe(_ context.Context, s broker.Subscription) (broker.Membership, error) {
	topics := map[string]bool{}
	for _, name := range append([]string{s.Group}, s.Topics...) {
		if err := event.CheckName(name); err != nil {
			return nil, fmt.Errorf("storebroker: subscribe %s: %w", s.Group, err)
		}
	}
	for _, topic := range s.Topics {
		topics[topic] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("storebroker: subscribe %s: %w: broker is closed", s.Group, broker.ErrUnavailable)
	}
	var names []string
	for producer := range b.sources {
		names = append(names, prefix+producer)
		if id := (followerID{producer, s.Group}); b.followers[id] == nil {
			b.followers[id] = &follower{}
		}
	}
	m := &membership{broker: b, group: s.Group, topics: topics, member: b.table.Join(s.Group, names)}
	if b.cfg.Leases != nil {
		m.share = assign.NewShare(m.member, assign.ShareConfig{Leases: b.cfg.Leases, Group: s.Group, TTL: b.cfg.LeaseTTL, Logger: b.cfg.Logger})
	}
	return m, nil
}

// Close ends every membership. The outboxes stay open: they are their stores'.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.table.Close()
	return nil
}

// Settled returns up to where every group of this process has settled a producer's events: the
// slowest follower's position. ok is false when no group follows it.
func (b *Broker) Settled(producer string) (slowest outbox.Position, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, f := range b.followers {
		if id.producer != producer {
			continue
		}
		if at := f.settled(); !ok || at.Compare(slowest) < 0 {
			slowest, ok = at, true
		}
	}
	return slowest, ok
}

// Producers returns the names of the producers that are followed, sorted.
func (b *Broker) Producers() []string { return slices.Sorted(maps.Keys(b.sources)) }

type membership struct {
	broker *Broker
	group  string
	topics map[string]bool
	member *assign.Member

	share *assign.Share // with other processes; nil without leases
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
		return fmt.Errorf("storebroker: group %s: %w", m.group, err)
	}
	return err
}

// partition begins a partition that this process may read.
func (m *membership) partition(name string, claim claim) *partition {
	producer := strings.TrimPrefix(name, prefix)
	m.broker.mu.Lock()
	defer m.broker.mu.Unlock()
	f := m.broker.followers[followerID{producer, m.group}]
	p := &partition{
		broker: m.broker, producer: producer, source: m.broker.sources[producer],
		topics: m.topics, name: name, claim: claim, follower: f,
	}
	// Whoever had it before may have fetched what it did not settle.
	p.next = f.acked
	if f.settled() == f.scanned {
		p.next = f.scanned
	}
	return p
}

func (m *membership) Close() error {
	m.member.Close()
	if m.share != nil {
		m.share.Close()
	}
	return nil
}

// encode puts an outbox's position into a broker's without loss. A source with ticks changes the
// incarnation with each tick; only this package reads it, and compares positions as the outbox does.
func encode(p outbox.Position) broker.Position {
	incarnation := strconv.FormatInt(p.Epoch, 10)
	if p.Tick != 0 {
		incarnation += "." + strconv.FormatInt(p.Tick, 10)
	}
	return broker.Position{Incarnation: incarnation, Offset: uint64(p.ID)}
}

// decode is the inverse of encode.
func decode(p broker.Position) (outbox.Position, error) {
	if p == (broker.Position{}) {
		return outbox.Position{}, nil
	}
	at := outbox.Position{ID: int64(p.Offset)}
	epoch, tick, ticks := strings.Cut(p.Incarnation, ".")
	var err error
	if at.Epoch, err = strconv.ParseInt(epoch, 10, 64); err == nil && ticks {
		at.Tick, err = strconv.ParseInt(tick, 10, 64)
	}
	if err != nil || at.ID < 0 {
		return outbox.Position{}, fmt.Errorf("position %s is not of an outbox", p)
	}
	return at, nil
}
