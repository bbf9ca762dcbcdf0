//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/settledev/settle/internal/server/launch"
)

// What a keeper can be asked. It answers with a state; to a stop when the server has ended.
const (
	askState = "state"
	askStop  = "stop"
)

// askTimeout bounds the wait for a state. A stop takes as long as the server's own.
const askTimeout = 5 * time.Second

// state is a running server's.
type state struct {
	Kind        launch.Kind
	URL         string
	MemoryBytes int64
	Error       string
}

// line is what a shell can evaluate; a comment, if no test takes the URL from there.
func (s state) line() string {
	if name := launch.Variable(s.Kind); name != "" {
		return fmt.Sprintf("export %s='%s'", name, s.URL)
	}
	return fmt.Sprintf("# %s %s", s.Kind, s.URL)
}

// socket is where a server's keeper listens: whoever can connect knows that it runs, and no process
// number has to be trusted.
func socket(kind launch.Kind) string { return filepath.Join(root, string(kind), "keeper.sock") }

func ask(ctx context.Context, kind launch.Kind, what string) (state, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket(kind))
	if err != nil {
		return state{}, err
	}
	defer conn.Close()
	if what == askState {
		if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
			return state{}, err
		}
	}
	if err := json.NewEncoder(conn).Encode(what); err != nil {
		return state{}, err
	}
	var answer state
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return state{}, fmt.Errorf("%s: %w", kind, err)
	}
	if answer.Error != "" {
		return answer, fmt.Errorf("%s: %s", kind, answer.Error)
	}
	return answer, nil
}

// keep runs one server until it is asked to stop it.
func keep(ctx context.Context, s service) error {
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	options := launch.Options{Port: s.port}
	if s.upstream != "" {
		upstream, err := ask(ctx, s.upstream, askState)
		if err != nil {
			return fmt.Errorf("%s needs %s: %w", s.kind, s.upstream, err)
		}
		options.Upstream = upstream.URL
	}
	// It takes a lock, so from here on there is no second keeper.
	launcher, err := launch.New(launch.Config{Dir: filepath.Dir(socket(s.kind))})
	if err != nil {
		return err
	}
	asked, err := serve(ctx, launcher, s, options)
	err = errors.Join(err, launcher.Close())
	if asked != nil {
		// Now the ports and the data are free: who asked may start it again at once.
		reply := state{Kind: s.kind}
		if err != nil {
			reply.Error = err.Error()
		}
		_ = json.NewEncoder(asked).Encode(reply) // who asked may have gone
		_ = asked.Close()
	}
	return err
}

// serve starts the server, answers questions until one asks to stop it, and stops it. It returns who asked.
func serve(ctx context.Context, launcher *launch.Launcher, s service, options launch.Options) (net.Conn, error) {
	server, err := launcher.Start(ctx, s.kind, options)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(socket(s.kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", socket(s.kind))
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil, server.Stop() // a signal
		}
		if answer(conn, server) {
			return conn, server.Stop()
		}
		_ = conn.Close()
	}
}

// answer answers a question for the state, and tells whether it was one to stop instead.
func answer(conn net.Conn, server *launch.Server) (stop bool) {
	_ = conn.SetReadDeadline(time.Now().Add(askTimeout))
	var what string
	if err := json.NewDecoder(conn).Decode(&what); err != nil {
		return false
	}
	reply := state{Kind: server.Kind(), URL: server.URL()}
	var err error
	switch what {
	case askStop:
		return true
	case askState:
		reply.MemoryBytes, err = server.Memory()
	default:
		err = fmt.Errorf("no question %q", what)
	}
	if err != nil {
		reply.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(reply)
	return false
}
