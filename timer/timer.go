// Package timer wakes a key later: it keeps an event in the database and adds it to the outbox when its
// time has come, or never when the timer is cancelled before.
//
//	err := timer.Set(ctx, tx, "order-42/payment", tx.Now().Add(5*time.Second), PaymentDeadline.New(data))
//	...
//	_, err := timer.Cancel(ctx, tx, "order-42/payment")
//
// # Guarantee
//
// A timer that was set in a committed transaction fires once, not before its time, or is cancelled: the
// transaction that deletes its row wins, and firing adds the event in that same transaction. Firing adds a
// fresh row to the outbox; an old row never becomes visible late.
//
// # What this package does not do
//
// It is no scheduler: there is no repetition and no calendar. Firing may be late by the time that the
// process was down. A cancelled timer's event may already be on its way when Cancel reports false, so
// the receiver decides by its own state.
package timer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// KeyBytesMax bounds a timer's key.
const KeyBytesMax = 256

// Timer is an event that waits for its time. Keys are unique within a store.
type Timer struct {
	Key   string
	At    time.Time
	Event event.Envelope
}

// Store keeps timers.
type Store interface {
	// Set stores a timer; one of the same key is replaced.
	Set(ctx context.Context, tx *txn.Tx, t Timer) error
	// Cancel deletes a timer and reports whether it was there.
	Cancel(ctx context.Context, tx *txn.Tx, key string) (bool, error)
	// Take deletes and returns up to limit timers whose time is not after now, oldest first.
	Take(ctx context.Context, tx *txn.Tx, now time.Time, limit int) ([]Timer, error)
	// Next returns the earliest time of all, ok false when there is no timer.
	Next(ctx context.Context) (at time.Time, ok bool, err error)
	// Count returns how many timers wait.
	Count(ctx context.Context) (int64, error)
}

// Provider is a store that has timers.
type Provider interface {
	Timers() Store
}

// Set makes draft an event at a time, under a key. It inherits the cause in ctx; its time is that of
// firing. Setting a key again replaces its timer.
func Set(ctx context.Context, tx *txn.Tx, key string, at time.Time, draft event.Draft) error {
	s, err := storeOf(tx)
	if err != nil {
		return err
	}
	if key == "" || len(key) > KeyBytesMax {
		return fmt.Errorf("timer: set: key of %d bytes, 1 to %d allowed", len(key), KeyBytesMax)
	}
	// Sealed at the present: an identity of the future would push the process's clock of identities there.
	e, err := draft.Seal(tx.Producer(), tx.Now(), event.CauseFrom(ctx))
	if err != nil {
		return fmt.Errorf("timer: set %s: %w", key, err)
	}
	e.OccurredAt = at.UTC()
	if err := s.Set(ctx, tx, Timer{Key: key, At: at, Event: e}); err != nil {
		return fmt.Errorf("timer: set %s: %w", key, err)
	}
	return nil
}

// Cancel deletes a timer. It reports false when there is none: never set, already fired, or cancelled.
func Cancel(ctx context.Context, tx *txn.Tx, key string) (bool, error) {
	s, err := storeOf(tx)
	if err != nil {
		return false, err
	}
	ok, err := s.Cancel(ctx, tx, key)
	if err != nil {
		return false, fmt.Errorf("timer: cancel %s: %w", key, err)
	}
	return ok, nil
}

func storeOf(tx *txn.Tx) (Store, error) {
	p, ok := tx.Port().(Provider)
	if !ok {
		return nil, fmt.Errorf("timer: store %T has none: %w", tx.Port(), errors.ErrUnsupported)
	}
	return p.Timers(), nil
}
