package memory_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/lock/locktest"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

func locksHarness(around func(*testing.T, func(*testing.T))) locktest.Harness {
	var numbers *memory.Table[string, int] // Tests run one after the other, each opens its own.
	return locktest.Harness{
		Open: func(*testing.T) locktest.Store {
			numbers = memory.NewTable[string, int]()
			return memory.New()
		},
		Get: func(_ context.Context, tx *txn.Tx, name string) (int, error) {
			n, _ := numbers.Get(tx, name)
			return n, nil
		},
		Put: func(_ context.Context, tx *txn.Tx, name string, n int) error {
			numbers.Put(tx, name, n)
			return nil
		},
		Around: around,
		Lacks:  []string{"Reopen", "Parallel"},
	}
}

func TestLocks(t *testing.T) { locktest.Run(t, locksHarness(synctest.Test)) }

// TestLocksWithoutBubble runs the suite on the real clock and scheduler, for the race detector.
func TestLocksWithoutBubble(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: waits on the real clock")
	}
	locktest.Run(t, locksHarness(nil))
}

func TestHints(t *testing.T) {
	locktest.RunHints(t, locktest.HintsHarness{
		Open: func(*testing.T) lock.Hints { return memory.NewHints() }, Around: synctest.Test,
	})
}
