package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/lock"
)

// locked are databases that a lock's tests run on.
func locked(t *testing.T, test func(t *testing.T, store string)) {
	t.Helper()
	for _, kind := range []server.Kind{server.Postgres, server.MariaDB} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			store, _ := migrated(t, server.Shared(t, kind))
			test(t, store)
		})
	}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		store := "sqlite:" + filepath.Join(t.TempDir(), "locks.db")
		if code, out := settle("migrate", "up", "--store", store); code != 0 {
			t.Fatalf("migrate up: %d: %s", code, out)
		}
		test(t, store)
	})
}

// TestLockRun runs commands that end well, badly and not at all.
func TestLockRun(t *testing.T) {
	t.Parallel()
	locked(t, func(t *testing.T, store string) {
		run := func(args ...string) (int, string) {
			return settle(append([]string{"lock", "run", "--store", store}, args...)...)
		}
		for _, test := range []struct {
			args []string
			code int
			says string
		}{
			{[]string{"a", "--", "sh", "-c", `echo "$SETTLE_LOCK_NAME $SETTLE_LOCK_FENCE"`}, 0, "a 1\n"},
			{[]string{"a", "--", "sh", "-c", `echo "$SETTLE_LOCK_FENCE $*" >&2`, "sh", "--wait", "--", "-v"}, 0, "2 --wait -- -v\n"},
			{[]string{"a", "sh", "-c", "exit 3", "--ttl"}, 1, "settle: sh: exit status 3\n"},
			{[]string{"a", "--", "sh", "-c", "kill -9 $$"}, 1, "settle: sh: signal: killed\n"},
			{[]string{"a", "--", "sh", "-c", "echo $SETTLE_LOCK_FENCE"}, 0, "5\n"},
			{[]string{"b", "--", "sh", "-c", "echo $SETTLE_LOCK_FENCE"}, 0, "1\n"},
			{[]string{"a", "--", "settle-has-no-such-command"}, 2, "not found"},
			{[]string{"a", "--"}, 2, "no command"},
			{[]string{"a"}, 2, "<command>"},
			{[]string{"a", "--ttl", "1ms", "--", "true"}, 2, "100ms to 24h"},
			{[]string{strings.Repeat("n", lock.NameBytesMax+1), "--", "true"}, 2, "1 to 200 allowed"},
		} {
			code, out := run(test.args...)
			if code != test.code || !strings.HasSuffix(out, test.says) && (code != 2 || !strings.Contains(out, test.says)) {
				t.Errorf("lock run %q: %d, %q; want %d, %q", test.args, code, out, test.code, test.says)
			}
		}
	})
}

// TestLockStore names databases that have no leases.
func TestLockStore(t *testing.T) {
	t.Parallel()
	base := server.Shared(t, server.Postgres)
	empty, _ := newDatabase(t, base)
	nowhere, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	nowhere.Path = "/nowhere"
	file := "sqlite:" + filepath.Join(t.TempDir(), "locks.db")
	for _, test := range []struct {
		store string
		code  int
		says  string
	}{
		{empty, 1, "settle migrate up"},
		{nowhere.String(), 1, "settle migrate up"},
		{file, 1, "settle migrate up"},
		{"postgres://127.0.0.1", 2, "names no database"},
		{"nonsense:x", 2, "--store"},
	} {
		for _, args := range [][]string{{"lock", "list"}, {"lock", "run", "a", "true"}} {
			code, out := settle(append(args[:2:2], append([]string{"--store", test.store}, args[2:]...)...)...)
			if code != test.code || !strings.Contains(out, test.says) || strings.Count(out, "\n") != 1 {
				t.Errorf("%s of %s: %d, %q; want %d, %q", args[1], test.store, code, out, test.code, test.says)
			}
		}
	}
	if code, out := settle("lock", "run", "--store", file, "--wait", "a", "true"); code != 2 || !strings.Contains(out, "--wait") {
		t.Errorf("to wait for a file: %d, %s", code, out)
	}
}

// guarded is settle lock run in a process of its own, without a terminal.
type guarded struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu     sync.Mutex
	stdout bytes.Buffer
	stderr bytes.Buffer
}

type guardedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w guardedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}

