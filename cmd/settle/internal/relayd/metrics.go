package relayd

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/settledev/settle/relay"
)

// scrapeTimeout bounds the reading of a source's state.
const scrapeTimeout = 5 * time.Second

// state collects what outlives a process, under the names that services have; see package settleprom.
type state struct {
	sources []*source
}

var _ prometheus.Collector = (*state)(nil)

// Describe sends nothing, as what there is depends on what can be read.
func (*state) Describe(chan<- *prometheus.Desc) {}

// Collect reads every source at the same time: one whose database is away must not hide the others.
func (s *state) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, src := range s.sources {
		wg.Go(func() { src.collect(ctx, out) })
	}
	wg.Wait()
}

func (s *source) collect(ctx context.Context, out chan<- prometheus.Metric) {
	gauge := func(name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("settle_"+name, help, []string{"service"}, nil), prometheus.GaugeValue, v, s.cfg.Name)
	}
	truth := func(name, help string, v bool) {
		n := 0.0
		if v {
			n = 1
		}
		gauge(name, help, n)
	}
	_, ready := s.state()
	s.mu.Lock()
	observer, owned := s.observer, s.claim == nil
	standby := errors.Is(s.claim, relay.ErrHeld)
	s.mu.Unlock()
	truth("relay_ready", "Whether the source is carried, or another process carries it.", ready)
	truth("relay_owned", "Whether this process carries the source.", owned)
	truth("relay_standby", "Whether another process carries the source.", standby)
	if s.cfg.Mode == "wal" {
		truth("relay_wal", "Whether events are read from the log, and not from the table.", s.wal.Load())
		gauge("slot_kept_bytes", "How much log the replication slot keeps.", float64(s.kept.Load()))
	}
	if observer == nil {
		truth("up", "Whether the service's store can be read.", false)
		return
	}
	stats, err := observer.Stats(ctx)
	truth("up", "Whether the service's store can be read.", err == nil)
	if err != nil {
		return
	}
	gauge("outbox_pending", "Committed events that the broker has not acknowledged.", float64(stats.Pending))
	gauge("outbox_age_seconds", "Age of the oldest such event.", stats.Age.Seconds())
	gauge("outbox_parked", "Events that the broker refused, and their followers.", float64(stats.Parked))
	gauge("outbox_sent", "Settled events that are still kept.", float64(stats.Sent))
}
