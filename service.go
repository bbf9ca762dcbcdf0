package settle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/call"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// ErrDrain says that a service stopped before its work in flight was done.
var ErrDrain = errors.New("drain timed out")

// Store is a service's database. What else it must be able to do follows from what the service uses:
// a relay needs a relay.Provider, a consumer inbox, consumer and deadletter Providers, timers and calls
// theirs. Stores of packages memory and sqlstore are all of them.
type Store interface {
	txn.Runner
}

// Config is what a service may decide. The zero Config is ready for production.
type Config struct {
	// Known names every event type of the system. An event of another type is parked instead of
	// ignored. Default: every type is known.
	Known []string
	// Consumer is the template of every group's consumer: Group, Topics, Handlers and Known are set by
	// the service.
	Consumer consumer.Config
	// Relay configures the relay; unused when the broker follows outboxes itself.
	Relay relay.Config
	// Timer and Call configure the engines of timers and calls.
	Timer timer.Config
	Call  call.Config
	// AnswerRetention is how long the answers of keyed commands are kept: a key that comes again later runs
	// its command again. Default 24h.
	AnswerRetention time.Duration
	// Logger receives everything that the service's engines log. Default slog.Default().
	Logger *slog.Logger
	// DrainTimeout bounds the end of work in flight after Run's context is done. Default 30s.
	DrainTimeout time.Duration
}

// Service is one store, one broker and its handlers. Register handlers first, then call Run once.
type Service struct {
	name      string
	store     Store
	broker    broker.Broker
	cfg       Config
	listeners txn.Listeners
	groups    map[string]*Group
	calls     []call.Definition
	err       error

	mu        sync.Mutex
	consumers map[string]*consumer.Consumer
	relay     *relay.Relay
}

// NewService returns a service. Its name is the producer of its events, and the group of its handlers.
// A name or a configuration that is not usable is reported by Run.
func NewService(name string, store Store, b broker.Broker, cfg Config) *Service {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Logger = cfg.Logger.With("service", name)
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 30 * time.Second
	}
	if cfg.AnswerRetention == 0 {
		cfg.AnswerRetention = 24 * time.Hour
	}
	s := &Service{
		name: name, store: store, broker: b, cfg: cfg,
		groups: map[string]*Group{}, consumers: map[string]*consumer.Consumer{},
	}
	s.listeners.Logger = cfg.Logger
	if cfg.AnswerRetention < 0 {
		s.err = fmt.Errorf("settle: service %s: answer retention %s is negative", name, cfg.AnswerRetention)
	}
	if err := event.CheckName(name); err != nil {
		s.err = fmt.Errorf("settle: service: %w", err)
	}
	return s
}

// Name returns the service's name.
func (s *Service) Name() string { return s.name }

// Do runs one business transaction as the service: see [txn.Runner]. Use it for commands.
func (s *Service) Do(ctx context.Context, fn func(ctx context.Context, tx *txn.Tx) error) error {
	return s.store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind(s.name, &s.listeners)
		return fn(ctx, tx)
	})
}

// Runner returns the service as a runner of transactions.
func (s *Service) Runner() txn.Runner { return runner{s} }

type runner struct{ *Service }

func (r runner) Run(ctx context.Context, fn func(context.Context, *txn.Tx) error) error {
	return r.Do(ctx, fn)
}

// Subscriber is where a handler can be registered: a [Service], or one of its [Group]s.
type Subscriber interface {
	group() *Group
}

// Group is a further consumer group of a service: it sees every event on its own, and its failures
// are its own.
type Group struct {
	service  *Service
	name     string
	topics   map[string]bool
	handlers map[string]consumer.Handler
}

func (s *Service) group() *Group { return s.Group(s.name) }
func (g *Group) group() *Group   { return g }

// Group returns the group of a name, which is unique among all services of a broker.
func (s *Service) Group(name string) *Group {
	g := s.groups[name]
	if g == nil {
		if err := event.CheckName(name); err != nil {
			s.fail(fmt.Errorf("settle: group: %w", err))
		}
		g = &Group{service: s, name: name, topics: map[string]bool{}, handlers: map[string]consumer.Handler{}}
		s.groups[name] = g
	}
	return g
}

func (s *Service) fail(err error) { s.err = errors.Join(s.err, err) }

// On registers the handler of an event type: one for each type and group. It runs in one transaction
// with the memory that the event was handled. Its error is its outcome: see package retry. Register
// every handler before Run.
func On[T any](to Subscriber, t event.Type[T], h func(ctx context.Context, tx *txn.Tx, e event.Of[T]) error) {
	OnEnvelope(to, t.Topic(), t.Name(), func(ctx context.Context, tx *txn.Tx, e event.Envelope) error {
		of, err := t.Decode(e)
		if err != nil {
			return retry.Permanent(err) // The same bytes never decode: park, nothing is lost.
		}
		return h(ctx, tx, of)
	})
}

// OnEnvelope registers a handler of an event type by name, for those who need no data: feeds, archives,
// bridges. Apart from that it is like [On].
func OnEnvelope(to Subscriber, topic, eventType string, h consumer.Handler) {
	g := to.group()
	if g.handlers[eventType] != nil {
		g.service.fail(fmt.Errorf("settle: %s has two handlers in group %s", eventType, g.name))
	}
	g.topics[topic] = true
	g.handlers[eventType] = h
}

