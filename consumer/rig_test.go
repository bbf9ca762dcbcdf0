package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

const (
	group = "billing"
	topic = "orders"
)

var errBroken = errors.New("broken")

// rig is a store, a broker and what handlers have done for good.
type rig struct {
	t      *testing.T
	store  *memory.Store
	broker *memory.Broker
	run    txn.Runner

	mu      sync.Mutex
	effects []string // key/n, in commit order
	seq     map[string]int
	fails   map[string]error // by key/n or key
	tries   map[string]int
	gate    chan struct{} // handlers wait for it when set
	hooks   consumer.Hooks
	dups    int
	paused  int
	dead    []deadletter.Letter
	lost    int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t: t, store: memory.New(), broker: memory.NewBroker(memory.BrokerConfig{}),
		seq: map[string]int{}, fails: map[string]error{}, tries: map[string]int{},
	}
	r.run = r.store
	r.hooks = consumer.Hooks{
		Duplicate: func(event.Envelope) { r.locked(func() { r.dups++ }) },
		Paused:    func(string, error, time.Duration) { r.locked(func() { r.paused++ }) },
		Dead:      func(l deadletter.Letter) { r.locked(func() { r.dead = append(r.dead, l) }) },
		Lost:      func(event.Envelope, error) { r.locked(func() { r.lost++ }) },
	}
	return r
}

func (r *rig) locked(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

// event drafts the next event of a key, with the number n as its data.
func (r *rig) event(key string) event.Envelope {
	r.seq[key]++
	now := time.Now()
	return event.Envelope{
		ID: event.NewID(now), Type: "OrderPlaced", Version: 1, Topic: topic, AggregateType: "order", AggregateID: key,
		OccurredAt: now.UTC(), Producer: "order", CorrelationID: "c-" + key, Data: fmt.Appendf(nil, "%d", r.seq[key]),
	}
}

func (r *rig) publish(events ...event.Envelope) {
	r.t.Helper()
	for chunk := range slices.Chunk(events, broker.PublishMax) {
		messages := make([]broker.Message, len(chunk))
		for i, e := range chunk {
			messages[i].Event = e
		}
		for _, err := range r.broker.Publish(r.t.Context(), messages) {
			if err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// add publishes the next n events of each key.
func (r *rig) add(n int, keys ...string) {
	r.t.Helper()
	var events []event.Envelope
	for range n {
		for _, k := range keys {
			events = append(events, r.event(k))
		}
	}
	r.publish(events...)
}

// handle fails as asked, and has an effect that lasts only if the transaction commits.
func (r *rig) handle(_ context.Context, tx *txn.Tx, e event.Envelope) error {
	name := e.AggregateID + "/" + string(e.Data)
	r.mu.Lock()
	r.tries[name]++
	err, gate := r.fails[name], r.gate
	if err == nil {
		err = r.fails[e.AggregateID]
	}
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if errors.Is(err, errPanic) {
		panic("handler went mad")
	}
	if err != nil {
		return err
	}
	tx.AfterCommit(func() { r.locked(func() { r.effects = append(r.effects, name) }) })
	return nil
}

var errPanic = errors.New("panic please")

func (r *rig) fail(name string, err error) { r.locked(func() { r.fails[name] = err }) }
func (r *rig) mend(name string)            { r.locked(func() { delete(r.fails, name) }) }

func (r *rig) config() consumer.Config {
	return consumer.Config{
		Group: group, Topics: []string{topic}, Handlers: map[string]consumer.Handler{"OrderPlaced": r.handle},
		Logger: slog.New(slog.DiscardHandler), Hooks: r.hooks,
	}
}

// start runs a consumer; stop drains it and returns what Run returned.
func (r *rig) start(change func(*consumer.Config)) (c *consumer.Consumer, stop func() error) {
	r.t.Helper()
	cfg := r.config()
	if change != nil {
		change(&cfg)
	}
	c, err := consumer.New(r.run, r.store, r.broker, cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() { cancel(); result = <-done })
		return result
	}
	r.t.Cleanup(func() { _ = stop() })
	return c, stop
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (r *rig) tried(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries[name]
}

func (r *rig) count(n *int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *n
}

func (r *rig) deaths() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dead)
}

func (r *rig) done() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.effects)
}

// doneOf returns the effects of one key.
func (r *rig) doneOf(key string) []string {
	var own []string
	for _, e := range r.done() {
		if len(e) > len(key) && e[:len(key)+1] == key+"/" {
			own = append(own, e)
		}
	}
	return own
}

// wantDone checks that a key's events 1 to n took effect, once each and in order.
func (r *rig) wantDone(key string, n int) {
	r.t.Helper()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%s/%d", key, i+1))
	}
	if got := r.doneOf(key); !slices.Equal(got, want) {
		r.t.Errorf("effects of %s: got %v, want 1 to %d", key, got, n)
	}
}

func (r *rig) letters(q deadletter.Query) []deadletter.Letter {
	r.t.Helper()
	q.Group = group
	letters, err := r.store.Letters().Select(r.t.Context(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	return letters
}

func (r *rig) states() string {
	s := ""
	for _, l := range r.letters(deadletter.Query{}) {
		s += fmt.Sprintf("%s/%s %s %d; ", l.Event.AggregateID, l.Event.Data, l.State, l.Attempts)
	}
	return s
}

func (r *rig) wantStates(want string) {
	r.t.Helper()
	if got := r.states(); got != want {
		r.t.Errorf("letters: got %q, want %q", got, want)
	}
}

func (r *rig) queue() *deadletter.Queue {
	return deadletter.NewQueue(r.store, r.store.Letters(), group)
}

// outbox returns the events that transactions added.
func (r *rig) outbox() []event.Envelope {
	r.t.Helper()
	var events []event.Envelope
	for _, rec := range records(r.t, r.store) {
		events = append(events, rec.Event)
	}
	return events
}

// faulty is a runner that fails on demand, before or after the function has run.
type faulty struct {
	txn.Runner

	mu     sync.Mutex
	down   error
	commit func() error // asked before the commit
	runs   int
}

func (f *faulty) Run(ctx context.Context, fn func(context.Context, *txn.Tx) error) error {
	f.mu.Lock()
	down, commit := f.down, f.commit
	f.runs++
	f.mu.Unlock()
	if down != nil {
		return down
	}
	return f.Runner.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		if err := fn(ctx, tx); err != nil {
			return err
		}
		if commit != nil {
			return commit()
		}
		return nil
	})
}

func (f *faulty) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs
}

func (f *faulty) set(down error, commit func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.commit = down, commit
}
