package settle_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/call"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/settletest"
	"github.com/settledev/settle/txn"
)

var errTest = errors.New("broken")

func quiet() settle.Config { return settle.Config{Logger: slog.New(slog.DiscardHandler)} }

// notes is what handlers have done.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.lines)
}

func place(id string) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		return outbox.Add(ctx, tx, OrderPlaced.New(order{ID: id, Product: "beans", Qty: 1}))
	}
}

// The handler's own transaction names its service, and its events inherit the cause.
func TestOnHandlesAndAdds(t *testing.T) {
	rig := settletest.New(t, "stock", settletest.Config{})
	settle.On(rig.Service, OrderPlaced, func(ctx context.Context, tx *txn.Tx, e event.Of[order]) error {
		return outbox.Add(ctx, tx, StockReserved.New(e.Data))
	})
	events := rig.Settle(func(ctx context.Context) error { return rig.Service.Do(ctx, place("order-1")) })
	if len(events) != 2 {
		t.Fatalf("%d events, want 2", len(events))
	}
	placed, reserved := events[0], events[1]
	if reserved.Producer != "stock" || reserved.CausationID != placed.ID || reserved.CorrelationID != placed.CorrelationID {
		t.Errorf("reserved by %s, because of %s in %s; placed is %s in %s",
			reserved.Producer, reserved.CausationID, reserved.CorrelationID, placed.ID, placed.CorrelationID)
	}
}

// Two groups see each event once, each on its own: the failure of one is not the other's.
func TestGroupsAreIndependent(t *testing.T) {
	rig := settletest.New(t, "stock", settletest.Config{})
	var seen notes
	note := func(name string, fail error) func(context.Context, *txn.Tx, event.Of[order]) error {
		return func(_ context.Context, tx *txn.Tx, e event.Of[order]) error {
			tx.AfterCommit(func() { seen.add(name + " " + e.Data.ID) })
			return fail
		}
	}
	settle.On(rig.Service, OrderPlaced, note("own", nil))
	settle.On(rig.Service.Group("metrics"), OrderPlaced, note("metrics", nil))
	settle.On(rig.Service.Group("broken"), OrderPlaced, note("broken", errTest))
	rig.Settle(func(ctx context.Context) error {
		return errors.Join(rig.Service.Do(ctx, place("order-1")), rig.Service.Do(ctx, place("order-2")))
	})
	got := seen.all()
	slices.Sort(got)
	if want := []string{"metrics order-1", "metrics order-2", "own order-1", "own order-2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWithinIsPartOfTheTransaction(t *testing.T) {
	rig := settletest.New(t, "order", settletest.Config{})
	settle.Within(rig.Service, OrderPlaced, func(ctx context.Context, tx *txn.Tx, e event.Of[order]) error {
		if e.Data.ID == "refused" {
			return errTest
		}
		return outbox.Add(ctx, tx, StockReserved.New(e.Data))
	})
	rig.WhenDo(place("refused")).ThenError(errTest)
	rig.WhenDo(place("order-1")).
		Then(OrderPlaced.New(order{ID: "order-1", Product: "beans", Qty: 1}), StockReserved.New(order{ID: "order-1", Product: "beans", Qty: 1}))
}

// After-commit handlers run beside one another; what one does harms neither the command nor the rest.
func TestAfterHurtsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := settletest.New(t, "order", settletest.Config{})
		var seen notes
		settle.After(rig.Service, "panics", OrderPlaced, func(context.Context, event.Of[order]) error { panic("mad") })
		settle.After(rig.Service, "fails", OrderPlaced, func(context.Context, event.Of[order]) error { return errTest })
		settle.After(rig.Service, "notes", OrderPlaced, func(_ context.Context, e event.Of[order]) error {
			seen.add(e.Data.ID)
			return nil
		})
		rig.Start()
		if err := rig.Service.Do(t.Context(), place("order-1")); err != nil {
			t.Fatal(err)
		}
		err := rig.Service.Do(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			return errors.Join(place("rolled back")(ctx, tx), errTest)
		})
		if !errors.Is(err, errTest) {
			t.Fatalf("got %v", err)
		}
		synctest.Wait()
		if got := seen.all(); !slices.Equal(got, []string{"order-1"}) {
			t.Errorf("after commit of %v, want order-1", got)
		}
	})
}

func TestStats(t *testing.T) {
	rig := settletest.New(t, "stock", settletest.Config{})
	settle.On(rig.Service, OrderPlaced, func(context.Context, *txn.Tx, event.Of[order]) error { return nil })
	rig.Settle(func(ctx context.Context) error { return rig.Service.Do(ctx, place("order-1")) })
	stats, err := rig.Service.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stats.Service != "stock" || stats.Outbox.Sent != 1 || stats.Outbox.Pending != 0 || len(stats.Groups) != 1 || stats.Groups[0].Group != "stock" {
		t.Errorf("got %+v", stats)
	}
	if q, ok := rig.Service.Letters(); !ok || q == nil {
		t.Error("a memory store keeps letters")
	}
}

// bare is a store that only runs transactions.
type bare struct{ txn.Runner }

