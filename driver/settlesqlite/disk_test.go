package settlesqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// large writes a row that does not fit into the space left.
func large(id, bytes int) func(context.Context, *txn.Tx) error {
	return then(add(fmt.Sprint("large", id)), sqlExec("INSERT INTO item (id, name) VALUES (?, ?)", id, strings.Repeat("x", bytes)))
}

func TestFullNeighboursUnharmed(t *testing.T) {
	for _, place := range []int{0, 1, 2} {
		t.Run(fmt.Sprint("member ", place), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{PagesMax: 100})
				members := []func(context.Context, *txn.Tx) error{item(1), item(2)}
				members = append(members[:place], append([]func(context.Context, *txn.Tx) error{large(9, 1<<20)}, members[place:]...)...)
				for _, m := range members {
					g.add(t.Context(), m)
				}
				for i, err := range g.commit() {
					if i == place && !errors.Is(err, sqlstore.ErrDiskFull) || i != place && err != nil {
						t.Errorf("member %d: %v", i, err)
					}
				}
				if err := g.s.Run(t.Context(), bound(item(3))); err != nil {
					t.Error(err)
				}
				g.want("1,2,3", "k1", "k2", "k3")
			})
		})
	}
}

// TestDiskFull fills a real file system, so that writing the journal fails, also in COMMIT.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("needs a file system of its own (root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := settlesqlite.Open(t.Context(), filepath.Join(dir, "full.db"), settlesqlite.Config{Migrate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	run(t, s, sqlExec("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"))
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, bytes.Repeat([]byte("x"), 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	done, full := 0, 0
	for id := 1; full < 3 && id < 1000; id++ {
		switch err := s.Run(t.Context(), bound(large(id, 40_000))); {
		case err == nil && full == 0:
			done++
		case errors.Is(err, sqlstore.ErrDiskFull):
			full++
		default:
			t.Fatalf("row %d after %d refusals: %v", id, full, err)
		}
	}
	if full < 3 || done == 0 {
		t.Fatalf("%d rows, %d refusals", done, full)
	}
	check := func(want int) {
		t.Helper()
		var rows, last int
		var ok string
		if err := s.QueryRow(t.Context(), "SELECT count(*), max(id) FROM item", nil, &rows, &last); err != nil || rows != want {
			t.Errorf("%d rows, want %d: %v", rows, want, err)
		}
		if err := s.QueryRow(t.Context(), "PRAGMA integrity_check", nil, &ok); err != nil || ok != "ok" {
			t.Errorf("integrity: %s, %v", ok, err)
		}
		records, err := s.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{}, 1000)
		if err != nil || len(records) != want || records[want-1].Position.ID != int64(want) {
			t.Errorf("%d events, want %d: %v", len(records), want, err)
		}
	}
	check(done)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	run(t, s, large(5000, 40_000))
	check(done + 1)
}
