package sqlstore

import (
	"context"
	"fmt"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/txn"
)

// positionStore keeps how far groups have come.
type positionStore struct {
	s *Store
	q struct{ take, taken, store, all string }
}

var _ consumer.Positions = (*positionStore)(nil)

func (s *Store) initPositions(q *statements) {
	p := &s.positions
	p.s = s
	p.q.take, p.q.taken = q.text("consumer.take"), q.text("consumer.taken")
	p.q.store, p.q.all = q.text("consumer.store"), q.text("consumer.all")
}

// Take implements [consumer.Positions].
func (p *positionStore) Take(ctx context.Context, group, partition string) (broker.Position, int64, error) {
	var pos broker.Position
	var fence, offset int64
	err := p.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		// The row is locked by the first, so that a batch of the last owner is in or out before the second.
		if _, err := tx.Exec(ctx, p.q.take, group, partition); err != nil {
			return err
		}
		return tx.QueryRow(ctx, p.q.taken, []any{group, partition}, &fence, &pos.Incarnation, &offset)
	})
	if err != nil {
		return broker.Position{}, 0, fmt.Errorf("sqlstore: take %s of %s: %w", partition, group, err)
	}
	pos.Offset = uint64(offset)
	return pos, fence, nil
}

// Store implements [consumer.Positions].
func (p *positionStore) Store(ctx context.Context, tx *txn.Tx, group, partition string, fence int64, pos broker.Position) error {
	n, err := tx.Exec(ctx, p.q.store, group, partition, fence, pos.Incarnation, int64(pos.Offset))
	if err != nil {
		return fmt.Errorf("sqlstore: store position %s of %s in %s: %w", pos, group, partition, err)
	}
	if n == 0 {
		return fmt.Errorf("sqlstore: store position %s of %s in %s with fence %d: %w", pos, group, partition, fence, consumer.ErrFenced)
	}
	return nil
}

// All implements [consumer.Positions].
func (p *positionStore) All(ctx context.Context, group string) (map[string]broker.Position, error) {
	out := map[string]broker.Position{}
	err := p.s.each(ctx, p.q.all, []any{group}, func(rows txn.Rows) error {
		var partition string
		var pos broker.Position
		var offset int64
		err := rows.Scan(&partition, &pos.Incarnation, &offset)
		pos.Offset = uint64(offset)
		out[partition] = pos
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: positions of %s: %w", group, err)
	}
	return out, nil
}
