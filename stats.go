package settle

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/timer"
)

// Stats is a service's state as its store and its brokers have it, not as this process remembers it.
type Stats struct {
	Service string
	// Outbox is how far the outbox has been carried. Without a relay everything committed counts as
	// carried, as followers read it where it lies.
	Outbox relay.Stats
	// Groups are the consumer groups, by name; without partitions until Run has begun.
	Groups []consumer.Stats
	// Timers is how many timers wait.
	Timers int64
	// Calls are the prepared calls that have not been answered.
	Calls []call.Pending
}

// Stats reads the service's state.
func (s *Service) Stats(ctx context.Context) (Stats, error) {
	stats := Stats{Service: s.name}
	fail := func(what string, err error) (Stats, error) {
		return stats, fmt.Errorf("settle: %s: stats of %s: %w", s.name, what, err)
	}
	if p, ok := s.store.(relay.Provider); ok {
		if o, ok := p.Outbox().(relay.Observer); ok {
			var err error
			if stats.Outbox, err = o.Stats(ctx); err != nil {
				return fail("outbox", err)
			}
		}
	}
	s.mu.Lock()
	carried := s.relay != nil
	consumers := maps.Clone(s.consumers)
	s.mu.Unlock()
	if !carried {
		stats.Outbox.Sent += stats.Outbox.Pending
		stats.Outbox.Pending, stats.Outbox.Age = 0, 0
	}
	for _, name := range slices.Sorted(maps.Keys(s.groups)) {
		c := consumers[name]
		if c == nil { // Run has not come to it yet.
			stats.Groups = append(stats.Groups, consumer.Stats{Group: name})
			continue
		}
		g, err := c.Stats(ctx)
		if err != nil {
			return fail("group "+name, err)
		}
		stats.Groups = append(stats.Groups, g)
	}
	if p, ok := s.store.(timer.Provider); ok {
		var err error
		if stats.Timers, err = p.Timers().Count(ctx); err != nil {
			return fail("timers", err)
		}
	}
	if p, ok := s.store.(call.Provider); ok {
		if o, ok := p.Calls().(call.Observer); ok {
			var err error
			if stats.Calls, err = o.Pending(ctx); err != nil {
				return fail("calls", err)
			}
		}
	}
	return stats, nil
}

// Letters returns the service's dead letters as an operator handles them; ok is false when its store
// keeps none.
func (s *Service) Letters() (q *deadletter.Queue, ok bool) {
	p, ok := s.store.(deadletter.Provider)
	if !ok {
		return nil, false
	}
	return deadletter.NewQueue(s.Runner(), p.Letters(), ""), true
}
