package consumer

import (
	"context"
	"errors"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/txn"
)

// ErrFenced says that a newer reader has taken the partition: drop what is in hand, the transaction
// must roll back.
var ErrFenced = errors.New("partition was taken by a newer reader")

// Positions keeps how far each group has handled each partition, in the database of the effects.
type Positions interface {
	// Take makes the caller the partition's only reader: it raises the fence and returns it with the
	// stored position, zero when there is none.
	Take(ctx context.Context, group, partition string) (p broker.Position, fence int64, err error)
	// Store saves a position in the transaction of the batch that led to it; ErrFenced when another
	// reader has taken the partition since.
	Store(ctx context.Context, tx *txn.Tx, group, partition string, fence int64, p broker.Position) error
	// All returns the stored positions of a group by partition.
	All(ctx context.Context, group string) (map[string]broker.Position, error)
}

// Provider is a store that has positions.
type Provider interface {
	Positions() Positions
}

// Classifier is a store that knows its own errors, also when a handler wraps them.
type Classifier interface {
	// Transient reports whether err says something about the store (disk full, busy, connection lost) and
	// nothing about the event at hand: the partition pauses, nothing is parked or counted.
	Transient(err error) bool
}
