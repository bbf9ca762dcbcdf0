package settletest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/call"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/settletest"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// recorder is a test that may fail: what it says is compared.
type recorder struct {
	*testing.T

	said string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failing runs fn as a test of its own and returns why it failed.
func failing(t *testing.T, fn func(t settletest.TB)) string {
	t.Helper()
	r := &recorder{T: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(r)
	}()
	<-done
	if r.said == "" {
		t.Fatal("did not fail")
	}
	return r.said
}

func stock(t settletest.TB) *settletest.Rig {
	rig := settletest.New(t, "stock", settletest.Config{})
	register(rig.Service)
	return rig
}

func TestThenNothing(t *testing.T) {
	stock(t).When(stockAdded.New(order{ID: "lot-1", Qty: 3})).Then()
}

func TestFailureShowsBothSides(t *testing.T) {
	got := failing(t, func(t settletest.TB) {
		stock(t).Given(stockAdded.New(order{ID: "lot-1", Qty: 3})).
			When(orderPlaced.New(order{ID: "order-1", Qty: 2})).
			Then(stockReserved.New(order{ID: "order-1", Qty: 3}))
	})
	want := `settletest: stock:
  given StockAdded v1 on orders, order lot-1: {"id":"lot-1","qty":3}
  when  OrderPlaced v1 on orders, order order-1: {"id":"order-1","qty":2}
  then  want
    StockReserved v1 on orders, order order-1: {"id":"order-1","qty":3}
  then  got
    StockReserved v1 on orders, order order-1: {"id":"order-1","qty":2}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFailureShowsParkedEvents(t *testing.T) {
	got := failing(t, func(t settletest.TB) {
		stock(t).When(orderPlaced.New(order{ID: "order-1", Qty: 2})).
			Then(stockReserved.New(order{ID: "order-1", Qty: 2}))
	})
	for _, want := range []string{"then  got nothing", "OrderPlaced order-1 DEAD after 1 attempts in group stock: no stock"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestCommandRefused(t *testing.T) {
	refuse := func(context.Context, *txn.Tx) error { return fmt.Errorf("place: %w", errNoStock) }
	stock(t).WhenDo(refuse).ThenError(errNoStock)
	got := failing(t, func(t settletest.TB) { stock(t).WhenDo(refuse).Then() })
	if !strings.Contains(got, "a command, which was refused: place: no stock") {
		t.Error(got)
	}
	got = failing(t, func(t settletest.TB) { stock(t).WhenDo(refuse).ThenError(errors.New("another")) })
	if !strings.Contains(got, "want error: another") {
		t.Error(got)
	}
}

func TestStartReportsMisuse(t *testing.T) {
	got := failing(t, func(t settletest.TB) { settletest.New(t, "no name", settletest.Config{}).Start() })
	if !strings.Contains(got, `name "no name" has a character outside`) {
		t.Error(got)
	}
}

// remind registers a timer that fires a day after an order.
func remind(svc *settle.Service) {
	settle.On(svc, orderPlaced, func(ctx context.Context, tx *txn.Tx, e event.Of[order]) error {
		return timer.Set(ctx, tx, e.Data.ID, tx.Now().Add(24*time.Hour), orderReminded.New(e.Data))
	})
}

// In a bubble a day is over at once, and nothing fires before it is.
func TestTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := settletest.New(t, "reminder", settletest.Config{})
		remind(rig.Service)
		o := order{ID: "order-1", Qty: 2}
		rig.When(orderPlaced.New(o)).Then()
		time.Sleep(24*time.Hour - time.Second)
		rig.Then()
		time.Sleep(time.Second)
		rig.Then(orderReminded.New(o))
	})
}

// Quiet waits for calls, through their repetitions, and for the retries of handlers.
func TestQuietWaitsForCallsAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, asked := 0, 0
		reserve := call.Define("reserve", call.Spec[order, string]{
			Do: func(context.Context, string, order) (string, error) {
				if asked++; asked < 4 {
					return "", errors.New("no answer")
				}
				return "yes", nil
			},
			Record: func(ctx context.Context, tx *txn.Tx, o call.Outcome[order, string]) error {
				return outbox.Add(ctx, tx, stockReserved.New(o.Request))
			},
		})
		rig := settletest.New(t, "stock", settletest.Config{})
		settle.Perform(rig.Service, reserve)
		settle.On(rig.Service, orderPlaced, func(ctx context.Context, tx *txn.Tx, e event.Of[order]) error {
			if tries++; tries < 3 {
				return errors.New("not yet")
			}
			return call.Prepare(ctx, tx, reserve, e.Data.ID, e.Data)
		})
		o := order{ID: "order-1", Qty: 2}
		rig.When(orderPlaced.New(o)).Then(stockReserved.New(o))
		// The batch's failure is asked again on its own before it is parked.
		if tries < 3 || asked != 4 {
			t.Errorf("handled %d times, asked %d times", tries, asked)
		}
	})
}

func TestQuietSaysWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := failing(t, func(tb settletest.TB) {
			never := call.Define("never", call.Spec[order, string]{
				Do:     func(context.Context, string, order) (string, error) { return "", errors.New("no answer") },
				Record: func(context.Context, *txn.Tx, call.Outcome[order, string]) error { return nil },
			})
			rig := settletest.New(tb, "stock", settletest.Config{})
			settle.Perform(rig.Service, never)
			rig.Settle(func(ctx context.Context) error {
				return rig.Service.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
					return call.Prepare(ctx, tx, never, "order-1", order{})
				})
			})
		})
		if !strings.Contains(got, "not quiet: stock: 1 calls never not answered") || !strings.Contains(got, "10s have passed") {
			t.Error(got)
		}
	})
}

func TestStopAndBooks(t *testing.T) {
	rig := stock(t)
	rig.Given(stockAdded.New(order{ID: "lot-1", Qty: 1})).When(orderPlaced.New(order{ID: "order-1", Qty: 1}))
	rig.Stop()
	if events := rig.Events(); len(events) != 1 || events[0].Type != "StockReserved" {
		t.Errorf("events %v", events)
	}
	if err := rig.Quiet(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("quiet after stop: %v", err)
	}
}
