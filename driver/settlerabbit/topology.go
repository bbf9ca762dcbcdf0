package settlerabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

// bindWait is how long an event may take that was routed before a new binding counted: a group reads what
// was unrouted until then before anything newer.
const bindWait = 250 * time.Millisecond

// declare makes a topic, with the groups of the config, unless that was done on this connection.
func (b *Broker) declare(ctx context.Context, l *link, topic string) error {
	if l.declared(topic) {
		return nil
	}
	if err := event.CheckName(topic); err != nil {
		return &broker.RejectedError{Reason: "topic: " + err.Error()}
	}
	err := b.onChannel(l, func(ch *amqp.Channel) error {
		if err := b.declareTopic(ch, topic); err != nil {
			return err
		}
		for _, s := range b.cfg.Groups {
			if slices.Contains(s.Topics, topic) {
				if err := b.declareGroup(ch, s.Group, topic); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return declareError(ctx, err)
	}
	l.remember(topic)
	return nil
}

// declareError sorts what the server has against a declaration.
func declareError(ctx context.Context, err error) error {
	refused, ok := errors.AsType[*amqp.Error](err)
	switch {
	case ok && refused.Code == amqp.AccessRefused:
		return &broker.RejectedError{Reason: refused.Reason}
	case ok && refused.Code == amqp.PreconditionFailed:
		return fmt.Errorf("%w: what stands on the server differs from the config: %s", broker.ErrUnavailable, refused.Reason)
	}
	return unavailable(ctx, err)
}

func (b *Broker) declareTopic(ch *amqp.Channel, topic string) error {
	c := &b.cfg
	unrouted := c.unroutedExchange(topic)
	err := ch.ExchangeDeclare(c.exchange(topic), amqp.ExchangeDirect, true, false, false, false, amqp.Table{"alternate-exchange": unrouted})
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(unrouted, amqp.ExchangeDirect, true, false, true, false, nil); err != nil {
		return err
	}
	for i := range c.Partitions {
		args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.QueueMessageTTLArg: c.MaxAge.Milliseconds()}
		if err := declareBound(ch, c.unroutedQueue(topic, i), unrouted, i, args); err != nil {
			return err
		}
	}
	return nil
}

func (b *Broker) declareGroup(ch *amqp.Channel, group, topic string) error {
	c := &b.cfg
	for i := range c.Partitions {
		dead := c.deadQueue(group, topic, i)
		_, err := ch.QueueDeclare(dead, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum})
		if err != nil {
			return err
		}
		args := amqp.Table{
			amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.SingleActiveConsumerArg: true,
			"x-delivery-limit": int64(c.DeliveryLimit), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
			// A message leaves its queue when the other one has it, not before.
			"x-dead-letter-strategy": "at-least-once", amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish,
		}
		if err := declareBound(ch, c.queue(group, topic, i), c.exchange(topic), i, args); err != nil {
			return err
		}
	}
	return nil
}

func declareBound(ch *amqp.Channel, queue, exchange string, partition int, args amqp.Table) error {
	if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
		return err
	}
	return ch.QueueBind(queue, strconv.Itoa(partition), exchange, false, nil)
}

// enlist makes a group's queues. fresh says that it was not known for a topic; heir, that a topic's unrouted
// events are its.
func (b *Broker) enlist(ctx context.Context, l *link, s broker.Subscription) (heir map[string]bool, fresh bool, err error) {
	heir = map[string]bool{}
	for _, topic := range s.Topics {
		if err := b.declare(ctx, l, topic); err != nil {
			return nil, false, err
		}
		// A queue that is not there ends the channel that asked.
		known := b.onChannel(l, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(b.cfg.queue(s.Group, topic, b.cfg.Partitions-1), true, false, false, false, nil)
			return err
		})
		fresh = fresh || known != nil
		err := b.onChannel(l, func(ch *amqp.Channel) error { return b.declareGroup(ch, s.Group, topic) })
		if err != nil {
			return nil, false, declareError(ctx, err)
		}
		err = b.onChannel(l, func(ch *amqp.Channel) error {
			// The server refuses a second group, as its argument differs.
			_, err := ch.QueueDeclare(b.cfg.heirQueue(topic), true, false, false, false, amqp.Table{
				amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": s.Group,
			})
			return err
		})
		refused, ok := errors.AsType[*amqp.Error](err)
		switch {
		case err == nil:
			heir[topic] = true
		case !ok || refused.Code != amqp.PreconditionFailed:
			return nil, false, declareError(ctx, err)
		}
	}
	return heir, fresh, nil
}

// onChannel runs fn on a channel of its own: a refusal ends a channel. A server that does not answer in time
// loses the connection.
func (b *Broker) onChannel(l *link, fn func(ch *amqp.Channel) error) error {
	timer := time.AfterFunc(b.cfg.AckWait, l.kill)
	defer timer.Stop()
	ch, err := l.Channel()
	if err != nil {
		return err
	}
	err = fn(ch)
	if err == nil {
		return ch.Close()
	}
	_ = ch.Close()
	return err
}
