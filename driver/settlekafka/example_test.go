package settlekafka_test

import (
	"context"
	"fmt"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlekafka"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/relay"
)

// A relay carries an outbox to Kafka. Any store's outbox will do.
func Example() {
	ctx := context.Background()
	b, err := settlekafka.Open(ctx, "kafka://127.0.0.1:9092", settlekafka.Config{Replication: 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = b.Close() }()
	r, err := relay.New(memory.New().Outbox(), b, relay.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := r.Run(ctx); err != nil {
		fmt.Println(err)
		return
	}
}

// A stage makes one topic from another, exactly once, in a process that has no database.
func ExampleStage() {
	cfg := settlekafka.StageConfig{Group: "large-orders", Topics: []string{"order-events"}}
	s, err := settlekafka.NewStage("kafka://127.0.0.1:9092", cfg, func(_ context.Context, in []broker.Message) ([]broker.Message, error) {
		var out []broker.Message
		for _, m := range in {
			if m.Err != nil || len(m.Event.Data) < 1000 {
				continue
			}
			e := m.Event
			e.Topic, e.CausationID, e.ID = "large-order-events", m.Event.ID, event.NewID(time.Now())
			out = append(out, broker.Message{Event: e})
		}
		return out, nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Run(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
}
