package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/sqlstore"
)

// lockCmd is settle lock.
type lockCmd struct {
	Run  lockRunCmd  `cmd:"" help:"Run a command while holding a name, so that one machine of many runs it."`
	List lockListCmd `cmd:"" help:"Show who holds which name, or held it last."`
}

// lockStore names the database that has the leases.
type lockStore struct {
	Store string `help:"The database that has the leases: postgres://user@host/database, mysql://user@host/database or sqlite:FILE." required:"" placeholder:"URL"`
}

func (f *lockStore) database() (app.Database, error) {
	all, err := app.Databases(f.Store, "", nil)
	if err != nil {
		return app.Database{}, err
	}
	return all[0], nil
}

// lockConnsMax is enough for one statement after the other, and a renewal that hangs.
const lockConnsMax = 2

func openLeases(ctx context.Context, d app.Database, readOnly bool) (*sqlstore.Store, error) {
	s, err := d.Open(ctx, app.DatabaseConfig{ConnsMax: lockConnsMax, Quiet: true, ReadOnly: readOnly})
	if err != nil {
		return nil, explained(d, err)
	}
	return s, nil
}

type lockRunCmd struct {
	lockStore

	TTL  time.Duration `help:"How long nobody else gets the name when this process dies. It is renewed at a third of it." default:"15s"`
	Wait bool          `help:"Wait while another one holds the name. Without it, that is exit code 1."`

	Name    string   `arg:"" help:"What only one does at a time."`
	Command []string `arg:"" passthrough:"partial" help:"What to run, behind --. It finds SETTLE_LOCK_NAME and SETTLE_LOCK_FENCE in its environment."`
}

// Run holds the name while the command runs.
func (c *lockRunCmd) Run(ctx context.Context, t *terminal) error {
	command := c.Command
	if command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return usage("there is no command behind --")
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return usage("%v", err)
	}
	d, err := c.database()
	if err != nil {
		return err
	}
	if c.Wait && d.Dialect == "sqlite" {
		return usage("--wait: a SQLite file is one process's, whoever comes second is refused at once")
	}
	s, err := openLeases(ctx, d, false)
	if err != nil {
		return err
	}
	defer s.Close()
	job := &job{leases: s.Leases(), command: command, ttl: c.TTL, t: t}
	return explainedLease(c.Name, job, job.hold(ctx, c.Name, c.Wait))
}

// explainedLease is an error of a job in one line.
func explainedLease(name string, j *job, err error) error {
	held, isHeld := errors.AsType[*lock.HeldError](err)
	switch {
	case isHeld:
		return fmt.Errorf("%s is %w", name, held)
	case errors.Is(err, lock.ErrLimit):
		return usage("%v", err)
	case j.ran && (errors.Is(err, lock.ErrLost) || errors.Is(err, lock.ErrFenced)):
		how := ""
		if j.err == nil {
			how = "; " + j.command[0] + " ended well"
		}
		return fmt.Errorf("%s was lost while %s ran, another may have begun: %w%s", name, j.command[0], oneLine(err), how)
	}
	return err
}

// job is a command that runs while a name is held.
type job struct {
	leases  lock.Leases
	command []string
	ttl     time.Duration
	t       *terminal

	ran bool  // It was started.
	err error // What became of it.
}

// hold runs the command under the name. A signal ends the wait for the name. Once the command runs it gets the
// signals and says when it ends, and the lease is renewed until then.
func (j *job) hold(ctx context.Context, name string, wait bool) error {
	holding, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	deaf := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	margin := j.ttl / 5
	cfg := lock.Config{TTL: j.ttl, Margin: margin, Wait: wait, Logger: j.t.log}
	return lock.Hold(holding, j.leases, name, cfg, func(held context.Context, l lock.Lease) error {
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)
		if !deaf() {
			return context.Cause(ctx)
		}
		j.ran = true
		j.err = j.run(held, l, signals, margin/2)
		if held.Err() == nil {
			return errors.Join(j.confirm(held, l), j.err)
		}
		return j.err
	})
}

