// Package storetest is what the conformance suites of stores share: running cases over fresh stores,
// events to write, and waiting without sleeping.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// Timeout bounds each wait of a suite: a store that reaches it has failed.
const Timeout = 20 * time.Second

// Topic is the topic of the suites' events, Producer the service that adds them.
const (
	Topic    = "store.test-events"
	Producer = "storetest"
)

// Thing is the data of the suites' events.
type Thing struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

// Happened returns the definition of the suites' event.
func Happened() event.Type[Thing] {
	return event.Define("ThingHappened", 1, event.Spec[Thing]{
		Topic: Topic, Aggregate: "thing", Key: func(t Thing) string { return t.Key },
	})
}

// Case is one test of a suite over harnesses of type H.
type Case[H any] struct {
	Name string
	Test func(t *testing.T, h H)
}

// Run runs cases, each inside around when that is not nil.
func Run[H any](t *testing.T, h H, around func(t *testing.T, test func(t *testing.T)), cases []Case[H]) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if around == nil {
				c.Test(t, h)
				return
			}
			around(t, func(t *testing.T) { c.Test(t, h) })
		})
	}
}

// Need returns what a store is asked to be. It skips the test when the harness says that the store lacks
// it, and fails when the store lacks it in silence.
func Need[T any](t *testing.T, store any, lacks []string, name string) T {
	t.Helper()
	v, ok := store.(T)
	if ok && !slices.Contains(lacks, name) {
		return v
	}
	missing(t, lacks, name, fmt.Sprintf("%T is no %s", store, reflect.TypeFor[T]()))
	return v
}

// NeedReopen skips the test when the harness cannot open a store again.
func NeedReopen(t *testing.T, can bool, lacks []string) {
	t.Helper()
	if !can {
		missing(t, lacks, "Reopen", "the harness has no Reopen")
	}
}

func missing(t *testing.T, lacks []string, name, why string) {
	t.Helper()
	if slices.Contains(lacks, name) {
		t.Skipf("skipped: the harness says that the store lacks %s", name)
	}
	t.Fatalf("%s, and the harness does not list %q in Lacks: what is lacking must be said", why, name)
}

// Do runs fn in a transaction of the suites' producer and fails the test on an error.
func Do(t *testing.T, run txn.Runner, fn func(ctx context.Context, tx *txn.Tx) error) {
	t.Helper()
	if err := Try(t.Context(), run, fn); err != nil {
		t.Fatalf("transaction: %v", err)
	}
}

// Try runs fn in a transaction of the suites' producer.
func Try(ctx context.Context, run txn.Runner, fn func(ctx context.Context, tx *txn.Tx) error) error {
	return run.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind(Producer, nil)
		return fn(ctx, tx)
	})
}

// ErrRollback is what suites roll back with.
var ErrRollback = errors.New("rolled back on purpose")

// RollBack runs fn in a transaction that is rolled back.
func RollBack(t *testing.T, run txn.Runner, fn func(ctx context.Context, tx *txn.Tx) error) {
	t.Helper()
	err := Try(t.Context(), run, func(ctx context.Context, tx *txn.Tx) error {
		if err := fn(ctx, tx); err != nil {
			return err
		}
		return ErrRollback
	})
	if !errors.Is(err, ErrRollback) {
		t.Fatalf("a transaction whose function fails must return that error, got: %v", err)
	}
}

// Add adds one event for each key, numbered from first, in one transaction.
func Add(t *testing.T, run txn.Runner, first int, keys ...string) {
	t.Helper()
	Do(t, run, func(ctx context.Context, tx *txn.Tx) error { return AddIn(ctx, tx, first, keys...) })
}

// AddIn adds one event for each key, numbered from first.
func AddIn(ctx context.Context, tx *txn.Tx, first int, keys ...string) error {
	happened := Happened()
	for i, key := range keys {
		e, err := happened.New(Thing{Key: key, N: first + i}).Seal(tx.Producer(), tx.Now(), event.CauseFrom(ctx))
		if err != nil {
			return err
		}
		if err := tx.Append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// Envelope returns an event that is not in any outbox.
func Envelope(t *testing.T, key string, n int) event.Envelope {
	t.Helper()
	e, err := Happened().New(Thing{Key: key, N: n}).Seal(Producer, Now(), event.Cause{})
	if err != nil {
		t.Fatalf("seal an event: %v", err)
	}
	return e
}

// Now is the present as every store can keep it: microseconds, UTC.
func Now() time.Time { return time.Now().Truncate(time.Microsecond).UTC() }

// Eventually calls ok until it is true. It fails the test after Timeout, with what.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(Timeout)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, Timeout)
		}
		<-tick.C
	}
}

// Rings fails the test unless the bell rings.
func Rings(t *testing.T, ring <-chan struct{}, what string) {
	t.Helper()
	limit := time.NewTimer(Timeout)
	defer limit.Stop()
	select {
	case <-ring:
	case <-limit.C:
		t.Fatalf("%s: the bell did not ring within %s", what, Timeout)
	}
}

// Silent fails the test when the bell has rung.
func Silent(t *testing.T, ring <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ring:
		t.Fatalf("%s: the bell rang", what)
	default:
	}
}

// Equal fails the test unless got is want, with what the guarantee is.
func Equal[T any](t *testing.T, guarantee string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s:\n got %+v\nwant %+v", guarantee, got, want)
	}
}

// SameEvent fails the test unless every part of an event was kept.
func SameEvent(t *testing.T, got, want event.Envelope) {
	t.Helper()
	if !got.OccurredAt.Equal(want.OccurredAt) {
		t.Fatalf("an event's time must be kept: got %s, want %s", got.OccurredAt, want.OccurredAt)
	}
	got.OccurredAt = want.OccurredAt
	Equal(t, "an event must come back as it was written", got, want)
}

// SameTime fails the test unless two times are the same to the microsecond.
func SameTime(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if d := got.Sub(want).Abs(); d > time.Microsecond {
		t.Fatalf("%s: got %s, want %s", what, got, want)
	}
}
