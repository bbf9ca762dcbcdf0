package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
)

// fakeSource is an outbox in RAM with every optional ability. fail, when set, is asked before each call.
type fakeSource struct {
	mu       sync.Mutex
	records  []outbox.Record
	last     int64
	purged   int64 // the highest id purged
	position outbox.Position
	owner    string
	fence    int64
	expires  time.Time
	parked   map[outbox.Position]*Parked
	marks    []Mark
	bells    map[chan struct{}]bool
	calls    map[string]int
	advances []outbox.Position
	fail     func(ctx context.Context, call, owner string) error
}

func newSource() *fakeSource {
	return &fakeSource{parked: map[outbox.Position]*Parked{}, bells: map[chan struct{}]bool{}, calls: map[string]int{}}
}

func (s *fakeSource) add(topic, key string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.last++
		s.records = append(s.records, outbox.Record{
			Position: outbox.Position{ID: s.last}, CreatedAt: time.Now(),
			Event: event.Envelope{
				ID: event.NewID(time.Now()), Type: "T", Version: 1, Topic: topic, AggregateType: "a", AggregateID: key,
				OccurredAt: time.Now(), Producer: "p", Data: []byte("{}"),
			},
		})
	}
	for b := range s.bells {
		select {
		case b <- struct{}{}:
		default:
		}
	}
}

// enter counts a call and takes the lock; the caller leaves.
func (s *fakeSource) enter(ctx context.Context, call, owner string) error {
	s.mu.Lock()
	s.calls[call]++
	fail := s.fail
	s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if fail != nil {
		if err := fail(ctx, call, owner); err != nil {
			return err
		}
	}
	s.mu.Lock()
	return nil
}

func (s *fakeSource) guarded(ctx context.Context, call string, lease Lease) error {
	if err := s.enter(ctx, call, lease.Owner); err != nil {
		return err
	}
	if lease.Fence != s.fence {
		s.mu.Unlock()
		return fmt.Errorf("fake: %s: %w", call, ErrFenced)
	}
	return nil
}

func (s *fakeSource) Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (Lease, error) {
	if err := s.enter(ctx, "claim", owner); err != nil {
		return Lease{}, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	if s.owner != owner {
		if s.owner != "" && now.Before(s.expires) {
			return Lease{}, ErrHeld
		}
		s.owner = owner
		s.fence++
	}
	s.expires = now.Add(ttl)
	return Lease{Shard: shard, Owner: owner, Fence: s.fence, Expires: s.expires, Position: s.position}, nil
}

// crash makes the owner a stranger, as if its process had died and its lease had run out.
func (s *fakeSource) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owner = ""
	s.fence++
}

func (s *fakeSource) Next(ctx context.Context, lease Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	if err := s.guarded(ctx, "next", lease); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.records, after.ID+1, func(r outbox.Record, id int64) int { return cmp.Compare(r.Position.ID, id) })
	return slices.Clone(s.records[i:min(i+limit, len(s.records))]), nil
}

func (s *fakeSource) Advance(ctx context.Context, lease Lease, to outbox.Position) error {
	if err := s.guarded(ctx, "advance", lease); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if to.Compare(s.position) < 0 {
		return fmt.Errorf("fake: advance from %s back to %s", s.position, to)
	}
	s.position = to
	s.advances = append(s.advances, to)
	return nil
}

func (s *fakeSource) Rewind(ctx context.Context, lease Lease, to outbox.Position) error {
	if err := s.guarded(ctx, "rewind", lease); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if to.ID < s.purged {
		return ErrRetention
	}
	s.position = to
	return nil
}

func (s *fakeSource) Release(ctx context.Context, lease Lease) error {
	if err := s.guarded(ctx, "release", lease); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.owner = ""
	return nil
}

func (s *fakeSource) Park(ctx context.Context, lease Lease, cause string, records ...outbox.Record) error {
	if err := s.guarded(ctx, "park", lease); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, r := range records {
		if p := s.parked[r.Position]; p != nil {
			p.Cause = cause
			s.setReplay(r.Event.Topic, r.Event.AggregateID, false)
			continue
		}
		s.parked[r.Position] = &Parked{Record: r, Cause: cause, ParkedAt: time.Now()}
	}
	return nil
}

