package cluster

import (
	"bytes"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Program is a running command.
type Program struct {
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	said bytes.Buffer
}

// Launch starts a command, which is killed with the test.
func Launch(t *testing.T, binary string, args ...string) *Program {
	t.Helper()
	p := &Program{done: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), binary, args...)
	p.cmd.Stderr, p.cmd.Stdout = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // The state says how it ended.
		close(p.done)
	}()
	t.Cleanup(p.Kill)
	return p
}

// Write implements [io.Writer] for what the command says.
func (p *Program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

// String is what the command has said so far.
func (p *Program) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// PID is the process's number.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Program) Done() <-chan struct{} { return p.done }

// Ended tells whether it has.
func (p *Program) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Code is the exit code of one that has ended, -1 when a signal ended it.
func (p *Program) Code() int { return p.cmd.ProcessState.ExitCode() }

// Kill ends it by SIGKILL and waits for its end.
func (p *Program) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Quit ends it by SIGQUIT, at which it says what each of its goroutines does.
func (p *Program) Quit() {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Pause stops it where it is, by SIGSTOP.
func (p *Program) Pause() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (p *Program) Resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// Terminate asks it to end and returns its exit code.
func (p *Program) Terminate(t *testing.T) int {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(Patience):
		t.Fatalf("no end within %s of SIGTERM:\n%s", Patience, p)
	}
	return p.Code()
}
