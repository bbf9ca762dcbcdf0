package settlerabbit

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/broker/brokertest"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// quiet drops what the connections and the groups say: tests provoke it.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// prefix is a test's own, so that tests share a server.
func prefix(tb testing.TB) string {
	tb.Helper()
	return "t-" + strings.ToLower(event.NewID(time.Now()).String())
}

func shared(tb testing.TB) string {
	tb.Helper()
	return server.Shared(tb, server.Rabbit)
}

func openAt(tb testing.TB, url string, cfg Config) *Broker {
	tb.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := Open(ctx, url, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = b.Close() })
	return b
}

// config is quick enough for tests.
func config(tb testing.TB) Config {
	tb.Helper()
	return Config{Prefix: prefix(tb), Partitions: 2, Wait: 50 * time.Millisecond, CheckEvery: 100 * time.Millisecond}
}

// removeQueues deletes what a test has left on a server that others use.
func removeQueues(tb testing.TB, url string, cfg Config, subscriptions ...broker.Subscription) {
	tb.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		return // It is gone, and its queues with it.
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		tb.Error(err)
		return
	}
	for _, s := range subscriptions {
		for _, p := range cfg.parts(s.Topics) {
			for _, name := range []string{
				cfg.queue(s.Group, p.topic, p.index), cfg.deadQueue(s.Group, p.topic, p.index),
				cfg.unroutedQueue(p.topic, p.index), cfg.heirQueue(p.topic), cfg.crew(s.Group, s.Topics),
			} {
				_, _ = ch.QueueDelete(name, false, false, false) // One that is not there is no error.
			}
			_ = ch.ExchangeDelete(cfg.exchange(p.topic), false, false)
			_ = ch.ExchangeDelete(cfg.unroutedExchange(p.topic), false, false)
		}
	}
}

func TestBroker(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		cfg, url := config(t), shared(t)
		b := openAt(t, url, cfg)
		var declared []broker.Subscription
		t.Cleanup(func() { removeQueues(t, url, cfg, declared...) })
		return brokertest.Harness{
			Broker: b, Partitions: 2, DataBytesMax: event.DataBytesMax + headerRoom,
			Declare: func(t *testing.T, s broker.Subscription) {
				declare(t, b, s)
				declared = append(declared, s)
			},
			Reopen: func(t *testing.T) broker.Broker {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				b = openAt(t, url, cfg)
				return b
			},
			// Partitions cannot seek, queues have no retention, and what was confirmed is not lost: nothing
			// stands for Expire and LoseTail.
			Garble: func(t *testing.T, key string) { garble(t, b, key) },
			Revoke: func(t *testing.T, group string) { revoke(t, b, group) },
		}
	})
}

// declare makes a group known as its first subscription does.
func declare(t *testing.T, b *Broker, s broker.Subscription) {
	t.Helper()
	m, err := b.Subscribe(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func garble(t *testing.T, b *Broker, key string) {
	t.Helper()
	publishRaw(t, b, brokertest.Topic, assign.Partition(key, b.cfg.Partitions), amqp.Publishing{Body: []byte("garbled")})
}

func publishRaw(t *testing.T, b *Broker, topic string, partition int, p amqp.Publishing) {
	t.Helper()
	l, err := b.lines.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = b.onChannel(l, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		confirm, err := ch.PublishWithDeferredConfirm(b.cfg.exchange(topic), strconv.Itoa(partition), true, false, p)
		if err == nil {
			confirm.Wait()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// revoke cuts the connections of a group's members, as a server does that dies.
func revoke(t *testing.T, b *Broker, group string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for m := range b.members {
		if m.group != group {
			continue
		}
		for _, c := range m.held() {
			c.link.kill()
		}
	}
}