func TestRunRefusesMisuse(t *testing.T) {
	nop := func(context.Context, *txn.Tx, event.Of[order]) error { return nil }
	for _, test := range []struct {
		name  string
		store settle.Store
		named string
		do    func(*settle.Service)
		want  string
	}{
		{"two handlers", memory.New(), "stock", func(s *settle.Service) {
			settle.On(s, OrderPlaced, nop)
			settle.On(s, OrderPlaced, nop)
		}, "OrderPlaced has two handlers in group stock"},
		{"bad name", memory.New(), "no name", func(*settle.Service) {}, `name "no name" has a character outside`},
		{"bad group", memory.New(), "stock", func(s *settle.Service) { settle.On(s.Group(""), OrderPlaced, nop) }, "group: empty name"},
		{"no outbox", bare{memory.New()}, "stock", func(*settle.Service) {}, "has no outbox"},
	} {
		t.Run(test.name, func(t *testing.T) {
			svc := settle.NewService(test.named, test.store, memory.NewBroker(memory.BrokerConfig{}), quiet())
			test.do(svc)
			err := svc.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if _, ok := test.store.(bare); ok && !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%v is not ErrUnsupported", err)
			}
		})
	}
}

// The three snippets are one: what README.md and doc.go show is what Example runs.
func TestReadmeShowsTheExample(t *testing.T) {
	lines := func(name, prefix string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), prefix))
			if line != "" {
				out.WriteString(line + "\n")
			}
		}
		return out.String()
	}
	source := lines("example_test.go", "")
	from := strings.Index(source, "store, broker :=")
	to := strings.Index(source, "err := svc.Run(ctx)")
	if from < 0 || to < from {
		t.Fatal("example_test.go has no snippet")
	}
	snippet := source[from : to+len("err := svc.Run(ctx)")]
	for name, prefix := range map[string]string{"README.md": "", "doc.go": "//"} {
		if !strings.Contains(lines(name, prefix), snippet) {
			t.Errorf("%s does not show\n%s", name, snippet)
		}
	}
}

// follower is a broker that is no publisher: the service runs no relay on it.
type follower struct{ broker.Broker }

// A store that lacks a part is refused where the part is used, not at the first event.
func TestCallsNeedAStoreThatKeepsThem(t *testing.T) {
	reserve := call.Define("reserve", call.Spec[order, string]{
		Do:     func(context.Context, string, order) (string, error) { return "", nil },
		Record: func(context.Context, *txn.Tx, call.Outcome[order, string]) error { return nil },
	})
	svc := settle.NewService("stock", bare{memory.New()}, follower{memory.NewBroker(memory.BrokerConfig{})}, quiet())
	settle.Perform(svc, reserve)
	err := svc.Run(t.Context())
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "call reserve") {
		t.Errorf("got %v", err)
	}
}

// An engine that cannot run ends the whole service, drained: half a service is worse than none.
func TestFailingEngineDrainsTheOthers(t *testing.T) {
	b := refusing{memory.NewBroker(memory.BrokerConfig{})}
	svc := settle.NewService("stock", memory.New(), b, quiet())
	settle.On(svc, OrderPlaced, func(context.Context, *txn.Tx, event.Of[order]) error { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := svc.Run(ctx)
	if !errors.Is(err, errTest) || errors.Is(err, settle.ErrDrain) || ctx.Err() != nil {
		t.Errorf("got %v, context %v", err, ctx.Err())
	}
}

// refusing is a broker on which nobody may subscribe.
type refusing struct{ *memory.Broker }

func (refusing) Subscribe(context.Context, broker.Subscription) (broker.Membership, error) {
	return nil, errTest
}

// ErrDrain says that work in flight outlived DrainTimeout.
func TestDrainTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet()
		cfg.DrainTimeout = 3 * time.Second
		b := memory.NewBroker(memory.BrokerConfig{})
		svc := settle.NewService("stock", memory.New(), b, cfg)
		began, end := make(chan struct{}), make(chan struct{})
		settle.On(svc, OrderPlaced, func(context.Context, *txn.Tx, event.Of[order]) error {
			close(began)
			<-end
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- svc.Run(ctx) }()
		if err := svc.Do(ctx, place("order-1")); err != nil {
			t.Fatal(err)
		}
		<-began
		cancel()
		start := time.Now()
		if err := <-done; !errors.Is(err, settle.ErrDrain) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("gave up after %s", took)
		}
		close(end)
		synctest.Wait()
	})
}

// What a service had in hand is finished before Run returns.
func TestRunDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		svc := settle.NewService("stock", store, memory.NewBroker(memory.BrokerConfig{}), quiet())
		began, handled := make(chan struct{}), notes{}
		settle.On(svc, OrderPlaced, func(_ context.Context, tx *txn.Tx, e event.Of[order]) error {
			close(began)
			<-time.After(time.Second)
			tx.AfterCommit(func() { handled.add(e.Data.ID) })
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- svc.Run(ctx) }()
		if err := svc.Do(ctx, place("order-1")); err != nil {
			t.Fatal(err)
		}
		<-began
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := handled.all(); len(got) != 1 {
			t.Errorf("handled %v", got)
		}
	})
}

// TestAnswersAreForgotten proves that answers of keyed commands are kept for their retention, and no longer.
func TestAnswersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		svc := settle.NewService("orders", store, memory.NewBroker(memory.BrokerConfig{}), settle.Config{AnswerRetention: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- svc.Run(ctx) }()
		keeper := idempotency.NewKeeper(svc.Runner(), store.Answers())
		ran := 0
		command := func() {
			_, _, err := keeper.Do(ctx, idempotency.Request{Scope: "POST /orders", Key: "k"}, func(context.Context, *txn.Tx) (idempotency.Answer, error) {
				ran++
				return idempotency.Answer{Status: 202}, nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		command()
		time.Sleep(50 * time.Minute)
		if command(); ran != 1 {
			t.Errorf("within retention the command ran %d times, want 1", ran)
		}
		time.Sleep(15 * time.Minute)
		if command(); ran != 2 {
			t.Errorf("after retention the command ran %d times, want 2", ran)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
