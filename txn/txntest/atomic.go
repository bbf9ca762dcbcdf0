package txntest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/call"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/push"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

const (
	group     = "suite"
	partition = "p"
)

// hop is one business transaction that does something through every contract that the store has.
type hop struct {
	event event.Envelope
	fence int64
	steps []step
}

// step is one contract's share of a hop: what it does in the transaction, and whether that is there.
type step struct {
	lack string
	do   func(ctx context.Context, tx *txn.Tx) error
	kept func(ctx context.Context, s txn.Runner) (bool, error)
}

func newHop(t *testing.T, h Harness, s txn.Runner) *hop {
	t.Helper()
	p := &hop{event: storetest.Envelope(t, "atomic", 1)}
	if c, ok := s.(consumer.Provider); ok {
		var err error
		if _, p.fence, err = c.Positions().Take(t.Context(), group, partition); err != nil {
			t.Fatalf("take: %v", err)
		}
	}
	key := p.event.ID.String()
	p.steps = []step{{
		"rows", func(ctx context.Context, tx *txn.Tx) error { return h.Add(ctx, tx, key, 1) },
		func(_ context.Context, s txn.Runner) (bool, error) { return h.Committed(t, s, key) == 1, nil },
	}}
	for _, c := range []struct {
		lack string
		ok   bool
		step func(lack string) step
	}{
		{"Outbox", is[relay.Provider](s), p.outbox},
		{"Timers", is[timer.Provider](s), p.timers},
		{"Calls", is[call.Provider](s), p.calls},
		{"Inbox", is[inbox.Provider](s), p.inbox},
		{"Positions", is[consumer.Provider](s), p.positions},
		{"Letters", is[deadletter.Provider](s), p.letters},
		{"Answers", is[idempotency.Provider](s), p.answers},
		{"Feed", is[push.Provider](s), p.feed},
	} {
		switch {
		case c.ok:
			p.steps = append(p.steps, c.step(c.lack))
		case slices.Contains(h.Lacks, c.lack):
			t.Logf("skipped: the harness says that the store lacks %s", c.lack)
		default:
			t.Errorf("store %T has no %s, and the harness does not list it in Lacks: what is lacking must be said", s, c.lack)
		}
	}
	return p
}

func is[T any](s any) bool { _, ok := s.(T); return ok }

// to returns the store as a provider; newHop has made sure that it is one.
func to[T any](s any) T { return s.(T) } //nolint:errcheck // See above.

func (p *hop) outbox(lack string) step {
	return step{
		lack, func(ctx context.Context, tx *txn.Tx) error { return tx.Append(ctx, p.event) },
		func(ctx context.Context, s txn.Runner) (bool, error) {
			src := to[relay.Provider](s).Outbox()
			lease, err := src.Claim(ctx, 0, "suite", time.Minute) // Only an owner sees what has no position yet.
			if err != nil {
				return false, err
			}
			records, err := src.Next(ctx, lease, outbox.Position{}, 1000)
			return len(records) > 0, err
		},
	}
}

func (p *hop) timers(lack string) step {
	return step{
		lack, func(ctx context.Context, tx *txn.Tx) error {
			return timer.Set(ctx, tx, "key", tx.Now().Add(time.Hour), storetest.Happened().New(storetest.Thing{Key: "atomic"}))
		},
		func(ctx context.Context, s txn.Runner) (bool, error) {
			n, err := to[timer.Provider](s).Timers().Count(ctx)
			return n > 0, err
		},
	}
}

func (p *hop) calls(lack string) step {
	return step{
		lack, func(ctx context.Context, tx *txn.Tx) error {
			w := call.Work{Call: "suite", Key: "key", Request: []byte("{}"), Due: tx.Now(), CreatedAt: tx.Now()}
			return to[call.Provider](tx.Port()).Calls().Prepare(ctx, tx, w)
		},
		func(ctx context.Context, s txn.Runner) (bool, error) {
			_, ok, err := to[call.Provider](s).Calls().Next(ctx, "suite")
			return ok, err
		},
	}
}

