package deadletter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// TopicSuffix makes the topic on which a copy of each dead letter's event is published for other teams.
const TopicSuffix = ".DLQ"

// The actions of an audit.
const (
	ActionReplay   = "replay"
	ActionEdit     = "edit"
	ActionDiscard  = "discard"
	ActionReplayed = "replayed" // what became of a replay's first attempt, in the note
)

// OperatorEngine is the operator of audit entries that the consumer writes.
const OperatorEngine = "settle"

// auditLookback bounds the entries that are searched for an earlier replay of a letter that is gone.
const auditLookback = 1000

// ErrNoOperator says that an action came without the name of the person who answers for it.
var ErrNoOperator = errors.New("operator has no name")

// Queue is the operator's side of one group's letters, or of every group's.
type Queue struct {
	run   txn.Runner
	store Store
	group string
}

// NewQueue returns the letters of a group, or of all groups of the store when group is empty.
func NewQueue(run txn.Runner, store Store, group string) *Queue {
	return &Queue{run: run, store: store, group: group}
}

// List returns letters in the order in which they were parked, at most q.Limit or PageMax. q.Group is the
// queue's own when that is set.
func (q *Queue) List(ctx context.Context, query Query) ([]Letter, error) {
	if q.group != "" {
		query.Group = q.group
	}
	letters, err := q.store.Select(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("deadletter: list: %w", err)
	}
	return letters, nil
}

// Get returns one letter by its ID; ErrNotFound when it is not parked.
func (q *Queue) Get(ctx context.Context, id string) (Letter, error) {
	l, err := q.get(ctx, id)
	if err != nil {
		return l, fmt.Errorf("deadletter: letter %.200s: %w", id, err)
	}
	return l, nil
}

// Groups counts letters by group, topic, cause and state; [errors.ErrUnsupported] when the store cannot.
func (q *Queue) Groups(ctx context.Context) ([]Group, error) {
	g, ok := q.store.(Grouper)
	if !ok {
		return nil, fmt.Errorf("deadletter: groups: store %T cannot count: %w", q.store, errors.ErrUnsupported)
	}
	all, err := g.Groups(ctx)
	if err != nil {
		return nil, fmt.Errorf("deadletter: groups: %w", err)
	}
	if q.group == "" {
		return all, nil
	}
	own := all[:0]
	for _, g := range all {
		if g.Group == q.group {
			own = append(own, g)
		}
	}
	return own, nil
}

// Replay has a letter handled again, within about a second, with its whole retry policy before it. A
// letter that is being retried is tried at once. Replaying again changes nothing more, also when the letter has been
// handled since; ErrNotFound when it never was parked or was discarded, ErrNotHead when another letter
// of its key comes first.
func (q *Queue) Replay(ctx context.Context, operator, id string) error {
	l, err := q.get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound) && q.wasReplayed(ctx, id):
		return nil
	case err == nil:
		err = q.replay(ctx, operator, l, "")
	}
	if err != nil {
		return fmt.Errorf("deadletter: replay %.200s: %w", id, err)
	}
	return nil
}

// ReplayBatch replays up to n DEAD letters of a topic, or of all topics when it is empty, oldest first,
// and returns how many. Followers need no replay: they come when their head has been handled.
func (q *Queue) ReplayBatch(ctx context.Context, operator, topic string, n int) (int, error) {
	if n < 1 {
		return 0, fmt.Errorf("deadletter: replay a batch of %d: at least 1 needed", n)
	}
	return q.replayAll(ctx, operator, Query{Group: q.group, Topic: topic, State: StateDead}, n)
}

// ReplayCause replays every DEAD letter of a topic (any when empty) that died of exactly this cause, and
// returns how many.
func (q *Queue) ReplayCause(ctx context.Context, operator, topic, cause string) (int, error) {
	if cause == "" {
		return 0, errors.New("deadletter: replay a cause: it is empty")
	}
	return q.replayAll(ctx, operator, Query{Group: q.group, Topic: topic, Cause: cause, State: StateDead}, -1)
}

