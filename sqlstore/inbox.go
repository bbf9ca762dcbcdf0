package sqlstore

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
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

	dialect string

	mu     sync.Mutex
	groups map[string]int64 // committed ones
}

type inboxSQL struct {
	groupAdd, groups, group, known, remember, forgetTimed, forgetUntimed string
}

var _ inbox.Store = (*inboxStore)(nil)

func (s *Store) initInbox(q *statements) {
	s.inbox.s, s.inbox.groups, s.inbox.dialect = s, map[string]int64{}, q.dialect
	s.inbox.q = inboxSQL{
		groupAdd: q.text("inbox.group_add"), groups: q.text("inbox.groups"), group: q.text("inbox.group"),
		remember: q.text("inbox.remember"), forgetTimed: q.text("inbox.forget_timed"),
		forgetUntimed: q.text("inbox.forget_untimed"),
	}
	if q.dialect == mysqlName {
		s.inbox.q.known = q.text("inbox.known")
	}
}

// Remember implements [inbox.Store].
func (i *inboxStore) Remember(ctx context.Context, tx *txn.Tx, group string, ids []event.ID) ([]bool, error) {
	g, err := i.group(ctx, tx, group)
	if err != nil {
		return nil, err
	}
	switch {
	case len(ids) == 0:
		return nil, nil
	case i.dialect == postgresName:
		return i.rememberArrays(ctx, tx, g, ids)
	case i.dialect == mysqlName:
		return i.rememberJSON(ctx, tx, g, ids)
	}
	return i.rememberEach(ctx, tx, g, ids)
}

// rememberEach is for a file: a prepared statement costs less there than to take a list apart.
func (i *inboxStore) rememberEach(ctx context.Context, tx *txn.Tx, g int64, ids []event.ID) ([]bool, error) {
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

// rememberArrays is one statement, which returns what was new.
func (i *inboxStore) rememberArrays(ctx context.Context, tx *txn.Tx, g int64, ids []event.ID) ([]bool, error) {
	list, flags := make([][]byte, len(ids)), make([]bool, len(ids))
	for k := range ids {
		list[k], flags[k] = ids[k][:], timed(ids[k], tx.Now())
	}
	added, err := idSet(tx.Query(ctx, i.q.remember, g, nanos(tx.Now()), list, flags))
	if err != nil {
		return nil, err
	}
	return firsts(ids, added), nil
}

// rememberJSON asks which are known, and adds the others. Whoever adds the same ones meanwhile makes it a
// duplicate: then the transaction runs again, and knows them.
func (i *inboxStore) rememberJSON(ctx context.Context, tx *txn.Tx, g int64, ids []event.ID) ([]bool, error) {
	list, err := json.Marshal(hexes(ids))
	if err != nil {
		return nil, err
	}
	known, err := idSet(tx.Query(ctx, i.q.known, g, string(list)))
	if err != nil {
		return nil, err
	}
	type row struct {
		ID    string `json:"id"`
		Timed bool   `json:"timed"`
	}
	added, rows := map[event.ID]bool{}, []row{}
	for _, id := range ids {
		if !known[id] && !added[id] {
			added[id] = true
			rows = append(rows, row{hex.EncodeToString(id[:]), timed(id, tx.Now())})
		}
	}
	if len(rows) == 0 {
		return make([]bool, len(ids)), nil
	}
	if list, err = json.Marshal(rows); err != nil {
		return nil, err
	}
	n, err := tx.Exec(ctx, i.q.remember, g, nanos(tx.Now()), string(list))
	switch {
	case errors.Is(err, ErrDuplicate):
		return nil, fmt.Errorf("%w: %w", ErrConflict, err)
	case err != nil:
		return nil, err
	case n != int64(len(rows)):
		return nil, fmt.Errorf("%d of %d identities remembered: %w", n, len(rows), ErrCorrupt)
	}
	return firsts(ids, added), nil
}

func hexes(ids []event.ID) []string {
	out := make([]string, len(ids))
	for k := range ids {
		out[k] = hex.EncodeToString(ids[k][:])
	}
	return out
}

// idSet reads identities.
func idSet(rows txn.Rows, err error) (map[event.ID]bool, error) {
	if err != nil {
		return nil, err
	}
	set := map[event.ID]bool{}
	for rows.Next() && err == nil {
		var b []byte
		if err = rows.Scan(&b); err == nil {
			var id event.ID
			id, err = idOf(b)
			set[id] = true
		}
	}
	return set, errors.Join(err, rows.Err(), rows.Close())
}

// firsts marks the first occurrence of each identity that is in the set, and uses the set up.
func firsts(ids []event.ID, set map[event.ID]bool) []bool {
	out := make([]bool, len(ids))
	for k, id := range ids {
		out[k] = set[id]
		delete(set, id)
	}
	return out
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
	bound := make([]byte, 16)
	binary.BigEndian.PutUint64(bound, uint64(max(0, before.Add(skewMax).UnixMilli()+1))<<16)
	return bound
}
