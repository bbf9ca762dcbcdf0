package memory

import (
	"cmp"
	"context"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// Compile-time proof of what the stores of timers and calls are.
var (
	_ timer.Store   = timers{}
	_ timer.Bell    = timers{}
	_ call.Store    = calls{}
	_ call.Bell     = calls{}
	_ call.Observer = calls{}
)

func byTime(a, b timer.Timer) int { return a.At.Compare(b.At) }

type timers struct{ s *Store }

// Timers returns the timers.
func (s *Store) Timers() timer.Store { return timers{s} }

func (t timers) Set(_ context.Context, tx *txn.Tx, tm timer.Timer) error {
	if err := t.s.within(tx); err != nil {
		return err
	}
	t.s.timers.put(t.s, tm.Key, tm)
	t.s.rings = append(t.s.rings, &t.s.timing)
	return nil
}

func (t timers) Cancel(_ context.Context, tx *txn.Tx, key string) (bool, error) {
	if err := t.s.within(tx); err != nil {
		return false, err
	}
	return t.s.timers.drop(t.s, key), nil
}

func (t timers) Take(_ context.Context, tx *txn.Tx, now time.Time, limit int) ([]timer.Timer, error) {
	if err := t.s.within(tx); err != nil {
		return nil, err
	}
	var taken []timer.Timer
	for key, tm := range t.s.timers.seeAll() {
		if len(taken) >= limit || tm.At.After(now) {
			break
		}
		t.s.timers.drop(t.s, key)
		taken = append(taken, tm)
	}
	return taken, nil
}

func (t timers) Next(ctx context.Context) (at time.Time, ok bool, err error) {
	err = t.s.read(ctx, func() {
		if sorted := t.s.timers.sorted; len(sorted) > 0 {
			at, ok = sorted[0].value.At, true
		}
	})
	return at, ok, err
}

func (t timers) Count(ctx context.Context) (n int64, err error) {
	err = t.s.read(ctx, func() { n = int64(len(t.s.timers.sorted)) })
	return n, err
}

func (t timers) Listen() (ring <-chan struct{}, stop func()) { return t.s.timing.Listen() }

type callKey struct{ call, key string }

// prepared is a call that waits until it is due, or is in a worker's hands until then.
type prepared struct {
	call.Work

	claimed bool
}

func byDue(a, b prepared) int {
	return cmp.Or(cmp.Compare(a.Call, b.Call), a.Due.Compare(b.Due))
}

type calls struct{ s *Store }

// Calls returns the prepared calls.
func (s *Store) Calls() call.Store { return calls{s} }

func (c calls) Prepare(_ context.Context, tx *txn.Tx, w call.Work) error {
	if err := c.s.within(tx); err != nil {
		return err
	}
	k := callKey{w.Call, w.Key}
	if _, known := c.s.calls.see(k); known {
		return nil
	}
	c.s.calls.put(c.s, k, prepared{Work: w})
	c.s.rings = append(c.s.rings, &c.s.calling)
	return nil
}

func (c calls) Claim(ctx context.Context, name string, now, until time.Time, limit int) ([]call.Work, error) {
	// Workers ask often: look before taking the turn.
	if at, ok, err := c.Next(ctx, name); err != nil || !ok || at.After(now) {
		return nil, err
	}
	var claimed []call.Work
	err := c.s.write(ctx, func() error {
		for k, p := range c.s.calls.seeAll() {
			if p.Call < name {
				continue
			}
			if len(claimed) >= limit || p.Call > name || p.Due.After(now) {
				break
			}
			p.Attempts++
			p.Fence, p.Due, p.claimed = int64(p.Attempts), until, true
			c.s.calls.put(c.s, k, p)
			claimed = append(claimed, p.Work)
		}
		return nil
	})
	return claimed, err
}

// mine reports whether w's lease still is the call's.
func (c calls) mine(w *call.Work) (prepared, bool) {
	p, ok := c.s.calls.see(callKey{w.Call, w.Key})
	return p, ok && p.claimed && p.Fence == w.Fence
}

func (c calls) Finish(_ context.Context, tx *txn.Tx, w call.Work) (bool, error) {
	if err := c.s.within(tx); err != nil {
		return false, err
	}
	if _, ok := c.mine(&w); !ok {
		return false, nil
	}
	return c.s.calls.drop(c.s, callKey{w.Call, w.Key}), nil
}

func (c calls) Defer(ctx context.Context, w call.Work, due time.Time, lastError string) error {
	return c.s.write(ctx, func() error {
		p, ok := c.mine(&w)
		if !ok {
			return nil // Whoever has it now decides.
		}
		p.Due, p.LastError, p.claimed = due, lastError, false
		c.s.calls.put(c.s, callKey{w.Call, w.Key}, p)
		return nil
	})
}

func (c calls) Next(ctx context.Context, name string) (at time.Time, ok bool, err error) {
	err = c.s.read(ctx, func() {
		for _, p := range c.s.calls.all() {
			if p.Call == name {
				at, ok = p.Due, true
				return
			}
		}
	})
	return at, ok, err
}

func (c calls) Pending(ctx context.Context) ([]call.Pending, error) {
	var all []call.Pending
	err := c.s.read(ctx, func() {
		for _, p := range c.s.calls.all() { // Ordered by name.
			if len(all) == 0 || all[len(all)-1].Call != p.Call {
				all = append(all, call.Pending{Call: p.Call, Oldest: p.CreatedAt})
			}
			last := &all[len(all)-1]
			last.Count++
			last.Oldest = earlier(last.Oldest, p.CreatedAt)
			last.Attempts = max(last.Attempts, p.Attempts)
		}
	})
	return all, err
}

func (c calls) Listen() (ring <-chan struct{}, stop func()) { return c.s.calling.Listen() }
