package settleprom_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/settledev/settle"
	"github.com/settledev/settle/driver/settleprom"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

// TestMetrics runs a service whose handler takes one event and gives another up, and reads what
// Prometheus would.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	metrics := settleprom.New(reg)
	happened := event.Define("ThingHappened", 1, event.Spec[string]{Topic: "things", Aggregate: "thing", Key: func(k string) string { return k }})
	svc := settle.NewService("things", memory.New(), memory.NewBroker(memory.BrokerConfig{}), metrics.Instrument("things", settle.Config{}))
	settle.On(svc, happened, func(_ context.Context, _ *txn.Tx, e event.Of[string]) error {
		if e.Data == "bad" {
			return retry.Permanent(errors.New("no such thing"))
		}
		return nil
	})
	metrics.Observe(svc)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	err := svc.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		return outbox.Add(ctx, tx, happened.New("good"), happened.New("bad"))
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `
# HELP settle_dead_letters Parked events by topic, cause and state.
# TYPE settle_dead_letters gauge
settle_dead_letters{cause="no such thing",group="things",state="DEAD",topic="things"} 1
# HELP settle_events_dead_total Events that were given up and wait for a person.
# TYPE settle_events_dead_total counter
settle_events_dead_total{service="things",topic="things"} 1
# HELP settle_events_handled_total Events whose effect became durable.
# TYPE settle_events_handled_total counter
settle_events_handled_total{service="things",topic="things"} 1
# HELP settle_outbox_pending Committed events that the broker has not acknowledged.
# TYPE settle_outbox_pending gauge
settle_outbox_pending{service="things"} 0
`
	names := []string{"settle_dead_letters", "settle_events_dead_total", "settle_events_handled_total", "settle_outbox_pending"}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for err = errors.New("not read"); err != nil; {
		if err = testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("metrics never became right: %v", err)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "settle_consumer_lag", "settle_hop_seconds", "settle_publish_age_seconds", "settle_up"); err != nil || n < 4 {
		t.Errorf("%d of the four other metrics, %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics against the naming rules: %v, %v", problems, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
