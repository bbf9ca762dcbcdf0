package memory

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// Compile-time proof of what the store of letters is.
var (
	_ deadletter.Store   = letters{}
	_ deadletter.Grouper = letters{}
	_ deadletter.Auditor = letters{}
)

type letterKey struct {
	group string
	id    event.ID
}

type laneKey struct {
	group string
	deadletter.Lane
}

func laneOf(l *deadletter.Letter) laneKey {
	return laneKey{l.Group, deadletter.Lane{Topic: l.Event.Topic, Key: l.Event.AggregateID}}
}

type letters struct{ s *Store }

// Letters returns the dead letters.
func (s *Store) Letters() deadletter.Store { return letters{s} }

func (d letters) Park(_ context.Context, tx *txn.Tx, l deadletter.Letter) error {
	if err := d.s.within(tx); err != nil {
		return err
	}
	k, lk := letterKey{l.Group, l.Event.ID}, laneOf(&l)
	if _, known := d.s.letters.see(k); known {
		return nil
	}
	lane, _ := d.s.lanes.see(lk)
	// The lane as it is now decides, not as the consumer last saw it: a WAITING head would wait for
	// ever, and a follower that is tried on its own would overtake.
	if len(lane) > 0 {
		l.State = deadletter.StateWaiting
	} else if l.State == deadletter.StateWaiting {
		l.State, l.NextAt = deadletter.StateRetrying, tx.Now()
	}
	d.s.letters.put(d.s, k, l)
	// Appending in place is safe: there is one writer, and nobody looks behind a committed length.
	d.s.lanes.put(d.s, lk, append(lane, k))
	return nil
}

func (d letters) Update(_ context.Context, tx *txn.Tx, l deadletter.Letter) error {
	if err := d.s.within(tx); err != nil {
		return err
	}
	k := letterKey{l.Group, l.Event.ID}
	old, ok := d.s.letters.see(k)
	if !ok {
		return fmt.Errorf("memory: update %s: %w", l.ID(), deadletter.ErrNotFound)
	}
	old.State, old.Attempts, old.FirstAt, old.LastAt, old.NextAt = l.State, l.Attempts, l.FirstAt, l.LastAt, l.NextAt
	old.Cause, old.Stack, old.Permanent = l.Cause, l.Stack, l.Permanent
	old.Event.Data = l.Event.Data
	d.s.letters.put(d.s, k, old)
	return nil
}

func (d letters) Remove(_ context.Context, tx *txn.Tx, group string, id event.ID) (bool, error) {
	if err := d.s.within(tx); err != nil {
		return false, err
	}
	k := letterKey{group, id}
	l, ok := d.s.letters.see(k)
	if !ok {
		return false, nil
	}
	d.s.letters.drop(d.s, k)
	lk := laneOf(&l)
	lane, _ := d.s.lanes.see(lk)
	if lane[0] == k {
		lane = lane[1:]
	} else {
		lane = slices.DeleteFunc(slices.Clone(lane), func(other letterKey) bool { return other == k })
	}
	if len(lane) == 0 {
		d.s.lanes.drop(d.s, lk)
		return true, nil
	}
	d.s.lanes.put(d.s, lk, lane)
	if head, _ := d.s.letters.see(lane[0]); head.State == deadletter.StateWaiting {
		head.State, head.NextAt = deadletter.StateRetrying, tx.Now()
		d.s.letters.put(d.s, lane[0], head)
	}
	return true, nil
}

func (d letters) Lanes(ctx context.Context, group string) ([]deadletter.Lane, error) {
	var lanes []deadletter.Lane
	err := d.s.read(ctx, func() {
		for k := range d.s.lanes.all() {
			if k.group == group {
				lanes = append(lanes, k.Lane)
			}
		}
	})
	return lanes, err
}

