package settlenats

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/broker/brokertest"
	"github.com/settledev/settle/event"
)

// quiet drops what the server and the connection say: tests provoke it.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openEmbedded(tb testing.TB, cfg Config) *Broker {
	tb.Helper()
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := OpenEmbedded(ctx, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return b
}

func TestEmbedded(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		cfg := Config{Dir: t.TempDir(), Partitions: 3, Wait: 50 * time.Millisecond}
		b := openEmbedded(t, cfg)
		reopen := func(t *testing.T) broker.Broker {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = openEmbedded(t, cfg)
			return b
		}
		return brokertest.Harness{
			Broker: b, Partitions: 3, DataBytesMax: event.DataBytesMax + headerRoom, Reopen: reopen,
			LoseTail: func(t *testing.T, _ int, publish func(broker.Broker)) broker.Broker {
				copied := filepath.Join(t.TempDir(), "older")
				_ = b.Close()
				copyDir(t, cfg.Dir, copied)
				publish(reopen(t))
				_ = b.Close()
				replaceDir(t, cfg.Dir, copied)
				b = openEmbedded(t, cfg)
				return b
			},
			Expire: func(t *testing.T, n int) { expire(t, b, n) },
			Garble: func(t *testing.T, key string) { garble(t, b, key) },
			Revoke: func(_ *testing.T, group string) { b.table.Revoke(group) },
		}
	})
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// replaceDir puts an older copy in the place of a directory.
func replaceDir(t *testing.T, dir, older string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	copyDir(t, older, dir)
}

func expire(t *testing.T, b *Broker, n int) {
	t.Helper()
	stream, err := b.js.Stream(t.Context(), b.cfg.streamName(brokertest.Topic))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(uint64(n+1))); err != nil {
		t.Fatal(err)
	}
}

func garble(t *testing.T, b *Broker, key string) {
	t.Helper()
	known, err := b.topic(t.Context(), brokertest.Topic)
	if err != nil {
		t.Fatal(err)
	}
	subject := known.subjects[assign.Partition(key, known.partitions)]
	if _, err := b.js.Publish(t.Context(), subject, []byte("garbled")); err != nil {
		t.Fatal(err)
	}
}
