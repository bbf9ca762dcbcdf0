package settlemysql_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/outbox"
)

// BenchmarkRun is one transaction with one row and n events, by 16 clients.
func BenchmarkRun(b *testing.B) {
	for _, n := range []int{0, 1, 5, 20} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			s := newStore(b)
			run(b, s, exec("CREATE TABLE item (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64) NOT NULL)"))
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprint("k", i)
			}
			b.ResetTimer()
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range b.N/16 + 1 {
						if err := s.Run(b.Context(), bound(then(exec("INSERT INTO item (name) VALUES ('a')"), add(keys...)))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)*float64(max(n, 1))/b.Elapsed().Seconds(), "ev/s")
		})
	}
}

// BenchmarkDrain is an owner that numbers and reads a backlog.
func BenchmarkDrain(b *testing.B) {
	s := newStore(b)
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i)
	}
	for n := 0; n < b.N; n += len(keys) {
		run(b, s, add(keys...))
	}
	lease, err := s.Outbox().Claim(b.Context(), 0, "bench", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var at outbox.Position
	for n := 0; n < b.N; {
		records, err := s.Outbox().Next(b.Context(), lease, at, 500)
		if err != nil || len(records) == 0 {
			b.Fatalf("%d records, %v", len(records), err)
		}
		n, at = n+len(records), records[len(records)-1].Position
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ev/s")
}

// BenchmarkIdle is an owner's look at an outbox with nothing new.
func BenchmarkIdle(b *testing.B) {
	s := newStore(b)
	lease, err := s.Outbox().Claim(b.Context(), 0, "bench", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Outbox().Next(b.Context(), lease, outbox.Position{}, 500); err != nil {
			b.Fatal(err)
		}
	}
}
