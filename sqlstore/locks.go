package sqlstore

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/txn"
)

// leaseStore keeps a row for each name that ever was held; one without an owner was released. The
// database's clock decides.
type leaseStore struct {
	s *Store
	q struct{ clock, add, read, check, write, list, serialize string }
	// slots is how many rows stand for all names that are serialised; 0 when the dialect takes the name itself.
	slots uint32
}

// serializeSlots bounds the rows of settle_serial: two names of one slot wait for one another.
const serializeSlots = 4096

var (
	_ lock.Leases     = (*leaseStore)(nil)
	_ lock.Lister     = (*leaseStore)(nil)
	_ lock.Serializer = (*leaseStore)(nil)
	_ lock.Provider   = (*Store)(nil)
)

func (s *Store) initLeases(q *statements) {
	l := &s.leases
	l.s = s
	l.q.clock, l.q.add, l.q.read = q.text("lock.clock"), q.text("lock.add"), q.text("lock.read")
	l.q.check, l.q.write, l.q.list = q.text("lock.check"), q.text("lock.write"), q.text("lock.list")
	if q.dialect != sqliteName {
		l.q.serialize = q.text("lock.serialize")
	}
	if q.dialect == mysqlName {
		l.slots = serializeSlots
	}
}

// row reads a name's row by a statement that locks it.
func (l *leaseStore) row(ctx context.Context, tx *txn.Tx, query, name string) (lock.Lease, error) {
	row := lock.Lease{Name: name}
	var expires int64
	err := tx.QueryRow(ctx, query, []any{name}, &row.Owner, &row.Fence, &expires)
	row.Expires = timeOf(expires)
	return row, err
}

// hold locks the name's row, which it makes when it is missing, and reads the clock after it.
func (l *leaseStore) hold(ctx context.Context, tx *txn.Tx, name string) (row lock.Lease, now time.Time, err error) {
	if _, err = tx.Exec(ctx, l.q.add, name); err != nil {
		return row, now, err
	}
	if row, err = l.row(ctx, tx, l.q.read, name); err != nil {
		return row, now, err
	}
	var clock int64
	err = tx.QueryRow(ctx, l.q.clock, nil, &clock)
	return row, timeOf(clock), err
}

func (l *leaseStore) put(ctx context.Context, tx *txn.Tx, row lock.Lease) error {
	_, err := tx.Exec(ctx, l.q.write, row.Name, row.Owner, row.Fence, nanos(row.Expires))
	return err
}

// Acquire implements [lock.Leases].
func (l *leaseStore) Acquire(ctx context.Context, name, owner string, ttl time.Duration) (taken lock.Lease, err error) {
	if err := lock.CheckLimits(name, owner, ttl); err != nil {
		return taken, fmt.Errorf("sqlstore: acquire: %w", err)
	}
	err = l.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		last, now, err := l.hold(ctx, tx, name)
		if err != nil {
			return err
		}
		if runs(last, now) {
			return &lock.HeldError{Name: name, Owner: last.Owner, Until: last.Expires}
		}
		taken = lock.Lease{Name: name, Owner: owner, Fence: last.Fence + 1, Expires: now.Add(ttl)}
		return l.put(ctx, tx, taken)
	})
	if err != nil {
		return lock.Lease{}, fmt.Errorf("sqlstore: acquire %s: %w", name, err)
	}
	return taken, nil
}

// Renew implements [lock.Leases].
func (l *leaseStore) Renew(ctx context.Context, held lock.Lease, ttl time.Duration) (renewed lock.Lease, err error) {
	if err := lock.CheckTTL(ttl); err != nil {
		return renewed, fmt.Errorf("sqlstore: renew %s: %w", held.Name, err)
	}
	err = l.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		last, now, err := l.hold(ctx, tx, held.Name)
		if err == nil {
			err = newest(last, held)
		}
		if err != nil {
			return err
		}
		if !now.Before(last.Expires) {
			return fmt.Errorf("ran out at %s: %w", last.Expires, lock.ErrLost)
		}
		last.Expires = now.Add(ttl)
		renewed = last
		return l.put(ctx, tx, last)
	})
	if err != nil {
		return lock.Lease{}, fmt.Errorf("sqlstore: renew %s at fence %d: %w", held.Name, held.Fence, err)
	}
	return renewed, nil
}

