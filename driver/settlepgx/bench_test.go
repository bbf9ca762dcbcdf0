package settlepgx_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

type orderV1 struct {
	OrderID string    `json:"orderId"`
	Lines   []lineV1  `json:"lines"`
	Total   int64     `json:"total"`
	Address [4]string `json:"address"`
}

type lineV1 struct {
	Product  string `json:"product"`
	Quantity int    `json:"quantity"`
	Price    int64  `json:"price"`
}

var ordered = event.Define("OrderPlaced", 1, event.Spec[orderV1]{
	Topic: "orders", Aggregate: "order", Key: func(o orderV1) string { return o.OrderID },
})

func order(n int64) orderV1 {
	o := orderV1{OrderID: fmt.Sprintf("order-%08d", n), Total: 12345, Address: [4]string{"A Person", "12 Some Street", "12345", "Somewhere"}}
	for i := range 4 {
		o.Lines = append(o.Lines, lineV1{fmt.Sprintf("P%04d", (n*7+int64(i)*13)%1000), 2, 1234})
	}
	return o
}

func benchStore(b *testing.B) (*sqlstore.Store, string) {
	b.Helper()
	target := newDatabase(b, shared(b))
	return openStore(b, target, settlepgx.Config{Migrate: true, ConnsMax: 72}), target
}

// serverCPU is the processor time of every process of the server, where that is one of this machine; else 0.
func serverCPU() (total time.Duration) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // It has ended.
		}
		head, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if !strings.Contains(head, "(postgres") || len(fields) < 15 {
			continue
		}
		// User and system time, and those of children that have ended, in hundredths of a second.
		for _, f := range fields[11:15] {
			n, _ := strconv.ParseInt(f, 10, 64)
			total += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return total
}

func reportCPU(b *testing.B, before time.Duration, events int) {
	b.Helper()
	b.ReportMetric(float64((serverCPU()-before).Microseconds())/float64(events), "server-us/event")
}

