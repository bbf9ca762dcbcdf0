package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/ulikunitz/xz"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/cmd/settle/internal/onlineretail"
	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/shop/replay"
)

// outsideFlags are how the outside world behaves.
type outsideFlags struct {
	Decline        float64 `help:"Percent of payments that the gateway declines." default:"0" placeholder:"P"`
	Seed           uint64  `help:"Seed of the outside world's faults; the same seed repeats them." default:"1"`
	GatewayFaults  string  `help:"Faults of pgsim as JSON, in the form of its PUT /v1/faults." placeholder:"JSON"`
	PlatformFaults string  `help:"Faults of platformsim as JSON, in the form of its PUT /v1/faults." placeholder:"JSON"`
}

func (f *outsideFlags) faults() (gateway pgsim.Faults, platform faults.Transport, err error) {
	if f.Decline < 0 || f.Decline > 100 {
		return gateway, platform, usage("--decline %g is not a percentage from 0 to 100", f.Decline)
	}
	platform = faults.Transport{Seed: f.Seed}
	gateway = pgsim.Faults{Transport: platform, DeclinePercent: f.Decline}
	if err := readFaults("--gateway-faults", f.GatewayFaults, &gateway); err != nil {
		return gateway, platform, err
	}
	return gateway, platform, readFaults("--platform-faults", f.PlatformFaults, &platform)
}

// shopFlags are what demo and serve have in common.
type shopFlags struct {
	Dir         string        `help:"Data directory; made when missing." default:"settle-data" placeholder:"DIR"`
	Addr        string        `help:"Address of the shop." default:"127.0.0.1:8080"`
	Store       string        `help:"sqlite:DIR, or a server with one database for each service: postgres://user@host:port/prefix or mysql://user@host:port/prefix (prefix_order and so on; {service} in the URL stands for the service instead). Default: SQLite files in --dir." placeholder:"URL"`
	Conns       int           `help:"Connections of each service to a database server, at most." default:"10" placeholder:"N"`
	Pooler      bool          `help:"The URL of the store leads to a pooler in transaction mode, such as PgBouncer."`
	Broker      string        `help:"nats (embedded JetStream), store (no broker: outboxes are followed), or the URL of a server: nats://, kafka://, redis:// or amqp://." default:"nats"`
	Relay       string        `help:"How outboxes are read: window, or wal, the log of postgres." enum:"window,wal" default:"window"`
	Filter      string        `help:"A redis that remembers which events are handled, so that one that comes again costs no database anything: redis:// or rediss://. It may be lost at any time. Default: none." placeholder:"URL"`
	TopicPrefix string        `help:"Begins the names of topics on a broker that others use too. Default: the driver's." placeholder:"NAME"`
	Partitions  int           `help:"Partitions of topics that are new. Default: the driver's." placeholder:"N"`
	Replicas    int           `help:"Replicas of topics that are new. Default: the driver's." placeholder:"N"`
	Delayed     time.Duration `help:"When an order without payment says so." default:"5s"`
	Expired     time.Duration `help:"When an order without payment is canceled." default:"2m"`
	ShipDelay   time.Duration `help:"Time between payment and shipment, in which an order can be canceled." default:"0s"`

	outsideFlags

	Crash string `help:"Kill this process with SIGKILL at the n-th passing of a named point, after a number of handled events. For crash tests." hidden:"" placeholder:"POINT:N@HANDLED"`
}

func (f *shopFlags) options(t *terminal) (app.Options, error) {
	failpoint, err := crashAt(f.Crash)
	if err != nil {
		return app.Options{}, err
	}
	gateway, platform, err := f.faults()
	if err != nil {
		return app.Options{}, err
	}
	return app.Options{
		Dir: f.Dir, Addr: f.Addr, Store: f.Store, ConnsMax: f.Conns, Pooler: f.Pooler, Broker: f.Broker, Relay: f.Relay, Filter: f.Filter,
		TopicPrefix: f.TopicPrefix, Partitions: f.Partitions, Replicas: f.Replicas,
		Gateway: gateway, Platform: platform,
		PaymentDelayed: f.Delayed, PaymentExpired: f.Expired, ShipDelay: f.ShipDelay,
		Logger: t.log, Failpoint: failpoint,
	}, nil
}

// readFaults reads faults strictly over those that other flags made.
func readFaults(flag, text string, into any) error {
	if text == "" {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return usage("%s: %v", flag, err)
	}
	return nil
}

// demoCmd is settle demo.
type demoCmd struct {
	shopFlags

	Fresh  bool   `help:"Delete the shop's data in the directory and on the database server first."`
	Data   string `help:"Retail file to replay, plain, .gz or .xz. Default: the bundled month." placeholder:"FILE"`
	Stock  string `help:"plenty, or tight=P for P percent of what the orders need." default:"plenty"`
	Report string `help:"Write the reconciliation as JSON." placeholder:"FILE"`
	Exit   bool   `help:"End after the reconciliation, with its verdict as exit code."`
}

