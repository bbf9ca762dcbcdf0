package debezium_test

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	benchRows    = 100_000
	benchRate    = 500 // transactions of one event in a second, for the latency
	benchSeconds = 6
)

// asInstalled leaves out what the guide sets for speed.
var asInstalled = map[string]string{
	"poll.interval.ms": "", "max.batch.size": "", "max.queue.size": "", "extended.headers.enabled": "",
	"statistics.metrics.enabled": "", "producer.override.batch.size": "", "producer.override.linger.ms": "",
}

// BenchmarkDebezium is what our relay is compared with: how fast it carries rows that wait, how long an event
// of a light load takes from its commit into Kafka, and what memory that takes.
func BenchmarkDebezium(b *testing.B) {
	for _, setting := range []struct {
		name   string
		change map[string]string
	}{{"default", asInstalled}, {"guide", nil}} {
		b.Run(setting.name, func(b *testing.B) {
			for b.Loop() {
				r := newRig(b)
				r.topic = "bench"
				r.deploy(setting.change)
				arrivals := r.arrivals(b)
				r.drain(b, arrivals)
				r.latency(b, arrivals)
				b.ReportMetric(r.resident(b), "MB-resident")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// arrival is a message at the moment it was read.
type arrival struct {
	id string
	at time.Time
}

// arrivals reads the topic until the benchmark ends.
func (r *rig) arrivals(b *testing.B) <-chan []arrival {
	b.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.TrimPrefix(r.kafka.URL(), "kafka://")), kgo.ConsumeTopics(r.topic),
		kgo.AllowAutoTopicCreation(), kgo.FetchMaxWait(100*time.Millisecond), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	out := make(chan []arrival, 1024)
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			now := time.Now()
			var page []arrival
			fetches.EachRecord(func(record *kgo.Record) {
				for _, h := range record.Headers {
					if h.Key == "ce_id" {
						page = append(page, arrival{string(h.Value), now})
					}
				}
			})
			if len(page) > 0 {
				out <- page
			}
		}
	})
	b.Cleanup(func() { cancel(); reading.Wait(); cl.Close() })
	return out
}

// drain writes rows while the connector is stopped, 100 in a transaction, and measures from the first that
// arrives to the last.
func (r *rig) drain(b *testing.B, arrivals <-chan []arrival) {
	b.Helper()
	r.exec(benchInsert("generate_series(1, 100) AS i")) // The topic, and what Java compiles.
	seen := map[string]bool{}
	for len(seen) < 100 {
		collect(b, arrivals, seen)
	}
	r.stop()
	for range benchRows / 100 {
		r.exec(benchInsert("generate_series(1, 100) AS i"))
	}
	began := time.Now()
	r.resume()
	first := collect(b, arrivals, seen)
	before := len(seen)
	for len(seen) < 100+benchRows {
		collect(b, arrivals, seen)
	}
	took := time.Since(first)
	b.ReportMetric(float64(100+benchRows-before)/took.Seconds(), "events/s")
	b.Logf("resume to first %.1fs, all after %.1fs", first.Sub(began).Seconds(), time.Since(began).Seconds())
}

// benchInsert is events with about 300 bytes of data, each of its own key.
func benchInsert(from string) string {
	return `INSERT INTO settle_outbox (type, topic, aggregate_type, aggregate_id, producer, trace_parent, correlation_id, data)
		SELECT 'OrderCreated', 'bench', 'order', 'order-' || i, 'order', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
			'01a1fd8c-697b-74cd-aae4-ab39c784b37a', convert_to('{"orderId":"' || repeat('7', 280) || '"}', 'UTF8')
		FROM ` + from + ` RETURNING event_id::text`
}

func collect(b *testing.B, arrivals <-chan []arrival, seen map[string]bool) time.Time {
	b.Helper()
	select {
	case page := <-arrivals:
		for _, a := range page {
			seen[a.id] = true
		}
		return page[0].at
	case <-time.After(time.Minute):
		b.Fatalf("%d events came, and none for a minute", len(seen))
		return time.Time{}
	}
}

// latency writes at a steady rate and measures from the return of COMMIT until the event was read in Kafka.
func (r *rig) latency(b *testing.B, arrivals <-chan []arrival) {
	b.Helper()
	const n = benchRate * benchSeconds
	var mu sync.Mutex
	committed := make(map[string]time.Time, n)
	go func() {
		tick := time.NewTicker(time.Second / benchRate)
		defer tick.Stop()
		for range n {
			<-tick.C
			var id string
			err := r.pool.QueryRow(b.Context(), benchInsert("generate_series(1, 1) AS i")).Scan(&id)
			if err != nil {
				b.Errorf("insert: %v", err)
				return
			}
			mu.Lock()
			committed[id] = time.Now()
			mu.Unlock()
		}
	}()
	came := make(map[string]time.Time, n)
	for len(came) < n {
		select {
		case page := <-arrivals:
			for _, a := range page {
				came[a.id] = a.at
			}
		case <-time.After(time.Minute):
			b.Fatalf("%d events of %d came, and none for a minute", len(came), n)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	took := make([]float64, 0, n)
	for id, at := range committed {
		took = append(took, float64(came[id].Sub(at).Microseconds())/1000)
	}
	slices.Sort(took)
	b.ReportMetric(took[n/2], "p50-ms")
	b.ReportMetric(took[int(math.Ceil(n*0.99))-1], "p99-ms")
}

// resident is the memory of Connect's process, found by the file of its settings.
func (r *rig) resident(b *testing.B) float64 {
	b.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range processes {
		text, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(text, []byte("ConnectDistributed")) {
			continue
		}
		args := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
		settings, err := os.ReadFile(args[len(args)-1])
		if err != nil || !bytes.Contains(settings, []byte(r.connect.URL())) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(name), "status"))
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		kb, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			b.Fatal(err)
		}
		return float64(kb) / 1024
	}
	b.Fatal("no process of Connect")
	return 0
}