// guard starts settle lock run with a shell's script as its command.
func guard(t *testing.T, store, script string, flags ...string) *guarded {
	t.Helper()
	args := append(append([]string{"lock", "run", "a", "--store", store}, flags...), "--", "sh", "-c", script)
	g := &guarded{t: t, cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	g.cmd.Env = append(os.Environ(), argsVariable+"="+strings.Join(args, "\n"))
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	g.cmd.Stdout, g.cmd.Stderr = guardedWriter{&g.mu, &g.stdout}, guardedWriter{&g.mu, &g.stderr}
	var err error
	if g.stdin, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // It has ended when nobody can write to its output any more, the command's children included.
		defer close(g.ended)
		_ = g.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = g.stdin.Close()
		_ = g.cmd.Process.Kill()
		if pid, err := strconv.Atoi(strings.TrimSpace(g.said())); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-g.ended
	})
	return g
}

// said is what the command has printed.
func (g *guarded) said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stdout.String()
}

// says waits until the command has printed a line.
func (g *guarded) says() string {
	g.t.Helper()
	within(g.t, time.Minute, "the command's line", func() bool { return strings.Contains(g.said(), "\n") || g.over() })
	return strings.TrimSpace(g.said())
}

func (g *guarded) over() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

// wait returns the exit code, and what settle said.
func (g *guarded) wait() (code int, said string) {
	g.t.Helper()
	within(g.t, time.Minute, "the end of settle lock run", g.over)
	return g.cmd.ProcessState.ExitCode(), g.stderr.String()
}

func leasesOf(t *testing.T, store string) []leaseState {
	t.Helper()
	code, out := settle("lock", "list", "--json", "--store", store)
	if code != 0 {
		t.Fatalf("lock list: %d, %s", code, out)
	}
	var all []leaseState
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var s leaseState
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
}

// TestLockContend has two processes ask for a name that one holds: one is refused, the other waits.
func TestLockContend(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t, server.Shared(t, server.Postgres))
	journal := filepath.Join(t.TempDir(), "journal")
	const script = `echo begin >>%[1]s; echo "$SETTLE_LOCK_FENCE"; read -r line; echo end "$line" >>%[1]s`
	first := guard(t, store, fmt.Sprintf(script, journal), "--ttl", "1m")
	if got := first.says(); got != "1" {
		t.Fatalf("fence %q", got)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	owner := fmt.Sprintf("%s:%d:", host, first.cmd.Process.Pid)
	code, out := settle("lock", "run", "--store", store, "a", "true")
	if code != 1 || !strings.HasPrefix(out, "settle: a is held by "+owner) || !strings.Contains(out, " until 20") || strings.Count(out, "\n") != 1 {
		t.Errorf("the second: %d, %q", code, out)
	}
	second := guard(t, store, fmt.Sprintf(script, journal), "--wait")
	if _, err := second.stdin.Write([]byte("second\n")); err != nil {
		t.Fatal(err)
	}
	if all := leasesOf(t, store); len(all) != 1 || all[0].Name != "a" || !strings.HasPrefix(all[0].Owner, owner) ||
		all[0].Fence != 1 || all[0].State != "held" || all[0].Until.IsZero() {
		t.Errorf("leases: %+v", all)
	}
	if _, err := first.stdin.Write([]byte("first\n")); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*guarded{first, second} {
		if code, said := g.wait(); code != 0 || said != "" {
			t.Errorf("exit code %d: %s", code, said)
		}
	}
	if got := second.said(); got != "2\n" {
		t.Errorf("the second's fence %q", got)
	}
	text, err := os.ReadFile(journal)
	if want := "begin\nend first\nbegin\nend second\n"; err != nil || string(text) != want {
		t.Errorf("what ran: %q, %v; want %q", text, err, want)
	}
	if all := leasesOf(t, store); len(all) != 1 || all[0] != (leaseState{Name: "a", Fence: 2, State: "released"}) {
		t.Errorf("leases: %+v", all)
	}
}

