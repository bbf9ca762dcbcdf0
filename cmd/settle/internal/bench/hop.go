package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlenats"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/storebroker"
	"github.com/settledev/settle/txn"
)

// hopRate and hopSeconds are the load of the hop benchmark.
const (
	hopRate    = 1000
	hopSeconds = 5
)

// hops measures the time from the return of the committed transaction to the handler of another service.
func hops(ctx context.Context, dir string) ([]Result, error) {
	var all []Result
	for _, carrier := range []string{"jetstream", "store"} {
		took, commits, err := hop(ctx, filepath.Join(dir, carrier), carrier)
		if err != nil {
			return nil, err
		}
		p50, p99, commit := percentile(took, 0.5), percentile(took, 0.99), percentile(commits, 0.5)
		limit50, limit99 := 2.0, 5.0
		if carrier == "store" {
			limit50, limit99 = 0.2, 1
		}
		r := result("hop/"+carrier+"/p50", "ms", p50, commit, "the median commit of the producer itself",
			fmt.Sprintf("p50 <= %g ms", limit50), p50 <= limit50)
		all = append(all, r, result("hop/"+carrier+"/p99", "ms", p99, commit, "the median commit of the producer itself",
			fmt.Sprintf("p99 <= %g ms", limit99), p99 <= limit99))
	}
	return all, nil
}

// stamps are when events were committed and handled.
type stamps struct {
	mu        sync.Mutex
	committed map[event.ID]time.Time
	handled   map[event.ID]time.Time
}

func newStamps() *stamps {
	return &stamps{committed: map[event.ID]time.Time{}, handled: map[event.ID]time.Time{}}
}

// handle notes when an event reached its handler first.
func (s *stamps) handle(id event.ID) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.handled[id]; !again {
		s.handled[id] = now
	}
}

// took are the times from commit to handler, sorted.
func (s *stamps) took() []time.Duration {
	all := make([]time.Duration, 0, len(s.handled))
	for id, at := range s.handled {
		all = append(all, max(0, at.Sub(s.committed[id])))
	}
	slices.Sort(all)
	return all
}

func hop(ctx context.Context, dir, carrier string) (took, commits []time.Duration, err error) {
	if err := mkdir(dir); err != nil {
		return nil, nil, err
	}
	from, err := open(ctx, dir, "from")
	if err != nil {
		return nil, nil, err
	}
	to, err := open(ctx, dir, "to")
	if err != nil {
		return nil, nil, err
	}
	b, err := between(ctx, dir, carrier, from, to)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, b.Close(), from.Close(), to.Close()) }()
	return through(ctx, from, to, b, business)
}

// through runs two services and measures; the update is what each does besides.
func through(ctx context.Context, from, to settle.Store, b broker.Broker, update string) (took, commits []time.Duration, err error) {
	st, t := newStamps(), happened()
	producer := settle.NewService("from", from, b, settle.Config{})
	consumer := settle.NewService("to", to, b, settle.Config{})
	settle.On(consumer, t, func(ctx context.Context, tx *txn.Tx, e event.Of[thing]) error {
		st.handle(e.ID)
		_, err := tx.Exec(ctx, update, e.Data.Key)
		return err
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 2)
	go func() { done <- producer.Run(ctx) }()
	go func() { done <- consumer.Run(ctx) }()
	commits, err = load(ctx, st, func(ctx context.Context, i int) (id event.ID, committed time.Time, err error) {
		err = producer.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
			if _, err := tx.Exec(ctx, update, key(i)); err != nil {
				return err
			}
			if err := outbox.Add(ctx, tx, t.New(thing{key(i), i, text})); err != nil {
				return err
			}
			id = tx.Events()[0].ID
			return nil
		})
		return id, time.Now(), err
	})
	cancel()
	if err = errors.Join(err, <-done, <-done); err != nil {
		return nil, nil, err
	}
	slices.Sort(commits)
	return st.took(), commits, nil
}

// load adds events at an even rate, first for a second that does not count, and waits for all of them.
func load(ctx context.Context, st *stamps, add func(ctx context.Context, i int) (event.ID, time.Time, error)) (commits []time.Duration, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := hopRate * (hopSeconds + 1)
	started := time.Now()
	for i := range total {
		due := started.Add(time.Duration(i) * time.Second / hopRate)
		if wait := time.Until(due); wait > 0 {
			timer := time.NewTimer(wait)
			<-timer.C
		}
		warm := i < hopRate
		wg.Go(func() {
			began := time.Now()
			id, now, e := add(ctx, i)
			mu.Lock()
			defer mu.Unlock()
			if err = errors.Join(err, e); e != nil || warm {
				return
			}
			commits = append(commits, now.Sub(began))
			st.mu.Lock()
			st.committed[id] = now
			st.mu.Unlock()
		})
	}
	wg.Wait()
	if err != nil {
		return nil, err
	}
	return commits, st.wait(ctx, total)
}

// wait returns when all n events were handled, and drops those that do not count.
func (s *stamps) wait(ctx context.Context, n int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		s.mu.Lock()
		handled := len(s.handled)
		s.mu.Unlock()
		if handled == n {
			s.mu.Lock()
			defer s.mu.Unlock()
			for id := range s.handled {
				if _, counts := s.committed[id]; !counts {
					delete(s.handled, id)
				}
			}
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("%d of %d events were handled", handled, n)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// between returns a broker between two stores.
func between(ctx context.Context, dir, carrier string, from, to *sqlstore.Store) (broker.Broker, error) {
	if carrier == "store" {
		return storebroker.New(map[string]relay.Source{"from": from.Outbox(), "to": to.Outbox()}, storebroker.Config{})
	}
	return settlenats.OpenEmbedded(ctx, settlenats.Config{Dir: filepath.Join(dir, "jetstream")})
}
