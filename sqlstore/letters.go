package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// letterStore keeps parked events of groups.
type letterStore struct {
	s *Store
	q letterSQL
}

type letterSQL struct {
	park, update, lane, head, first, remove, promote, lanes, selectOne, selectDue, selectLane, selectAny, seq, groups, audit, entries string
}

var (
	_ deadletter.Store   = (*letterStore)(nil)
	_ deadletter.Grouper = (*letterStore)(nil)
	_ deadletter.Auditor = (*letterStore)(nil)
)

func (s *Store) initLetters(q *statements) {
	s.letters.s = s
	s.letters.q = letterSQL{
		park: q.text("deadletter.park"), update: q.text("deadletter.update"),
		lane: q.text("deadletter.lane"), remove: q.text("deadletter.remove"),
		promote: q.text("deadletter.promote"), lanes: q.text("deadletter.lanes"),
		selectOne: q.text("deadletter.select_one"), selectDue: q.text("deadletter.select_due"),
		selectLane: q.text("deadletter.select_lane"), selectAny: q.text("deadletter.select_any"),
		seq: q.text("deadletter.seq"), groups: q.text("deadletter.groups"),
		audit: q.text("deadletter.audit"), entries: q.text("deadletter.entries"),
	}
	if q.dialect != sqliteName {
		s.letters.q.head, s.letters.q.first = q.text("deadletter.head"), q.text("deadletter.first")
	}
}

// Park implements [deadletter.Store].
func (s *letterStore) Park(ctx context.Context, tx *txn.Tx, l deadletter.Letter) error {
	args := append(eventArgs([]any{l.Group}, &l.Event), l.Partition, l.Position, string(l.State), int64(l.Attempts),
		nanos(l.FirstAt), nanos(l.LastAt), nanos(l.NextAt), clip(l.Cause), clip(l.Stack), l.Permanent, nanos(tx.Now()))
	err := s.lockLane(ctx, tx, l.Group, l.Event.Topic, l.Event.AggregateID)
	if err == nil {
		_, err = tx.Exec(ctx, s.q.park, args...)
	}
	if err != nil {
		return fmt.Errorf("sqlstore: park %s: %w", l.ID(), err)
	}
	return nil
}

// lockLane takes the lane's head, if there is one: otherwise the lane could lose its last letter while
// another one is being put behind it, which would wait for ever. On a file there is one transaction at a time.
func (s *letterStore) lockLane(ctx context.Context, tx *txn.Tx, group, topic, key string) error {
	if s.q.head == "" {
		return nil
	}
	for {
		var seq, first int64
		err := tx.QueryRow(ctx, s.q.head, []any{group, topic, key}, &seq)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		// Postgres passes over a head that was deleted while we waited for it, and looks no further.
		err = tx.QueryRow(ctx, s.q.first, []any{group, topic, key}, &first)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// clip bounds the text kept of an error or a stack, at a whole character.
func clip(s string) string {
	if len(s) <= deadletter.CauseBytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:deadletter.CauseBytesMax], "")
}

// Update implements [deadletter.Store]. The event's data is stored too, as an operator may
// have edited it.
func (s *letterStore) Update(ctx context.Context, tx *txn.Tx, l deadletter.Letter) error {
	n, err := tx.Exec(ctx, s.q.update, l.Group, l.Event.ID[:], string(l.State), int64(l.Attempts),
		nanos(l.FirstAt), nanos(l.LastAt), nanos(l.NextAt), clip(l.Cause), clip(l.Stack), l.Permanent,
		l.Event.Data)
	if err == nil && n == 0 {
		err = deadletter.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("sqlstore: update %s: %w", l.ID(), err)
	}
	return nil
}

// Remove implements [deadletter.Store].
func (s *letterStore) Remove(ctx context.Context, tx *txn.Tx, group string, id event.ID) (bool, error) {
	var topic, key string
	err := tx.QueryRow(ctx, s.q.lane, []any{group, id[:]}, &topic, &key)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err == nil {
		_, err = tx.Exec(ctx, s.q.remove, group, id[:])
	}
	if err == nil {
		_, err = tx.Exec(ctx, s.q.promote, group, topic, key, nanos(tx.Now()))
	}
	if err != nil {
		return false, fmt.Errorf("sqlstore: remove %s:%s: %w", group, id, err)
	}
	return true, nil
}

