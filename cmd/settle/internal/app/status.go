package app

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/shop/gateway"
)

// traffic counts what this process has handled of a service; what outlives it is read from the store.
type traffic struct {
	handled    atomic.Int64
	duplicates atomic.Int64
}

func (a *App) handled() (n int64) {
	for _, t := range a.traffic {
		n += t.handled.Load()
	}
	return n
}

// Traffic says how much is on its way in each of this process's services.
func (a *App) Traffic(ctx context.Context) (map[string]gateway.Traffic, error) {
	all := map[string]gateway.Traffic{}
	for _, svc := range a.shop.services {
		stats, err := svc.Stats(ctx)
		if err != nil {
			return nil, err
		}
		count := a.traffic[svc.Name()]
		all[svc.Name()] = trafficOf(stats, count.handled.Load(), count.duplicates.Load())
	}
	return all, nil
}

func trafficOf(stats settle.Stats, handled, duplicates int64) gateway.Traffic {
	t := gateway.Traffic{
		Handled: handled, Duplicates: duplicates, Timers: stats.Timers,
		Emitted: stats.Outbox.Sent + stats.Outbox.Pending, Published: stats.Outbox.Sent,
		Unpublished: stats.Outbox.Pending, Parked: stats.Outbox.Parked,
	}
	for _, g := range stats.Groups {
		if t.Lag += g.Lag; len(g.Partitions) == 0 && !g.Standby {
			t.Lag++ // What waits for a group that has no partition yet cannot be counted, and must not look like nothing.
		}
		for state, n := range g.Letters {
			if state == deadletter.StateRetrying {
				t.Retrying += n
			}
			t.Parked += n
		}
	}
	for _, c := range stats.Calls {
		t.CallsPending += c.Count
	}
	return t
}

// WaitReady waits until every service reads its partitions.
func (a *App) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if a.Ready(ctx) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// pingTimeout bounds the question whether the broker is there.
const pingTimeout = 2 * time.Second

// Ready reports why this process cannot take work yet, or any more.
func (a *App) Ready(ctx context.Context) error {
	switch {
	case !a.started.Load():
		if what := a.waits.Load(); what != nil {
			return fmt.Errorf("waits for %s", *what)
		}
		return errors.New("not started yet")
	case a.draining.Load():
		return errors.New("draining")
	}
	for _, svc := range a.shop.services {
		stats, err := svc.Stats(ctx)
		if err != nil {
			return err
		}
		for _, g := range stats.Groups {
			if err := groupReady(g); err != nil {
				return err
			}
		}
	}
	return a.ping(ctx)
}

// groupReady is nil for a group that flows, and for one that is to stand by: its partitions are with others.
func groupReady(g consumer.Stats) error {
	waits := ""
	for _, p := range g.Partitions {
		if p.Paused == "" {
			return nil
		}
		waits = fmt.Sprintf("group %s waits: %s", g.Group, p.Paused)
	}
	switch {
	case waits != "":
		return errors.New(waits)
	case !g.Standby:
		return fmt.Errorf("group %s has no partition yet", g.Group)
	}
	return nil
}

// pinger is a broker that can say whether its server answers.
type pinger interface {
	Ping(ctx context.Context) error
}

// ping asks the broker's server, where the driver can; elsewhere the partitions tell.
func (a *App) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	switch b := a.broker.(type) {
	case pinger:
		return b.Ping(ctx)
	case broker.Tailer:
		_, err := b.Tail(ctx)
		return err
	}
	return nil
}