// TestLockPaused stops a holder and its command until another has had the name: woken, it says that it lost it, though
// the command would have ended well.
func TestLockPaused(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t, server.Shared(t, server.Postgres))
	g := guard(t, store, "echo $$; exec cat", "--ttl", "2s")
	command, err := strconv.Atoi(g.says())
	if err != nil {
		t.Fatal(err)
	}
	both := func(s syscall.Signal) {
		t.Helper()
		if err := errors.Join(g.cmd.Process.Signal(s), syscall.Kill(command, s)); err != nil && !g.over() {
			t.Fatal(err)
		}
	}
	both(syscall.SIGSTOP)
	within(t, time.Minute, "the end of the lease", func() bool { return leasesOf(t, store)[0].State == "run out" })
	if code, out := settle("lock", "run", "--store", store, "--wait", "a", "--", "sh", "-c", "echo $SETTLE_LOCK_FENCE"); code != 0 || out != "2\n" {
		t.Fatalf("the next: %d, %q", code, out)
	}
	if err := g.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	both(syscall.SIGCONT)
	code, said := g.wait()
	if code != 1 || !strings.Contains(said, "settle: a was lost while sh ran, another may have begun: ") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if all := leasesOf(t, store); len(all) != 1 || all[0].Fence != 2 || all[0].State != "released" {
		t.Errorf("leases: %+v", all)
	}
}

// TestLockKilled kills a holder, whose command goes on: the next one gets the name when the lease has run out, at a higher fence.
func TestLockKilled(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t, server.Shared(t, server.Postgres))
	g := guard(t, store, "echo $$; exec cat", "--ttl", "2s")
	g.says()
	if err := g.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code, out := settle("lock", "run", "--store", store, "--wait", "a", "--", "sh", "-c", "echo $SETTLE_LOCK_FENCE"); code != 0 || out != "2\n" {
		t.Errorf("the next: %d, %q", code, out)
	}
}

// TestLockLost takes a name away: the command is told to end, with what it has started, and killed when it does not.
func TestLockLost(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ script, says string }{
		"ends":        {"sleep 1000 & echo ready; wait", "; sh: signal: terminated\n"},
		"ends well":   {"trap 'exit 0' TERM; sleep 1000 & echo ready; wait", "; sh ended well\n"},
		"does not":    {"trap '' TERM; echo ready; exec sleep 1000", "; sh: signal: killed\n"},
		"has stopped": {"echo ready; kill -STOP $$; exec sleep 1000", "; sh: signal: killed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, db := migrated(t, server.Shared(t, server.Postgres))
			g := guard(t, store, test.script, "--ttl", "3s")
			if got := g.says(); got != "ready" {
				t.Fatalf("%q", got)
			}
			execute(t, db, "UPDATE settle_lease SET fence = fence + 1")
			code, said := g.wait()
			if code != 1 || !strings.Contains(said, "a was lost while sh ran") || !strings.HasSuffix(said, test.says) {
				t.Errorf("exit code %d: %q, want %q", code, said, test.says)
			}
		})
	}
}

// TestLockSignal ends settle by a signal: the command gets it, is waited for, and keeps the name until it has ended.
func TestLockSignal(t *testing.T) {
	t.Parallel()
	for s, name := range map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGINT: "INT"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, _ := migrated(t, server.Shared(t, server.Postgres))
			g := guard(t, store, "trap 'echo last words; read -r line; exit $line' "+name+"; echo ready; while :; do sleep 0.05; done", "--ttl", "1m")
			if got := g.says(); got != "ready" {
				t.Fatalf("%q", got)
			}
			if err := g.cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			within(t, time.Minute, "the command's answer", func() bool { return g.said() == "ready\nlast words\n" })
			if all := leasesOf(t, store); len(all) != 1 || all[0].State != "held" {
				t.Errorf("leases while the command ends: %+v", all)
			}
			if _, err := g.stdin.Write([]byte("4\n")); err != nil {
				t.Fatal(err)
			}
			if code, said := g.wait(); code != 1 || !strings.HasSuffix(said, "settle: sh: exit status 4\n") {
				t.Errorf("exit code %d: %s", code, said) // The shell speaks of its own child first.
			}
			if all := leasesOf(t, store); len(all) != 1 || all[0].State != "released" {
				t.Errorf("leases: %+v", all)
			}
		})
	}
}