// Run runs the demo.
func (d *demoCmd) Run(ctx context.Context, t *terminal) error {
	percent, err := stockPercent(d.Stock)
	if err != nil {
		return err
	}
	opts, err := d.options(t)
	if err != nil {
		return err
	}
	opts.Create, opts.Migrate = true, true
	if d.Fresh {
		if err := app.Reset(ctx, opts); err != nil {
			return err
		}
	}
	if opts.TopicPrefix, err = app.FreshPrefix(opts, d.Fresh); err != nil {
		return err
	}
	file, err := readFile(d.Data)
	if err != nil {
		return err
	}
	return serveWhile(ctx, opts, t, func(ctx context.Context, a *app.App) error {
		return a.RefuseForeign(ctx, file)
	}, func(ctx context.Context, a *app.App) error {
		return d.replay(ctx, t, a, file, percent)
	})
}

// serveWhile runs the shop beside fn, after prepare when there is one. The shop drains when fn has failed or
// ctx is done.
func serveWhile(ctx context.Context, opts app.Options, t *terminal, prepare, fn func(context.Context, *app.App) error) (err error) {
	a, err := app.Open(ctx, opts)
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if prepare != nil {
		if err := prepare(ctx, a); err != nil {
			return unlessInterrupted(ctx, err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.Start()
	done := make(chan error, 1)
	go func() {
		defer cancel() // A shop that failed ends fn too.
		done <- a.Run(ctx)
	}()
	_, _ = fmt.Fprintf(t.err, "services  %s\nshop      %s\noperator  token in %s\npgsim     %s\nplatform  %s\n",
		strings.Join(a.Running(), ", "), a.URL(), cmp.Or(opts.OperatorTokenFile, filepath.Join(opts.Dir, "operator-token")),
		cmp.Or(a.PgsimURL, "not needed"), cmp.Or(a.PlatURL, "not needed"))
	err = a.WaitReady(ctx)
	if err == nil {
		err = fn(ctx, a)
	}
	interrupted := errors.Is(err, context.Canceled)
	cancel()
	if rerr := <-done; rerr != nil {
		return rerr
	}
	if interrupted {
		return nil // Ctrl-C drained: that is what was asked for.
	}
	return err
}

// unlessInterrupted returns err unless it is Ctrl-C's, who gets what he asked for.
func unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (d *demoCmd) replay(ctx context.Context, t *terminal, a *app.App, file *replay.File, percent int64) error {
	if err := a.Seed(ctx, file, percent); err != nil {
		return err
	}
	j, err := replay.OpenJournal(filepath.Join(d.Dir, "replay.journal"))
	if err != nil {
		return err
	}
	target := replay.Target{
		ShopURL: a.URL(), GatewayURL: a.PgsimURL, PlatformURL: a.PlatURL, Token: a.Token(), Client: client(),
	}
	plan := replay.Plan{StockPercent: percent, Declines: d.Decline > 0}
	report, err := reconcile(ctx, t, file, j, plan, target)
	if err = errors.Join(err, j.Close()); err != nil {
		return err
	}
	if err := publish(t, report, d.Report); err != nil {
		return err
	}
	if d.Exit {
		return verdict(report)
	}
	_, _ = fmt.Fprintf(t.err, "serving %s until Ctrl-C\n", a.URL())
	<-ctx.Done()
	return ctx.Err()
}

// reconcile replays with a progress bar.
func reconcile(ctx context.Context, t *terminal, file *replay.File, j *replay.Journal, plan replay.Plan, target replay.Target) (*replay.Report, error) {
	bar := progressbar.NewOptions(
		len(file.Invoices),
		progressbar.OptionSetWriter(t.err), progressbar.OptionSetDescription("replay"), progressbar.OptionShowCount(),
		progressbar.OptionShowIts(), progressbar.OptionSetItsString("invoices"), progressbar.OptionThrottle(200*time.Millisecond),
		progressbar.OptionOnCompletion(func() { _, _ = fmt.Fprintln(t.err) }),
	)
	progress := func(done, _ int) { _ = bar.Set(done) } // A bar that cannot be drawn is no reason to stop.
	return replay.Run(ctx, file, j, plan, replay.Config{Target: target, Progress: progress})
}

func publish(t *terminal, r *replay.Report, path string) error {
	if err := r.Print(t.out); err != nil {
		return err
	}
	if path == "" {
		return nil
	}
	return r.WriteFile(path)
}

func verdict(r *replay.Report) error {
	if !r.Balanced {
		return fmt.Errorf("the books do not balance: %d mismatches, %d orders open", len(r.Mismatches)+r.MismatchesMore, r.Open)
	}
	return nil
}

func client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 256, MaxIdleConnsPerHost: 256}, Timeout: time.Minute,
	}
}

// stockPercent reads plenty or tight=P.
func stockPercent(s string) (int64, error) {
	if s == "plenty" {
		return 100, nil
	}
	if text, ok := strings.CutPrefix(s, "tight="); ok {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n <= 100 {
			return n, nil
		}
	}
	return 0, usage("--stock %q is neither plenty nor tight=P with P from 0 to 100", s)
}

// readFile reads a retail file, or the bundled month when path is empty.
func readFile(path string) (_ *replay.File, err error) {
	var r io.ReadCloser
	if path == "" {
		r, err = onlineretail.Open()
	} else {
		r, err = os.Open(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage("--data: %v", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	plain, err := plainText(path, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return replay.Read(plain)
}

func plainText(path string, r io.Reader) (io.Reader, error) {
	switch filepath.Ext(path) {
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(r)
	}
	return r, nil
}