func (s *fakeSource) setReplay(topic, key string, on bool) (n int) {
	for _, p := range s.parked {
		if p.Record.Event.Topic == topic && (key == "" || p.Record.Event.AggregateID == key) {
			p.Replay = on
			n++
		}
	}
	return n
}

func (s *fakeSource) Parked(ctx context.Context, q ParkedQuery) ([]Parked, error) {
	if err := s.enter(ctx, "parked", ""); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var out []Parked
	for _, p := range s.parked {
		e := p.Record.Event
		if (q.Topic == "" || q.Topic == e.Topic) && (q.Key == "" || q.Key == e.AggregateID) &&
			(!q.ReplayOnly || p.Replay) && p.Record.Position.Compare(q.After) > 0 {
			out = append(out, *p)
		}
	}
	slices.SortFunc(out, func(a, b Parked) int { return a.Record.Position.Compare(b.Record.Position) })
	return out[:min(len(out), q.Limit)], nil
}

func (s *fakeSource) Unpark(ctx context.Context, lease Lease, records ...outbox.Record) error {
	if err := s.guarded(ctx, "unpark", lease); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, r := range records {
		delete(s.parked, r.Position)
	}
	return nil
}

func (s *fakeSource) Replay(_ context.Context, topic, key string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setReplay(topic, key, true), nil
}

func (s *fakeSource) Listen() (<-chan struct{}, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := make(chan struct{}, 1)
	s.bells[b] = true
	return b, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.bells, b)
	}
}

func (s *fakeSource) AddMark(ctx context.Context, lease Lease, m Mark) error {
	if err := s.guarded(ctx, "mark", lease); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.marks = append([]Mark{m}, s.marks...)
	return nil
}

func (s *fakeSource) Marks(ctx context.Context, _ int) ([]Mark, error) {
	if err := s.enter(ctx, "marks", ""); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return slices.Clone(s.marks), nil
}

func (s *fakeSource) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := s.enter(ctx, "purge", ""); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	n := 0
	for n < limit && n < len(s.records) && s.records[n].CreatedAt.Before(before) && s.records[n].Position.Compare(s.position) <= 0 {
		s.purged = s.records[n].Position.ID
		n++
	}
	s.records = s.records[n:]
	return n, nil
}

func (s *fakeSource) count(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[call]
}

func (s *fakeSource) state() (pos outbox.Position, last int64, parked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position, s.last, len(s.parked)
}

// bareSource hides every optional ability.
type bareSource struct{ Source }

var errDown = fmt.Errorf("fake: %w", broker.ErrUnavailable)

// fakeSink is a publisher that remembers what it stored, in order. answer, when set, decides about a
// message: whether it is stored, and the result.
type fakeSink struct {
	t        *testing.T
	mu       sync.Mutex
	stored   []broker.Message
	calls    int
	attempts int
	active   map[route]bool
	latency  time.Duration
	answer   func(m broker.Message) (store bool, err error)
	ordered  bool
}

func newSink(t *testing.T) *fakeSink {
	t.Helper()
	return &fakeSink{t: t, active: map[route]bool{}}
}

func (f *fakeSink) Ordered() bool { return f.ordered }

func (f *fakeSink) Publish(ctx context.Context, messages []broker.Message) []error {
	f.begin(messages)
	defer f.finish(messages)
	if f.latency > 0 && !wait(ctx, f.latency) {
		return repeat(fmt.Errorf("fake: %w: %w", broker.ErrUnavailable, context.Cause(ctx)), len(messages))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]error, len(messages))
	broken := map[route]bool{}
	for i, m := range messages {
		f.attempts++
		key := route{m.Event.Topic, m.Event.AggregateID}
		if f.ordered && broken[key] {
			out[i] = errDown // What follows a failed message is not stored: that is what Ordered says.
			continue
		}
		store := true
		if f.answer != nil {
			store, out[i] = f.answer(m)
		}
		broken[key] = out[i] != nil
		if store {
			f.stored = append(f.stored, m)
		}
	}
	return out
}

func (f *fakeSink) begin(messages []broker.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	seen := map[route]bool{}
	for _, m := range messages {
		key := route{m.Event.Topic, m.Event.AggregateID}
		if f.active[key] || seen[key] && !f.ordered {
			f.t.Errorf("two messages of %v are unacknowledged at once", key)
		}
		seen[key] = true
	}
	for key := range seen {
		f.active[key] = true
	}
}

