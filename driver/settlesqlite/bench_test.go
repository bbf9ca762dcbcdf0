package settlesqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// cpu returns the processor time of this process, user and system.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

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

func benchStore(b *testing.B) *sqlstore.Store {
	b.Helper()
	s := openStore(b, filepath.Join(b.TempDir(), "bench.db"), settlesqlite.Config{})
	for i, text := range []string{
		"CREATE TABLE orders (id TEXT PRIMARY KEY, state TEXT NOT NULL, total INTEGER NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID",
		"CREATE TABLE line (order_id TEXT NOT NULL, n INTEGER NOT NULL, product TEXT NOT NULL, quantity INTEGER NOT NULL, price INTEGER NOT NULL, PRIMARY KEY (order_id, n)) WITHOUT ROWID",
		"CREATE TABLE stock (product TEXT PRIMARY KEY, free INTEGER NOT NULL CHECK (free >= 0)) WITHOUT ROWID",
	} {
		if err := s.Run(b.Context(), sqlExec(text)); err != nil {
			b.Fatal(i, err)
		}
	}
	run(b, s, func(ctx context.Context, tx *txn.Tx) error {
		for i := range 1000 {
			if _, err := tx.Exec(ctx, "INSERT INTO stock VALUES (?, 1000000000)", fmt.Sprintf("P%04d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	return s
}

func order(n int64) orderV1 {
	o := orderV1{OrderID: fmt.Sprintf("order-%08d", n), Total: 12345, Address: [4]string{"A Person", "12 Some Street", "12345", "Somewhere"}}
	for i := range 8 {
		o.Lines = append(o.Lines, lineV1{fmt.Sprintf("P%04d", (n*7+int64(i)*13)%1000), 2, 1234})
	}
	return o
}

// place is the business transaction: an order of eight lines that takes its stock.
func place(ctx context.Context, tx *txn.Tx, o *orderV1) error {
	if _, err := tx.Exec(ctx, "INSERT INTO orders (id, state, total, at) VALUES (?, 'PLACED', ?, ?)", o.OrderID, o.Total, tx.Now().UnixNano()); err != nil {
		return err
	}
	for i, l := range o.Lines {
		if _, err := tx.Exec(ctx, "INSERT INTO line (order_id, n, product, quantity, price) VALUES (?, ?, ?, ?, ?)", o.OrderID, i, l.Product, l.Quantity, l.Price); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE stock SET free = free - ?2 WHERE product = ?1 AND free >= ?2", l.Product, l.Quantity); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkTx measures what an event costs in its transaction: compare cpu-us/op with and without.
func BenchmarkTx(b *testing.B) {
	for _, kind := range []string{"row", "order"} {
		for _, writers := range []int{1, 16, 64} {
			for _, with := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/writers=%d/event=%t", kind, writers, with), func(b *testing.B) {
					s := benchStore(b)
					var n atomic.Int64
					one := func(ctx context.Context, tx *txn.Tx, o *orderV1) error {
						if kind == "order" {
							return place(ctx, tx, o)
						}
						_, err := tx.Exec(ctx, "UPDATE stock SET free = free - ?2 WHERE product = ?1 AND free >= ?2", o.Lines[0].Product, 1)
						return err
					}
					before := cpu(b)
					b.ResetTimer()
					var wg sync.WaitGroup
					for range writers {
						wg.Go(func() {
							for {
								i := n.Add(1)
								if i > int64(b.N) {
									return
								}
								o := order(i)
								err := s.Run(b.Context(), bound(func(ctx context.Context, tx *txn.Tx) error {
									if err := one(ctx, tx, &o); err != nil || !with {
										return err
									}
									return outbox.Add(ctx, tx, ordered.New(o))
								}))
								if err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
					b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1000, "cpu-us/op")
				})
			}
		}
	}
}

// BenchmarkStatement measures one business statement inside a large transaction.
func BenchmarkStatement(b *testing.B) {
	s := benchStore(b)
	b.ResetTimer()
	for done := 0; done < b.N; {
		run(b, s, func(ctx context.Context, tx *txn.Tx) error {
			for range min(1000, b.N-done) {
				done++
				if _, err := tx.Exec(ctx, "UPDATE stock SET free = free - ?2 WHERE product = ?1 AND free >= ?2", "P0007", 1); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// BenchmarkOutboxRead reads a log of 100,000 events in batches of 500, from SQL and from memory.
func BenchmarkOutboxRead(b *testing.B) {
	const events = 100_000
	for _, tail := range []int{1, 1 << 30} {
		b.Run(map[int]string{1: "sql", 1 << 30: "memory"}[tail], func(b *testing.B) {
			s := openStore(b, filepath.Join(b.TempDir(), "bench.db"), settlesqlite.Config{Store: sqlstore.Config{TailBytesMax: tail}})
			for n := 0; n < events; n += 1000 {
				run(b, s, func(ctx context.Context, tx *txn.Tx) error {
					for i := range 1000 {
						if err := outbox.Add(ctx, tx, ordered.New(order(int64(n+i)))); err != nil {
							return err
						}
					}
					return nil
				})
			}
			before := cpu(b)
			b.ResetTimer()
			var at outbox.Position
			for done := 0; done < b.N; {
				records, err := s.Outbox().Next(b.Context(), relay.Lease{}, at, 500)
				if err != nil {
					b.Fatal(err)
				}
				done += len(records)
				if at = (outbox.Position{}); len(records) == 500 {
					at = records[499].Position
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1000, "cpu-us/op")
		})
	}
}

// BenchmarkInbox handles batches of 100 messages, one UPDATE each, with and without an inbox.
func BenchmarkInbox(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("inbox=%t", with), func(b *testing.B) {
			s := benchStore(b)
			ids := make([]event.ID, 100)
			now := time.Now()
			before := cpu(b)
			b.ResetTimer()
			for done := 0; done < b.N; done += len(ids) {
				for i := range ids {
					ids[i] = event.NewID(now)
				}
				run(b, s, func(ctx context.Context, tx *txn.Tx) error {
					if with {
						if _, err := inbox.Remember(ctx, tx, "bench", ids...); err != nil {
							return err
						}
					}
					for i := range ids {
						if _, err := tx.Exec(ctx, "UPDATE stock SET free = free - ?2 WHERE product = ?1 AND free >= ?2", fmt.Sprintf("P%04d", (done+i)%1000), 1); err != nil {
							return err
						}
					}
					return nil
				})
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1000, "cpu-us/op")
		})
	}
}
