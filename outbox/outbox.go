// Package outbox adds events to a business transaction: they are committed with its rows, or not at
// all, and a relay (or a follower, see package storebroker) carries them on.
//
//	err := runner.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
//		if _, err := tx.Exec(ctx, insertOrder, id); err != nil {
//			return err
//		}
//		return outbox.Add(ctx, tx, OrderCreated.New(data))
//	})
//
// # Guarantee
//
// No event of a rolled-back transaction is ever seen, and no committed event is lost. Events of one
// aggregate are carried in commit order, those of one transaction in the order they were added; that
// is provable because they are written by the transaction's last statement, after its rows are
// locked. The log is insert-only: what has been sent follows from positions, no row is updated.
//
// # What this package does not do
//
// It publishes nothing; package relay does. It keeps events as long as the store's retention says
// and is not an archive; package eventstore is.
package outbox

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// Position is a place in one store's outbox. Positions are monotone and the same whenever the log is
// read, also after a crash. Which parts are used depends on the source: SQLite has only ID, a window
// of Postgres has Tick and ID, the write-ahead log has the LSN as Tick and the place within the commit as ID.
type Position struct {
	// Epoch counts changes of the kind of source; positions of two epochs are not comparable by time.
	Epoch int64
	Tick  int64
	ID    int64
}

// Compare orders positions.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Tick, q.Tick), cmp.Compare(p.ID, q.ID))
}

// IsZero reports whether p is the place before the first event.
func (p Position) IsZero() bool { return p == Position{} }

// String returns epoch.tick.id.
func (p Position) String() string { return fmt.Sprintf("%d.%d.%d", p.Epoch, p.Tick, p.ID) }

// ParsePosition reads what String wrote.
func ParsePosition(s string) (Position, error) {
	var p Position
	n, err := fmt.Sscanf(s, "%d.%d.%d", &p.Epoch, &p.Tick, &p.ID)
	// Sscanf is generous with what follows and with signs; a position has one spelling.
	if n != 3 || err != nil || min(p.Epoch, p.Tick, p.ID) < 0 || p.String() != s {
		return Position{}, fmt.Errorf("outbox: position %.60q is not epoch.tick.id", s)
	}
	return p, nil
}

// Record is one committed event with its place in the log.
type Record struct {
	Position  Position
	CreatedAt time.Time
	Event     event.Envelope
}

// Add puts drafts into the transaction. They get their identity, the transaction's time and producer,
// and inherit the cause in ctx (see [event.WithCause]). Any error must fail the transaction: a limit
// that is exceeded, data that cannot be encoded, or an in-transaction listener that refused.
func Add(ctx context.Context, tx *txn.Tx, drafts ...event.Draft) error {
	cause := event.CauseFrom(ctx)
	for _, d := range drafts {
		e, err := d.Seal(tx.Producer(), tx.Now(), cause)
		if err != nil {
			return fmt.Errorf("outbox: add %s: %w", d.Type, err)
		}
		if err := tx.Append(ctx, e); err != nil {
			return fmt.Errorf("outbox: add %s: %w", d.Type, err)
		}
	}
	return nil
}
