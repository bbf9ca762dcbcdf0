// Package inbox handles an event once: a group remembers the event's identity in the transaction that
// holds the event's effect.
//
// # Guarantee
//
// Within retention, an event that is delivered again (by the broker, by a relay that repeated after a
// crash, by an operator) has no second effect in the group's database. Identity, not position, is
// remembered, so this holds across repartitioning and rewinds.
//
// # What this package does not do
//
// Effects outside the database are not covered; see package call. What is older than the retention is
// forgotten; package consumer refuses a retention shorter than anything may come back.
package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// RememberMax bounds the identities of one call.
const RememberMax = 1000

// Store keeps what groups have handled.
type Store interface {
	// Remember stores ids for the group and tells which of them are new to it. An id that stands twice
	// in one call is new once.
	Remember(ctx context.Context, tx *txn.Tx, group string, ids []event.ID) (fresh []bool, err error)
	// Forget deletes up to limit identities remembered before a time and returns how many.
	Forget(ctx context.Context, before time.Time, limit int) (int, error)
}

// Provider is a store that has an inbox.
type Provider interface {
	Inbox() Store
}

// Remember stores ids in the transaction and tells which of them the group has not handled before.
// Use it in a consumer of your own; package consumer does it for you.
func Remember(ctx context.Context, tx *txn.Tx, group string, ids ...event.ID) ([]bool, error) {
	p, ok := tx.Port().(Provider)
	if !ok {
		return nil, fmt.Errorf("inbox: store %T has none: %w", tx.Port(), errors.ErrUnsupported)
	}
	if len(ids) > RememberMax {
		return nil, fmt.Errorf("inbox: remember %d ids: %d allowed", len(ids), RememberMax)
	}
	fresh, err := p.Inbox().Remember(ctx, tx, group, ids)
	if err != nil {
		return nil, fmt.Errorf("inbox: remember %d ids for %s: %w", len(ids), group, err)
	}
	return fresh, nil
}
