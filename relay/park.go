package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
)

const causeFollows = "an earlier event of the same key is parked"

// parkedPage bounds one look at parked events.
const parkedPage = 500

// load reads which keys are parked, and which of the events to come are so already: parking those again
// would take an operator's mark for replay away.
func (p *pump) load(held context.Context) {
	from := p.settled
	p.begin(held, &p.loading, func(ctx context.Context) (func(), error) {
		parked, known := map[route]bool{}, map[outbox.Position]bool{}
		for q := (ParkedQuery{Shard: p.r.cfg.Shard, OfShard: true, Limit: parkedPage}); ; {
			page, err := p.r.lot.Parked(ctx, q)
			if err != nil {
				return nil, err
			}
			for _, e := range page {
				parked[route{e.Record.Event.Topic, e.Record.Event.AggregateID}] = true
				if e.Record.Position.Compare(from) > 0 {
					known[e.Record.Position] = true
				}
			}
			if len(page) < parkedPage {
				break
			}
			q.After = page[len(page)-1].Record.Position
		}
		return func() {
			p.parked, p.known, p.loaded = parked, known, true
			if len(parked) > 0 {
				p.replaying.due = p.now
			}
		}, nil
	})
}

// refuse parks the key of an event that the broker does not want.
func (p *pump) refuse(it *item, reason string) {
	e := &it.record.Event
	if p.r.lot == nil {
		p.fail(fmt.Errorf("relay: event %s %s of topic %s, key %.80s: broker refused it (%s), and source %T cannot park: %w",
			e.Type, e.ID, e.Topic, e.AggregateID, reason, p.r.src, errors.ErrUnsupported))
		return
	}
	it.cause = reason
	p.parked[it.route()] = true
}

func (p *pump) putAside(it *item) {
	if it.cause == "" {
		it.cause = causeFollows
	}
	p.aside = append(p.aside, it)
	if p.parking.due.IsZero() && !p.parking.busy {
		p.parking.due = p.now
	}
}

// park stores the events that were put aside. They settle when they are stored, not before.
func (p *pump) park(held context.Context) {
	items := p.aside[:min(len(p.aside), p.r.cfg.BatchMax)]
	p.begin(held, &p.parking, func(ctx context.Context) (func(), error) {
		for rest := items; len(rest) > 0; {
			var records []outbox.Record
			cause := rest[0].cause
			for len(rest) > 0 && rest[0].cause == cause {
				records = append(records, rest[0].record)
				rest = rest[1:]
			}
			if err := p.r.lot.Park(ctx, p.lease, cause, records...); err != nil {
				return nil, err
			}
		}
		return func() { p.parkedNow(items) }, nil
	})
}

func (p *pump) parkedNow(items []*item) {
	p.aside = p.aside[len(items):]
	if len(p.aside) > 0 {
		p.parking.due = p.now
	}
	if p.replaying.due.IsZero() && !p.replaying.busy {
		p.replaying.due = p.now.Add(p.r.cfg.ReplayEvery)
	}
	for _, it := range items {
		it.done = true
		e := &it.record.Event
		if it.cause != causeFollows {
			p.r.log.Warn("relay parked a key: the broker refused its event", "event_id", e.ID.String(),
				"event_type", e.Type, "aggregate_id", e.AggregateID, "topic", e.Topic, "err", it.cause)
		}
		if h := p.r.cfg.Hooks.Parked; h != nil {
			h(it.record, it.cause)
		}
	}
	p.progress()
}

// replayed is what one round of replay did.
type replayed struct {
	cleared []route // keys of which nothing is parked any more
	open    []route // keys of which that is not known, because a store failed or the broker is away
	records []outbox.Record
	more    bool
	away    error // why the broker did not answer
}

// replay publishes parked events of the keys that an operator marked, a bounded number at a time.
// Followers that are read meanwhile wait aside in memory, none is parked: when the store has none of the
// key left, they are all there is, and flow on in order.
func (p *pump) replay(held context.Context) {
	open := p.open
	p.begin(held, &p.replaying, func(ctx context.Context) (func(), error) {
		var out replayed
		err := p.r.replay(ctx, p.k, open, &out)
		return func() { p.replayedNow(&out) }, err
	})
}

