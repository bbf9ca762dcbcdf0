package settlekafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
)

const invoices = "invoice-events"

// invoice makes an event of its own for each one read, as a stage does.
func invoice(in []broker.Message) []broker.Message {
	out := make([]broker.Message, 0, len(in))
	for _, m := range in {
		e := m.Event
		e.ID = event.NewID(time.Now())
		e.CausationID, e.Topic = m.Event.ID, invoices
		out = append(out, broker.Message{Event: e, Origin: m.Position.String()})
	}
	return out
}

// wire is a network that can be cut, as by the death of the process that uses it.
type wire struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (w *wire) dial(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = conn.Close()
		return nil, errors.New("the wire is cut")
	}
	w.conns = append(w.conns, conn)
	return conn, nil
}

func (w *wire) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for _, c := range w.conns {
		_ = c.Close()
	}
}

func runStage(t *testing.T, url string, cfg StageConfig, fn Transform) (stop func()) {
	t.Helper()
	cfg.Logger = quiet()
	s, err := NewStage(url, cfg, fn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestStageIsExactlyOnce kills stages in the middle of transactions: what they had published by then was
// never there, and what they had read is read again.
func TestStageIsExactlyOnce(t *testing.T) {
	url := server.Shared(t, server.Kafka)
	b := open(t, url, Config{Prefix: prefix(), Partitions: 4})
	cfg := StageConfig{
		Config: Config{Prefix: b.cfg.Prefix, Partitions: 4, SessionTimeout: 2 * time.Second, AckWait: time.Second, TransactionalID: "stage-0"},
		Group:  "invoicing", Topics: []string{orders}, BatchMax: 50,
	}
	const total, keys = 2000, 20
	publish(t, b, oneMessage("k0", "0"))
	var mu sync.Mutex
	for i := 1; i < total; i++ {
		publish(t, b, oneMessage(fmt.Sprintf("k%d", i%keys), fmt.Sprint(i)))
		if i%600 != 0 {
			continue
		}
		w := &wire{}
		one := cfg
		one.Options = []kgo.Opt{kgo.Dialer(w.dial)}
		batches := 0
		killed := make(chan struct{})
		stop := runStage(t, url, one, func(_ context.Context, in []broker.Message) ([]broker.Message, error) {
			mu.Lock()
			defer mu.Unlock()
			if batches++; batches == 5 {
				// The wire goes while the records of the transaction are on it.
				time.AfterFunc(2*time.Millisecond, func() { w.sever(); close(killed) })
			}
			return invoice(in), nil
		})
		<-killed
		stop()
	}
	failures := 0
	defer runStage(t, url, cfg, func(_ context.Context, in []broker.Message) ([]broker.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		if failures++; failures%5 == 1 {
			return nil, errors.New("not now")
		}
		return invoice(in), nil
	})()
	read := collect(t, b, invoices)
	read.await(t, total, time.Minute)
	_ = pause(t.Context(), time.Second)
	read.mu.Lock()
	defer read.mu.Unlock()
	if read.total != total || len(read.seen) != total {
		t.Errorf("%d messages, %d events, want %d of both", read.total, len(read.seen), total)
	}
	for k := range keys {
		key := fmt.Sprintf("k%d", k)
		var want []string
		for i := k; i < total; i += keys {
			want = append(want, fmt.Sprint(i))
		}
		if fmt.Sprint(read.keys[key]) != fmt.Sprint(want) {
			t.Errorf("%s: %v\nwant %v", key, read.keys[key], want)
		}
	}
}

// TestStagesShare has a second stage join and leave while the first works.
func TestStagesShare(t *testing.T) {
	url := server.Shared(t, server.Kafka)
	b := open(t, url, Config{Prefix: prefix(), Partitions: 4})
	cfg := StageConfig{
		Config: Config{Prefix: b.cfg.Prefix, Partitions: 4, SessionTimeout: 2 * time.Second},
		Group:  "invoicing", Topics: []string{orders}, BatchMax: 10,
	}
	fn := func(_ context.Context, in []broker.Message) ([]broker.Message, error) { return invoice(in), nil }
	publish(t, b, oneMessage("k0", "0"))
	defer runStage(t, url, cfg, fn)()
	const total = 1500
	for i := 1; i < total; i++ {
		if i%500 == 0 {
			stop := runStage(t, url, cfg, fn)
			time.AfterFunc(2*time.Second, stop)
			defer stop()
		}
		publish(t, b, oneMessage(fmt.Sprintf("k%d", i%20), fmt.Sprint(i)))
	}
	read := collect(t, b, invoices)
	read.await(t, total, time.Minute)
	_ = pause(t.Context(), time.Second)
	read.mu.Lock()
	defer read.mu.Unlock()
	if read.total != total {
		t.Errorf("%d messages for %d events", read.total, total)
	}
}

func TestStageRefusals(t *testing.T) {
	fn := func(context.Context, []broker.Message) ([]broker.Message, error) { return nil, nil }
	for name, test := range map[string]struct {
		url string
		cfg StageConfig
		fn  Transform
	}{
		"no transform": {"kafka://h", StageConfig{Group: "g", Topics: []string{orders}}, nil},
		"no group":     {"kafka://h", StageConfig{Topics: []string{orders}}, fn},
		"no topics":    {"kafka://h", StageConfig{Group: "g"}, fn},
		"huge batch":   {"kafka://h", StageConfig{Group: "g", Topics: []string{orders}, BatchMax: broker.FetchMax + 1}, fn},
		"wrong URL":    {"nats://h", StageConfig{Group: "g", Topics: []string{orders}}, fn},
	} {
		if _, err := NewStage(test.url, test.cfg, test.fn); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix()})
	s, err := NewStage(b.where.String(), StageConfig{
		Config: Config{Prefix: b.cfg.Prefix, NoCreateTopics: true, Logger: quiet()}, Group: "g", Topics: []string{orders},
	}, fn)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, ErrNoTopic) {
		t.Errorf("run without its topic: %v, want ErrNoTopic", err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("a second run was not refused")
	}
}
