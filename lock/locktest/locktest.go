// Package locktest is the conformance suite of locks: Run for what is for safety (lock.Leases and
// lock.Serializer), RunHints for what saves work.
package locktest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/txn"
)

// Store is what is tested.
type Store interface {
	txn.Runner
	lock.Provider
}

// Harness is one store under test.
type Harness struct {
	// Open returns an empty store and closes it when the test ends. Required.
	Open func(t *testing.T) Store
	// Get reads a number that is business state, in the transaction; 0 when it was never put. Required.
	Get func(ctx context.Context, tx *txn.Tx, name string) (int, error)
	// Put writes it. Required.
	Put func(ctx context.Context, tx *txn.Tx, name string, n int) error
	// Peer opens the data of a store that stays open, as another process would. Default: the store itself.
	Peer func(t *testing.T, s Store) Store
	// Reopen gives up a store as a crash does and opens its data again.
	Reopen func(t *testing.T, s Store) Store
	// Around runs each test, for stores that want a testing/synctest bubble. Default: as it is.
	Around func(t *testing.T, test func(t *testing.T))
	// Lacks names what the store cannot do, which is then skipped and printed: Reopen, List, Parallel (two
	// transactions at a time).
	Lacks []string
}

// Run runs the suite of lock.Leases and lock.Serializer.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Peer == nil {
		h.Peer = func(_ *testing.T, s Store) Store { return s }
	}
	storetest.Run(t, h, h.Around, []storetest.Case[Harness]{
		{Name: "OneHolder", Test: oneHolder},
		{Name: "HeldTellsWhoAndUntilWhen", Test: heldTells},
		{Name: "NamesAreExact", Test: namesAreExact},
		{Name: "FenceRises", Test: fenceRises},
		{Name: "RenewKeepsTheFence", Test: renewKeepsFence},
		{Name: "RunsOut", Test: runsOut},
		{Name: "RenewAfterItsEnd", Test: renewAfterItsEnd},
		{Name: "ReleaseThenAcquire", Test: releaseThenAcquire},
		{Name: "ReleaseSparesAnothers", Test: releaseSparesAnothers},
		{Name: "CheckTheNewest", Test: checkTheNewest},
		{Name: "CheckAfterItsEnd", Test: checkAfterItsEnd},
		{Name: "CheckRollsBack", Test: checkRollsBack},
		{Name: "CheckKeepsOthersOut", Test: checkKeepsOthersOut},
		{Name: "CheckWantsItsTransaction", Test: checkWantsItsTransaction},
		{Name: "PausedHolder", Test: pausedHolder},
		{Name: "Contenders", Test: contenders},
		{Name: "ContendersCrashAndPause", Test: contendersCrashAndPause},
		{Name: "Crash", Test: crash},
		{Name: "Limits", Test: limits},
		{Name: "Cancelled", Test: cancelledBefore},
		{Name: "ListShowsEveryLease", Test: listShowsEveryLease},
		{Name: "ListInOrder", Test: listInOrder},
		{Name: "ListLimits", Test: listLimits},
		{Name: "HoldRenews", Test: holdRenews},
		{Name: "HoldStopsInTime", Test: holdStopsInTime},
		{Name: "SerializeOrdersTransactions", Test: serializeOrders},
		{Name: "SerializeAgain", Test: serializeAgain},
		{Name: "SerializeEndsWithItsTransaction", Test: serializeEnds},
		{Name: "SerializeOtherNames", Test: serializeOtherNames},
	})
}

const (
	// ttl outlasts every test, short is waited out.
	ttl   = 10 * time.Minute
	short = lock.TTLShortest
	// holding is what Hold gets, long enough for a busy machine to renew it in time.
	holding = 1200 * time.Millisecond
)

// alike returns names that a careless comparison takes for one another.
func alike() []string {
	return []string{"a", "A", "a ", " a", "ä", "a\u0308", "a%", "a_", "*", "straße", "strasse"}
}

// fits is an owner within the limits.
const fits = "owner"

type bounds struct {
	what, name, owner string
	ttl               time.Duration
}

func outOfBounds() []bounds {
	return []bounds{
		{"no name", "", fits, ttl},
		{"a name too long", strings.Repeat("n", lock.NameBytesMax+1), fits, ttl},
		{"a name that is not UTF-8", "a\xff", fits, ttl},
		{"a name with a zero byte", "a\x00b", fits, ttl},
		{"no owner", "a", "", ttl},
		{"an owner too long", "a", strings.Repeat("o", lock.OwnerBytesMax+1), ttl},
		{"no time to live", "a", fits, 0},
		{"a time to live too short", "a", fits, lock.TTLShortest - 1},
		{"a time to live too long", "a", fits, lock.TTLLongest + 1},
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func wantErr(t *testing.T, guarantee string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", guarantee, err, want)
	}
}

func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func acquire(t *testing.T, s Store, name, owner string, ttl time.Duration) lock.Lease {
	t.Helper()
	l, err := s.Leases().Acquire(t.Context(), name, owner, ttl)
	must(t, owner+" acquires "+name, err)
	if l.Name != name || l.Owner != owner || l.Fence < 1 || l.Expires.IsZero() {
		t.Fatalf("a lease must have its name, owner, fence and end: got %+v", l)
	}
	return l
}

// acquireEventually acquires a name whose lease is running out.
func acquireEventually(t *testing.T, s Store, name, owner string, ttl time.Duration) (l lock.Lease) {
	t.Helper()
	storetest.Eventually(t, "a lease that nobody renews runs out", func() bool {
		var err error
		l, err = s.Leases().Acquire(t.Context(), name, owner, ttl)
		if err != nil && !errors.Is(err, lock.ErrHeld) {
			t.Fatalf("acquire a name that is held: got error %v, want ErrHeld", err)
		}
		return err == nil
	})
	return l
}

// lapse waits until a lease has run out by its store's clock, and takes nothing.
func lapse(t *testing.T, s Store, l lock.Lease) {
	t.Helper()
	storetest.Eventually(t, "a lease that nobody renews runs out", func() bool {
		// Of another name, to see the store's clock.
		now := acquireEventually(t, s, "clock", "clock", ttl)
		must(t, "release the clock", s.Leases().Release(t.Context(), now))
		return now.Expires.Add(-ttl).After(l.Expires)
	})
}

func check(t *testing.T, s Store, l lock.Lease) error {
	t.Helper()
	return storetest.Try(t.Context(), s, func(ctx context.Context, tx *txn.Tx) error { return lock.Check(ctx, tx, l) })
}

// number is the name of the number that the suite's leases guard.
const number = "n"

// write is a guarded write.
func (h Harness) write(ctx context.Context, s Store, l lock.Lease, n int) error {
	return storetest.Try(ctx, s, func(ctx context.Context, tx *txn.Tx) error {
		if err := lock.Check(ctx, tx, l); err != nil {
			return err
		}
		return h.Put(ctx, tx, number, n)
	})
}

func (h Harness) wantNumber(t *testing.T, s Store, guarantee string, want int) {
	t.Helper()
	var got int
	storetest.Do(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
		got, err = h.Get(ctx, tx, number)
		return err
	})
	storetest.Equal(t, guarantee, got, want)
}
