package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

// Compile-time proof of what the outbox is.
var (
	_ relay.Source   = source{}
	_ relay.Parking  = source{}
	_ relay.Bell     = source{}
	_ relay.Marks    = source{}
	_ relay.Observer = source{}
	_ relay.Lister   = source{}
	_ relay.Purger   = source{}
)

// outboxLog is the outbox and the one shard that carries it. All of it is guarded by Store.mu: no transaction
// depends on it, so a relay never waits for one.
type outboxLog struct {
	records []outbox.Record // that of identity purged+1 comes first
	purged  int64

	owner   string
	fence   int64
	expires time.Time
	settled int64
	marks   []relay.Mark // newest first

	parked map[int64]*parked
	order  []int64 // identities in parked, ascending
}

type parked struct {
	relay.Parked

	attempts int
}

func (l *outboxLog) append(at time.Time, events []event.Envelope) {
	for _, e := range events {
		id := l.purged + int64(len(l.records)) + 1
		l.records = append(l.records, outbox.Record{Position: outbox.Position{ID: id}, CreatedAt: at, Event: e})
	}
}

// after returns the kept records behind an identity.
func (l *outboxLog) after(id int64) []outbox.Record {
	return l.records[min(max(id-l.purged, 0), int64(len(l.records))):]
}

func (l *outboxLog) last() int64 { return l.purged + int64(len(l.records)) }

// source is the store's outbox.
type source struct{ s *Store }

// Outbox returns the outbox, which has the one shard 0.
func (s *Store) Outbox() relay.Source { return source{s} }

// edit runs fn on the outbox when the lease is the newest one.
func (o source) edit(ctx context.Context, lease relay.Lease, fn func(l *outboxLog) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	if l := &o.s.outbox; lease.Shard != 0 || lease.Fence != l.fence {
		return fmt.Errorf("memory: shard %d at fence %d, lease has %d: %w", lease.Shard, l.fence, lease.Fence, relay.ErrFenced)
	}
	return fn(&o.s.outbox)
}

func (o source) Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (relay.Lease, error) {
	if err := ctx.Err(); err != nil {
		return relay.Lease{}, err
	}
	if shard != 0 {
		return relay.Lease{}, fmt.Errorf("memory: claim shard %d: store has shard 0 only", shard)
	}
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	l, t := &o.s.outbox, now()
	running := l.owner != "" && t.Before(l.expires)
	switch {
	case running && l.owner != owner:
		return relay.Lease{}, fmt.Errorf("memory: claim shard %d: owner %s until %s: %w", shard, l.owner, l.expires, relay.ErrHeld)
	case !running:
		l.fence++ // Also for the owner before: someone else may have had it in between.
	}
	l.owner, l.expires = owner, t.Add(ttl)
	return relay.Lease{
		Shard: shard, Owner: owner, Fence: l.fence, Expires: l.expires,
		Position: outbox.Position{ID: l.settled},
	}, nil
}

func (o source) Next(ctx context.Context, _ relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	var page []outbox.Record
	var lost error
	err := o.s.read(ctx, func() {
		l := &o.s.outbox
		if after.ID > 0 && after.ID < l.purged {
			lost = fmt.Errorf("memory: next after %s, the oldest event kept is %d: %w", after, l.purged+1, relay.ErrRetention)
			return
		}
		if after.ID > l.last() {
			lost = fmt.Errorf("memory: next after %s, the last event is %d: %w", after, l.last(), relay.ErrRetention)
			return
		}
		rest := l.after(after.ID)
		page = slices.Clone(rest[:min(max(limit, 0), len(rest))])
	})
	return page, cmp.Or(err, lost)
}

func (o source) Advance(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	return o.edit(ctx, lease, func(l *outboxLog) error {
		if to.ID > l.last() {
			return fmt.Errorf("memory: advance to %s, the last event is %d", to, l.last())
		}
		l.settled = max(l.settled, to.ID)
		return nil
	})
}

func (o source) Rewind(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	return o.edit(ctx, lease, func(l *outboxLog) error {
		if to.ID < l.purged {
			return fmt.Errorf("memory: rewind to %s, the oldest event kept is %d: %w", to, l.purged+1, relay.ErrRetention)
		}
		l.settled = min(l.settled, to.ID)
		return nil
	})
}

func (o source) Release(ctx context.Context, lease relay.Lease) error {
	return o.edit(ctx, lease, func(l *outboxLog) error {
		l.owner, l.expires = "", time.Time{}
		return nil
	})
}

func (o source) Listen() (ring <-chan struct{}, stop func()) { return o.s.outboxing.Listen() }

func (o source) Park(ctx context.Context, lease relay.Lease, cause string, records ...outbox.Record) error {
	return o.edit(ctx, lease, func(l *outboxLog) error {
		for _, r := range records {
			id := r.Position.ID
			p := l.parked[id]
			if p == nil {
				p = &parked{Parked: relay.Parked{Record: r}}
				l.parked[id] = p
				i, _ := slices.BinarySearch(l.order, id)
				l.order = slices.Insert(l.order, i, id)
			} else if p.Replay {
				l.mark(r.Event.Topic, r.Event.AggregateID, false)
			}
			p.Cause, p.ParkedAt = cause, now()
			p.attempts++
		}
		return nil
	})
}

