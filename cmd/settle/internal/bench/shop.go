package bench

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/cmd/settle/internal/onlineretail"
	"github.com/settledev/settle/shop/replay"
	"github.com/settledev/settle/txn"
)

func mkdir(dir string) error { return os.MkdirAll(dir, 0o755) }

// running is a whole shop in this process.
type running struct {
	app    *app.App
	client *http.Client
	done   chan error
	stop   context.CancelFunc
	body   []byte
	ended  chan time.Duration
	count  atomic.Int64
}

const linesPerOrder = 8

// start runs the shop with the bundled catalogue and stock without end.
func start(ctx context.Context, dir, carrier string) (*running, error) {
	r := &running{done: make(chan error, 1), ended: make(chan time.Duration, 1<<20)}
	a, err := app.Open(ctx, app.Options{
		Dir: dir, Addr: "127.0.0.1:0", Broker: carrier, Logger: slog.New(slog.DiscardHandler),
		NoWebhooks: true, // An order is two calls and two deliveries; hints beside them are not part of it.
		Ended: func(took time.Duration) {
			r.count.Add(1)
			r.ended <- took
		},
	})
	if err != nil {
		return nil, err
	}
	r.app = a
	r.client = &http.Client{Transport: &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256}}
	ctx, r.stop = context.WithCancel(ctx)
	a.Start()
	go func() { r.done <- a.Run(ctx) }()
	if err := a.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, r.close())
	}
	file := &replay.File{Products: map[string]*replay.Product{}}
	var items []map[string]any
	for i := range 1000 {
		code := strconv.Itoa(10000 + i)
		file.Products[code] = &replay.Product{Code: code, Name: "product " + code, Price: "2.55"}
	}
	for i := range linesPerOrder {
		items = append(items, map[string]any{"productId": strconv.Itoa(10000 + i*7), "quantity": i + 1})
	}
	if r.body, err = json.Marshal(map[string]any{"customerId": "bench", "items": items}); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if err := a.SeedStock(ctx, file, 1_000_000_000); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *running) close() error {
	r.stop()
	return errors.Join(<-r.done, r.app.Close())
}

func (r *running) post(ctx context.Context, url string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("POST %s answered %d: %.200s", url, resp.StatusCode, answer)
	}
	return err
}