func (f *fakeSink) finish(messages []broker.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range messages {
		delete(f.active, route{m.Event.Topic, m.Event.AggregateID})
	}
}

// first returns the positions in the order in which they were stored for the first time, for each route.
func (f *fakeSink) first() map[route][]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return firstDeliveries(f.stored)
}

func firstDeliveries(stored []broker.Message) map[route][]int64 {
	seen := map[event.ID]bool{}
	out := map[route][]int64{}
	for _, m := range stored {
		if seen[m.Event.ID] {
			continue
		}
		seen[m.Event.ID] = true
		p, err := outbox.ParsePosition(m.Origin)
		if err != nil {
			panic(err)
		}
		key := route{m.Event.Topic, m.Event.AggregateID}
		out[key] = append(out[key], p.ID)
	}
	return out
}

// checkComplete asserts that everything of the source was stored, each key in order.
func checkComplete(t *testing.T, s *fakeSource, first map[route][]int64) {
	t.Helper()
	want := map[route][]int64{}
	for _, r := range s.records {
		key := route{r.Event.Topic, r.Event.AggregateID}
		want[key] = append(want[key], r.Position.ID)
	}
	for key, ids := range want {
		got := first[key]
		for i, id := range ids {
			if i >= len(got) || got[i] != id {
				t.Errorf("%v: %d of %d in order; event %d is not next, but %v", key, i, len(ids), id, got[i:min(i+5, len(got))])
				break
			}
		}
		if len(got) > len(ids) {
			t.Errorf("%v: %d stored, %d written", key, len(got), len(ids))
		}
	}
}

// pass lets virtual time pass, and then everything that it woke come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// start runs a relay until stop is called, which returns what Run did.
func start(t *testing.T, src Source, pub broker.Publisher, cfg Config) (stop func() error) {
	t.Helper()
	r, err := New(src, pub, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var once sync.Once
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var result error
	stop = func() error {
		once.Do(func() {
			cancel()
			result = <-done
		})
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// lostSink is a publisher that acknowledges before its disk does.
type lostSink struct {
	fakeSink
	incarnation int
	lives       []map[string]uint64
	life        string
	opened      map[string]uint64
	down        bool
}

func (l *lostSink) offsets() map[string]uint64 {
	return map[string]uint64{"log": uint64(len(l.stored))}
}

func (l *lostSink) name() string { return fmt.Sprintf("i%d", l.incarnation) }

func (l *lostSink) Tail(ctx context.Context) (broker.Tail, error) {
	if !wait(ctx, l.latency) {
		return broker.Tail{}, errDown
	}
	l.mu.Lock()
	t, down := broker.Tail{Incarnation: l.name(), Offsets: l.offsets(), Life: l.life, Opened: l.opened}, l.down
	l.mu.Unlock()
	if down || !wait(ctx, l.latency) {
		return broker.Tail{}, errDown
	}
	return t, nil
}

func (l *lostSink) Incarnate(_ context.Context, lost broker.Tail) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return errDown
	}
	if lost.Incarnation != l.name() {
		return nil
	}
	l.lives = append(l.lives, lost.Offsets)
	l.incarnation++
	return nil
}

func (l *lostSink) LostAt(_ context.Context, incarnation string) (map[string]uint64, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, false, errDown
	}
	for i, low := range l.lives {
		if incarnation != fmt.Sprintf("i%d", i) {
			continue
		}
		out := maps.Clone(low)
		for _, later := range l.lives[i:] {
			out["log"] = min(out["log"], later["log"])
		}
		return out, true, nil
	}
	return nil, false, nil
}

// lose is a restart of the server that keeps only n messages. The publish that is next tells of it.
func (l *lostSink) lose(n int, life string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored = slices.Clone(l.stored[:n])
	if l.life = life; life != "" {
		l.opened = l.offsets()
	}
}

var (
	_ Parking        = (*fakeSource)(nil)
	_ Bell           = (*fakeSource)(nil)
	_ Marks          = (*fakeSource)(nil)
	_ Purger         = (*fakeSource)(nil)
	_ broker.Tailer  = (*lostSink)(nil)
	_ broker.Ordered = (*fakeSink)(nil)

	errBroken = errors.New("store is broken")
)