func (d letters) Select(ctx context.Context, q deadletter.Query) ([]deadletter.Letter, error) {
	if q.Limit <= 0 || q.Limit > deadletter.PageMax {
		q.Limit = deadletter.PageMax
	}
	var page []deadletter.Letter
	var bad error
	err := d.s.read(ctx, func() {
		var after int64
		if q.After != "" {
			if after, bad = d.seq(q.After); bad != nil {
				return
			}
		}
		for r := range d.candidates(q) {
			if r.seq > after && matches(&r.value, &q) {
				if page = append(page, r.value); len(page) == q.Limit {
					return
				}
			}
		}
	})
	return page, cmp.Or(err, bad)
}

func (d letters) seq(id string) (int64, error) {
	group, text, _ := strings.Cut(id, ":")
	parsed, err := event.ParseID(text)
	if err != nil {
		return 0, err
	}
	r := d.s.letters.rows[letterKey{group, parsed}]
	if r == nil {
		return 0, fmt.Errorf("memory: select letters after %s: %w", id, deadletter.ErrNotFound)
	}
	return r.seq, nil
}

// candidates yields, in order, at least the letters that q can match.
func (d letters) candidates(q deadletter.Query) iter.Seq[*row[letterKey, deadletter.Letter]] {
	rows := d.s.letters.rows
	var keys []letterKey
	switch {
	case q.Group != "" && !q.ID.IsZero():
		keys = []letterKey{{q.Group, q.ID}}
	case q.Group != "" && q.Topic != "" && q.Key != "":
		keys, _ = d.s.lanes.get(laneKey{q.Group, deadletter.Lane{Topic: q.Topic, Key: q.Key}})
	default:
		return slices.Values(d.s.letters.sorted)
	}
	return func(yield func(*row[letterKey, deadletter.Letter]) bool) {
		for _, k := range keys {
			if r := rows[k]; r != nil && !yield(r) {
				return
			}
		}
	}
}

func matches(l *deadletter.Letter, q *deadletter.Query) bool {
	return (q.Group == "" || q.Group == l.Group) &&
		(q.Topic == "" || q.Topic == l.Event.Topic) &&
		(q.Key == "" || q.Key == l.Event.AggregateID) &&
		(q.Cause == "" || q.Cause == l.Cause) &&
		(q.State == "" || q.State == l.State) &&
		(q.ID.IsZero() || q.ID == l.Event.ID) &&
		(q.DueBy.IsZero() || l.State == deadletter.StateRetrying && !l.NextAt.After(q.DueBy))
}

func (d letters) Groups(ctx context.Context) ([]deadletter.Group, error) {
	type key struct {
		group, topic, cause string
		state               deadletter.State
	}
	by := map[key]*deadletter.Group{}
	err := d.s.read(ctx, func() {
		for _, l := range d.s.letters.all() {
			k := key{l.Group, l.Event.Topic, l.Cause, l.State}
			g := by[k]
			if g == nil {
				g = &deadletter.Group{Group: l.Group, Topic: k.topic, Cause: l.Cause, State: l.State, First: l.FirstAt, Last: l.LastAt}
				by[k] = g
			}
			g.Count++
			g.First, g.Last = earlier(g.First, l.FirstAt), later(g.Last, l.LastAt)
		}
	})
	groups := make([]deadletter.Group, 0, len(by))
	for _, g := range by {
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b deadletter.Group) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Topic, b.Topic), cmp.Compare(b.Count, a.Count),
			cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.State, b.State))
	})
	return groups, err
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (d letters) Audit(_ context.Context, tx *txn.Tx, e deadletter.Entry) error {
	if err := d.s.within(tx); err != nil {
		return err
	}
	d.s.audited++
	d.s.audit.put(d.s, d.s.audited, e)
	return nil
}

func (d letters) Entries(ctx context.Context, limit int) ([]deadletter.Entry, error) {
	if limit <= 0 {
		limit = pageMax
	}
	var entries []deadletter.Entry
	err := d.s.read(ctx, func() {
		for _, r := range slices.Backward(d.s.audit.sorted) {
			if len(entries) == limit {
				return
			}
			entries = append(entries, r.value)
		}
	})
	return entries, err
}
