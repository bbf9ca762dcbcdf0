package sqlstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/txn"
)

// inboxStore remembers identities. Groups have numbers, so that a row is small.
type inboxStore struct {
	s *Store
	q inboxSQL

	mu     sync.Mutex
	groups map[string]int64 // committed ones
}

type inboxSQL struct {
	groupAdd, groups, group, remember, forgetTimed, forgetUntimed string
}

var _ inbox.Store = (*inboxStore)(nil)

func (s *Store) initInbox(q *statements) {
	s.inbox.s, s.inbox.groups = s, map[string]int64{}
	s.inbox.q = inboxSQL{
		groupAdd: q.text("inbox.group_add"), groups: q.text("inbox.groups"), group: q.text("inbox.group"),
		remember: q.text("inbox.remember"), forgetTimed: q.text("inbox.forget_timed"),
		forgetUntimed: q.text("inbox.forget_untimed"),
	}
}

// Remember implements [inbox.Store].
func (i *inboxStore) Remember(ctx context.Context, tx *txn.Tx, group string, ids []event.ID) ([]bool, error) {
	g, err := i.group(ctx, tx, group)
	if err != nil {
		return nil, err
	}
	now, at := tx.Now(), nanos(tx.Now())
	fresh := make([]bool, len(ids))
	for k := range ids {
		n, err := tx.Exec(ctx, i.q.remember, g, ids[k][:], at, timed(ids[k], now))
		if err != nil {
			return nil, err
		}
		fresh[k] = n == 1
	}
	return fresh, nil
}

// skewMax is how far a producer's clock may be ahead of ours.
const skewMax = time.Minute

// timed reports whether an identity begins with a time that has passed: version 7, and no clock that is
// too far ahead.
func timed(id event.ID, now time.Time) bool {
	made := int64(binary.BigEndian.Uint64(id[:8]) >> 16)
	return id[6]>>4 == 7 && made < now.Add(skewMax).UnixMilli()
}

// group returns a group's number and gives it one in the transaction when it is new.
func (i *inboxStore) group(ctx context.Context, tx *txn.Tx, name string) (int64, error) {
	i.mu.Lock()
	g, ok := i.groups[name]
	i.mu.Unlock()
	if ok {
		return g, nil
	}
	if _, err := tx.Exec(ctx, i.q.groupAdd, name); err != nil {
		return 0, err
	}
	if err := tx.QueryRow(ctx, i.q.group, []any{name}, &g); err != nil {
		return 0, err
	}
	tx.AfterCommit(func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.groups[name] = g
	})
	return g, nil
}

// Forget implements [inbox.Store].
func (i *inboxStore) Forget(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := i.forget(ctx, before, limit)
	if err != nil {
		return n, fmt.Errorf("sqlstore: forget: %w", err)
	}
	return n, nil
}

func (i *inboxStore) forget(ctx context.Context, before time.Time, limit int) (int, error) {
	groups := []int64{}
	err := i.s.each(ctx, i.q.groups, nil, func(rows txn.Rows) error {
		var id int64
		var name string
		err := rows.Scan(&id, &name)
		groups = append(groups, id)
		return err
	})
	if err != nil {
		return 0, err
	}
	gone, err := i.s.delete(ctx, i.q.forgetUntimed, nanos(before), int64(limit))
	for _, g := range groups {
		if err != nil || gone >= limit {
			break
		}
		var n int
		n, err = i.s.delete(ctx, i.q.forgetTimed, g, timeBound(before), nanos(before), int64(limit-gone))
		gone += n
	}
	return gone, err
}

// timeBound returns a value above every timed identity that was remembered before a time.
func timeBound(before time.Time) []byte {
	bound := make([]byte, 8)
	binary.BigEndian.PutUint64(bound, uint64(max(0, before.Add(skewMax).UnixMilli()+1))<<16)
	return bound
}
