// Package binary builds the settle command, as users get it, and runs it for tests.
//
//	func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }
//
//	shop := binary.Start(t, dir, "serve")
//	defer shop.Kill()
//
// # What this package does not do
//
// It looks into no process: what a test wants to know, it asks over HTTP or reads from the data directory.
package binary

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
)

// Variable names a binary to use instead of building one.
const Variable = "SETTLE_TEST_BINARY"

// startTimeout bounds the wait for a start, exitTimeout that for an end. A machine that other tests share
// may be slow; nothing waits this long when all is well.
const (
	startTimeout = time.Minute
	exitTimeout  = 2 * time.Minute
)

// Main builds the binary unless the run is a short one, runs the tests, stops the servers that they
// started, and returns their exit code.
func Main(m *testing.M) int {
	flag.Parse()
	if testing.Short() || os.Getenv(Variable) != "" {
		return server.Main(m)
	}
	dir, err := os.MkdirTemp("", "settle-binary-")
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "settle")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", path, "github.com/settledev/settle/cmd/settle")
	if out, err := build.CombinedOutput(); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	if err := os.Setenv(Variable, path); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return server.Main(m)
}

// NeedsProcesses skips a test of real processes in a short run.
func NeedsProcesses(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the real binary")
	}
}

// Output is what a command that ended left.
type Output struct {
	Code   int
	Stdout string
	Stderr string
}

// Run runs the command to its end.
func Run(t *testing.T, args ...string) Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), exitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Getenv(Variable), args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("settle %s: %v", strings.Join(args, " "), err)
	}
	return Output{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Process is a running shop.
type Process struct {
	// Dir is its data directory; URL, Gateway and Platform are where it, pgsim and platformsim listen.
	Dir, URL, Gateway, Platform string
	// Token is the operator's.
	Token string

	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu     sync.Mutex
	stdout strings.Builder
	stderr strings.Builder
}

// Start starts a shop, "serve" or "demo" with flags, on a data directory and a free port, and returns when
// it has said where it listens. A shop that ends before is returned too: see [Process.Ended]. The end of the
// test kills it.
func Start(t *testing.T, dir string, args ...string) *Process {
	t.Helper()
	args = append(args, "--dir", dir, "--addr", "127.0.0.1:0")
	p := &Process{Dir: dir, t: t, done: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), os.Getenv(Variable), args...)
	p.cmd.Stdout = lockedWriter{&p.mu, &p.stdout}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go p.follow(stderr, ready)
	t.Cleanup(p.Kill)
	limit := time.NewTimer(startTimeout)
	defer limit.Stop()
	select {
	case <-ready:
	case <-p.done:
		return p
	case <-limit.C:
		p.Kill()
		t.Fatalf("settle %s did not start within %s:\n%s", strings.Join(args, " "), startTimeout, p.Stderr())
	}
	token, err := os.ReadFile(filepath.Join(dir, "operator-token"))
	if err != nil && !p.Ended() {
		t.Fatal(err)
	}
	p.Token = strings.TrimSpace(string(token))
	return p
}

// lockedWriter writes to a buffer that others read meanwhile.
type lockedWriter struct {
	mu *sync.Mutex
	to *strings.Builder
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}

// follow reads what the shop says of itself until it ends.
func (p *Process) follow(stderr io.Reader, ready chan<- struct{}) {
	defer close(p.done)
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		p.mu.Lock()
		p.stderr.WriteString(line)
		p.mu.Unlock()
		if p.Platform == "" {
			p.address(line, ready)
		}
		if err != nil {
			break
		}
	}
	_ = p.cmd.Wait() // The state says how it ended.
}

// address takes a line of the start, which says where a program listens.
func (p *Process) address(line string, ready chan<- struct{}) {
	name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch value = strings.TrimSpace(value); name {
	case "shop":
		p.URL = value
	case "pgsim":
		p.Gateway = value
	case "platform": // The last line of the start.
		p.Platform = value
		close(ready)
	}
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill kills it, as kill -9 does, and waits for its end. It may have ended before.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks it to end, as Ctrl-C does, and returns its exit code.
func (p *Process) Stop() int {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	return p.Wait()
}

// Wait waits for its end and returns its exit code, -1 when a signal ended it.
func (p *Process) Wait() int {
	p.t.Helper()
	limit := time.NewTimer(exitTimeout)
	defer limit.Stop()
	select {
	case <-p.done:
	case <-limit.C:
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // Go prints every goroutine.
		<-p.done
		p.t.Fatalf("the process did not end within %s:\n%s", exitTimeout, p.Stderr())
	}
	return p.cmd.ProcessState.ExitCode()
}

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stdout returns what it has printed.
func (p *Process) Stdout() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String()
}

// Stderr returns what it has said of itself, its progress bar left out.
func (p *Process) Stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var kept strings.Builder
	for line := range strings.Lines(p.stderr.String()) {
		kept.WriteString(line[strings.LastIndexByte(strings.TrimRight(line, "\r\n"), '\r')+1:])
	}
	return kept.String()
}
