package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// result is what a suite's cases came to on one store or broker.
type result struct {
	passed, failed int
	skipped        []string // "Case: reason"
}

func (r result) String() string {
	text := fmt.Sprint(r.passed)
	if len(r.skipped) > 0 {
		text += fmt.Sprintf(" (%d skipped)", len(r.skipped))
	}
	if r.failed > 0 {
		text += fmt.Sprintf(" **%d failed**", r.failed)
	}
	return text
}

const module = "github.com/settledev/settle/"

// parse reads the output of go test -json.
func parse(r io.Reader) (map[spot]result, error) {
	results, reasons := map[spot]result{}, map[string]string{}
	all := spots()
	for d := json.NewDecoder(r); ; {
		var e struct{ Action, Package, Test, Output string }
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return results, nil
		} else if err != nil {
			return nil, err
		}
		folder, id := strings.TrimPrefix(e.Package, module), e.Package+" "+e.Test
		if _, reason, ok := strings.Cut(e.Output, ".go:"); ok {
			if _, reason, ok = strings.Cut(reason, ": "); ok {
				reasons[id] = strings.TrimSpace(reason)
			}
		}
		for _, s := range all {
			if s.folder != folder {
				continue
			}
			if e.Test == s.test && e.Action == "fail" && results[s].failed == 0 {
				r := results[s]
				r.failed++
				results[s] = r
			}
			if name, ok := strings.CutPrefix(e.Test, s.test+"/"); ok {
				results[s] = results[s].with(e.Action, name, reasons[id])
			}
		}
	}
}

// with counts a case. What fails or is skipped inside of one counts, what passes there does not. A case that
// is skipped in a bubble of testing/synctest passes, and only its output tells.
func (r result) with(action, name, reason string) result {
	if action == "pass" && strings.HasPrefix(reason, "skipped: ") {
		action = "skip"
	}
	switch {
	case action == "pass" && !strings.Contains(name, "/"):
		r.passed++
	case action == "fail":
		r.failed++
	case action == "skip":
		r.skipped = append(r.skipped, name+": "+strings.TrimPrefix(reason, "skipped: "))
	}
	return r
}

const head = `# Capabilities

Written by ` + "`make gen`" + ` from a run of the conformance suites; do not edit. A number is how many cases of
the suite passed. A case is skipped when the driver's harness says that the store or broker lacks
what the case needs; each is listed below by its name.

`

// write writes the page and returns the spots that failed or did not run.
func write(w io.Writer, results map[spot]result) (failed []string) {
	var b strings.Builder
	b.WriteString(head + "## Stores\n\n| suite | " + strings.Join(stores(), " | ") + " |\n|---" + strings.Repeat("|---", len(stores())) + "|\n")
	for _, s := range storeSuites() {
		b.WriteString("| `" + s.name + "` |")
		for _, column := range stores() {
			b.WriteString(" " + cell(results, s.name, column) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString(storesNote + "\n## Brokers\n\n| broker | `brokertest` |\n|---|---|\n")
	for _, s := range brokerSpots() {
		b.WriteString("| " + s.column + " | " + results[s].String() + " |\n")
	}
	b.WriteString("\n## Hints\n\n| | `locktest.RunHints` |\n|---|---|\n")
	for _, s := range hintSpots() {
		b.WriteString("| " + s.column + " | " + results[s].String() + " |\n")
	}
	b.WriteString("\n## Skipped\n\n| suite | on | case |\n|---|---|---|\n")
	for _, s := range spots() {
		r := results[s]
		if r.failed > 0 || r.passed == 0 {
			failed = append(failed, s.suite+" on "+s.column)
		}
		slices.Sort(r.skipped)
		for _, name := range r.skipped {
			b.WriteString("| `" + s.suite + "` | " + s.column + " | " + name + " |\n")
		}
	}
	_, _ = io.WriteString(w, b.String())
	return failed
}

const storesNote = `
MariaDB runs each suite twice: with rows affected counted as changed, and as found (` + "`clientFoundRows`" + `).
Behind PgBouncer (transaction mode) run the suites that depend on sessions; ` + "`-`" + ` is one that does not.
`

// cell is what a suite came to on a store, or "-".
func cell(results map[spot]result, suite, column string) string {
	for _, s := range storeSpots() {
		if s.suite == suite && s.column == column {
			return results[s].String()
		}
	}
	return "-"
}