// flood places n orders from a number of clients.
func (r *running) flood(ctx context.Context, url string, clients, n int) error {
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for c := range clients {
		wg.Go(func() {
			for i := c; i < n && errs[c] == nil; i += clients {
				errs[c] = r.post(ctx, url)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// wait returns when n orders have ended.
func (r *running) wait(ctx context.Context, n int64) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	for r.count.Load() < n {
		select {
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("%d of %d orders ended", r.count.Load(), n)
		case err := <-r.done:
			r.done <- err
			return fmt.Errorf("the shop ended: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// orders measures accepted to completed, beside storing the same requests without any consequence.
func orders(ctx context.Context, dir string) ([]Result, error) {
	var all []Result
	for _, carrier := range []string{"nats", "store"} {
		r, err := start(ctx, filepath.Join(dir, carrier), carrier)
		if err != nil {
			return nil, err
		}
		rate, used, base, err := orderRate(ctx, r, dir)
		if err = errors.Join(err, r.close()); err != nil {
			return nil, err
		}
		name, target := "jetstream", 1000.0
		if carrier == "store" {
			name, target = "store", 1500
		}
		res := result("orders/"+name, "orders/s", rate, base, "the same requests over HTTP, stored in one transaction, without consequences",
			fmt.Sprintf(">= %.0f orders/s", target), rate >= target)
		res.Detail = fmt.Sprintf("%.0f us CPU per order, client and outside world included", used)
		all = append(all, res)
	}
	return all, nil
}

func orderRate(ctx context.Context, r *running, dir string) (rate, used, base float64, err error) {
	const warm, n, clients = 500, 6000, 32
	url := r.app.URL() + "/orders"
	if err := r.flood(ctx, url, clients, warm); err != nil {
		return 0, 0, 0, err
	}
	if err := r.wait(ctx, warm); err != nil {
		return 0, 0, 0, err
	}
	before, started := cpu(), time.Now()
	if err := r.flood(ctx, url, clients, n); err != nil {
		return 0, 0, 0, err
	}
	if err := r.wait(ctx, warm+n); err != nil {
		return 0, 0, 0, err
	}
	rate, used = n/time.Since(started).Seconds(), per(cpu()-before, n)
	base, err = plain(ctx, r, dir, clients, n)
	return rate, used, base, err
}

// plain stores the same requests, each in one transaction, and answers.
func plain(ctx context.Context, r *running, dir string, clients, n int) (rate float64, err error) {
	s, err := open(ctx, dir, "plain-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	srv, url, err := serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err == nil {
			var v any
			err = json.Unmarshal(body, &v)
		}
		if err == nil {
			err = s.Run(req.Context(), func(ctx context.Context, tx *txn.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO account (id, n) VALUES (hex(randomblob(16)), length(?))`, string(body))
				return err
			})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	started := time.Now()
	if err := r.flood(ctx, url, clients, n); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(started).Seconds(), nil
}

// orderLatency places 300 orders a second and measures from acceptance to completion.
func orderLatency(ctx context.Context, dir string) ([]Result, error) {
	var all []Result
	for _, carrier := range []string{"nats", "store"} {
		r, err := start(ctx, filepath.Join(dir, carrier), carrier)
		if err != nil {
			return nil, err
		}
		took, posts, err := paced(ctx, r)
		if err = errors.Join(err, r.close()); err != nil {
			return nil, err
		}
		name := carrier
		if carrier == "nats" {
			name = "jetstream"
		}
		p99 := percentile(took, 0.99)
		res := result("latency/"+name+"/p99", "ms", p99, percentile(posts, 0.99), "the p99 of the POST itself", "<= 50 ms", p99 <= 50)
		res.Detail = fmt.Sprintf("p50 %.1f ms", percentile(took, 0.5))
		all = append(all, res)
	}
	return all, nil
}

func paced(ctx context.Context, r *running) (took, posts []time.Duration, err error) {
	const rate, warm, n = 300, 300, 3000
	url := r.app.URL() + "/orders"
	var wg sync.WaitGroup
	var mu sync.Mutex
	started := time.Now()
	for i := range warm + n {
		if wait := time.Until(started.Add(time.Duration(i) * time.Second / rate)); wait > 0 {
			timer := time.NewTimer(wait)
			<-timer.C
		}
		wg.Go(func() {
			began := time.Now()
			e := r.post(ctx, url)
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, e)
			posts = append(posts, time.Since(began))
		})
	}
	wg.Wait()
	if err == nil {
		err = r.wait(ctx, warm+n)
	}
	if err != nil {
		return nil, nil, err
	}
	for i := range warm + n {
		if d := <-r.ended; i >= warm {
			took = append(took, d)
		}
	}
	slices.Sort(took)
	slices.Sort(posts)
	return took, posts, nil
}

// The size of the whole data set, of which one month is bundled.
const (
	largeRows   = 541_909
	largeLimit  = 60 * time.Second
	largeMemory = 512 // MB
)

// replayLarge replays a file of the whole data set's size, made from the bundled month, in a process of
// its own, whose memory is measured.
func replayLarge(ctx context.Context, dir string) ([]Result, error) {
	path := filepath.Join(dir, "large.csv")
	invoices, err := makeLarge(path)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	_, err = replay.Read(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	reading := time.Since(started).Seconds()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	report := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(ctx, self, "demo", "--dir", filepath.Join(dir, "data"), "--data", path, "--addr", "127.0.0.1:0", "--exit", "--report", report)
	started = time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out[max(0, len(out)-2000):])
	}
	seconds := time.Since(started).Seconds()
	memory := 0.0
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		memory = float64(u.Maxrss) / 1024
	}
	detail := fmt.Sprintf("%d lines, %d invoices", largeRows, invoices)
	a := result("replay/seconds", "s", seconds, reading, "reading the same file", "<= 60 s", seconds <= largeLimit.Seconds())
	b := result("replay/memory", "MB", memory, 0, "", "<= 512 MB", memory <= largeMemory)
	a.Detail, b.Detail = detail, detail
	return []Result{a, b}, nil
}

// makeLarge writes the bundled month over and over, each time under other invoice numbers.
func makeLarge(path string) (invoices int, err error) {
	month, err := onlineretail.Open()
	if err != nil {
		return 0, err
	}
	records, err := csv.NewReader(month).ReadAll()
	if err = errors.Join(err, month.Close()); err != nil {
		return 0, err
	}
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := csv.NewWriter(f)
	seen := map[string]bool{}
	if err := w.Write(records[0]); err != nil {
		return 0, err
	}
	for n := range largeRows {
		row := slices.Clone(records[1+n%(len(records)-1)])
		letter := strings.TrimRight(row[0], "0123456789")
		row[0] = letter + strconv.Itoa(n/(len(records)-1)) + row[0][len(letter):]
		seen[row[0]] = true
		if err := w.Write(row); err != nil {
			return 0, err
		}
	}
	w.Flush()
	return len(seen), w.Error()
}