// Within registers a handler that runs inside the service's own transaction that adds the event.
func Within[T any](s *Service, t event.Type[T], h func(ctx context.Context, tx *txn.Tx, e event.Of[T]) error) {
	txn.Within(&s.listeners, t, h)
}

// After registers a handler that runs in this process after the commit that added the event. It can
// hurt nothing, and it misses events when the process dies.
func After[T any](s *Service, name string, t event.Type[T], h func(ctx context.Context, e event.Of[T]) error) {
	txn.After(&s.listeners, name, t, h)
}

// Perform makes the service perform the prepared calls of a definition.
func Perform[Req, Resp any](s *Service, d *call.Def[Req, Resp]) { s.calls = append(s.calls, d) }

// Run starts all that the service needs (relay, consumers, timers, calls) and serves until ctx is done
// and the work in flight has ended, then returns nil. When an engine fails, the others are drained and
// its error is returned. ErrDrain says that draining took too long. Call it once.
func (s *Service) Run(ctx context.Context) error {
	engines, err := s.engines()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	errs := make([]error, len(engines))
	for i, e := range engines {
		wg.Go(func() {
			if errs[i] = e.run(ctx); errs[i] != nil {
				errs[i] = fmt.Errorf("settle: %s: %s: %w", s.name, e.name, errs[i])
				cancel(errs[i]) // The others drain: half a service is worse than none.
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return errors.Join(errs...)
	case <-ctx.Done():
	}
	limit := time.NewTimer(s.cfg.DrainTimeout)
	defer limit.Stop()
	select {
	case <-done:
		return errors.Join(errs...)
	case <-limit.C:
		return fmt.Errorf("settle: %s: %s: %w", s.name, s.cfg.DrainTimeout, ErrDrain)
	}
}

type engine struct {
	name string
	run  func(context.Context) error
}

func (s *Service) engines() ([]engine, error) {
	if s.err != nil {
		return nil, s.err
	}
	engines := []engine{{"listeners", s.listeners.Run}}
	if p, ok := s.store.(idempotency.Provider); ok {
		engines = append(engines, engine{"answers", func(ctx context.Context) error {
			return s.forgetAnswers(ctx, p.Answers())
		}})
	}
	add := func(name string, e interface{ Run(context.Context) error }, err error) error {
		if err != nil {
			return fmt.Errorf("settle: %s: %s: %w", s.name, name, err)
		}
		engines = append(engines, engine{name, e.Run})
		return nil
	}
	if err := s.addRelay(add); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.groups)) {
		c, err := s.newConsumer(s.groups[name])
		if err := add("group "+name, c, err); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.consumers[name] = c
		s.mu.Unlock()
	}
	if p, ok := s.store.(timer.Provider); ok {
		cfg := s.cfg.Timer
		cfg.Logger = s.cfg.Logger
		e, err := timer.NewEngine(s.Runner(), p.Timers(), cfg)
		if err := add("timers", e, err); err != nil {
			return nil, err
		}
	}
	for _, d := range s.calls {
		p, ok := s.store.(call.Provider)
		if !ok {
			return nil, fmt.Errorf("settle: %s: call %s: store %T keeps none: %w", s.name, d.Name(), s.store, errors.ErrUnsupported)
		}
		cfg := s.cfg.Call
		cfg.Logger = s.cfg.Logger
		w, err := call.NewWorker(s.Runner(), p.Calls(), d, cfg)
		if err := add("call "+d.Name(), w, err); err != nil {
			return nil, err
		}
	}
	return engines, nil
}

// forgetEvery is the pause between purges of answers, forgetMax the answers of one purge's transaction.
const (
	forgetEvery = time.Minute
	forgetMax   = 1000
)

// forgetAnswers deletes answers past their retention, in bounded slices, until ctx is done.
func (s *Service) forgetAnswers(ctx context.Context, answers idempotency.Store) error {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		for n := forgetMax; n == forgetMax && ctx.Err() == nil; {
			var err error
			if n, err = answers.Forget(ctx, time.Now().Add(-s.cfg.AnswerRetention), forgetMax); err != nil {
				if ctx.Err() == nil {
					s.cfg.Logger.Warn("answers cannot be purged", "err", err)
				}
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) addRelay(add func(string, interface{ Run(context.Context) error }, error) error) error {
	pub, ok := s.broker.(broker.Publisher)
	if !ok {
		return nil // The broker follows outboxes itself: nothing to carry.
	}
	p, ok := s.store.(relay.Provider)
	if !ok {
		return fmt.Errorf("settle: %s: store %T has no outbox: %w", s.name, s.store, errors.ErrUnsupported)
	}
	cfg := s.cfg.Relay
	cfg.Logger = s.cfg.Logger
	r, err := relay.New(p.Outbox(), pub, cfg)
	s.mu.Lock()
	s.relay = r
	s.mu.Unlock()
	return add("relay", r, err)
}

func (s *Service) newConsumer(g *Group) (*consumer.Consumer, error) {
	cfg := s.cfg.Consumer
	cfg.Group, cfg.Handlers, cfg.Known = g.name, g.handlers, s.cfg.Known
	cfg.Topics = slices.Sorted(maps.Keys(g.topics))
	cfg.Logger = s.cfg.Logger
	return consumer.New(s.Runner(), s.store, s.broker, cfg)
}
