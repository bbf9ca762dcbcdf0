package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/push"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/txn"
)

// frameDataMax bounds the event data that a frame repeats; an event with more is shown without.
const frameDataMax = 1024

// Entry is an event as the feeds and an order's timeline show it.
type Entry struct {
	ID       event.ID        `json:"id"`
	Type     string          `json:"type"`
	Topic    string          `json:"topic"`
	Key      string          `json:"key"`
	Producer string          `json:"producer"`
	At       time.Time       `json:"at"`
	Data     json.RawMessage `json:"data,omitempty"`
}

// OrderFeed and CustomerFeed name the feeds of one order and of one customer's orders.
func OrderFeed(id string) string { return "order/" + id }

// CustomerFeed names the feed of the changes of a customer's orders.
func CustomerFeed(id string) string { return "customer/" + id }

// show appends an event to the feeds, in the transaction that remembers it.
func (s *Service) show(ctx context.Context, tx *txn.Tx, e event.Envelope) error {
	p, ok := tx.Port().(push.Provider)
	if !ok {
		return fmt.Errorf("gateway: store %T has no feed: %w", tx.Port(), errors.ErrUnsupported)
	}
	entry := Entry{ID: e.ID, Type: e.Type, Topic: e.Topic, Key: e.AggregateID, Producer: e.Producer, At: e.OccurredAt}
	if len(e.Data) <= frameDataMax {
		entry.Data = e.Data
	}
	data, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	return p.Feed().Append(ctx, tx, push.Frame{Feeds: feeds(e), Event: e.Type, Data: data})
}

// feeds returns the feeds that show an event. Only the order's own events name the customer: they are
// what a customer follows, and no customer's name needs to travel with the rest.
func feeds(e event.Envelope) []string {
	if e.AggregateType != "order" {
		return nil
	}
	names := []string{OrderFeed(e.AggregateID)}
	if e.Topic == contract.OrderTopic {
		var of struct {
			CustomerID string `json:"customerId"`
		}
		if json.Unmarshal(e.Data, &of) == nil && of.CustomerID != "" {
			names = append(names, CustomerFeed(of.CustomerID))
		}
	}
	return names
}

// timelineMax bounds the events of an order's timeline.
const timelineMax = 200

// Timeline returns what happened to an order, in the order in which the gateway heard of it.
func (s *Service) Timeline(ctx context.Context, orderID string) ([]json.RawMessage, error) {
	frames, err := s.cfg.Feed.After(ctx, OrderFeed(orderID), 0, timelineMax)
	if err != nil {
		return nil, fmt.Errorf("gateway: timeline of %s: %w", orderID, err)
	}
	entries := make([]json.RawMessage, len(frames))
	for i, f := range frames {
		entries[i] = f.Data
	}
	return entries, nil
}
