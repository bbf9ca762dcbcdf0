// Package settleprom shows a service's health to Prometheus.
//
//	metrics := settleprom.New(registry)
//	svc := settle.NewService("payment", store, broker, metrics.Instrument("payment", settle.Config{}))
//	metrics.Observe(svc)
//
// Rates and latencies are counted where they happen, by hooks; lag, age and what is parked are read from
// the store at each scrape, so that they are true after a restart too.
//
// # What this package does not do
//
// It labels nothing by key, customer or event id: those grow without bound and belong into traces.
package settleprom

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/settledev/settle"
	"github.com/settledev/settle/call"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
)

// scrapeTimeout bounds the reading of a service's state.
const scrapeTimeout = 5 * time.Second

// Metrics are the metrics of the services of one process.
type Metrics struct {
	published *prometheus.CounterVec
	publish   *prometheus.HistogramVec
	handled   *prometheus.CounterVec
	duplicate *prometheus.CounterVec
	retried   *prometheus.CounterVec
	dead      *prometheus.CounterVec
	hop       *prometheus.HistogramVec
	calls     *prometheus.HistogramVec
	refused   *prometheus.CounterVec

	mu       sync.Mutex
	services []*settle.Service
}

// New registers the metrics. It panics when they are registered already, as the client does.
func New(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "settle", Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	// 0.1 ms to 52 s: from a hop in one process to the deadline of a payment.
	buckets := prometheus.ExponentialBuckets(0.0001, 2, 20)
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "settle", Name: name, Help: help, Buckets: buckets}, labels)
		reg.MustRegister(h)
		return h
	}
	m := &Metrics{
		published: counter("events_published_total", "Events that the broker acknowledged.", "service"),
		publish:   histogram("publish_age_seconds", "Time from commit to the broker's acknowledgement, of the oldest event of each publish call.", "service"),
		handled:   counter("events_handled_total", "Events whose effect became durable.", "service", "topic"),
		duplicate: counter("events_duplicate_total", "Events that came again and had no effect.", "service", "topic"),
		retried:   counter("events_retried_total", "Failed attempts at parked events.", "service", "topic"),
		dead:      counter("events_dead_total", "Events that were given up and wait for a person.", "service", "topic"),
		hop:       histogram("hop_seconds", "Time from an event's transaction to the commit of its effect.", "service", "topic"),
		calls:     histogram("call_seconds", "Duration of outside calls, by outcome of the attempt.", "service", "call", "outcome"),
		refused:   counter("calls_refused_total", "Outside calls that were refused for good or given up.", "service", "call"),
	}
	reg.MustRegister(&state{metrics: m})
	return m
}

// Instrument returns the configuration with the hooks that count for a service. Hooks that are set
// already are called too.
func (m *Metrics) Instrument(service string, cfg settle.Config) settle.Config {
	prior := cfg.Relay.Hooks.Published
	cfg.Relay.Hooks.Published = func(events int, age, took time.Duration) {
		m.published.WithLabelValues(service).Add(float64(events))
		m.publish.WithLabelValues(service).Observe(age.Seconds())
		if prior != nil {
			prior(events, age, took)
		}
	}
	m.consumer(service, &cfg)
	m.call(service, &cfg)
	return cfg
}

func (m *Metrics) consumer(service string, cfg *settle.Config) {
	prior := cfg.Consumer.Hooks
	h := &cfg.Consumer.Hooks
	h.Handled = func(events []event.Envelope, at time.Time) {
		for i := range events {
			m.handled.WithLabelValues(service, events[i].Topic).Inc()
			m.hop.WithLabelValues(service, events[i].Topic).Observe(at.Sub(events[i].OccurredAt).Seconds())
		}
		if prior.Handled != nil {
			prior.Handled(events, at)
		}
	}
	h.Duplicate = func(e event.Envelope) {
		m.duplicate.WithLabelValues(service, e.Topic).Inc()
		if prior.Duplicate != nil {
			prior.Duplicate(e)
		}
	}
	h.Retried = func(l deadletter.Letter, err error) {
		m.retried.WithLabelValues(service, l.Event.Topic).Inc()
		if prior.Retried != nil {
			prior.Retried(l, err)
		}
	}
	h.Dead = func(l deadletter.Letter) {
		m.dead.WithLabelValues(service, l.Event.Topic).Inc()
		if prior.Dead != nil {
			prior.Dead(l)
		}
	}
}

