// Command settle runs the shop, carries outboxes, and is the operator's tool for both.
//
// Exit codes: 0 fine, 1 the work failed, 2 wrong use.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"syscall"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	"github.com/settledev/settle/cmd/settle/internal/app"
)

// cli is the command line. Each value comes from its flag, else from SETTLE_ and its name, else from the
// file that --config names, else it is the default; `settle config` prints which.
type cli struct {
	Config  kong.ConfigFlag `help:"Read flags from this JSON file." placeholder:"FILE" env:"SETTLE_CONFIG"`
	Verbose bool            `help:"Log life cycle and single events too." short:"v"`
	Profile string          `help:"Write a CPU profile of the whole run." hidden:"" placeholder:"FILE"`

	Demo       demoCmd                   `cmd:"" help:"Run the whole shop in this process, replay a month of real orders, and keep serving."`
	Serve      serveCmd                  `cmd:"" help:"Run the shop's services, all or some of them, without a replay."`
	Outside    outsideCmd                `cmd:"" help:"Run the world outside the shop: a payment gateway and a data platform."`
	ReplayData replayCmd                 `cmd:"" name:"replay-data" help:"Replay a retail file against a running shop and reconcile the books."`
	Dlq        dlqCmd                    `cmd:"" help:"List, replay and discard dead letters of a running shop."`
	Outbox     outboxCmd                 `cmd:"" help:"Show a service's outbox, and replay what a broker refused."`
	Relay      relayCmd                  `cmd:"" help:"Carry outboxes of databases to brokers, as a program of its own."`
	Migrate    migrateCmd                `cmd:"" help:"Apply, show and print migrations of databases."`
	Doctor     doctorCmd                 `cmd:"" help:"Look at databases and a broker, and say what to do."`
	Lock       lockCmd                   `cmd:"" help:"Run a job on one machine of many, and show who holds what."`
	Stream     streamCmd                 `cmd:"" help:"Follow events of a running shop as they happen."`
	Order      orderCmd                  `cmd:"" help:"Show one order across all services."`
	Bench      benchCmd                  `cmd:"" help:"Measure, beside a baseline in the same run."`
	Settings   settingsCmd               `cmd:"" name:"config" help:"Print the effective settings of a command and where each comes from."`
	Version    versionCmd                `cmd:"" help:"Print the version."`
	Completion kongcompletion.Completion `cmd:"" help:"Print shell completion code."`
}

// usageError is a mistake of whoever typed the command: exit code 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func main() {
	spareProcessors()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// heapBytesSoft is the size of the heap from which on it is collected more often.
const heapBytesSoft = 320 << 20

// spareProcessors gives Go more processors than the machine has. SQLite's fsync is a raw system call that
// holds one until the disk has answered: with two of them and ten files that sync, the rest of the process
// stood still (whole orders on 2 cores: 560/s with 2, 870/s with 4 and more; docs/adr/0007).
func spareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(8, 2*runtime.NumCPU()))
	}
	// What is alive is small beside what passes through: collecting less often saves a tenth of the CPU, up
	// to a heap that leaves room for SQLite's pages within 512 MB.
	collectAt(300)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapBytesSoft)
	}
}

// collectAt collects garbage when the heap has grown by so many percent, if the environment does not say.
func collectAt(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// terminal is where a command writes.
type terminal struct {
	out io.Writer
	err io.Writer
	log *slog.Logger
}

func run(args []string, out, errOut io.Writer) int {
	var c cli
	parser, err := newParser(&c, out, errOut)
	if err != nil {
		_, _ = fmt.Fprintln(errOut, "settle:", err)
		return 2
	}
	kongcompletion.Register(parser)
	exited := -1
	parser.Exit = func(code int) { exited = code }
	kctx, err := parser.Parse(args)
	if exited >= 0 { // --help has been answered.
		return exited
	}
	if err != nil {
		_, _ = fmt.Fprintln(errOut, "settle:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // A second signal ends the process at once.
	}()
	level := slog.LevelWarn
	if c.Verbose {
		level = slog.LevelInfo
	}
	t := &terminal{out: out, err: errOut, log: slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))}
	slog.SetDefault(t.log)
	kctx.BindTo(ctx, (*context.Context)(nil))
	err = profiled(c.Profile, func() error { return kctx.Run(t, parser) })
	var wrong *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong), errors.Is(err, app.ErrUsage):
		_, _ = fmt.Fprintln(errOut, "settle:", err)
		return 2
	default:
		_, _ = fmt.Fprintln(errOut, "settle:", err)
		return 1
	}
}

// profiled runs fn, writing a CPU profile when path is set.
func profiled(path string, fn func() error) (err error) {
	if path == "" {
		return fn()
	}
	f, err := os.Create(path)
	if err != nil {
		return usage("--profile: %v", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	defer func() {
		pprof.StopCPUProfile()
		err = errors.Join(err, f.Close())
	}()
	return fn()
}

func newParser(c *cli, out, errOut io.Writer) (*kong.Kong, error) {
	return kong.New(
		c,
		kong.Name("settle"),
		kong.Description("Business state and its consequences settle together."),
		kong.Writers(out, errOut),
		kong.Configuration(kong.JSON),
		kong.DefaultEnvars("SETTLE"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
}
