package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/settledev/settle/cmd/settle/internal/bench"
)

// benchCmd is settle bench.
type benchCmd struct {
	listing

	Names []string `arg:"" optional:"" help:"Benchmarks to run; all runs every one." placeholder:"NAME"`
	List  bool     `help:"List the benchmarks."`

	Store  string `help:"Run on this PostgreSQL, in databases of the benchmark's own: publish, relay, hop, inbox." placeholder:"URL"`
	Broker string `help:"And through this broker: relay, hop." placeholder:"URL"`

	IdleClients string `help:"Hold NAME idle clients of this address: a part of the benchmark push." hidden:"" placeholder:"ADDR"`
}

// Run measures.
func (c *benchCmd) Run(ctx context.Context, t *terminal) error {
	if c.IdleClients != "" && len(c.Names) == 1 {
		n, err := strconv.Atoi(c.Names[0])
		if err != nil {
			return usage("--idle-clients: %v", err)
		}
		return bench.IdleClients(ctx, c.IdleClients, n, os.Stdin, t.out)
	}
	if c.List || len(c.Names) == 0 {
		return printItems(t, c.JSON, bench.All(), "NAME\tMEASURES", func(b bench.Bench) string { return b.Name + "\t" + b.About })
	}
	names := c.Names
	if slices.Contains(names, "all") {
		names = nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(bench.All(), func(b bench.Bench) bool { return b.Name == name }) {
			return usage("there is no benchmark %q: see settle bench --list", name)
		}
	}
	if c.Broker != "" && c.Store == "" {
		return usage("--broker needs --store URL")
	}
	for _, b := range bench.All() {
		if c.Store != "" && slices.Contains(names, b.Name) && !b.Servers() {
			return usage("benchmark %s runs embedded only, without --store", b.Name)
		}
	}
	v := bench.Machine()
	if !c.JSON {
		_, _ = fmt.Fprintf(t.out, "%s, settle %s\n", v, version())
	}
	return bench.Run(ctx, names, bench.Servers{Store: c.Store, Broker: c.Broker}, func(r bench.Result) { c.show(t, r, v) })
}

func (c *benchCmd) show(t *terminal, r bench.Result, v bench.Versions) {
	if c.JSON {
		line := struct {
			bench.Result

			Versions bench.Versions `json:"versions"`
			Settle   string         `json:"settle"`
		}{r, v, version()}
		if b, err := json.Marshal(line); err == nil {
			_, _ = fmt.Fprintf(t.out, "%s\n", b)
		}
		return
	}
	verdict := "met"
	if !r.Met {
		verdict = "MISSED"
	}
	_, _ = fmt.Fprintf(t.out, "%-20s %12.2f %-24s", r.Name, r.Ours, r.Unit)
	if r.Baseline != 0 {
		_, _ = fmt.Fprintf(t.out, " baseline %12.2f ratio %6.2f (%s)", r.Baseline, r.Ratio, r.Of)
	}
	if r.Target != "" {
		_, _ = fmt.Fprintf(t.out, "  target %s: %s", r.Target, verdict)
	}
	if r.Detail != "" {
		_, _ = fmt.Fprintf(t.out, "  [%s]", r.Detail)
	}
	_, _ = fmt.Fprintln(t.out)
}
