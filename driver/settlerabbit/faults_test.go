package settlerabbit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

type step struct {
	Key  string `json:"key"`
	N    int    `json:"n"`
	Fill string `json:"fill,omitempty"`
}

var stepped = event.Define("Stepped", 1, event.Spec[step]{
	Topic: "steps", Aggregate: "walk", Key: func(s step) string { return s.Key },
})

// rig is a producer with its relay and a group with its members, each on a Broker of its own.
type rig struct {
	t        *testing.T
	url      string
	cfg      Config
	from, to *memory.Store

	mu      sync.Mutex
	effects map[string][]int // by key: what was committed, in order
}

func newRig(t *testing.T, url string) *rig {
	t.Helper()
	cfg := config(t)
	cfg.Groups = []broker.Subscription{{Group: "walkers", Topics: []string{"steps"}}}
	r := &rig{t: t, url: url, cfg: cfg, from: memory.New(), to: memory.New(), effects: map[string][]int{}}
	t.Cleanup(func() { removeQueues(t, url, cfg, cfg.Groups...) })
	return r
}

func (r *rig) run(name string, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("%s: %v", name, err)
			}
		})
	}
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) relay() {
	r.t.Helper()
	engine, err := relay.New(r.from.Outbox(), openAt(r.t, r.url, r.cfg), relay.Config{
		Logger: quiet(), RetryMin: 20 * time.Millisecond, RetryMax: 200 * time.Millisecond, BatchMax: 50,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.run("relay", engine.Run)
}

func (r *rig) member() (stop func()) {
	r.t.Helper()
	return r.consume("member", openAt(r.t, r.url, r.cfg), nil)
}

func (r *rig) consume(name string, b broker.Broker, dropped func(string, error)) (stop func()) {
	r.t.Helper()
	engine, err := consumer.New(r.to, r.to, b, consumer.Config{
		Group: "walkers", Topics: []string{"steps"}, Logger: quiet(), Hooks: consumer.Hooks{Dropped: dropped},
		Handlers: map[string]consumer.Handler{"Stepped": func(_ context.Context, tx *txn.Tx, e event.Envelope) error {
			of, err := stepped.Decode(e)
			if err != nil {
				return err
			}
			tx.AfterCommit(func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.effects[of.Data.Key] = append(r.effects[of.Data.Key], of.Data.N)
			})
			return nil
		}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.run(name, engine.Run)
}

// add commits events from to to of each key.
func (r *rig) add(keys, from, to int) {
	r.t.Helper()
	for n := from; n <= to; n++ {
		err := r.from.Run(r.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			tx.Bind("walker", nil)
			for k := range keys {
				if err := outbox.Add(ctx, tx, stepped.New(step{fmt.Sprint("k", k), n, ""})); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			r.t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // The server's own time passes.
	}
}

// expect waits until each key had exactly its effects, in order.
func (r *rig) expect(keys, n int) {
	r.t.Helper()
	count := func() (sum int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, all := range r.effects {
			sum += len(all)
		}
		return sum
	}
	for deadline := time.Now().Add(90 * time.Second); count() < keys*n && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range keys {
		got := r.effects[fmt.Sprint("k", k)]
		if len(got) != n {
			r.t.Errorf("k%d: %d effects, want %d", k, len(got), n)
		}
		for i := range got {
			if got[i] != i+1 {
				r.t.Errorf("k%d: effect %d is number %d", k, i+1, got[i])
				break
			}
		}
	}
}

// TestServerKilled kills the server twice under a relay and a group: nothing is lost, nothing happens twice.
func TestServerKilled(t *testing.T) {
	srv := server.Start(t, server.Rabbit, server.Options{})
	r := newRig(t, srv.URL())
	r.member()
	r.relay()
	r.add(4, 1, 40)
	r.expect(4, 40)
	for i := range 2 {
		time.Sleep(3 * time.Second) // A quorum queue that is killed right after it was declared is lost (RabbitMQ 3.10).
		srv.Kill()
		r.add(4, 41+30*i, 70+30*i) // Nobody takes them yet.
		srv.Restart()
	}
	r.expect(4, 100)
	letters, err := r.to.Letters().Lanes(t.Context(), "walkers")
	if err != nil || len(letters) != 0 {
		t.Errorf("an outage parked %d keys, %v", len(letters), err)
	}
}

// TestMembersComeAndGo changes the members of a group under load.
func TestMembersComeAndGo(t *testing.T) {
	r := newRig(t, server.Shared(t, server.Rabbit))
	first := r.member()
	r.relay()
	r.add(4, 1, 30)
	second := r.member()
	r.add(4, 31, 60)
	first()
	r.add(4, 61, 90)
	r.member()
	second()
	r.add(4, 91, 120)
	r.expect(4, 120)
}

// pausing holds back what was fetched until it may go on, as a pause of the process does.
type pausing struct {
	*Broker

	fetched chan<- *partition
	goOn    <-chan struct{}
}

type pausingMember struct {
	broker.Membership

	of pausing
}

type pausingPartition struct {
	*partition

	of pausing
}

func (b pausing) Subscribe(ctx context.Context, s broker.Subscription) (broker.Membership, error) {
	m, err := b.Broker.Subscribe(ctx, s)
	return pausingMember{m, b}, err
}

func (m pausingMember) Next(ctx context.Context) (broker.Partition, error) {
	p, err := m.Membership.Next(ctx)
	if err != nil {
		return nil, err
	}
	real, ok := p.(*partition)
	if !ok {
		return nil, fmt.Errorf("partition is a %T", p)
	}
	return pausingPartition{real, m.of}, nil
}

func (p pausingPartition) Fetch(ctx context.Context, limit int) ([]broker.Message, error) {
	messages, err := p.partition.Fetch(ctx, limit)
	if len(messages) > 0 {
		p.of.fetched <- p.partition
		<-p.of.goOn
	}
	return messages, err
}

// Revoked is never closed: who sleeps hears nothing.
func (p pausingPartition) Revoked() <-chan struct{} { return nil }

// TestPausedOwner lets an owner sleep with messages in hand until another one has handled them: what it does
// when it wakes up, the database refuses.
func TestPausedOwner(t *testing.T) {
	r := newRig(t, shared(t))
	r.cfg.Partitions = 1
	fetched, goOn := make(chan *partition, 10), make(chan struct{})
	paused := openAt(t, r.url, r.cfg)
	dropped := make(chan error, 10)
	r.consume("paused member", pausing{paused, fetched, goOn}, func(_ string, err error) { dropped <- err })
	r.relay()
	r.add(1, 1, 5)
	old := <-fetched
	r.member()
	paused.mu.Lock()
	paused.url = "amqp://127.0.0.1:1/" // So that it does not come back as a member of its own.
	paused.mu.Unlock()
	old.claim.link.kill()
	r.expect(1, 5)
	close(goOn)
	if err := <-dropped; !errors.Is(err, consumer.ErrFenced) {
		t.Errorf("the paused owner ended with %v, want ErrFenced", err)
	}
	r.add(1, 6, 10)
	r.expect(1, 10)
}

// TestTooLargeParksItsKeyOnly sends one message that the broker does not take.
func TestTooLargeParksItsKeyOnly(t *testing.T) {
	r := newRig(t, server.Shared(t, server.Rabbit))
	r.cfg.BytesMax = 64 << 10
	r.member()
	r.relay()
	r.add(2, 1, 3)
	err := r.from.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("walker", nil)
		return outbox.Add(ctx, tx, stepped.New(step{"large", 1, strings.Repeat("x", 100<<10)}), stepped.New(step{"large", 2, ""}))
	})
	if err != nil {
		t.Fatal(err)
	}
	r.add(2, 4, 6)
	r.expect(2, 6)
	lot, ok := r.from.Outbox().(relay.Parking)
	if !ok {
		t.Fatal("the outbox parks nothing")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		parked, err := lot.Parked(t.Context(), relay.ParkedQuery{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		if len(parked) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events are parked, want the large one and its follower", len(parked))
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	url := server.Shared(t, server.Rabbit)
	wrong := strings.Replace(url, "guest:guest@", "guest:hidden-word@", 1)
	for name, c := range map[string]struct {
		url  string
		want error
	}{
		"a wrong password":     {wrong, ErrCredentials},
		"an unknown host":      {strings.TrimSuffix(url, "/") + "/nowhere", ErrVhost},
		"nobody there":         {"amqp://guest:hidden-word@127.0.0.1:1/", broker.ErrUnavailable},
		"another scheme":       {"http://127.0.0.1/", nil},
		"what is no URL":       {"::hidden-word", nil},
		"a URL without a host": {"amqp://", nil},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		b, err := Open(ctx, c.url, Config{Logger: quiet()})
		cancel()
		switch {
		case err == nil:
			_ = b.Close()
			t.Errorf("%s was taken", name)
		case c.want != nil && !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", name, err, c.want)
		case strings.Contains(err.Error(), "hidden-word"):
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
}
