// Package bench measures settle beside a baseline in the same run, with durability as by default: every
// group of commits is synced.
//
// Machines and neighbours differ; the ratio of two figures from one run is what can be compared.
package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Result is one measurement.
type Result struct {
	Name     string  `json:"name"`
	Unit     string  `json:"unit"`
	Ours     float64 `json:"ours"`
	Baseline float64 `json:"baseline"`
	// Of says what the baseline is.
	Of     string  `json:"of"`
	Ratio  float64 `json:"ratio"` // ours / baseline
	Target string  `json:"target"`
	Met    bool    `json:"met"`
	Detail string  `json:"detail,omitempty"`
}

// Versions are what the measurements depend on.
type Versions struct {
	Go    string `json:"go"`
	OS    string `json:"os"`
	Cores int    `json:"cores"`
	// Libraries are the modules that do the measured work.
	Libraries map[string]string `json:"libraries"`
}

// Machine returns the versions of this machine.
func Machine() Versions {
	v := Versions{runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, runtime.NumCPU(), map[string]string{}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, d := range info.Deps {
		switch d.Path {
		case "modernc.org/sqlite", "github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go",
			"github.com/jackc/pgx/v5", "github.com/twmb/franz-go":
			v.Libraries[d.Path] = d.Version
		}
	}
	return v
}

// String returns the versions as a line.
func (v Versions) String() string {
	parts := []string{fmt.Sprintf("%s %s, %d cores", v.Go, v.OS, v.Cores)}
	for _, path := range slices.Sorted(maps.Keys(v.Libraries)) {
		parts = append(parts, path+" "+v.Libraries[path])
	}
	return strings.Join(parts, ", ")
}

// Bench is one benchmark.
type Bench struct {
	Name  string
	About string
	run   func(ctx context.Context, dir string) ([]Result, error)
	// on runs it on servers. Default: it has no such form.
	on func(ctx context.Context, o on) ([]Result, error)
}

// Servers says whether the benchmark can run on servers.
func (b Bench) Servers() bool { return b.on != nil }

// All returns every benchmark.
func All() []Bench {
	return []Bench{
		{"publish", "CPU of a transaction with an event beside the same one without, at 1, 16 and 64 writers", publish, publishOn},
		{"relay", "events a second from an outbox to a null sink and to embedded JetStream", drain, drainOn},
		{"hop", "time from commit to handler at 1,000 events a second, through JetStream and without a broker", hops, hopsOn},
		{"inbox", "messages a second of a consumer with an inbox beside one without", consume, consumeOn},
		{"orders", "whole orders a second over HTTP, accepted to completed", orders, nil},
		{"latency", "time of whole orders at 300 a second", orderLatency, nil},
		{"replay", "a file of 541,909 lines in 25,900 invoices", replayLarge, nil},
		{"push", "memory of 10,000 idle browsers", idleClients, nil},
	}
}

// Run runs the benchmarks of the given names, or all of them, and calls report for each result. With a store's
// URL they run on servers, those that can.
func Run(ctx context.Context, names []string, servers Servers, report func(Result)) error {
	for _, b := range All() {
		if len(names) > 0 && !slices.Contains(names, b.Name) {
			continue
		}
		if servers.Store != "" && (b.on == nil || len(names) == 0 && servers.Broker == "" && b.Name == "hop") {
			continue // Among all of them it is no error that there is no broker for the hop.
		}
		dir, err := os.MkdirTemp("", "settle-bench-")
		if err != nil {
			return err
		}
		results, err := b.measure(ctx, dir, servers)
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
		if err != nil {
			return fmt.Errorf("bench %s: %w", b.Name, err)
		}
		for _, r := range results {
			report(r)
		}
		runtime.GC() // The next one must not pay for this one's garbage.
	}
	return nil
}

func (b Bench) measure(ctx context.Context, dir string, servers Servers) ([]Result, error) {
	if servers.Store == "" {
		return b.run(ctx, dir)
	}
	o, err := servers.connect(ctx)
	if err != nil {
		return nil, err
	}
	results, err := b.on(ctx, o)
	return results, errors.Join(err, o.close())
}

// result fills in the ratio and whether the target is met.
func result(name, unit string, ours, baseline float64, of, target string, met bool) Result {
	r := Result{Name: name, Unit: unit, Ours: ours, Baseline: baseline, Of: of, Target: target, Met: met}
	if baseline != 0 {
		r.Ratio = ours / baseline
	}
	return r
}

// cpu returns the CPU time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// percentile returns the p-th part of sorted durations, in milliseconds.
func percentile(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)-1, int(p*float64(len(sorted))))].Microseconds()) / 1000
}