func (q *Queue) replayAll(ctx context.Context, operator string, query Query, n int) (int, error) {
	var chosen []Letter // All first: replaying one takes it out of the pages.
	for n < 0 || len(chosen) < n {
		query.Limit = PageMax
		page, err := q.store.Select(ctx, query)
		if errors.Is(err, ErrNotFound) {
			break // The last letter of the page before was dealt with meanwhile: these are enough for now.
		}
		if err != nil {
			return 0, fmt.Errorf("deadletter: replay: %w", err)
		}
		chosen = append(chosen, page...)
		if len(page) < query.Limit {
			break
		}
		query.After = page[len(page)-1].ID()
	}
	if n >= 0 && len(chosen) > n {
		chosen = chosen[:n]
	}
	done := 0
	for _, l := range chosen {
		err := q.replay(ctx, operator, l, fmt.Sprintf("one of %d", len(chosen)))
		switch {
		case err == nil:
			done++
		case !errors.Is(err, ErrNotFound): // Somebody else's replay or discard was first: fine.
			return done, fmt.Errorf("deadletter: replay %s, %d of %d done: %w", l.ID(), done, len(chosen), err)
		}
	}
	return done, nil
}

func (q *Queue) replay(ctx context.Context, operator string, l Letter, note string) error {
	if err := q.mustBeHead(ctx, l); err != nil {
		return err
	}
	if note == "" {
		note = fmt.Sprintf("was %s after %d attempts", l.State, l.Attempts)
	}
	return q.act(ctx, operator, ActionReplay, l, note, func(ctx context.Context, tx *txn.Tx) error {
		return q.store.Update(ctx, tx, fresh(l, tx.Now()))
	})
}

// fresh returns the letter as a replay leaves it; see [Replayed].
func fresh(l Letter, now time.Time) Letter {
	l.State, l.Permanent, l.Attempts = StateRetrying, false, 0
	l.FirstAt, l.NextAt = now, now
	if l.Cause == "" {
		l.Cause = "replayed"
	}
	return l
}

// Replayed reports whether an operator has replayed the letter and nothing was tried since.
func Replayed(l Letter) bool {
	return l.State == StateRetrying && l.Attempts == 0 && l.Cause != "" && !l.Permanent && l.NextAt.Equal(l.FirstAt)
}

// Edit replaces the data of a DEAD letter's event, which must be JSON within the limit of an event, and
// replays it. The audit keeps the digests of the old and the new data. The event on the broker stays as it
// is: only this group sees the edited one.
func (q *Queue) Edit(ctx context.Context, operator, id string, data []byte) error {
	l, err := q.get(ctx, id)
	if err == nil {
		err = q.edit(ctx, operator, l, data)
	}
	if err != nil {
		return fmt.Errorf("deadletter: edit %.200s: %w", id, err)
	}
	return nil
}

