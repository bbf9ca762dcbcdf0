package memory

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/txn"
)

// Compile-time proof of what the locks are.
var (
	_ lock.Provider   = (*Store)(nil)
	_ lock.Leases     = leases{}
	_ lock.Lister     = leases{}
	_ lock.Serializer = serializer{}
	_ lock.Hints      = (*Hints)(nil)
)

// leases keeps a row for each name that ever was held; one without an owner was released.
type leases struct{ s *Store }

// byName orders leases for List.
func byName(a, b lock.Lease) int { return cmp.Compare(a.Name, b.Name) }

// runs reports whether a row keeps others out.
func runs(row lock.Lease, now time.Time) bool { return row.Owner != "" && now.Before(row.Expires) }

// Leases returns the leases, of which one holder at a time has each name.
func (s *Store) Leases() lock.Leases { return leases{s} }

func (l leases) Acquire(ctx context.Context, name, owner string, ttl time.Duration) (taken lock.Lease, err error) {
	if err := lock.CheckLimits(name, owner, ttl); err != nil {
		return taken, fmt.Errorf("memory: acquire: %w", err)
	}
	// In turn: a transaction that has checked the lease is over before the fence rises.
	err = l.s.write(ctx, func() error {
		last, _ := l.s.leases.see(name)
		t := now()
		if runs(last, t) {
			return fmt.Errorf("memory: acquire %s: %w", name, &lock.HeldError{Name: name, Owner: last.Owner, Until: last.Expires})
		}
		taken = lock.Lease{Name: name, Owner: owner, Fence: last.Fence + 1, Expires: t.Add(ttl)}
		l.s.leases.put(l.s, name, taken)
		return nil
	})
	return taken, err
}

func (l leases) Renew(ctx context.Context, held lock.Lease, ttl time.Duration) (lock.Lease, error) {
	if err := lock.CheckTTL(ttl); err != nil {
		return lock.Lease{}, fmt.Errorf("memory: renew %s: %w", held.Name, err)
	}
	var renewed lock.Lease
	err := l.s.write(ctx, func() error {
		last, err := l.newest(held)
		if err != nil {
			return err
		}
		t := now()
		if !t.Before(last.Expires) {
			return fmt.Errorf("memory: lease of %s at fence %d ran out at %s: %w", held.Name, held.Fence, last.Expires, lock.ErrLost)
		}
		last.Expires = t.Add(ttl)
		renewed = last
		l.s.leases.put(l.s, held.Name, last)
		return nil
	})
	return renewed, err
}

func (l leases) Release(ctx context.Context, held lock.Lease) error {
	return l.s.write(ctx, func() error {
		last, err := l.newest(held)
		if err != nil {
			return nil //nolint:nilerr // It is over, which is what was asked for.
		}
		last.Owner = ""
		l.s.leases.put(l.s, held.Name, last)
		return nil
	})
}

func (l leases) Check(_ context.Context, tx *txn.Tx, held lock.Lease) error {
	if err := l.s.within(tx); err != nil {
		return err
	}
	_, err := l.newest(held)
	return err
}

func (l leases) List(ctx context.Context, after string, limit int) ([]lock.Listed, error) {
	if err := lock.CheckList(after, limit); err != nil {
		return nil, fmt.Errorf("memory: list leases: %w", err)
	}
	var out []lock.Listed
	err := l.s.read(ctx, func() {
		t := now()
		for name, row := range l.s.leases.all() {
			if name > after && len(out) < limit {
				out = append(out, lock.Listed{Lease: row, Held: runs(row, t)})
			}
		}
	})
	return out, err
}

// newest returns the row of a lease that no other has followed and that was not released.
func (l leases) newest(held lock.Lease) (lock.Lease, error) {
	last, ok := l.s.leases.see(held.Name)
	switch {
	case ok && last.Fence > held.Fence:
		return last, fmt.Errorf("memory: %s is at fence %d, lease has %d: %w", held.Name, last.Fence, held.Fence, lock.ErrFenced)
	case !ok || last.Fence < held.Fence:
		return last, fmt.Errorf("memory: %s never had fence %d: %w", held.Name, held.Fence, lock.ErrLost)
	case last.Owner == "":
		return last, fmt.Errorf("memory: lease of %s at fence %d was released: %w", held.Name, held.Fence, lock.ErrLost)
	}
	return last, nil
}

type serializer struct{ s *Store }

// Serializer returns what runs transactions one after the other, as the store does with all of them.
func (s *Store) Serializer() lock.Serializer { return serializer{s} }

func (z serializer) Serialize(_ context.Context, tx *txn.Tx, _ string) error { return z.s.within(tx) }

// Hints are [lock.Hints] in RAM, for tests and for goroutines of one process. Make one with [NewHints].
type Hints struct {
	mu   sync.Mutex
	left map[string]left
	// sweepAt is how many there are when those that ran out are looked for.
	sweepAt int
}

const sweepMin = 1024

type left struct {
	token string
	until time.Time
}

// NewHints returns hints that nobody has left any of.
func NewHints() *Hints { return &Hints{left: map[string]left{}, sweepAt: sweepMin} }

// TryOnce leaves a hint, or reports false when there is one; see [lock.Hints].
func (h *Hints) TryOnce(ctx context.Context, name string, ttl time.Duration) (lock.Hint, bool, error) {
	if err := lock.CheckHint(name, ttl); err != nil {
		return lock.Hint{}, false, fmt.Errorf("memory: hint: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return lock.Hint{}, false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := time.Now()
	if t.Before(h.left[name].until) {
		return lock.Hint{}, false, nil
	}
	if len(h.left) >= h.sweepAt {
		maps.DeleteFunc(h.left, func(_ string, l left) bool { return !t.Before(l.until) })
		h.sweepAt = max(sweepMin, 2*len(h.left))
	}
	hint := lock.Hint{Name: name, Token: rand.Text()}
	h.left[name] = left{hint.Token, t.Add(ttl)}
	return hint, true, nil
}

// Drop takes the hint away unless it is another's by now; see [lock.Hints].
func (h *Hints) Drop(ctx context.Context, hint lock.Hint) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if l, ok := h.left[hint.Name]; ok && l.token == hint.Token {
		delete(h.left, hint.Name)
	}
	return nil
}
