package txn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/txn"
)

type thing struct {
	N int `json:"n"`
}

func define(name string) event.Type[thing] {
	return event.Define(name, 1, event.Spec[thing]{Topic: "things", Aggregate: "thing", Key: func(thing) string { return "k" }})
}

// add commits one event for each n, in one transaction.
func add(t *testing.T, s *memory.Store, l *txn.Listeners, typ event.Type[thing], numbers ...int) error {
	t.Helper()
	return s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("test", l)
		for _, n := range numbers {
			if err := outbox.Add(ctx, tx, typ.New(thing{n})); err != nil {
				return err
			}
		}
		return nil
	})
}

// serve runs the listeners until the test has called the function it returns.
func serve(t *testing.T, l *txn.Listeners) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func TestListenersAreChosenByType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, b := memory.New(), define("A"), define("B")
		var l txn.Listeners
		var got []string
		txn.Within(&l, a, func(_ context.Context, _ *txn.Tx, e event.Of[thing]) error {
			got = append(got, fmt.Sprintf("within A %d", e.Data.N))
			return nil
		})
		txn.After(&l, "after", b, func(_ context.Context, e event.Of[thing]) error {
			got = append(got, fmt.Sprintf("after B %d", e.Data.N))
			return nil
		})
		stop := serve(t, &l)
		for _, typ := range []event.Type[thing]{a, b} {
			if err := add(t, s, &l, typ, 1); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		stop()
		if fmt.Sprint(got) != "[within A 1 after B 1]" {
			t.Errorf("got %v", got)
		}
	})
}

func TestWithinRunsInOrderUntilOneRefuses(t *testing.T) {
	s, a := memory.New(), define("A")
	var l txn.Listeners
	var got []int
	refused := errors.New("refused")
	for i, err := range []error{nil, refused, nil} {
		txn.Within(&l, a, func(context.Context, *txn.Tx, event.Of[thing]) error {
			got = append(got, i)
			return err
		})
	}
	if err := add(t, s, &l, a, 1); !errors.Is(err, refused) {
		t.Errorf("got %v, want the listener's error", err)
	}
	if fmt.Sprint(got) != "[0 1]" {
		t.Errorf("listeners ran: %v, want those up to the one that refused", got)
	}
}

func TestWithinEndlessLoopIsBounded(t *testing.T) {
	s, a := memory.New(), define("A")
	var l txn.Listeners
	txn.Within(&l, a, func(ctx context.Context, tx *txn.Tx, e event.Of[thing]) error {
		return outbox.Add(ctx, tx, a.New(e.Data))
	})
	if err := add(t, s, &l, a, 1); !errors.Is(err, txn.ErrTooManyEvents) {
		t.Errorf("got %v, want ErrTooManyEvents", err)
	}
}

func TestListenersNeedDataOfTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		later := event.Define("A", 2, event.Spec[thing]{Topic: "things", Aggregate: "thing", Key: func(thing) string { return "k" }})
		var l txn.Listeners
		var log bytes.Buffer
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
		txn.After(&l, "mail", define("A"), func(context.Context, event.Of[thing]) error { t.Error("must not run"); return nil })
		stop := serve(t, &l)
		if err := add(t, s, &l, later, 1); err != nil {
			t.Errorf("a listener after commit cannot fail a transaction: %v", err)
		}
		synctest.Wait()
		stop()
		if !strings.Contains(log.String(), "handler=mail") || !strings.Contains(log.String(), "unknown event version") {
			t.Errorf("the log must name the handler and why: %s", &log)
		}
		txn.Within(&l, define("A"), func(context.Context, *txn.Tx, event.Of[thing]) error { return nil })
		if err := add(t, s, &l, later, 1); !errors.Is(err, event.ErrUnknownVersion) {
			t.Errorf("a listener inside that cannot read the event must fail the transaction: %v", err)
		}
	})
}

// TestAfterFailures is rule A18: an error, a panic and a handler that never ends stay where they are.
func TestAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a := memory.New(), define("A")
		var l txn.Listeners
		var log bytes.Buffer
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
		hang := make(chan struct{})
		var good, panics int
		txn.After(&l, "panics", a, func(context.Context, event.Of[thing]) error { panics++; panic("oops") })
		txn.After(&l, "fails", a, func(context.Context, event.Of[thing]) error { return errors.New("cannot send") })
		txn.After(&l, "hangs", a, func(context.Context, event.Of[thing]) error { <-hang; return nil })
		txn.After(&l, "good", a, func(context.Context, event.Of[thing]) error { good++; return nil })
		stop := serve(t, &l)
		const events = txn.AfterQueueMax + 10
		began := time.Now()
		for n := range events {
			if err := add(t, s, &l, a, n); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if good != events || panics != events || time.Since(began) != 0 {
			t.Errorf("neighbours of failing handlers: %d of %d handled, %d after a panic, %s waited", good, events, panics, time.Since(began))
		}
		close(hang)
		stop()
		for _, want := range []string{"handler=panics", "panic: oops", "listeners_test.go", "handler=fails", "cannot send", "handler=hangs", "too slow"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log must have %q", want)
			}
		}
		if missed := strings.Count(log.String(), "too slow"); missed != 9 { // One is in its hands, a queue waits.
			t.Errorf("each missed event must be logged: %d, want 9", missed)
		}
	})
}

func TestAfterDrainsItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a := memory.New(), define("A")
		var l txn.Listeners
		var got []int
		txn.After(&l, "slow", a, func(ctx context.Context, e event.Of[thing]) error {
			tick := time.NewTimer(time.Second)
			<-tick.C
			if ctx.Err() != nil {
				t.Error("work in flight must not be cancelled by the end of Run")
			}
			got = append(got, e.Data.N)
			return nil
		})
		stop := serve(t, &l)
		if err := add(t, s, &l, a, 1, 2, 3); err != nil {
			t.Fatal(err)
		}
		stop()
		if fmt.Sprint(got) != "[1 2 3]" {
			t.Errorf("what is queued must be handled before Run returns, in order: %v", got)
		}
	})
}

func TestAfterHandsTheCauseOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a := memory.New(), define("A")
		var l txn.Listeners
		var id event.ID
		var cause event.Cause
		txn.After(&l, "cause", a, func(ctx context.Context, e event.Of[thing]) error {
			id, cause = e.ID, event.CauseFrom(ctx)
			return nil
		})
		stop := serve(t, &l)
		if err := add(t, s, &l, a, 1); err != nil {
			t.Fatal(err)
		}
		stop()
		if id.IsZero() || cause.CausationID != id {
			t.Errorf("what a handler adds must name the event that caused it: %+v, event %s", cause, id)
		}
	})
}

func TestWithoutListeners(t *testing.T) {
	s, a := memory.New(), define("A")
	var none *txn.Listeners
	if err := add(t, s, none, a, 1); err != nil {
		t.Error(err)
	}
	var empty txn.Listeners
	if err := add(t, s, &empty, a, 1); err != nil {
		t.Error(err)
	}
	if err := empty.Run(t.Context()); err != nil {
		t.Errorf("run without handlers: %v", err)
	}
}