func (q *Queue) edit(ctx context.Context, operator string, l Letter, data []byte) error {
	switch {
	case len(data) > event.DataBytesMax:
		return fmt.Errorf("data of %d bytes exceeds %d", len(data), event.DataBytesMax)
	case !json.Valid(data):
		return fmt.Errorf("data of %d bytes is not JSON", len(data))
	}
	if err := q.mustBeHead(ctx, l); err != nil {
		return err
	}
	if l.State != StateDead {
		return fmt.Errorf("letter is %s, only a %s one can be edited", l.State, StateDead)
	}
	note := fmt.Sprintf("data sha256:%s replaced by sha256:%s", digest(l.Event.Data), digest(data))
	return q.act(ctx, operator, ActionEdit, l, note, func(ctx context.Context, tx *txn.Tx) error {
		l := fresh(l, tx.Now())
		l.Event.Data = data
		return q.store.Update(ctx, tx, l)
	})
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Discard deletes a letter for good; the next one of its key is tried from now on. The audit keeps the
// event's identity, type and digest. ErrNotFound when it is not parked, ErrNotHead when another letter of
// its key comes first.
func (q *Queue) Discard(ctx context.Context, operator, id string) error {
	l, err := q.get(ctx, id)
	if err == nil {
		err = q.mustBeHead(ctx, l)
	}
	if err == nil {
		note := fmt.Sprintf("%s %s on %s, data sha256:%s, cause: %s", l.Event.Type, l.Event.AggregateID, l.Event.Topic, digest(l.Event.Data), l.Cause)
		err = q.act(ctx, operator, ActionDiscard, l, note, func(ctx context.Context, tx *txn.Tx) error {
			ok, err := q.store.Remove(ctx, tx, l.Group, l.Event.ID)
			if err == nil && !ok {
				err = ErrNotFound
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("deadletter: discard %.200s: %w", id, err)
	}
	return nil
}

// Audit returns up to limit actions, newest first; [errors.ErrUnsupported] when the store keeps none.
func (q *Queue) Audit(ctx context.Context, limit int) ([]Entry, error) {
	a, ok := q.store.(Auditor)
	if !ok {
		return nil, fmt.Errorf("deadletter: audit: store %T keeps none: %w", q.store, errors.ErrUnsupported)
	}
	entries, err := a.Entries(ctx, limit)
	if err != nil {
		return nil, fmt.Errorf("deadletter: audit: %w", err)
	}
	return entries, nil
}

// act does what an operator wants, and audits it, in one transaction.
func (q *Queue) act(ctx context.Context, operator, action string, l Letter, note string, do func(context.Context, *txn.Tx) error) error {
	if strings.TrimSpace(operator) == "" {
		return ErrNoOperator
	}
	return q.run.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		if err := do(ctx, tx); err != nil {
			return err
		}
		a, ok := q.store.(Auditor)
		if !ok {
			return fmt.Errorf("store %T keeps no audit: %w", q.store, errors.ErrUnsupported)
		}
		return a.Audit(ctx, tx, Entry{At: tx.Now(), Operator: operator, Action: action, Letter: l.ID(), Note: note})
	})
}

func (q *Queue) get(ctx context.Context, id string) (Letter, error) {
	group, text, ok := strings.Cut(id, ":")
	if !ok {
		return Letter{}, errors.New("letter's ID is not group:event")
	}
	eventID, err := event.ParseID(text)
	if err != nil {
		return Letter{}, err
	}
	if q.group != "" && group != q.group {
		return Letter{}, fmt.Errorf("letter belongs to group %s, this is %s: %w", group, q.group, ErrNotFound)
	}
	letters, err := q.store.Select(ctx, Query{Group: group, ID: eventID, Limit: 1})
	switch {
	case err != nil:
		return Letter{}, err
	case len(letters) == 0:
		return Letter{}, ErrNotFound
	}
	return letters[0], nil
}

// mustBeHead refuses a letter that waits behind another, and names that one.
func (q *Queue) mustBeHead(ctx context.Context, l Letter) error {
	if l.State != StateWaiting {
		return nil
	}
	// The first letter of the lane is enough, but an empty key selects every lane of the topic.
	lane, err := q.store.Select(ctx, Query{Group: l.Group, Topic: l.Event.Topic, Key: l.Event.AggregateID, Limit: PageMax})
	if err != nil {
		return err
	}
	for i := range lane {
		switch head := &lane[i]; {
		case head.Event.AggregateID != l.Event.AggregateID:
		case head.Event.ID == l.Event.ID:
			return nil // Promoted since it was read.
		default:
			return fmt.Errorf("%s, which is %s, comes first: %w", head.ID(), head.State, ErrNotHead)
		}
	}
	return ErrNotHead
}

func (q *Queue) wasReplayed(ctx context.Context, id string) bool {
	a, ok := q.store.(Auditor)
	if !ok {
		return false
	}
	entries, err := a.Entries(ctx, auditLookback)
	if err != nil {
		return false
	}
	for _, e := range entries { // Newest first: a later discard would make the replay history.
		if e.Letter == id {
			return e.Action != ActionDiscard
		}
	}
	return false
}
