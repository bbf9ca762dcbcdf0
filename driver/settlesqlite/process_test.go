package settlesqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// childEnv makes the test binary be a process of its own with a file open.
const childEnv = "SETTLESQLITE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		fmt.Println(child(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child commits for ever and prints what is confirmed.
func child(path string) error {
	s, err := settlesqlite.Open(context.Background(), path, settlesqlite.Config{Migrate: true})
	if err != nil {
		return err
	}
	if _, err := s.Outbox().Claim(context.Background(), 0, "child", time.Hour); err != nil {
		return err
	}
	work := func(ctx context.Context, tx *txn.Tx) error {
		return s.Calls().Prepare(ctx, tx, call.Work{Call: "pay", Key: "1", Due: tx.Now(), CreatedAt: tx.Now()})
	}
	if err := s.Run(context.Background(), work); err != nil {
		return err
	}
	if w, err := s.Calls().Claim(context.Background(), "pay", time.Now(), time.Now().Add(time.Hour), 1); err != nil || len(w) != 1 {
		return fmt.Errorf("claimed %d: %w", len(w), err)
	}
	for n := 1; ; n++ {
		if err := s.Run(context.Background(), bound(add(strconv.Itoa(n)))); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func startChild(t *testing.T, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKill kills a process that commits, and takes its file over at once: what it had printed is there,
// no lease is waited out and no event is out of order.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kill.db")
	cmd, lines := startChild(t, path)
	confirmed := 0
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(lines.Text())
		}
		if confirmed = n; n == 50 {
			_, err := settlesqlite.Open(t.Context(), path, settlesqlite.Config{})
			var locked *settlesqlite.LockedError
			if !errors.Is(err, settlesqlite.ErrLocked) || !errors.As(err, &locked) || locked.PID != cmd.Process.Pid ||
				!strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
				t.Errorf("second opener got %v, holder is %d", err, cmd.Process.Pid)
			}
			follow(t, path, 50)
		}
		if n == 100 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // It was killed.
	s := openStore(t, path, settlesqlite.Config{})
	lease, err := s.Outbox().Claim(t.Context(), 0, "other", time.Minute)
	if err != nil || lease.Fence != 2 {
		t.Errorf("lease %+v, %v", lease, err)
	}
	if w, err := s.Calls().Claim(t.Context(), "pay", time.Now(), time.Now().Add(time.Minute), 1); err != nil || len(w) != 1 || w[0].Fence != 2 {
		t.Errorf("call of the killed worker: %+v, %v", w, err)
	}
	records, err := s.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{}, 10_000)
	if err != nil || len(records) < confirmed {
		t.Fatalf("%d events of %d confirmed: %v", len(records), confirmed, err)
	}
	for i, r := range records {
		if r.Position.ID != int64(i+1) || r.Event.AggregateID != strconv.Itoa(i+1) {
			t.Fatalf("event %d is %s at %s", i+1, r.Event.AggregateID, r.Position)
		}
	}
}

// follow reads the outbox of another process.
func follow(t *testing.T, path string, least int) {
	t.Helper()
	r, err := settlesqlite.OpenReader(t.Context(), path, settlesqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	records, err := r.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{}, 10_000)
	if err != nil || len(records) < least {
		t.Errorf("reader sees %d events of %d: %v", len(records), least, err)
	}
	if err := r.Run(t.Context(), bound(add("x"))); !errors.Is(err, sqlstore.ErrReadOnly) {
		t.Errorf("a reader wrote: %v", err)
	}
	if rows, err := r.Query(t.Context(), "DELETE FROM settle_outbox"); err == nil {
		for rows.Next() {
			t.Error("a DELETE returned a row")
		}
		if err := errors.Join(rows.Err(), rows.Close()); err == nil {
			t.Error("a reader deleted")
		}
	}
}

func TestLockDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "data")
	l, err := settlesqlite.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := settlesqlite.LockDir(dir); !errors.Is(err, settlesqlite.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("second lock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = settlesqlite.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}