func (p *hop) inbox(lack string) step {
	return step{
		lack, func(ctx context.Context, tx *txn.Tx) error {
			_, err := inbox.Remember(ctx, tx, group, p.event.ID)
			return err
		},
		func(ctx context.Context, s txn.Runner) (kept bool, err error) {
			err = storetest.Try(ctx, s, func(ctx context.Context, tx *txn.Tx) error {
				fresh, err := inbox.Remember(ctx, tx, group, p.event.ID)
				if err != nil {
					return err
				}
				kept = !fresh[0]
				return storetest.ErrRollback // Looking must not change it.
			})
			if err == storetest.ErrRollback { //nolint:errorlint // It is our own, as it was returned.
				err = nil
			}
			return kept, err
		},
	}
}

func (p *hop) positions(lack string) step {
	at := broker.Position{Incarnation: "i1", Offset: 7}
	return step{
		lack, func(ctx context.Context, tx *txn.Tx) error {
			return to[consumer.Provider](tx.Port()).Positions().Store(ctx, tx, group, partition, p.fence, at)
		},
		func(ctx context.Context, s txn.Runner) (bool, error) {
			all, err := to[consumer.Provider](s).Positions().All(ctx, group)
			return all[partition] == at, err
		},
	}
}

func (p *hop) letters(lack string) step {
	return step{
		lack, func(ctx context.Context, tx *txn.Tx) error {
			l := deadletter.Letter{Group: group, Event: p.event, State: deadletter.StateDead, Attempts: 1, FirstAt: tx.Now(), LastAt: tx.Now(), NextAt: tx.Now()}
			return to[deadletter.Provider](tx.Port()).Letters().Park(ctx, tx, l)
		},
		func(ctx context.Context, s txn.Runner) (bool, error) {
			letters, err := to[deadletter.Provider](s).Letters().Select(ctx, deadletter.Query{})
			return len(letters) > 0, err
		},
	}
}

func (p *hop) answers(lack string) step {
	return step{
		lack, func(ctx context.Context, tx *txn.Tx) error {
			return to[idempotency.Provider](tx.Port()).Answers().Save(ctx, tx, idempotency.Answer{Scope: "s", Key: "k", Status: 201, SavedAt: tx.Now()})
		},
		func(ctx context.Context, s txn.Runner) (bool, error) {
			_, ok, err := to[idempotency.Provider](s).Answers().Lookup(ctx, "s", "k")
			return ok, err
		},
	}
}

func (p *hop) feed(lack string) step {
	return step{
		lack, func(ctx context.Context, tx *txn.Tx) error {
			return to[push.Provider](tx.Port()).Feed().Append(ctx, tx, push.Frame{Feeds: []string{"a"}, Event: "e", Data: []byte("{}")})
		},
		func(ctx context.Context, s txn.Runner) (bool, error) {
			frames, err := to[push.Provider](s).Feed().After(ctx, "a", 0, 10)
			return len(frames) > 0, err
		},
	}
}

func (p *hop) do(ctx context.Context, tx *txn.Tx) error {
	for _, s := range p.steps {
		if err := s.do(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

func (p *hop) check(t *testing.T, s txn.Runner, guarantee string, want bool) {
	t.Helper()
	for _, step := range p.steps {
		kept, err := step.kept(t.Context(), s)
		if err != nil {
			t.Fatalf("look for %s: %v", step.lack, err)
		}
		if kept != want {
			t.Errorf("%s: %s are there: %t, want %t", guarantee, step.lack, kept, want)
		}
	}
}

func allOrNothing(t *testing.T, h Harness) {
	s := h.Open(t)
	p := newHop(t, h, s)
	storetest.RollBack(t, s, p.do)
	p.check(t, s, "a hop that fails must leave nothing", false)
	err := storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error {
		if err := p.do(ctx, tx); err != nil {
			return err
		}
		panic("the suite's")
	})
	if err == nil {
		t.Error("a hop that panics must not succeed")
	}
	p.check(t, s, "a hop that panics must leave nothing", false)
	storetest.Do(t, s, p.do)
	p.check(t, s, "a hop that is committed must be whole", true)
}

func allSurviveACrash(t *testing.T, h Harness) {
	storetest.NeedReopen(t, h.Reopen != nil, h.Lacks)
	s := h.Open(t)
	p := newHop(t, h, s)
	storetest.Do(t, s, p.do)
	s = h.Reopen(t, s)
	p.check(t, s, "a hop that was committed before a crash must be whole after it", true)
}
