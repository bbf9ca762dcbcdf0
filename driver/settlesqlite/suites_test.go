package settlesqlite_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/settledev/settle/call/calltest"
	"github.com/settledev/settle/consumer/positionstest"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/inbox/inboxtest"
	"github.com/settledev/settle/relay/relaytest"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/timer/timertest"
)

// crash gives a store up as a crash does: it opens a copy of the file and its journal as they are, while
// the store still has them.
func crash(t *testing.T, s *sqlstore.Store) *sqlstore.Store {
	t.Helper()
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
	return openStore(t, to, settlesqlite.Config{})
}

func TestRelaySuite(t *testing.T) {
	relaytest.Run(t, relaytest.Harness{
		Open:   func(t *testing.T) relaytest.Store { return newStore(t) },
		Reopen: func(t *testing.T, s relaytest.Store) relaytest.Store { return crash(t, s.(*sqlstore.Store)) },
	})
}

func TestInboxSuite(t *testing.T) {
	inboxtest.Run(t, inboxtest.Harness{
		Open:   func(t *testing.T) inboxtest.Store { return newStore(t) },
		Reopen: func(t *testing.T, s inboxtest.Store) inboxtest.Store { return crash(t, s.(*sqlstore.Store)) },
	})
}

func TestPositionsSuite(t *testing.T) {
	positionstest.Run(t, positionstest.Harness{
		Open:   func(t *testing.T) positionstest.Store { return newStore(t) },
		Reopen: func(t *testing.T, s positionstest.Store) positionstest.Store { return crash(t, s.(*sqlstore.Store)) },
	})
}

func TestTimerSuite(t *testing.T) {
	timertest.Run(t, timertest.Harness{
		Open:   func(t *testing.T) timertest.Store { return newStore(t) },
		Reopen: func(t *testing.T, s timertest.Store) timertest.Store { return crash(t, s.(*sqlstore.Store)) },
	})
}

func TestCallSuite(t *testing.T) {
	calltest.Run(t, calltest.Harness{
		Open:   func(t *testing.T) calltest.Store { return newStore(t) },
		Reopen: func(t *testing.T, s calltest.Store) calltest.Store { return crash(t, s.(*sqlstore.Store)) },
	})
}