// run runs the command. When held is done it gets SIGTERM, and SIGKILL after a grace.
func (j *job) run(held context.Context, l lock.Lease, signals <-chan os.Signal, grace time.Duration) error {
	cmd := exec.CommandContext(held, j.command[0], j.command[1:]...)
	cmd.Env = append(cmd.Environ(), "SETTLE_LOCK_NAME="+l.Name, "SETTLE_LOCK_FENCE="+strconv.FormatInt(l.Fence, 10))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, j.t.out, j.t.err
	group := !atTerminal()
	// What a script has started must end with it: it runs under the lease too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: group}
	cmd.Cancel = func() error { return tell(cmd.Process, group, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Start()
	if err == nil {
		ended := make(chan struct{})
		var passing sync.WaitGroup
		passing.Go(func() { passOn(cmd.Process, group, signals, ended) })
		err = cmd.Wait()
		close(ended)
		passing.Wait()
	}
	if err == nil || err == held.Err() { //nolint:errorlint // As it is: exec's word for a command that was told to end and did so well.
		return nil
	}
	return fmt.Errorf("%s: %w", j.command[0], err)
}

// confirm asks the store whether the lease ran until now. The local clock stands still while a machine is
// suspended, and would not tell.
func (j *job) confirm(held context.Context, l lock.Lease) error {
	_, err := j.leases.Renew(held, l, j.ttl)
	if err == nil || errors.Is(err, lock.ErrLost) || errors.Is(err, lock.ErrFenced) {
		return err
	}
	j.t.log.Warn("lease cannot be confirmed, by the local clock it was held to the end", "lock", l.Name, "fence", l.Fence, "err", err)
	return nil
}

// passOn gives a command the signals that this process gets, until it has ended.
func passOn(p *os.Process, group bool, signals <-chan os.Signal, ended <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			if group || s != os.Interrupt { // Ctrl-C at a terminal has reached it already.
				_ = tell(p, group, s) // It may have ended.
			}
		case <-ended:
			return
		}
	}
}

// tell sends a signal to a process, and to all of its group when it has one of its own.
func tell(p *os.Process, group bool, s os.Signal) error {
	n, ok := s.(syscall.Signal)
	if !group || !ok {
		return p.Signal(s)
	}
	err := syscall.Kill(-p.Pid, n)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// atTerminal reports whether the process has a terminal: in a group of its own a command could not read from it.
func atTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

type lockListCmd struct {
	lockStore
	listing

	After string `help:"Only what follows this name." placeholder:"NAME"`
	Limit int    `help:"At most this many." default:"100"`
}

// leaseState is a lease as it is printed.
type leaseState struct {
	Name  string    `json:"name"`
	Owner string    `json:"owner,omitempty"`
	Fence int64     `json:"fence"`
	Until time.Time `json:"until,omitzero"`
	State string    `json:"state"`
}

func (s leaseState) row() string {
	owner, until := "-", "-"
	if s.Owner != "" {
		owner, until = s.Owner, s.Until.Local().Format(time.DateTime)
	}
	return fmt.Sprintf("%s\t%s\t%d\t%s\t%s", s.Name, s.State, s.Fence, owner, until)
}

// Run lists leases.
func (c *lockListCmd) Run(ctx context.Context, t *terminal) error {
	d, err := c.database()
	if err != nil {
		return err
	}
	s, err := openLeases(ctx, d, true)
	if err != nil {
		return err
	}
	defer s.Close()
	lister, ok := s.Leases().(lock.Lister)
	if !ok {
		return errors.ErrUnsupported
	}
	leases, err := lister.List(ctx, c.After, c.Limit)
	if errors.Is(err, lock.ErrLimit) {
		return usage("%v", err)
	}
	if err != nil {
		return err
	}
	all := make([]leaseState, 0, len(leases))
	for _, l := range leases {
		v := leaseState{Name: l.Name, Owner: l.Owner, Fence: l.Fence, Until: l.Expires, State: "run out"}
		switch {
		case l.Held:
			v.State = "held"
		case l.Owner == "":
			v.State, v.Until = "released", time.Time{}
		}
		all = append(all, v)
	}
	return printItems(t, c.JSON, all, "NAME\tSTATE\tFENCE\tOWNER\tUNTIL", leaseState.row)
}