// fill writes events with many in one transaction.
func fill(b *testing.B, s *sqlstore.Store, events int) {
	b.Helper()
	for n := 0; n < events; n += 1000 {
		run(b, s, func(ctx context.Context, tx *txn.Tx) error {
			for i := range min(1000, events-n) {
				if err := outbox.Add(ctx, tx, ordered.New(order(int64(n+i)))); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// BenchmarkDrain reads a log of 200,000 events as one window and as windows of 1000, beside a plain SELECT of
// the same columns. The ratio says what windows cost.
func BenchmarkDrain(b *testing.B) {
	const events = 200_000
	s, target := benchStore(b)
	src := s.Outbox()
	lease, err := src.Claim(b.Context(), 0, "bench", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; n < events/2; n += 1000 { // Windows of 1000.
		fill(b, s, 1000)
		if _, err := as[relay.Sequencer](b, src).Sequence(b.Context(), lease); err != nil {
			b.Fatal(err)
		}
	}
	fill(b, s, events/2) // One large window.
	conn := connect(b, target)
	if _, err := conn.Exec(b.Context(), "VACUUM ANALYZE settle_outbox"); err != nil {
		b.Fatal(err)
	}
	plain := func(b *testing.B) time.Duration {
		b.Helper()
		began := time.Now()
		rows, err := s.Query(b.Context(), `SELECT id, created_at, event_id, type, version, topic, aggregate_type, aggregate_id,
			occurred_at, trace_parent, correlation_id, causation_id, idempotency_key, producer, data FROM settle_outbox`)
		if err != nil {
			b.Fatal(err)
		}
		defer rows.Close()
		n := 0
		for rows.Next() {
			var e event.Envelope
			var id, created, occurred int64
			var eventID, cause []byte
			if err := rows.Scan(&id, &created, &eventID, &e.Type, &e.Version, &e.Topic, &e.AggregateType, &e.AggregateID, &occurred,
				&e.TraceParent, &e.CorrelationID, &cause, &e.IdempotencyKey, &e.Producer, &e.Data); err != nil {
				b.Fatal(err)
			}
			n++
		}
		if err := rows.Err(); err != nil || n != events {
			b.Fatal(n, err)
		}
		return time.Since(began)
	}
	for _, page := range []int{500, 1000, 2000} {
		b.Run(fmt.Sprint("page=", page), func(b *testing.B) {
			var selected time.Duration
			before := serverCPU()
			var drained time.Duration
			for range b.N {
				began := time.Now()
				var at outbox.Position
				n := 0
				for {
					records, err := src.Next(b.Context(), lease, at, page)
					if err != nil {
						b.Fatal(err)
					}
					if len(records) == 0 {
						break
					}
					n += len(records)
					at = records[len(records)-1].Position
				}
				if n != events {
					b.Fatal(n)
				}
				drained += time.Since(began)
			}
			reportCPU(b, before, events*b.N)
			for range b.N {
				selected += plain(b)
			}
			b.ReportMetric(float64(events*b.N)/drained.Seconds(), "events/s")
			b.ReportMetric(float64(events*b.N)/selected.Seconds(), "select-rows/s")
			b.ReportMetric(float64(selected)/float64(drained), "ratio")
		})
	}
}

// BenchmarkAdd writes transactions of nothing but events.
func BenchmarkAdd(b *testing.B) {
	for _, each := range []int{1, 20} {
		b.Run(fmt.Sprint("events=", each), func(b *testing.B) {
			s, _ := benchStore(b)
			before := serverCPU()
			b.ResetTimer()
			parallel(b, 8, func(i int64) error {
				return s.Run(b.Context(), bound(func(ctx context.Context, tx *txn.Tx) error {
					for k := range each {
						if err := outbox.Add(ctx, tx, ordered.New(order(i*int64(each)+int64(k)))); err != nil {
							return err
						}
					}
					return nil
				}))
			})
			b.ReportMetric(float64(b.N*each)/b.Elapsed().Seconds(), "events/s")
			reportCPU(b, before, b.N*each)
		})
	}
}

// BenchmarkTx measures what an event costs in its transaction of one update, and what a relay beside it costs.
func BenchmarkTx(b *testing.B) {
	for _, kind := range []string{"raw", "event", "event+relay"} {
		b.Run(kind, func(b *testing.B) {
			s, _ := benchStore(b)
			run(b, s, sqlExec("CREATE TABLE orders (id bigint PRIMARY KEY, state integer NOT NULL) WITH (fillfactor = 50)"))
			run(b, s, sqlExec("INSERT INTO orders SELECT n, 0 FROM generate_series(0, $1::bigint) n", 9999))
			var stop func()
			if kind == "event+relay" {
				stop = follow(b, s.Outbox())
			}
			before := serverCPU()
			b.ResetTimer()
			parallel(b, 16, func(i int64) error {
				return s.Run(b.Context(), bound(func(ctx context.Context, tx *txn.Tx) error {
					if _, err := tx.Exec(ctx, "UPDATE orders SET state = state + 1 WHERE id = $1", i%10000); err != nil || kind == "raw" {
						return err
					}
					return outbox.Add(ctx, tx, ordered.New(order(i)))
				}))
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tx/s")
			reportCPU(b, before, b.N)
			if stop != nil {
				stop()
			}
		})
	}
}

// parallel calls fn for each of b.N from several goroutines.
func parallel(b *testing.B, workers int, fn func(i int64) error) {
	b.Helper()
	var n atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				if err := fn(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// follow reads as a relay does whose broker costs nothing.
func follow(b *testing.B, src relay.Source) (stop func()) {
	b.Helper()
	lease, err := src.Claim(b.Context(), 0, "bench", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	ring, silence := as[relay.Bell](b, src).Listen()
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer silence()
		at := lease.Position
		var told time.Time
		for ctx.Err() == nil {
			records, err := src.Next(ctx, lease, at, 500)
			if err != nil && ctx.Err() == nil {
				b.Error(err)
				return
			}
			if n := len(records); n > 0 {
				at = records[n-1].Position
			}
			if time.Since(told) > 50*time.Millisecond {
				told = time.Now()
				_ = src.Advance(ctx, lease, at)
			}
			if len(records) < 500 {
				select {
				case <-time.After(5 * time.Millisecond):
				case <-ctx.Done():
				}
				select {
				case <-ring:
				case <-ctx.Done():
				}
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// BenchmarkScan measures a row's way from the wire into an envelope.
func BenchmarkScan(b *testing.B) {
	s, _ := benchStore(b)
	fill(b, s, 1000)
	lease, err := s.Outbox().Claim(b.Context(), 0, "bench", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	if data, err := json.Marshal(order(1)); err == nil {
		b.SetBytes(int64(len(data)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += 500 {
		if _, err := s.Outbox().Next(b.Context(), lease, outbox.Position{}, 500); err != nil {
			b.Fatal(err)
		}
	}
}
