package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/settledev/settle/txn"
)

// Limits of names and times.
const (
	// NameBytesMax bounds a name: valid UTF-8 without control characters, compared byte by byte.
	NameBytesMax = 200
	// OwnerBytesMax bounds an owner.
	OwnerBytesMax = 200
	// TTLShortest is the shortest lease: renewing it has to be possible.
	TTLShortest = 100 * time.Millisecond
	// TTLLongest is the longest lease: nobody gets in before it is over when its holder dies.
	TTLLongest = 24 * time.Hour
	// ListMax bounds the leases of one List.
	ListMax = 1000
)

// Lease is one holder's right to a name, for a time.
type Lease struct {
	Name string
	// Owner is for people who ask who holds it. What tells holders apart is the fence.
	Owner string
	// Fence rises with each holder of the name, from 1.
	Fence int64
	// Expires is when the right ends unless it is renewed, by the store's clock.
	Expires time.Time
}

// Leases is for safety: one holder of a name at a time, in all processes that share the database, as long
// as every write that the lease guards calls Check in its transaction.
//
// Acquire, Renew and Release are transactions of their own. Within an open one of the same store they may
// wait for themselves.
type Leases interface {
	// Acquire takes a name, or returns a *HeldError at once. It may wait for a transaction that has checked
	// the lease before.
	Acquire(ctx context.Context, name, owner string, ttl time.Duration) (Lease, error)
	// Renew lets a lease run ttl from now, with the same fence. ErrFenced or ErrLost: it is over.
	Renew(ctx context.Context, l Lease, ttl time.Duration) (Lease, error)
	// Release ends a lease. It does nothing to one that is over, nor to a newer holder's.
	Release(ctx context.Context, l Lease) error
	// Check returns nil when the lease's fence is the newest one, and makes sure that it stays so until the
	// transaction is over. ErrFenced or ErrLost: return it, so that the transaction is rolled back.
	Check(ctx context.Context, tx *txn.Tx, l Lease) error
}

// Listed is a lease as a list shows it.
type Listed struct {
	// Lease is what was written last. One that was released has no owner.
	Lease
	// Held says that it runs, by the store's clock. One that has an owner and does not has run out.
	Held bool
}

// Lister is [Leases] that can show what they keep, for operators: who holds what, and how far fences are.
type Lister interface {
	// List returns a lease for every name that ever was held, also when it is over: those whose names
	// follow after, in the order of their bytes, at most limit. It waits for no transaction.
	List(ctx context.Context, after string, limit int) ([]Listed, error)
}

// Serializer is for safety within one database, without a time to live.
type Serializer interface {
	// Serialize waits until no other open transaction of the database has serialised the name, and keeps it
	// until tx is over. A transaction may name the same thing again. Different names may wait for one another
	// (a store may lock a digest of the name, or run one transaction at a time); the same name always does.
	Serialize(ctx context.Context, tx *txn.Tx, name string) error
}

// Provider is a store that has locks for safety.
type Provider interface {
	Leases() Leases
	Serializer() Serializer
}

// Check is [Leases].Check of the transaction's own store. Call it before anything that the lease guards is
// read: what was read earlier may be of an earlier holder's time.
func Check(ctx context.Context, tx *txn.Tx, l Lease) error {
	p, err := provider(tx)
	if err != nil {
		return err
	}
	if err := p.Leases().Check(ctx, tx, l); err != nil {
		return fmt.Errorf("lock: check %s at fence %d: %w", l.Name, l.Fence, err)
	}
	return nil
}

// Serialize is [Serializer].Serialize of the transaction's own store. Call it first in the transaction:
// some isolation levels show what was committed before the first statement, not before the last. A
// transaction that needs several names takes them in sorted order; two that don't may block one another,
// and the database ends one of them.
func Serialize(ctx context.Context, tx *txn.Tx, name string) error {
	p, err := provider(tx)
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return fmt.Errorf("lock: serialize: %w", err)
	}
	if err := p.Serializer().Serialize(ctx, tx, name); err != nil {
		return fmt.Errorf("lock: serialize %s: %w", name, err)
	}
	return nil
}

func provider(tx *txn.Tx) (Provider, error) {
	p, ok := tx.Port().(Provider)
	if !ok {
		return nil, fmt.Errorf("lock: store %T has none: %w", tx.Port(), errors.ErrUnsupported)
	}
	return p, nil
}

// CheckLimits refuses what Acquire must refuse, with an error that wraps ErrLimit: for implementations.
func CheckLimits(name, owner string, ttl time.Duration) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := checkText("owner", owner, OwnerBytesMax); err != nil {
		return err
	}
	return CheckTTL(ttl)
}

// CheckTTL refuses a time to live that Acquire, Renew and TryOnce must refuse: for implementations.
func CheckTTL(ttl time.Duration) error {
	if ttl < TTLShortest || ttl > TTLLongest {
		return fmt.Errorf("time to live %s, %s to %s allowed: %w", ttl, TTLShortest, TTLLongest, ErrLimit)
	}
	return nil
}

// CheckList refuses what List must refuse, with an error that wraps ErrLimit: for implementations.
func CheckList(after string, limit int) error {
	if limit < 1 || limit > ListMax {
		return fmt.Errorf("limit %d, 1 to %d allowed: %w", limit, ListMax, ErrLimit)
	}
	if after == "" {
		return nil
	}
	return checkName(after)
}

func checkName(name string) error { return checkText("name", name, NameBytesMax) }

func checkText(what, s string, bytesMax int) error {
	switch {
	case s == "" || len(s) > bytesMax:
		return fmt.Errorf("%s of %d bytes, 1 to %d allowed: %w", what, len(s), bytesMax, ErrLimit)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s %q is not UTF-8: %w", what, s, ErrLimit)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%s %q has control characters: %w", what, s, ErrLimit)
	}
	return nil
}
