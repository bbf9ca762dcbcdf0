package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/txn"
)

// Consumer is one member of a group. See [New].
type Consumer struct {
	run       txn.Runner
	positions Positions
	inbox     inbox.Store      // nil unless ExactlyOnce
	sieve     *sieve           // nil without a filter
	letters   deadletter.Store // nil in AtMostOnce
	broker    broker.Broker
	cfg       Config
	// classifier is the store, if it knows its errors.
	classifier Classifier
	known      map[string]bool // nil: every type is known

	lanes   *lanes
	alarm   alarm
	strikes strikes
	slots   chan struct{}
	ran     atomic.Bool

	mu      sync.Mutex
	member  broker.Standby // nil before Run has joined, and where the broker cannot tell
	readers map[string]*reader
	lost    map[string]bool // partitions whose position the broker no longer keeps
}

// New returns a consumer. run runs the transactions; store keeps what belongs to them and must be a
// [Provider], an [inbox.Provider] in ExactlyOnce, and a [deadletter.Provider] in all modes but
// AtMostOnce. An ability that is missing is [errors.ErrUnsupported]; retentions that contradict one
// another are ErrRetention.
func New(run txn.Runner, store any, b broker.Broker, cfg Config) (*Consumer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("consumer: %s: %w", cfg.Group, err)
	}
	c := &Consumer{
		run: run, broker: b, cfg: cfg, lanes: newLanes(), slots: make(chan struct{}, cfg.InFlight),
		alarm: newAlarm(), readers: map[string]*reader{}, lost: map[string]bool{},
	}
	if len(cfg.Known) > 0 {
		c.known = make(map[string]bool, len(cfg.Known))
		for _, t := range cfg.Known {
			c.known[t] = true
		}
	}
	if cfg.Filter != nil {
		c.sieve = &sieve{filter: cfg.Filter, c: c}
	}
	p, ok := store.(Provider)
	if !ok {
		return nil, fmt.Errorf("consumer: %s: store %T keeps no positions: %w", cfg.Group, store, errors.ErrUnsupported)
	}
	c.positions = p.Positions()
	c.classifier, _ = store.(Classifier)
	if cfg.Mode == ExactlyOnce {
		p, ok := store.(inbox.Provider)
		if !ok {
			return nil, fmt.Errorf("consumer: %s: store %T has no inbox: %w", cfg.Group, store, errors.ErrUnsupported)
		}
		c.inbox = p.Inbox()
	}
	if cfg.Mode != AtMostOnce {
		p, ok := store.(deadletter.Provider)
		if !ok {
			return nil, fmt.Errorf("consumer: %s: store %T keeps no dead letters: %w", cfg.Group, store, errors.ErrUnsupported)
		}
		c.letters = p.Letters()
	}
	return c, nil
}

// Run joins the group and serves until ctx is done and what is in hand has committed, then returns nil.
// ErrDrain says that this took longer than DrainTimeout. Any error but the broker's unavailability at
// the start is returned; later ones pause what they concern. Call it once.
func (c *Consumer) Run(ctx context.Context) error {
	if !c.ran.CompareAndSwap(false, true) {
		return errRan
	}
	// Work in flight ends by itself: cancelling it could leave an answer in doubt.
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	done := make(chan error, 1)
	go func() { done <- c.serve(ctx, work) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	limit := time.NewTimer(c.cfg.DrainTimeout)
	defer limit.Stop()
	select {
	case err := <-done:
		return err
	case <-limit.C:
		return fmt.Errorf("consumer: %s: %s: %w", c.cfg.Group, c.cfg.DrainTimeout, ErrDrain)
	}
}

func (c *Consumer) serve(ctx, work context.Context) error {
	m, err := c.subscribe(ctx)
	if err != nil || m == nil {
		return err
	}
	c.joined(m)
	c.cfg.Logger.Info("consumer started", "topics", c.cfg.Topics, "mode", c.cfg.Mode.String())
	var wg sync.WaitGroup
	if c.letters != nil {
		wg.Go(func() { c.retryLetters(ctx, work) })
	}
	if c.inbox != nil {
		wg.Go(func() { c.purge(ctx) })
	}
	c.assign(ctx, work, m, &wg)
	wg.Wait()
	if err := m.Close(); err != nil {
		c.cfg.Logger.Warn("leaving the group failed; the broker notices by itself", "err", err)
	}
	c.cfg.Logger.Info("consumer stopped")
	return nil
}

// subscribe returns nil without an error when ctx ended first.
func (c *Consumer) subscribe(ctx context.Context) (broker.Membership, error) {
	for n := 1; ; n++ {
		m, err := c.broker.Subscribe(ctx, broker.Subscription{Group: c.cfg.Group, Topics: c.cfg.Topics})
		switch {
		case err == nil:
			return m, nil
		case ctx.Err() != nil:
			return nil, nil
		case !errors.Is(err, broker.ErrUnavailable):
			return nil, fmt.Errorf("consumer: %s: subscribe: %w", c.cfg.Group, err)
		}
		c.cfg.Logger.Warn("subscribe failed, waiting for the broker", "attempt", n, "err", err)
		sleep(ctx, backoff(n), nil)
	}
}

// joined makes a membership known to Stats.
func (c *Consumer) joined(m broker.Membership) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.member, _ = m.(broker.Standby)
}

