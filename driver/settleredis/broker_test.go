package settleredis

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/broker/brokertest"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silent{}) // The client tells of every connection that tests break.
	os.Exit(server.Main(m))
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// quiet drops what the connection and the group say: tests provoke it.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// prefix is a test's own, so that tests share a server.
func prefix(tb testing.TB) string {
	tb.Helper()
	return "t-" + strings.ToLower(event.NewID(time.Now()).String())
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
	return Config{Prefix: prefix(tb), Partitions: 3, Wait: 50 * time.Millisecond, Lease: 2 * time.Second}
}

func TestBroker(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		cfg, url := config(t), server.Shared(t, server.Redis)
		b := openAt(t, url, cfg)
		return brokertest.Harness{
			Broker: b, Partitions: 3, DataBytesMax: event.DataBytesMax + headerRoom,
			Reopen: func(t *testing.T) broker.Broker {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				b = openAt(t, url, cfg)
				return b
			},
			LoseTail: func(t *testing.T, _ int, publish func(broker.Broker)) broker.Broker {
				return loseTail(t, b, cfg, publish)
			},
			Expire: func(t *testing.T, n int) { expire(t, b, n) },
			Garble: func(t *testing.T, key string) { garble(t, b, key) },
			Revoke: func(t *testing.T, group string) { revoke(t, b, group) },
		}
	})
}

// loseTail moves what b has to a server of the test's own, which then dies after publish and comes up with
// its files as they were before.
func loseTail(t *testing.T, b *Broker, cfg Config, publish func(broker.Broker)) broker.Broker {
	t.Helper()
	private := server.Start(t, server.Redis, server.Options{})
	to := openAt(t, private.URL(), cfg)
	copyKeys(t, b.db, to.db, cfg.key("*"))
	_ = b.Close()
	_ = to.Close()
	rewind := snapshot(t, private)
	publish(openAt(t, private.URL(), cfg))
	rewind()
	return openAt(t, private.URL(), cfg)
}

func copyKeys(t *testing.T, from, to *redis.Client, pattern string) {
	t.Helper()
	ctx := t.Context()
	names, err := from.Keys(ctx, pattern).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		dump, err := from.Dump(ctx, name).Result()
		if err != nil {
			t.Fatal(err)
		}
		if err := to.RestoreReplace(ctx, name, 0, dump).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// snapshot keeps a server's files, and returns what kills it and starts it over these.
func snapshot(t *testing.T, s *server.Server) (rewind func()) {
	t.Helper()
	db, err := Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	dir := db.ConfigGet(t.Context(), "dir").Val()["dir"]
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	older := filepath.Join(t.TempDir(), "older")
	s.Stop()
	copyDir(t, dir, older)
	s.Restart()
	return func() {
		s.Kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		copyDir(t, older, dir)
		s.Restart()
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func expire(t *testing.T, b *Broker, n int) {
	t.Helper()
	for i := range 3 {
		log := b.cfg.logKey(logName(brokertest.Topic, i))
		if err := b.db.XTrimMinID(t.Context(), log, entryID(uint64(n)+1)).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func garble(t *testing.T, b *Broker, key string) {
	t.Helper()
	n, _, err := b.topic(t.Context(), brokertest.Topic)
	if err != nil {
		t.Fatal(err)
	}
	log := logName(brokertest.Topic, assign.Partition(key, n))
	err = b.db.XAdd(t.Context(), &redis.XAddArgs{Stream: b.cfg.logKey(log), ID: "0-*", Values: []string{"garbled", "yes"}}).Err()
	if err != nil {
		t.Fatal(err)
	}
}

// revoke takes the leases of a group away and calls its members.
func revoke(t *testing.T, b *Broker, group string) {
	t.Helper()
	for i := range 3 {
		b.db.Del(t.Context(), b.cfg.leaseKey(group, logName(brokertest.Topic, i)))
	}
	b.db.Publish(t.Context(), b.cfg.bellKey(groupBell(group)), "")
}