func (p *pump) replayedNow(out *replayed) {
	p.open = out.open
	for _, key := range out.cleared {
		delete(p.parked, key)
	}
	if len(out.cleared) > 0 {
		rest := p.aside[:0:0]
		for _, it := range p.aside {
			if p.parked[it.route()] {
				rest = append(rest, it)
				continue
			}
			it.cause = ""
			it.behind = nil
			p.enqueue(it)
		}
		if p.aside = rest; len(rest) == 0 {
			p.parking.due = time.Time{}
		}
	}
	for _, record := range out.records {
		p.r.log.Info("relay replayed a parked event", "event_id", record.Event.ID.String(),
			"event_type", record.Event.Type, "aggregate_id", record.Event.AggregateID, "topic", record.Event.Topic)
		if h := p.r.cfg.Hooks.Replayed; h != nil {
			h(record)
		}
	}
	switch {
	case out.more:
		p.replaying.due = p.now
	case len(p.parked) > 0:
		p.replaying.due = p.now.Add(p.r.cfg.ReplayEvery)
	}
	if out.away != nil && !p.stopping() {
		p.unavailable(out.away)
	}
}

// replay takes on the keys that are marked, and those that an earlier round left open: their events may
// all be gone already, so that no query for marked ones shows them.
func (r *Relay) replay(ctx context.Context, k *keeper, open []route, out *replayed) error {
	out.open = open
	marked, err := r.lot.Parked(ctx, ParkedQuery{ReplayOnly: true, Shard: r.cfg.Shard, OfShard: true, Limit: r.cfg.BatchMax})
	if err != nil {
		return err
	}
	keys := slices.Clone(open)
	seen := map[route]bool{}
	for _, key := range open {
		seen[key] = true
	}
	for _, m := range marked {
		if key := (route{m.Record.Event.Topic, m.Record.Event.AggregateID}); !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	out.open, out.more = nil, len(marked) == r.cfg.BatchMax
	budget := r.cfg.BatchMax
	for i, key := range keys {
		if budget == 0 {
			out.open, out.more = keys[i:], true
			return nil
		}
		n, err := r.replayKey(ctx, k, key, budget, out)
		if err != nil || out.away != nil {
			out.open = keys[i:]
			return err
		}
		budget -= n
	}
	return nil
}

// replayKey publishes up to limit parked events of a key one by one, and takes away those that were
// acknowledged. It returns how many it tried.
func (r *Relay) replayKey(ctx context.Context, k *keeper, key route, limit int, out *replayed) (int, error) {
	page, err := r.lot.Parked(ctx, ParkedQuery{Topic: key.topic, Key: key.key, Shard: r.cfg.Shard, OfShard: true, Limit: limit + 1})
	if err != nil {
		return 0, err
	}
	if slices.ContainsFunc(page, func(e Parked) bool { return !e.Replay }) {
		// Parked since the operator asked: once the marked ones are gone, nothing would ask for these.
		if _, err := r.lot.Replay(ctx, key.topic, key.key); err != nil {
			return 0, err
		}
	}
	left := len(page) > limit
	page = page[:min(len(page), limit)]
	if len(page) > 0 {
		if err := r.markReplay(ctx, k.lease, page[0].Record.Position); err != nil {
			return 0, err
		}
	}
	var sent []outbox.Record
	var refused error
	for _, e := range page {
		err := r.send(ctx, k, []broker.Message{{Event: e.Record.Event, Origin: e.Record.Position.String()}})[0]
		if rejected, ok := errors.AsType[*broker.RejectedError](err); ok {
			refused = r.lot.Park(ctx, k.lease, rejected.Reason, e.Record)
			r.log.Warn("broker refused a replayed event again", "event_id", e.Record.Event.ID.String(),
				"event_type", e.Record.Event.Type, "aggregate_id", key.key, "topic", key.topic, "err", rejected.Reason)
			break
		}
		if err != nil {
			out.away = err
			break
		}
		sent = append(sent, e.Record)
	}
	if len(sent) > 0 {
		if err := r.lot.Unpark(ctx, k.lease, sent...); err != nil {
			return len(page), err
		}
		out.records = append(out.records, sent...)
	}
	switch {
	case len(sent) < len(page): // Refused, or the broker is away.
	case left:
		out.more = true
	default:
		out.cleared = append(out.cleared, key)
	}
	return len(page), refused
}
