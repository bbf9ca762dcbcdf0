package settlesqlite_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"

	"github.com/settledev/settle/broker"
)

// TestFullDiskParksNothing proves that a store's own failure, wrapped by a handler, pauses the partition
// instead of parking healthy events.
func TestFullDiskParksNothing(t *testing.T) {
	s := newStore(t)
	b := memory.NewBroker(memory.BrokerConfig{Partitions: 1})
	d := event.Define("ThingHappened", 1, event.Spec[string]{Topic: "things", Aggregate: "thing", Key: func(k string) string { return k }})
	e, err := d.New("a").Seal("test", time.Now(), event.Cause{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), []broker.Message{{Event: e}})[0]; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var attempts atomic.Int32
	c, err := consumer.New(s, s, b, consumer.Config{
		Group: "g", Topics: []string{"things"},
		Handlers: map[string]consumer.Handler{"ThingHappened": func(context.Context, *txn.Tx, event.Envelope) error {
			if attempts.Add(1) <= 3 {
				return fmt.Errorf("insert: %w", sqlstore.ErrDiskFull)
			}
			cancel() // Space is back: the same event goes through.
			return nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	stats, err := c.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(stats.Letters) != 0 || attempts.Load() != 4 {
		t.Errorf("letters %v after %d attempts, want none after 4", stats.Letters, attempts.Load())
	}
}