// TestLockList lists page by page, and says what is wrong with a page.
func TestLockList(t *testing.T) {
	t.Parallel()
	locked(t, func(t *testing.T, store string) {
		if code, out := settle("lock", "list", "--store", store); code != 0 || out != "nothing to list\n" {
			t.Errorf("none: %d, %q", code, out)
		}
		for _, name := range []string{"b", "a", "c"} {
			if code, out := settle("lock", "run", "--store", store, name, "true"); code != 0 {
				t.Fatalf("run: %d, %s", code, out)
			}
		}
		code, out := settle("lock", "list", "--store", store, "--after", "a", "--limit", "1")
		if want := "NAME  STATE     FENCE  OWNER  UNTIL\nb     released  1      -      -\n"; code != 0 || out != want {
			t.Errorf("a page: %d, %q, want %q", code, out, want)
		}
		for _, wrong := range [][]string{{"--limit", "0"}, {"--limit", "1001"}, {"--after", "a\x01"}} {
			if code, out := settle(append([]string{"lock", "list", "--store", store}, wrong...)...); code != 2 || !strings.Contains(out, "out of bounds") {
				t.Errorf("%q: %d, %q", wrong, code, out)
			}
		}
	})
}

// guardStatement is what docs/operate.md has a program in any language begin its transaction with.
const guardStatement = "SELECT 1 FROM settle_lease WHERE name = 'NAME' AND fence = FENCE AND owner <> '' FOR UPDATE"

// TestLockStatement runs the statement of the documentation: it finds the holder's own fence, also when it has run out, keeps the next
// one out until the transaction is over, and finds nothing afterwards.
func TestLockStatement(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operate.md")
	if err != nil || !strings.Contains(string(page), "    "+guardStatement+";") {
		t.Errorf("docs/operate.md lacks %q, %v", guardStatement, err)
	}
	locked(t, func(t *testing.T, store string) {
		all, err := app.Databases(store, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := all[0].Open(t.Context(), app.DatabaseConfig{Quiet: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		db, err := all[0].Raw()
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		late := acquired(t, s.Leases())
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		finds(t, tx, all[0].Dialect, late, true)
		if all[0].Dialect == "sqlite" { // A reader of a file keeps nobody out; see the page.
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
		}
		var over atomic.Bool
		next, tooEarly := make(chan lock.Lease, 1), make(chan bool, 1)
		go func() {
			l := acquired(t, s.Leases())
			tooEarly <- !over.Load()
			next <- l
		}()
		time.Sleep(500 * time.Millisecond) // Time for the other to get in; a busy machine may not find it out.
		over.Store(true)
		if all[0].Dialect != "sqlite" {
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if <-tooEarly {
				t.Error("another got the name while a transaction was open that had checked its fence")
			}
		}
		newer := <-next
		after := func(l lock.Lease, want bool) {
			t.Helper()
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			finds(t, tx, all[0].Dialect, l, want)
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
		}
		after(late, false)
		after(newer, true)
		if err := s.Leases().Release(t.Context(), newer); err != nil {
			t.Fatal(err)
		}
		after(newer, false)
	})
}

// acquired takes the name for the shortest time, as soon as nobody has it. After a minute it returns no lease.
func acquired(t *testing.T, leases lock.Leases) lock.Lease {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		l, err := leases.Acquire(context.WithoutCancel(t.Context()), "it's", "test", lock.TTLShortest)
		if err == nil {
			return l
		}
		if !errors.Is(err, lock.ErrHeld) || time.Now().After(deadline) {
			t.Errorf("acquire: %v", err)
			return l
		}
	}
}

// finds runs the statement as a program would that has the two variables.
func finds(t *testing.T, tx *sql.Tx, dialect string, l lock.Lease, want bool) {
	t.Helper()
	query := strings.NewReplacer("NAME", strings.ReplaceAll(l.Name, "'", "''"), "FENCE", strconv.FormatInt(l.Fence, 10)).Replace(guardStatement)
	if dialect == "sqlite" {
		query = strings.TrimSuffix(query, " FOR UPDATE")
	}
	var one int
	if err := tx.QueryRowContext(t.Context(), query).Scan(&one); errors.Is(err, sql.ErrNoRows) == want || err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("fence %d is found: %v, want %t", l.Fence, err, want)
	}
}
