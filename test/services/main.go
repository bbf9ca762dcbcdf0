//go:build linux

// Command services keeps the servers that tests use running, for work by hand and for quick repeats:
//
//	go run ./test/services up [name...]     start them and print their URLs, as lines for a shell
//	go run ./test/services status           what runs, where, and its memory
//	go run ./test/services down [name...]   stop them; without names, all
//
//	eval "$(go run ./test/services up)" && go test work
//
// Without names, up starts what tests share: postgres mariadb redis nats kafka rabbit. Each has a port
// that never changes, and its data stay in tmp/services until that folder is removed.
//
// Each server has a keeper: this program again, in the background, which the server dies with.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/settledev/settle/internal/server/launch"
)

// root holds a folder for each server. It is relative, so this program runs in the repository's.
const root = "tmp/services"

// service is what can be started, and where.
type service struct {
	kind launch.Kind
	port int
	// upstream must run before it.
	upstream launch.Kind
	// optional ones are started by name only.
	optional bool
}

// services have ports that no distribution uses, and that the kernel gives to no connection.
// deploy/compose.yaml has the same.
func services() []service {
	return []service{
		{kind: launch.Postgres, port: 25432},
		{kind: launch.MariaDB, port: 23306},
		{kind: launch.Redis, port: 26379},
		{kind: launch.NATS, port: 24222},
		{kind: launch.Kafka, port: 29092},
		{kind: launch.Rabbit, port: 25672},
		{kind: launch.Postgres17, port: 25433, optional: true},
		{kind: launch.NATSCluster, port: 24223, optional: true},
		{kind: launch.KafkaCluster, port: 29093, optional: true},
		{kind: launch.PgBouncer, port: 26432, upstream: launch.Postgres, optional: true},
		{kind: launch.Connect, port: 28083, upstream: launch.Kafka, optional: true},
	}
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "services:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: services up [name...] | down [name...] | status")
	}
	if _, err := os.Stat("go.work"); err != nil {
		return fmt.Errorf("run it in the repository's root: %w", err)
	}
	switch args[0] {
	case "up":
		wanted, err := choose(args[1:], func(s service) bool { return !s.optional })
		if err != nil {
			return err
		}
		return up(ctx, wanted, os.Stdout)
	case "down":
		wanted, err := choose(args[1:], func(service) bool { return true })
		if err != nil {
			return err
		}
		return down(ctx, wanted)
	case "status":
		return status(ctx, os.Stdout)
	case "keep": // what up starts
		wanted, err := choose(args[1:], func(service) bool { return false })
		if err != nil || len(wanted) != 1 {
			return fmt.Errorf("keep one server: %w", err)
		}
		return keep(ctx, wanted[0])
	}
	return fmt.Errorf("no command %q", args[0])
}

// choose returns the services of these names or, without names, those that are chosen by default.
func choose(names []string, byDefault func(service) bool) ([]service, error) {
	all := services()
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(s service) bool { return !byDefault(s) }), nil
	}
	var chosen []service
	for _, name := range names {
		i := slices.IndexFunc(all, func(s service) bool { return string(s.kind) == name })
		if i < 0 {
			return nil, fmt.Errorf("no server %q; there are %v", name, launch.Kinds())
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// up starts servers side by side, after those that they need, and prints their URLs.
func up(ctx context.Context, wanted []service, out io.Writer) error {
	first, then := []service{}, []service{}
	for _, s := range wanted {
		if s.upstream == "" {
			first = append(first, s)
			continue
		}
		needed, err := choose([]string{string(s.upstream)}, nil)
		if err != nil {
			return err
		}
		first, then = append(first, needed...), append(then, s)
	}
	var lines []string
	for _, wave := range [][]service{first, then} {
		states, err := startAll(ctx, wave)
		if err != nil {
			return err
		}
		for _, s := range states {
			lines = append(lines, s.line())
		}
	}
	slices.Sort(lines)
	_, err := fmt.Fprintln(out, strings.Join(slices.Compact(lines), "\n"))
	return err
}

func startAll(ctx context.Context, wave []service) ([]state, error) {
	// One that two others need, or that is named as well, is started once.
	slices.SortFunc(wave, func(a, b service) int { return a.port - b.port })
	wave = slices.Compact(wave)
	states, errs := make([]state, len(wave)), make([]error, len(wave))
	var wg sync.WaitGroup
	for i, s := range wave {
		wg.Go(func() { states[i], errs[i] = start(ctx, s) })
	}
	wg.Wait()
	return states, errors.Join(errs...)
}

// start starts a server's keeper, unless it runs, and waits until the server is ready.
func start(ctx context.Context, s service) (state, error) {
	if running, err := ask(ctx, s.kind, askState); err == nil {
		return running, nil
	}
	dir := filepath.Join(root, string(s.kind))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return state{}, err
	}
	log, err := os.Create(filepath.Join(dir, "keeper.log"))
	if err != nil {
		return state{}, err
	}
	defer log.Close()
	program, err := os.Executable()
	if err != nil {
		return state{}, err
	}
	began := time.Now()
	keeper := exec.CommandContext(context.WithoutCancel(ctx), program, "keep", string(s.kind))
	keeper.Stdout, keeper.Stderr = log, log
	// A session of its own: neither ^C nor the end of the terminal is meant for it.
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := keeper.Start(); err != nil {
		return state{}, err
	}
	ended := make(chan struct{})
	go func() {
		_ = keeper.Wait() // its log says why
		close(ended)
	}()
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		if running, err := ask(ctx, s.kind, askState); err == nil {
			_, _ = fmt.Fprintf(os.Stderr, "services: %s is ready after %.1f s\n", s.kind, time.Since(began).Seconds())
			return running, nil
		}
		select {
		case <-ended:
			text, err := os.ReadFile(log.Name())
			return state{}, errors.Join(fmt.Errorf("%s did not start: %s", s.kind, strings.TrimSpace(string(text))), err)
		case <-pause.C:
		}
	}
}

// down stops servers side by side, after those that depend on them: PostgreSQL waits for its followers to
// have read everything, and Connect for Kafka.
func down(ctx context.Context, wanted []service) error {
	errs := make([]error, len(wanted))
	for _, dependent := range []bool{true, false} {
		var wg sync.WaitGroup
		for i, s := range wanted {
			if (s.upstream != "") != dependent {
				continue
			}
			wg.Go(func() {
				if _, err := ask(ctx, s.kind, askState); err != nil {
					return // it does not run
				}
				_, errs[i] = ask(ctx, s.kind, askStop)
			})
		}
		wg.Wait()
	}
	return errors.Join(errs...)
}

func status(ctx context.Context, out io.Writer) error {
	for _, s := range services() {
		running, err := ask(ctx, s.kind, askState)
		line := fmt.Sprintf("%-14s -", s.kind)
		if err == nil {
			line = fmt.Sprintf("%-14s %4d MB  %s", s.kind, running.MemoryBytes>>20, running.URL)
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}
