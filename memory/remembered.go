package memory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/txn"
)

type memoryKey struct {
	group string
	id    event.ID
}

type memoryOf struct{ s *Store }

// Inbox returns what groups have handled.
func (s *Store) Inbox() inbox.Store { return memoryOf{s} }

func (m memoryOf) Remember(_ context.Context, tx *txn.Tx, group string, ids []event.ID) ([]bool, error) {
	if err := m.s.within(tx); err != nil {
		return nil, err
	}
	fresh := make([]bool, len(ids))
	for i, id := range ids {
		k := memoryKey{group, id}
		if _, known := m.s.inbox.see(k); !known {
			m.s.inbox.put(m.s, k, tx.Now())
			fresh[i] = true
		}
	}
	return fresh, nil
}

func (m memoryOf) Forget(ctx context.Context, before time.Time, limit int) (int, error) {
	return forget(ctx, m.s, m.s.inbox, before, limit, func(at time.Time) time.Time { return at })
}

// forget deletes the oldest rows of a table that is ordered by time.
func forget[K comparable, V any](ctx context.Context, s *Store, t *table[K, V], before time.Time, limit int, at func(V) time.Time) (int, error) {
	n := 0
	err := s.write(ctx, func() error {
		for k, v := range t.seeAll() {
			if n >= limit || !at(v).Before(before) {
				break
			}
			t.drop(s, k)
			n++
		}
		return nil
	})
	return n, err
}

type positionKey struct{ group, partition string }

type held struct {
	position broker.Position
	fence    int64
}

type positions struct{ s *Store }

// Positions returns how far groups have handled their partitions.
func (s *Store) Positions() consumer.Positions { return positions{s} }

func (p positions) Take(ctx context.Context, group, partition string) (broker.Position, int64, error) {
	var h held
	// In turn: a batch that is open has stored its position before the fence rises, or not at all.
	err := p.s.write(ctx, func() error {
		k := positionKey{group, partition}
		h, _ = p.s.positions.see(k)
		h.fence++
		p.s.positions.put(p.s, k, h)
		return nil
	})
	return h.position, h.fence, err
}

func (p positions) Store(_ context.Context, tx *txn.Tx, group, partition string, fence int64, to broker.Position) error {
	if err := p.s.within(tx); err != nil {
		return err
	}
	k := positionKey{group, partition}
	h, ok := p.s.positions.see(k)
	if !ok || h.fence != fence {
		return fmt.Errorf("memory: position of %s in %s at fence %d, reader has %d: %w", group, partition, h.fence, fence, consumer.ErrFenced)
	}
	h.position = to
	p.s.positions.put(p.s, k, h)
	return nil
}

func (p positions) All(ctx context.Context, group string) (map[string]broker.Position, error) {
	all := map[string]broker.Position{}
	err := p.s.read(ctx, func() {
		for k, h := range p.s.positions.all() {
			if k.group == group {
				all[k.partition] = h.position
			}
		}
	})
	return all, err
}

type answerKey struct{ scope, key string }

func bySaved(a, b idempotency.Answer) int { return a.SavedAt.Compare(b.SavedAt) }

type answers struct{ s *Store }

// Answers returns the first answers of commands.
func (s *Store) Answers() idempotency.Store { return answers{s} }

func (a answers) Lookup(ctx context.Context, scope, key string) (found idempotency.Answer, ok bool, err error) {
	err = a.s.read(ctx, func() {
		found, ok = a.s.answers.get(answerKey{scope, key})
	})
	return own(found), ok, err
}

func (a answers) Save(_ context.Context, tx *txn.Tx, answer idempotency.Answer) error {
	if err := a.s.within(tx); err != nil {
		return err
	}
	k := answerKey{answer.Scope, answer.Key}
	if _, taken := a.s.answers.see(k); taken {
		return fmt.Errorf("memory: answer of %s %s: %w", k.scope, k.key, idempotency.ErrExists)
	}
	a.s.answers.put(a.s, k, own(answer))
	return nil
}

// own copies what the caller may change.
func own(a idempotency.Answer) idempotency.Answer {
	a.Header, a.Body = maps.Clone(a.Header), bytes.Clone(a.Body)
	return a
}

func (a answers) Forget(ctx context.Context, before time.Time, limit int) (int, error) {
	return forget(ctx, a.s, a.s.answers, before, limit, func(v idempotency.Answer) time.Time { return v.SavedAt })
}
