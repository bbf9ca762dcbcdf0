package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing/fstest"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/sqlstore"
)

// Servers are where benchmarks run. The zero Servers are none: they run embedded.
type Servers struct {
	Store  string // postgres://
	Broker string // what app.OpenBroker takes
}

// clientsMax is the most clients that a benchmark has; the store gets a few connections more.
const clientsMax = 64

// on is the servers with what a benchmark made there. Each has databases and topics of its own.
type on struct {
	Servers

	id string
	// looker is for questions to the server, about itself.
	looker *sqlstore.Store
	server string // product and version
	master int    // the process whose children serve
	made   *[]string
}

// connect looks at the server. Its processes must be on this machine: their CPU is what is measured.
func (s Servers) connect(ctx context.Context) (on, error) {
	o := on{Servers: s, id: strconv.FormatInt(time.Now().UnixMilli(), 36), made: new([]string)}
	looker, err := o.open(ctx, "looker")
	if err != nil {
		return on{}, errors.Join(err, o.drop())
	}
	o.looker = looker
	var pid int
	err = looker.QueryRow(ctx, "SELECT pg_backend_pid(), 'PostgreSQL ' || current_setting('server_version')", nil, &pid, &o.server)
	if err == nil {
		o.master, err = parent(pid)
	}
	if err != nil {
		return on{}, errors.Join(err, o.close())
	}
	return o, nil
}

func (o on) close() error {
	return errors.Join(o.looker.Close(), o.drop())
}

func (o on) drop() error {
	var errs []error
	for _, target := range *o.made {
		errs = append(errs, settlepgx.DropDatabase(context.Background(), target))
	}
	return errors.Join(errs...)
}

// target is the URL of a database of the benchmark's own.
func (o on) target(name string) (string, error) {
	u, err := url.Parse(o.Store)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", fmt.Errorf("%w: --store of a benchmark is postgres://user@host:port/", app.ErrUsage)
	}
	u.Path = "/settle_bench_" + o.id + "_" + name
	return u.String(), nil
}

// open makes a database and opens it, with the tables of the benchmarks.
func (o on) open(ctx context.Context, name string) (*sqlstore.Store, error) {
	target, err := o.target(name)
	if err != nil {
		return nil, err
	}
	if err := settlepgx.EnsureDatabase(ctx, target); err != nil {
		return nil, err
	}
	*o.made = append(*o.made, target)
	return settlepgx.Open(ctx, target, settlepgx.Config{Migrate: true, ConnsMax: clientsMax + 8, Store: sqlstore.Config{
		Schemas: []sqlstore.Schema{{Name: "bench", Files: fstest.MapFS{"0001_account.sql": {Data: []byte(tableOn)}}}},
	}})
}

// carrier opens the broker, with topics of a name that nobody else has.
func (o on) carrier(ctx context.Context, name string) (broker.Broker, error) {
	return app.OpenBroker(ctx, o.Broker, app.Carrier{Prefix: "bench-" + o.id + "-" + name + "-", Partitions: 4})
}

// scheme names the broker in results.
func (o on) scheme() string {
	scheme, _, _ := strings.Cut(o.Broker, ":")
	return scheme
}

// cpu is the time that every process of the server has used, also those that have ended.
func (o on) cpu() (total time.Duration, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, name := range all {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		f, err := stat(pid)
		if err != nil {
			continue // It has ended, and its parent knows what it used.
		}
		own := f[11:13] // user, system
		if pid == o.master {
			own = f[11:15] // and both of its children that have ended
		} else if f[1] != strconv.Itoa(o.master) {
			continue
		}
		for _, text := range own {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * 10 * time.Millisecond // Linux counts in hundredths of a second.
		}
	}
	if total == 0 {
		return 0, errors.New("the server's processes have ended")
	}
	return total, nil
}

// parent is the process that started a server's process.
func parent(pid int) (int, error) {
	f, err := stat(pid)
	if err != nil {
		return 0, fmt.Errorf("the server's process is not on this machine, so its CPU cannot be measured: %w", err)
	}
	return strconv.Atoi(f[1])
}

// stat returns the fields after the name, from the state on.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	head, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if !strings.Contains(head, "(postgres") || len(f) < 15 {
		return nil, fmt.Errorf("process %d is no postgres", pid)
	}
	return f, nil
}
