package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killTimeout bounds the wait for processes that got SIGKILL. Only a kernel in trouble exceeds it.
const killTimeout = 30 * time.Second

// thread is an OS thread that starts processes and lives as long as they shall. Linux sends the signal of
// Pdeathsig when the thread that started a process ends, not the process, and Go ends threads as it likes.
type thread struct {
	work chan func()
}

func newThread() *thread {
	t := &thread{work: make(chan func())}
	go func() {
		runtime.LockOSThread() // and never unlock: it ends with the goroutine
		for f := range t.work {
			f()
		}
	}()
	return t
}

func (t *thread) do(f func()) {
	done := make(chan struct{})
	t.work <- func() { f(); close(done) }
	<-done
}

func (t *thread) end() { close(t.work) }

// process is a child and what it started in turn.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
	err  error         // valid then
}

// spawn starts c with its output in a log, in a process group of its own, where no ^C reaches it.
func (l *Launcher) spawn(c command, dir, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	cmd := exec.CommandContext(context.Background(), c.path, c.args...)
	cmd.Dir = dir
	cmd.Env = append(environment(dir), c.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// Switching the user before the program runs, not by it: a change of identity clears Pdeathsig.
	if cmd.SysProcAttr.Credential, err = credential(c.user); err != nil {
		return nil, err
	}
	l.thread.do(func() { err = cmd.Start() })
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// environment gives a server nothing of ours that might change it, and a home of its own.
func environment(dir string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C.UTF-8", "TZ=UTC",
	}
	if java := os.Getenv("JAVA_HOME"); java != "" {
		env = append(env, "JAVA_HOME="+java)
	}
	return env
}

// credential returns how to become a user, nil to stay who we are: only root can, and only root must.
func credential(name string) (*syscall.Credential, error) {
	if name == "" || os.Getuid() != 0 {
		return nil, nil
	}
	uid, gid, err := lookup(name)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func lookup(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("%w; %s", err, howToInstall)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// own gives a directory to the user that a server runs as.
func own(dir, name string) error {
	if name == "" || os.Getuid() != 0 {
		return nil
	}
	uid, gid, err := lookup(name)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks for an end and waits for it.
func (p *process) stop(signal syscall.Signal, timeout time.Duration) {
	if p.ended() || syscall.Kill(p.cmd.Process.Pid, signal) != nil {
		return
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
}

// kill ends the process and all that it started. The group is not enough: PostgreSQL's workers lead
// groups of their own, and outlive a killed postmaster while they are busy, holding its data.
func (p *process) kill() error {
	var tree []identity
	if !p.ended() {
		_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGSTOP) // so that it starts no more
		tree = descendants(p.cmd.Process.Pid)
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
	for _, id := range tree {
		if id.running() {
			_ = syscall.Kill(id.pid, syscall.SIGKILL)
		}
	}
	deadline := time.Now().Add(killTimeout)
	for _, id := range tree {
		// They are not our children, so there is nothing to wait on.
		for id.running() {
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d runs on after SIGKILL", id.pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func pause(p *process) error {
	if p.ended() {
		return errors.New("pause: it has ended")
	}
	if err := syscall.Kill(p.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for _, id := range descendants(p.cmd.Process.Pid) {
		_ = syscall.Kill(id.pid, syscall.SIGSTOP) // one that ended meanwhile is stopped enough
	}
	return nil
}

func resume(p *process) error {
	if p.ended() {
		return errors.New("resume: it has ended")
	}
	for _, id := range descendants(p.cmd.Process.Pid) {
		_ = syscall.Kill(id.pid, syscall.SIGCONT)
	}
	return syscall.Kill(p.cmd.Process.Pid, syscall.SIGCONT)
}

// memory sums the proportional set sizes of the process and all below it.
func (p *process) memory() (int64, error) {
	pids := []int{p.cmd.Process.Pid}
	for _, id := range descendants(p.cmd.Process.Pid) {
		pids = append(pids, id.pid)
	}
	var total int64
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it just ended
		}
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if size, ok := strings.CutPrefix(line, "Pss:"); ok {
				kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(size), " kB"), 10, 64)
				if err != nil {
					return 0, err
				}
				total += kilobytes << 10
			}
		}
	}
	return total, nil
}

// identity tells a process from a later one of the same number.
type identity struct {
	pid     int
	started string
}

func (id identity) running() bool {
	stat, ok := readStat(id.pid)
	return ok && stat.started == id.started && stat.state != "Z" && stat.state != "X"
}

type stat struct {
	parent         int
	state, started string
}

func readStat(pid int) (stat, bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, false
	}
	// The name in parentheses may hold anything; what follows is numbers: state, parent, ... start time.
	_, rest, found := strings.Cut(string(text[max(bytes.LastIndexByte(text, ')'), 0):]), " ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return stat{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return stat{parent: parent, state: fields[0], started: fields[19]}, err == nil
}

// descendants lists the processes below pid, parents first.
func descendants(pid int) []identity {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	children := map[int][]identity{}
	for _, name := range names {
		child, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if s, ok := readStat(child); ok {
			children[s.parent] = append(children[s.parent], identity{child, s.started})
		}
	}
	var found []identity
	for next := children[pid]; len(next) > 0; next = next[1:] {
		found = append(found, next[0])
		next = append(next, children[next[0].pid]...)
	}
	return found
}

// port is held by a socket that is bound and never listens. Who wants any free port does not get this one,
// neither to listen nor for a connection of its own, while a server that names it and allows the reuse of
// addresses, as all servers do, gets it.
type port struct {
	number int
	socket int
}

// hold takes the port of that number, or a free one if it is 0.
func hold(number int) (*port, error) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	p := &port{socket: socket}
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		p.release()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		p.release()
		return nil, fmt.Errorf("port %d: %w", number, os.NewSyscallError("bind", err))
	}
	address, err := syscall.Getsockname(socket)
	if err != nil {
		p.release()
		return nil, os.NewSyscallError("getsockname", err)
	}
	inet, ok := address.(*syscall.SockaddrInet4)
	if !ok {
		p.release()
		return nil, fmt.Errorf("socket address is a %T", address)
	}
	p.number = inet.Port
	return p, nil
}

func (p *port) release() { _ = syscall.Close(p.socket) }

// lock takes a file for this process, and fails at once if another has it.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", name, os.NewSyscallError("flock", err))
	}
	return func() { _ = f.Close() }, nil
}
