package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// readyTimeout bounds a start, stopTimeout an orderly stop; then the server is killed.
const (
	readyTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	closeTimeout = 2 * time.Second
	probePause   = 20 * time.Millisecond
	logTailBytes = 4096
)

// Server is a server of one or several processes.
type Server struct {
	launcher *Launcher
	kind     Kind
	options  Options
	dir      string

	mu     sync.Mutex
	url    string
	caFile string
	nodes  []*node
	ports  []*port
	// clientFiles are a client's certificate and its key.
	clientFiles [2]string
}

// node is one member of a cluster, or the server itself.
type node struct {
	dir string
	// prepare writes the configuration and makes the data if it is not there.
	prepare func(ctx context.Context) error
	// helper runs beside the main process, started before and stopped after it.
	helper *command
	main   command
	// ready is a single attempt to get a sign of life.
	ready func(ctx context.Context) error
	// stopSignal asks for an orderly end; stopTimeout is the node's own, where it is known to hang.
	stopSignal  syscall.Signal
	stopTimeout time.Duration
	// closeSignal has it end at once but release what the kernel would keep for it. Default SIGKILL.
	closeSignal syscall.Signal

	running []*process
}

// command is a program and how to run it.
type command struct {
	path string
	args []string
	env  []string
	// user is whom to be, if this process is root. Empty is root itself.
	user string
}

// Kind returns what it is.
func (s *Server) Kind() Kind { return s.kind }

// URL returns where it listens, all nodes of a cluster.
func (s *Server) URL() string { return s.url }

// CAFile returns the PEM file of the authority to trust, if the server was started with TLS.
func (s *Server) CAFile() string { return s.caFile }

// ClientFiles returns the PEM files of a certificate and its key that the server takes of a client, if it was started
// with TLS.
func (s *Server) ClientFiles() (cert, key string) { return s.clientFiles[0], s.clientFiles[1] }

// Restart starts the nodes that don't run, with their ports and data, and waits until all are ready.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// All first, then wait: a lone member of a cluster never gets ready.
	for _, n := range s.nodes {
		if err := s.launcher.startNode(ctx, n); err != nil {
			return err
		}
	}
	for _, n := range s.nodes {
		if err := n.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// RestartNode starts node i as Restart does.
func (s *Server) RestartNode(ctx context.Context, i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.launcher.startNode(ctx, s.nodes[i]); err != nil {
		return err
	}
	return s.nodes[i].wait(ctx)
}

// Kill ends all processes by SIGKILL and returns when they are gone.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

func (s *Server) kill() error {
	var err error
	for _, n := range s.nodes {
		err = errors.Join(err, n.kill())
	}
	return err
}

// KillNode kills node i.
func (s *Server) KillNode(i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[i].kill()
}

// Stop asks for an orderly end and returns when the processes are gone. It kills one that does not end.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(s.nodes))
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() { errs[i] = n.stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Pause stops all processes by SIGSTOP: connections stay open and nothing answers.
func (s *Server) Pause() error { return s.signal(pause) }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.signal(resume) }

func (s *Server) signal(signal func(*process) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, n := range s.nodes {
		for _, p := range n.running {
			err = errors.Join(err, signal(p))
		}
	}
	return err
}

// Memory returns how many bytes its processes have in RAM; what they share is counted once.
func (s *Server) Memory() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total int64
	for _, n := range s.nodes {
		for _, p := range n.running {
			bytes, err := p.memory()
			if err != nil {
				return 0, err
			}
			total += bytes
		}
	}
	return total, nil
}

// Wipe deletes the data of a stopped server. The next Restart finds nothing.
func (s *Server) Wipe() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.alive() {
			return fmt.Errorf("%s: wipe: it runs; stop it first", s.kind)
		}
		if err := os.RemoveAll(n.dir); err != nil {
			return err
		}
	}
	return nil
}

// Close kills the server and gives up its ports. It removes the data, unless Config.Dir keeps it.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, n := range s.nodes {
		if n.closeSignal != 0 {
			err = errors.Join(err, n.end(n.closeSignal, closeTimeout))
		}
	}
	err = errors.Join(err, s.kill())
	for _, p := range s.ports {
		p.release()
	}
	s.ports = nil
	if !s.launcher.keep {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

func (l *Launcher) startNode(ctx context.Context, n *node) error {
	if n.alive() {
		return nil
	}
	// One of two may have ended by itself.
	if err := n.kill(); err != nil {
		return err
	}
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	if err := own(n.dir, n.main.user); err != nil {
		return err
	}
	if err := n.prepare(ctx); err != nil {
		return err
	}
	for _, c := range []*command{n.helper, &n.main} {
		if c == nil {
			continue
		}
		p, err := l.spawn(*c, n.dir, n.logFile())
		if err != nil {
			return err
		}
		n.running = append(n.running, p)
	}
	return nil
}

func (n *node) logFile() string { return filepath.Join(n.dir, "server.log") }

func (n *node) alive() bool {
	for _, p := range n.running {
		if p.ended() {
			return false
		}
	}
	return len(n.running) > 0
}

// wait probes until the node is ready. It gives up at once when a process has ended.
func (n *node) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	pause := time.NewTicker(probePause)
	defer pause.Stop()
	for {
		err := n.ready(ctx)
		if !n.alive() {
			return fmt.Errorf("ended while starting; its log ends with\n%s", tail(n.logFile()))
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready (%w): %w; its log ends with\n%s", context.Cause(ctx), err, tail(n.logFile()))
		case <-pause.C:
		}
	}
}

func (n *node) kill() error {
	var err error
	for _, p := range n.running {
		err = errors.Join(err, p.kill())
	}
	n.running = nil
	return err
}

func (n *node) stop() error {
	timeout := n.stopTimeout
	if timeout == 0 {
		timeout = stopTimeout
	}
	return n.end(n.stopSignal, timeout)
}

// end asks the main process to end, and then kills. The helper has nothing to lose.
func (n *node) end(signal syscall.Signal, timeout time.Duration) error {
	if n.alive() {
		main := n.running[len(n.running)-1]
		if err := resume(main); err != nil { // a paused one would not hear
			return err
		}
		main.stop(signal, timeout)
	}
	return n.kill()
}

// run runs a command to its end, as preparations need it.
func (l *Launcher) run(ctx context.Context, c command, dir string) error {
	log := filepath.Join(dir, filepath.Base(c.path)+".log")
	p, err := l.spawn(c, dir, log)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.kill())
	case <-p.done:
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w; its log ends with\n%s", c.path, p.err, tail(log))
	}
	return nil
}

// tail returns the end of a log, for a failure's message.
func tail(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTailBytes {
		if _, err := f.Seek(-logTailBytes, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
