package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/txn"
)

// answerStore keeps the first answers of commands.
type answerStore struct {
	s *Store
	q struct{ lookup, save, forget string }
}

var _ idempotency.Store = (*answerStore)(nil)

func (s *Store) initAnswers(q *statements) {
	a := &s.answers
	a.s = s
	a.q.lookup, a.q.save = q.text("idempotency.lookup"), q.text("idempotency.save")
	a.q.forget = q.text("idempotency.forget")
}

// Lookup implements [idempotency.Store].
func (a *answerStore) Lookup(ctx context.Context, scope, key string) (idempotency.Answer, bool, error) {
	out := idempotency.Answer{Scope: scope, Key: key}
	var fingerprint, header []byte
	var saved int64
	err := a.s.row(ctx, a.q.lookup, []any{scope, key}, &fingerprint, &out.Status, &header, &out.Body, &saved)
	if errors.Is(err, sql.ErrNoRows) {
		return idempotency.Answer{}, false, nil
	}
	if err == nil && len(header) > 0 {
		err = json.Unmarshal(header, &out.Header)
	}
	if err != nil {
		return idempotency.Answer{}, false, fmt.Errorf("sqlstore: look up answer %s %s: %w", scope, key, err)
	}
	copy(out.Fingerprint[:], fingerprint)
	out.SavedAt = timeOf(saved)
	return out, true, nil
}

// Save implements [idempotency.Store].
func (a *answerStore) Save(ctx context.Context, tx *txn.Tx, x idempotency.Answer) error {
	header := ""
	if len(x.Header) > 0 {
		b, err := json.Marshal(x.Header)
		if err != nil {
			return fmt.Errorf("sqlstore: save answer %s %s: %w", x.Scope, x.Key, err)
		}
		header = string(b)
	}
	n, err := tx.Exec(ctx, a.q.save, x.Scope, x.Key, x.Fingerprint[:], int64(x.Status), header, x.Body, nanos(x.SavedAt))
	if err == nil && n == 0 || errors.Is(err, ErrDuplicate) {
		err = idempotency.ErrExists
	}
	if err != nil {
		return fmt.Errorf("sqlstore: save answer %s %s: %w", x.Scope, x.Key, err)
	}
	return nil
}

// Forget implements [idempotency.Store].
func (a *answerStore) Forget(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := a.s.delete(ctx, a.q.forget, nanos(before), int64(limit))
	if err != nil {
		return 0, fmt.Errorf("sqlstore: forget answers: %w", err)
	}
	return n, nil
}