func (m *Metrics) call(service string, cfg *settle.Config) {
	prior := cfg.Call.Hooks
	h := &cfg.Call.Hooks
	h.Performed = func(w call.Work, took time.Duration, err error) {
		outcome := "answered"
		if err != nil {
			outcome = "failed"
		}
		m.calls.WithLabelValues(service, w.Call, outcome).Observe(took.Seconds())
		if prior.Performed != nil {
			prior.Performed(w, took, err)
		}
	}
	h.Recorded = func(w call.Work, at time.Time, err error) {
		if err != nil {
			m.refused.WithLabelValues(service, w.Call).Inc()
		}
		if prior.Recorded != nil {
			prior.Recorded(w, at, err)
		}
	}
}

// Observe adds a service to those whose state is read at each scrape.
func (m *Metrics) Observe(services ...*settle.Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.services = append(m.services, services...)
}

// state collects what outlives a process.
type state struct {
	metrics *Metrics
}

var _ prometheus.Collector = (*state)(nil)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("settle_"+name, help, labels, nil)
}

// Describe sends nothing: which labels there are is known only when the services are read.
func (*state) Describe(chan<- *prometheus.Desc) {}

// Collect reads every service's state. A service that cannot be read is shown as down.
func (s *state) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	s.metrics.mu.Lock()
	services := s.metrics.services
	s.metrics.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, svc := range services {
		stats, err := svc.Stats(ctx)
		name := svc.Name()
		if err != nil {
			gauge(desc("up", "Whether the service's store can be read.", "service"), 0, name)
			continue
		}
		gauge(desc("up", "Whether the service's store can be read.", "service"), 1, name)
		gauge(desc("outbox_pending", "Committed events that the broker has not acknowledged.", "service"), float64(stats.Outbox.Pending), name)
		gauge(desc("outbox_age_seconds", "Age of the oldest such event.", "service"), stats.Outbox.Age.Seconds(), name)
		gauge(desc("outbox_parked", "Events that the broker refused, and their followers.", "service"), float64(stats.Outbox.Parked), name)
		gauge(desc("timers_pending", "Timers that wait for their time.", "service"), float64(stats.Timers), name)
		for _, g := range stats.Groups {
			gauge(desc("consumer_lag", "Messages that the group has not handled yet.", "group"), float64(g.Lag), g.Group)
			for _, p := range g.Partitions {
				paused := 0.0
				if p.Paused != "" {
					paused = 1
				}
				gauge(desc("partition_paused", "Whether a partition waits because its engine fails.", "group", "partition"), paused, g.Group, p.Name)
			}
		}
		for _, c := range stats.Calls {
			gauge(desc("calls_pending", "Prepared calls without an answer.", "service", "call"), float64(c.Count), name, c.Call)
			gauge(desc("calls_age_seconds", "Age of the oldest such call.", "service", "call"), time.Since(c.Oldest).Seconds(), name, c.Call)
		}
		s.letters(ctx, svc, gauge)
	}
}

// letters counts dead letters by topic and cause.
func (s *state) letters(ctx context.Context, svc *settle.Service, gauge func(*prometheus.Desc, float64, ...string)) {
	queue, ok := svc.Letters()
	if !ok {
		return
	}
	groups, err := queue.Groups(ctx)
	if err != nil {
		return
	}
	counts := map[[4]string]int64{}
	for _, g := range groups {
		counts[[4]string{g.Group, g.Topic, cause(g.Cause), string(g.State)}] += g.Count
	}
	for l, n := range counts {
		gauge(desc("dead_letters", "Parked events by topic, cause and state.", "group", "topic", "cause", "state"), float64(n), l[0], l[1], l[2], l[3])
	}
}

// cause shortens a cause to what can be a label.
func cause(s string) string {
	const bytesMax = 80
	for i, r := range s {
		if r < ' ' || i >= bytesMax {
			return s[:i]
		}
	}
	return s
}