// Release implements [lock.Leases].
func (l *leaseStore) Release(ctx context.Context, held lock.Lease) error {
	err := l.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		last, _, err := l.hold(ctx, tx, held.Name)
		if err != nil || newest(last, held) != nil {
			return err // One that is over is what was asked for.
		}
		last.Owner = ""
		return l.put(ctx, tx, last)
	})
	if err != nil {
		return fmt.Errorf("sqlstore: release %s at fence %d: %w", held.Name, held.Fence, err)
	}
	return nil
}

// Check implements [lock.Leases].
func (l *leaseStore) Check(ctx context.Context, tx *txn.Tx, held lock.Lease) error {
	if tx.Port() != any(l.s) {
		return fmt.Errorf("sqlstore: check %s: the transaction is another store's", held.Name)
	}
	if _, err := tx.Exec(ctx, l.q.add, held.Name); err != nil {
		return fmt.Errorf("sqlstore: check %s: %w", held.Name, err)
	}
	last, err := l.row(ctx, tx, l.q.check, held.Name)
	if err == nil {
		err = newest(last, held)
	}
	if err != nil {
		return fmt.Errorf("sqlstore: check %s at fence %d: %w", held.Name, held.Fence, err)
	}
	return nil
}

// List implements [lock.Lister].
func (l *leaseStore) List(ctx context.Context, after string, limit int) ([]lock.Listed, error) {
	if err := lock.CheckList(after, limit); err != nil {
		return nil, fmt.Errorf("sqlstore: list leases: %w", err)
	}
	var out []lock.Listed
	err := l.s.each(ctx, l.q.list, []any{after, int64(limit)}, func(rows txn.Rows) error {
		var row lock.Listed
		var expires, clock int64
		err := rows.Scan(&row.Name, &row.Owner, &row.Fence, &expires, &clock)
		row.Expires = timeOf(expires)
		row.Held = runs(row.Lease, timeOf(clock))
		out = append(out, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: list leases: %w", err)
	}
	return out, nil
}

// runs reports whether a row keeps others out.
func runs(row lock.Lease, now time.Time) bool { return row.Owner != "" && now.Before(row.Expires) }

// newest refuses a lease that another has followed, that was released, or that never was.
func newest(last, held lock.Lease) error {
	switch {
	case last.Fence > held.Fence:
		return fmt.Errorf("fence is %d: %w", last.Fence, lock.ErrFenced)
	case last.Fence < held.Fence:
		return fmt.Errorf("fence is %d: %w", last.Fence, lock.ErrLost)
	case last.Owner == "":
		return fmt.Errorf("released: %w", lock.ErrLost)
	}
	return nil
}

// Serialize implements [lock.Serializer]. A file runs one transaction at a time anyway.
func (l *leaseStore) Serialize(ctx context.Context, tx *txn.Tx, name string) error {
	if tx.Port() != any(l.s) {
		return fmt.Errorf("sqlstore: serialize %s: the transaction is another store's", name)
	}
	if l.q.serialize == "" {
		var clock int64 // Any statement: it is refused when the transaction is over.
		return tx.QueryRow(ctx, l.q.clock, nil, &clock)
	}
	var arg any = name
	if l.slots > 0 {
		h := fnv.New32a()
		_, _ = h.Write([]byte(name)) // A hash takes everything.
		arg = int64(h.Sum32() % l.slots)
	}
	if _, err := tx.Exec(ctx, l.q.serialize, arg); err != nil {
		return fmt.Errorf("sqlstore: serialize %s: %w", name, err)
	}
	return nil
}
