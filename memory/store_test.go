package memory_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/call/calltest"
	"github.com/settledev/settle/consumer/positionstest"
	"github.com/settledev/settle/deadletter/deadlettertest"
	"github.com/settledev/settle/idempotency/idempotencytest"
	"github.com/settledev/settle/inbox/inboxtest"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/push/pushtest"
	"github.com/settledev/settle/relay/relaytest"
	"github.com/settledev/settle/timer/timertest"
	"github.com/settledev/settle/txn"
	"github.com/settledev/settle/txn/txntest"
)

// lacks is what RAM cannot do.
var lacks = []string{"Reopen"}

func TestTransactions(t *testing.T) {
	var counters *memory.Table[string, int] // Tests run one after the other, each opens its own.
	txntest.Run(t, txntest.Harness{
		Open: func(*testing.T) txn.Runner {
			counters = memory.NewTable[string, int]()
			return memory.New()
		},
		Add: func(_ context.Context, tx *txn.Tx, name string, n int) error {
			old, _ := counters.Get(tx, name)
			counters.Put(tx, name, old+n)
			return nil
		},
		Committed: func(_ *testing.T, _ txn.Runner, name string) int { return counters.Committed()[name] },
		Around:    synctest.Test, Lacks: lacks,
	})
}

func TestOutbox(t *testing.T) {
	relaytest.Run(t, relaytest.Harness{
		Open: func(*testing.T) relaytest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}

func TestInbox(t *testing.T) {
	inboxtest.Run(t, inboxtest.Harness{
		Open: func(*testing.T) inboxtest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}

func TestPositions(t *testing.T) {
	positionstest.Run(t, positionstest.Harness{
		Open: func(*testing.T) positionstest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}

func TestLetters(t *testing.T) {
	deadlettertest.Run(t, deadlettertest.Harness{
		Open: func(*testing.T) deadlettertest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}

func TestTimers(t *testing.T) {
	timertest.Run(t, timertest.Harness{
		Open: func(*testing.T) timertest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}

func TestCalls(t *testing.T) {
	calltest.Run(t, calltest.Harness{
		Open: func(*testing.T) calltest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}

func TestAnswers(t *testing.T) {
	idempotencytest.Run(t, idempotencytest.Harness{
		Open: func(*testing.T) idempotencytest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}

func TestFeed(t *testing.T) {
	pushtest.Run(t, pushtest.Harness{
		Open: func(*testing.T) pushtest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}

// TestOutboxWithoutBubble runs the suite on the real clock and scheduler, for the race detector.
func TestOutboxWithoutBubble(t *testing.T) {
	relaytest.Run(t, relaytest.Harness{
		Open: func(*testing.T) relaytest.Store { return memory.New() }, Lacks: lacks,
	})
}

func TestStoreHasNoSQL(t *testing.T) {
	s := memory.New()
	for name, fn := range map[string]func(ctx context.Context, tx *txn.Tx) error{
		"exec":  func(ctx context.Context, tx *txn.Tx) error { _, err := tx.Exec(ctx, "SELECT 1"); return err },
		"query": func(ctx context.Context, tx *txn.Tx) error { _, err := tx.Query(ctx, "SELECT 1"); return err },
		"row":   func(ctx context.Context, tx *txn.Tx) error { return tx.QueryRow(ctx, "SELECT 1", nil) },
		"queue": func(_ context.Context, tx *txn.Tx) error { tx.Queue("SELECT 1"); return nil },
		"sql":   func(_ context.Context, tx *txn.Tx) error { _, err := txn.SQL(tx); return err },
	} {
		if err := s.Run(t.Context(), fn); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: got %v, want errors.ErrUnsupported", name, err)
		}
	}
}

func TestStoreRefusesAnothersTransaction(t *testing.T) {
	s, other := memory.New(), memory.New()
	err := s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		_, err := other.Timers().Cancel(ctx, tx, "key")
		return err
	})
	if err == nil {
		t.Error("a store must refuse another store's transaction: its changes would never be committed")
	}
	var kept *txn.Tx
	_ = s.Run(t.Context(), func(_ context.Context, tx *txn.Tx) error { kept = tx; return nil })
	if _, err := s.Timers().Cancel(t.Context(), kept, "key"); !errors.Is(err, txn.ErrClosed) {
		t.Errorf("a transaction that is over: got %v, want ErrClosed", err)
	}
}

// TestStoreWaitsDurably proves that waiting for a turn lets the bubble's clock run: it holds no mutex.
func TestStoreWaitsDurably(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		go func() {
			_ = s.Run(t.Context(), func(context.Context, *txn.Tx) error {
				<-time.After(time.Hour)
				return nil
			})
		}()
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := s.Run(ctx, func(context.Context, *txn.Tx) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		// Readers and relays do not wait for the transaction.
		if _, err := s.Outbox().Claim(t.Context(), 0, "a", time.Minute); err != nil {
			t.Error(err)
		}
		if err := s.Run(t.Context(), func(context.Context, *txn.Tx) error { return nil }); err != nil || time.Since(began) != time.Hour {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}

func TestStoreSurvivesGoexit(t *testing.T) {
	s := memory.New()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			_, _ = s.Timers().Cancel(ctx, tx, "key")
			runtime.Goexit() // As a failing test does.
			return nil
		})
	}()
	<-done
	if err := s.Run(t.Context(), func(context.Context, *txn.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
}
