package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// quietEvery is how often the shop is asked whether all is quiet, and quietTimes how often in a row it
// must say so: between two of its steps everything can look quiet for a moment, and a broker on a busy machine
// may be late to tell a consumer what it has for it.
const (
	quietEvery = 100 * time.Millisecond
	quietTimes = 25
)

// Run sends the file, waits until all is quiet, and reconciles the books. started is when the first
// invoice of this run was sent; answers that the journal had before count for no speed.
func Run(ctx context.Context, file *File, j *Journal, plan Plan, cfg Config) (*Report, error) {
	before := len(j.Answers())
	started := time.Now()
	if err := Send(ctx, file, j, cfg); err != nil {
		return nil, err
	}
	if err := WaitQuiet(ctx, cfg.Target); err != nil {
		return nil, err
	}
	seconds := time.Since(started).Seconds()
	books, err := ReadBooks(ctx, cfg.Target)
	if err != nil {
		return nil, err
	}
	r := Reconcile(file, plan, j.Answers(), books)
	r.Seconds = seconds
	if sent := len(file.Invoices) - before; sent > 0 && seconds > 0 {
		r.OrdersPerSecond = float64(sent) / seconds
	}
	return r, nil
}

// WaitQuiet waits until nothing is on its way in the shop. A shop that cannot be reached for a while is not
// quiet; one that refuses to say is an error.
func WaitQuiet(ctx context.Context, t Target) error {
	tick := time.NewTicker(quietEvery)
	defer tick.Stop()
	var last Traffic
	for n := 0; n < quietTimes; {
		now, err := ReadTraffic(ctx, t)
		var refused *refusedError
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &refused):
			return err
		case err != nil:
			n = 0
		case now.Quiet() && now == last:
			n++
		default:
			n = 0
		}
		last = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// WriteFile stores the report as JSON, whole or not at all.
func (r *Report) WriteFile(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("replay: report: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return fmt.Errorf("replay: report: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("replay: report: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// Print writes the report as a table.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(book string, cells ...any) {
		_, _ = fmt.Fprint(t, book)
		for _, c := range cells {
			_, _ = fmt.Fprint(t, "\t", c)
		}
		_, _ = fmt.Fprintln(t)
	}
	line("file", fmt.Sprintf("%d rows, %d invoices: %d orders, %d returns; %d products", r.File.Rows, r.File.Invoices, r.File.Orders, r.File.Returns, r.File.Products))
	for _, c := range r.Corrupt {
		line("", fmt.Sprintf("line %d skipped: %s", c.Line, c.Error))
	}
	line("accepted", fmt.Sprintf("%d orders, %s GBP", r.Accepted, r.Money.Accepted))
	line("rejected", counts(r.Rejected))
	line("terminal", fmt.Sprintf("%d completed, %d canceled (%s), %d open", r.Terminal["COMPLETED"], r.Terminal["CANCELED"], counts(r.Canceled), r.Open))
	line("returns", fmt.Sprintf("%d completed, %d open", r.Returns["COMPLETED"], r.Returns["open"]))
	line("")
	line("book", "ours", "theirs", "")
	agree := func(book string, ours, theirs any) {
		mark := "agree"
		if fmt.Sprint(ours) != fmt.Sprint(theirs) {
			mark = "DIFFER"
		}
		line(book, ours, theirs, mark)
	}
	agree("money completed = captured at the gateway", r.Money.Completed, r.Money.GatewayCaptured)
	agree("money captured by payment = at the gateway", r.Money.PaymentCaptured, r.Money.GatewayCaptured)
	agree("money returned = refunded at the gateway", r.Money.Returned, r.Money.GatewayRefunded)
	agree("units initial - sold + returned = on hand", r.Units.Initial-r.Units.Sold+r.Units.Returned, r.Units.OnHand)
	agree("ended orders = received by the platform", r.Platform.Expected, r.Platform.Received)
	agree("completed orders = messages, at most", r.Notify.Expected, min(r.Notify.Expected, r.Notify.Sent))
	agree("events emitted = published", r.Events.Emitted, r.Events.Published)
	line("")
	line("gateway", fmt.Sprintf("%s authorized, %s captured, %s voided, %s refunded", r.Money.GatewayAuthorized, r.Money.GatewayCaptured, r.Money.GatewayVoided, r.Money.GatewayRefunded))
	line("units", fmt.Sprintf("%d initial, %d sold, %d returned, %d on hand", r.Units.Initial, r.Units.Sold, r.Units.Returned, r.Units.OnHand))
	line("events", fmt.Sprintf("%d emitted, %d handled, %d duplicates ignored; %d parked, %d unpublished, lag %d, %d calls pending",
		r.Events.Emitted, r.Events.Handled, r.Events.Duplicates, r.Events.Parked, r.Events.Unpublished, r.Events.Lag, r.Events.CallsPending))
	line("speed", fmt.Sprintf("%.1f s, %.0f invoices/s; accepted to ended p50 %.1f ms, p99 %.1f ms, max %.1f ms",
		r.Seconds, r.OrdersPerSecond, r.Latency.P50, r.Latency.P99, r.Latency.Max))
	for _, m := range r.Mismatches {
		line("MISMATCH "+m.Book, m.Reference, "ours: "+m.Ours, "theirs: "+m.Theirs)
	}
	if r.MismatchesMore > 0 {
		line("", fmt.Sprintf("and %d more mismatches", r.MismatchesMore))
	}
	if r.Balanced {
		line("verdict", "BALANCED: every book agrees, reference by reference")
	} else {
		line("verdict", "NOT BALANCED")
	}
	return t.Flush()
}

func counts(m map[string]int) string {
	if len(m) == 0 {
		return "none"
	}
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		texts = append(texts, fmt.Sprintf("%d %s", m[name], name))
	}
	return strings.Join(texts, ", ")
}