// mark marks the parked events of a topic and key, any key when it is empty, and returns how many.
func (l *outboxLog) mark(topic, key string, replay bool) int {
	n := 0
	for _, p := range l.parked {
		if e := &p.Record.Event; e.Topic == topic && (key == "" || e.AggregateID == key) {
			p.Replay = replay
			n++
		}
	}
	return n
}

func (o source) Parked(ctx context.Context, q relay.ParkedQuery) ([]relay.Parked, error) {
	if q.Limit <= 0 {
		q.Limit = pageMax
	}
	var page []relay.Parked
	err := o.s.read(ctx, func() {
		l := &o.s.outbox
		i, _ := slices.BinarySearch(l.order, q.After.ID+1)
		for _, id := range l.order[i:] {
			if len(page) == q.Limit {
				return
			}
			p := l.parked[id]
			e := &p.Record.Event
			if (q.Topic == "" || q.Topic == e.Topic) && (q.Key == "" || q.Key == e.AggregateID) && (p.Replay || !q.ReplayOnly) {
				page = append(page, p.Parked)
			}
		}
	})
	return page, err
}

func (o source) Unpark(ctx context.Context, lease relay.Lease, records ...outbox.Record) error {
	return o.edit(ctx, lease, func(l *outboxLog) error {
		for _, r := range records {
			if id := r.Position.ID; l.parked[id] != nil {
				delete(l.parked, id)
				i, _ := slices.BinarySearch(l.order, id)
				l.order = slices.Delete(l.order, i, i+1)
			}
		}
		return nil
	})
}

func (o source) Replay(ctx context.Context, topic, key string) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	return o.s.outbox.mark(topic, key, true), nil
}

func (o source) AddMark(ctx context.Context, lease relay.Lease, m relay.Mark) error {
	return o.edit(ctx, lease, func(l *outboxLog) error {
		newer := func(a, b relay.Mark) int {
			return cmp.Or(b.Position.Compare(a.Position), b.At.Compare(a.At))
		}
		i, found := slices.BinarySearchFunc(l.marks, m, newer)
		if found {
			l.marks[i] = m
		} else {
			l.marks = slices.Insert(l.marks, i, m)
		}
		l.marks = slices.DeleteFunc(l.marks, func(m relay.Mark) bool { return m.Position.ID < l.purged })
		return nil
	})
}

func (o source) Marks(ctx context.Context, _ int) ([]relay.Mark, error) {
	var marks []relay.Mark
	err := o.s.read(ctx, func() { marks = slices.Clone(o.s.outbox.marks) })
	return marks, err
}

func (o source) Stats(ctx context.Context) (relay.Stats, error) {
	var st relay.Stats
	err := o.s.read(ctx, func() {
		l := &o.s.outbox
		if rest := l.after(l.settled); len(rest) > 0 {
			st.Pending = int64(len(rest))
			st.Age = now().Sub(rest[0].CreatedAt)
		}
		st.Parked = int64(len(l.parked))
		st.Sent = max(l.settled-l.purged, 0)
	})
	return st, err
}

func (o source) List(ctx context.Context, status relay.Status, after outbox.Position, limit int) ([]relay.Entry, error) {
	if limit <= 0 {
		limit = pageMax
	}
	var page []relay.Entry
	err := o.s.read(ctx, func() {
		l := &o.s.outbox
		add := func(e relay.Entry) bool {
			if status == "" || status == e.Status {
				page = append(page, e)
			}
			return len(page) < limit
		}
		if status == relay.StatusFailed { // Parked events outlive the retention of the log.
			i, _ := slices.BinarySearch(l.order, after.ID+1)
			for _, id := range l.order[i:] {
				if !add(l.entry(l.parked[id].Record)) {
					return
				}
			}
			return
		}
		for _, r := range l.after(after.ID) {
			if !add(l.entry(r)) {
				return
			}
		}
	})
	return page, err
}

func (l *outboxLog) entry(r outbox.Record) relay.Entry {
	e := relay.Entry{Record: r, Status: relay.StatusPending}
	if p := l.parked[r.Position.ID]; p != nil {
		e.Status, e.Attempts, e.LastAttemptAt, e.LastError = relay.StatusFailed, p.attempts, p.ParkedAt, p.Cause
	} else if r.Position.ID <= l.settled {
		e.Status = relay.StatusSent
	}
	return e
}

func (o source) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	l, n := &o.s.outbox, 0
	for n < min(limit, len(l.records)) && l.records[n].Position.ID <= l.settled && l.records[n].CreatedAt.Before(before) {
		n++
	}
	clear(l.records[:n]) // Readers have copies; the payloads are to be collected.
	l.records = l.records[n:]
	l.purged += int64(n)
	return n, nil
}