// Lanes implements [deadletter.Store].
func (s *letterStore) Lanes(ctx context.Context, group string) ([]deadletter.Lane, error) {
	var out []deadletter.Lane
	err := s.s.each(ctx, s.q.lanes, []any{group}, func(rows txn.Rows) error {
		var l deadletter.Lane
		err := rows.Scan(&l.Topic, &l.Key)
		out = append(out, l)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: lanes of %s: %w", group, err)
	}
	return out, nil
}

// Select implements [deadletter.Store].
func (s *letterStore) Select(ctx context.Context, q deadletter.Query) ([]deadletter.Letter, error) {
	if q.Limit <= 0 || q.Limit > deadletter.PageMax {
		q.Limit = deadletter.PageMax
	}
	out, err := s.find(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: select letters: %w", err)
	}
	return out, nil
}

func (s *letterStore) find(ctx context.Context, q deadletter.Query) ([]deadletter.Letter, error) {
	after, err := s.after(ctx, q.After)
	if err != nil {
		return nil, err
	}
	due := nanos(q.DueBy)
	args := []any{q.Group, q.Topic, q.Key, q.Cause, string(q.State), after, int64(q.Limit), due}
	query := s.q.selectAny
	switch {
	case !q.ID.IsZero():
		args = append(args, q.ID[:])
	case q.Group != "" && due != 0:
		query = s.q.selectDue
	case q.Group != "" && q.Topic != "" && q.Key != "":
		query = s.q.selectLane
	default:
		args = append(args, nil)
	}
	if q.ID.IsZero() || q.Group == "" || q.Topic+q.Key+q.Cause+string(q.State)+q.After != "" || due != 0 {
		return s.letters(ctx, query, args)
	}
	return s.letters(ctx, s.q.selectOne, []any{q.Group, q.ID[:]})
}

// after returns the place of the last letter of the page before.
func (s *letterStore) after(ctx context.Context, letter string) (seq int64, err error) {
	if letter == "" {
		return 0, nil
	}
	i := strings.LastIndexByte(letter, ':')
	if i < 0 {
		return 0, fmt.Errorf("after %.200q, which is no letter: %w", letter, deadletter.ErrNotFound)
	}
	id, err := event.ParseID(letter[i+1:])
	if err != nil {
		return 0, fmt.Errorf("after %.200q: %w: %w", letter, deadletter.ErrNotFound, err)
	}
	err = s.s.row(ctx, s.q.seq, []any{letter[:i], id[:]}, &seq)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("after %.200q: %w", letter, deadletter.ErrNotFound)
	}
	return seq, err
}

func (s *letterStore) letters(ctx context.Context, query string, args []any) ([]deadletter.Letter, error) {
	var out []deadletter.Letter
	var l deadletter.Letter
	var scan eventScan
	var seq, first, last, next int64
	dest := append(scan.dest([]any{&seq, &l.Group}), &l.Partition, &l.Position, &l.State, &l.Attempts,
		&first, &last, &next, &l.Cause, &l.Stack, &l.Permanent)
	err := s.s.each(ctx, query, args, func(rows txn.Rows) (err error) {
		scan.e.Data = nil
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		l.Event, err = scan.envelope()
		l.FirstAt, l.LastAt, l.NextAt = timeOf(first), timeOf(last), timeOf(next)
		out = append(out, l)
		return err
	})
	return out, err
}

// Groups implements [deadletter.Grouper].
func (s *letterStore) Groups(ctx context.Context) ([]deadletter.Group, error) {
	var out []deadletter.Group
	err := s.s.each(ctx, s.q.groups, nil, func(rows txn.Rows) error {
		var g deadletter.Group
		var first, last int64
		err := rows.Scan(&g.Group, &g.Topic, &g.Cause, &g.State, &g.Count, &first, &last)
		g.First, g.Last = timeOf(first), timeOf(last)
		out = append(out, g)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: group letters: %w", err)
	}
	return out, nil
}

// Audit implements [deadletter.Auditor].
func (s *letterStore) Audit(ctx context.Context, tx *txn.Tx, e deadletter.Entry) error {
	if _, err := tx.Exec(ctx, s.q.audit, nanos(e.At), e.Operator, e.Action, e.Letter, e.Note); err != nil {
		return fmt.Errorf("sqlstore: audit: %w", err)
	}
	return nil
}

// Entries implements [deadletter.Auditor].
func (s *letterStore) Entries(ctx context.Context, limit int) ([]deadletter.Entry, error) {
	var out []deadletter.Entry
	err := s.s.each(ctx, s.q.entries, []any{int64(page(limit))}, func(rows txn.Rows) error {
		var e deadletter.Entry
		var at int64
		err := rows.Scan(&at, &e.Operator, &e.Action, &e.Letter, &e.Note)
		e.At = timeOf(at)
		out = append(out, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: read audit: %w", err)
	}
	return out, nil
}