// assign starts a reader for each partition that the group hands to this member.
func (c *Consumer) assign(ctx, work context.Context, m broker.Membership, wg *sync.WaitGroup) {
	for n := 1; ctx.Err() == nil; {
		p, err := m.Next(ctx)
		switch {
		case err == nil:
			n = 1
			r := newReader(c, p)
			wg.Go(func() { r.run(ctx, work) })
		case ctx.Err() == nil:
			c.cfg.Logger.Warn("waiting for a partition failed", "attempt", n, "err", err)
			sleep(ctx, backoff(n), nil)
			n++
		}
	}
}

// purge forgets what can no longer come back, in bounded slices so that it never holds the store long.
func (c *Consumer) purge(ctx context.Context) {
	for sleep(ctx, c.cfg.PurgeEvery, nil) {
		for ctx.Err() == nil {
			n, err := c.inbox.Forget(ctx, time.Now().Add(-c.cfg.InboxRetention), purgeMax)
			if err != nil && ctx.Err() == nil {
				c.cfg.Logger.Warn("purging the inbox failed, trying again later", "err", err)
			}
			if err != nil || n < purgeMax {
				break
			}
		}
	}
}

// Stats is a consumer's state: what this member reads, and what the group has parked.
type Stats struct {
	Group      string
	Partitions []PartitionStats
	// Standby says that other members have every partition, as [broker.Standby] does. A member that is none and has no
	// partition does not know what waits for the group.
	Standby bool
	// Lag is the sum of the partitions' lags.
	Lag int64
	// Letters are counted by state.
	Letters map[deadletter.State]int64
}

// PartitionStats is one partition's state.
type PartitionStats struct {
	Name string
	// Lag is how many messages the group has not settled yet, as of the last batch: never 0 while messages
	// are in hand, and 0 only once a fetch found nothing. What is not fetched yet is missing from it
	// where the partition is no broker.Laggard.
	Lag int64
	// Paused is why the partition waits, empty when it flows.
	Paused string
}

// Stats tells what the readers know and what the store has. Partitions of other members are not in it.
func (c *Consumer) Stats(ctx context.Context) (Stats, error) {
	s := Stats{Group: c.cfg.Group, Letters: map[deadletter.State]int64{}}
	c.mu.Lock()
	readers := make([]*reader, 0, len(c.readers))
	for _, r := range c.readers {
		readers = append(readers, r)
	}
	member := c.member
	c.mu.Unlock()
	s.Standby = len(readers) == 0 && member != nil && member.Standby()
	for _, r := range readers {
		p := r.stats()
		s.Lag += p.Lag
		s.Partitions = append(s.Partitions, p)
	}
	if c.letters == nil {
		return s, nil
	}
	counts, err := c.countLetters(ctx)
	if err != nil {
		return s, fmt.Errorf("consumer: %s: count letters: %w", c.cfg.Group, err)
	}
	s.Letters = counts
	return s, nil
}

func (c *Consumer) countLetters(ctx context.Context) (map[deadletter.State]int64, error) {
	counts := map[deadletter.State]int64{}
	if g, ok := c.letters.(deadletter.Grouper); ok {
		groups, err := g.Groups(ctx)
		for _, g := range groups {
			if g.Group == c.cfg.Group {
				counts[g.State] += g.Count
			}
		}
		return counts, err
	}
	q := deadletter.Query{Group: c.cfg.Group, Limit: deadletter.PageMax}
	for {
		page, err := c.letters.Select(ctx, q)
		if errors.Is(err, deadletter.ErrNotFound) {
			return counts, nil // The page's last letter was handled meanwhile: what is counted will do.
		}
		if err != nil {
			return nil, err
		}
		for i := range page {
			counts[page[i].State]++
		}
		if len(page) < q.Limit {
			return counts, nil
		}
		q.After = page[len(page)-1].ID()
	}
}

// add makes r known to Stats, and forget undoes it unless a newer reader has its place.
func (c *Consumer) add(r *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers[r.name] = r
}

func (c *Consumer) forget(r *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readers[r.name] == r {
		delete(c.readers, r.name)
	}
}

func (c *Consumer) setLost(partition string, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost[partition] = lost
}

func (c *Consumer) isLost(partition string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost[partition]
}

// backoff returns the wait after the n-th failure in a row.
func backoff(n int) time.Duration {
	return min(backoffLongest, backoffShortest<<min(n-1, 10))
}

// sleep waits; false when ctx or stop ended it.
func sleep(ctx context.Context, d time.Duration, stop <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-stop:
	}
	return false
}

// alarm wakes one waiter at the earliest of the times it was given.
type alarm struct {
	mu   sync.Mutex
	next time.Time
	ring chan struct{}
}

func newAlarm() alarm { return alarm{ring: make(chan struct{}, 1)} }

func (a *alarm) at(t time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.next.IsZero() && !t.Before(a.next) {
		return
	}
	a.next = t
	select {
	case a.ring <- struct{}{}:
	default:
	}
}

// wait returns at the earliest time given, after limit, or when ctx is done.
func (a *alarm) wait(ctx context.Context, limit time.Duration) {
	deadline := time.Now().Add(limit)
	for ctx.Err() == nil {
		a.mu.Lock()
		until := deadline
		if !a.next.IsZero() && a.next.Before(until) {
			until = a.next
		}
		d := time.Until(until)
		if d <= 0 {
			if !a.next.IsZero() && !a.next.After(until) {
				a.next = time.Time{}
			}
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		sleep(ctx, d, a.ring)
	}
}
