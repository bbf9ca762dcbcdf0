package settlesqlite_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/settledev/settle/call/calltest"
	"github.com/settledev/settle/consumer/positionstest"
	"github.com/settledev/settle/deadletter/deadlettertest"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/idempotency/idempotencytest"
	"github.com/settledev/settle/inbox/inboxtest"
	"github.com/settledev/settle/push/pushtest"
	"github.com/settledev/settle/relay/relaytest"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/timer/timertest"
)

// as is a value the way a suite wants it, or what else it must be.
func as[S any](t *testing.T, s any) S {
	t.Helper()
	v, ok := s.(S)
	if !ok {
		t.Fatalf("%T is no %s", s, reflect.TypeFor[S]())
	}
	return v
}

// fresh opens an empty store.
func fresh[S any](t *testing.T) S {
	t.Helper()
	return as[S](t, newStore(t))
}

// crash gives a store up as a crash does: it opens a copy of the file and its journal as they are, while
// the store still has them.
func crash[S any](t *testing.T, old S) S {
	t.Helper()
	s := as[*sqlstore.Store](t, old)
	var from string
	if err := s.QueryRow(t.Context(), "SELECT file FROM pragma_database_list WHERE name = 'main'", nil, &from); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "after-crash.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(from + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return as[S](t, openStore(t, to, settlesqlite.Config{}))
}

func TestRelaySuite(t *testing.T) {
	relaytest.Run(t, relaytest.Harness{Open: fresh[relaytest.Store], Reopen: crash[relaytest.Store]})
}

func TestInboxSuite(t *testing.T) {
	inboxtest.Run(t, inboxtest.Harness{Open: fresh[inboxtest.Store], Reopen: crash[inboxtest.Store]})
}

func TestPositionsSuite(t *testing.T) {
	positionstest.Run(t, positionstest.Harness{Open: fresh[positionstest.Store], Reopen: crash[positionstest.Store]})
}

func TestTimerSuite(t *testing.T) {
	timertest.Run(t, timertest.Harness{Open: fresh[timertest.Store], Reopen: crash[timertest.Store]})
}

func TestCallSuite(t *testing.T) {
	calltest.Run(t, calltest.Harness{Open: fresh[calltest.Store], Reopen: crash[calltest.Store]})
}

func TestLettersSuite(t *testing.T) {
	deadlettertest.Run(t, deadlettertest.Harness{Open: fresh[deadlettertest.Store], Reopen: crash[deadlettertest.Store]})
}

func TestAnswersSuite(t *testing.T) {
	idempotencytest.Run(t, idempotencytest.Harness{Open: fresh[idempotencytest.Store], Reopen: crash[idempotencytest.Store]})
}

func TestFeedSuite(t *testing.T) {
	pushtest.Run(t, pushtest.Harness{Open: fresh[pushtest.Store], Reopen: crash[pushtest.Store]})
}
