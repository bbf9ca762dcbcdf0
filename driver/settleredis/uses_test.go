package settleredis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/lock/locktest"
)

func client(t *testing.T, url string) *redis.Client {
	t.Helper()
	db, err := Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestHints(t *testing.T) {
	locktest.RunHints(t, locktest.HintsHarness{Open: func(t *testing.T) lock.Hints {
		h, err := NewHints(client(t, server.Shared(t, server.Redis)), HintsConfig{Prefix: prefix(t)})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}})
}

func TestHintIsExtended(t *testing.T) {
	h, err := NewHints(client(t, server.Shared(t, server.Redis)), HintsConfig{Prefix: prefix(t)})
	if err != nil {
		t.Fatal(err)
	}
	mine, ok, err := h.TryOnce(t.Context(), "a", 200*time.Millisecond)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := h.Extend(t.Context(), mine, time.Minute); !ok || err != nil {
		t.Fatalf("extend: %v %v", ok, err)
	}
	wait(300 * time.Millisecond)
	if _, ok, _ := h.TryOnce(t.Context(), "a", time.Minute); ok {
		t.Fatal("an extended hint ran out at its first time")
	}
	forged := mine
	forged.Token = "another"
	if ok, err := h.Extend(t.Context(), forged, time.Minute); ok || err != nil {
		t.Fatalf("another's hint was extended: %v %v", ok, err)
	}
	if _, err := h.Extend(t.Context(), mine, 0); !errors.Is(err, lock.ErrLimit) {
		t.Fatalf("extend by nothing: %v, want ErrLimit", err)
	}
}

func TestFilter(t *testing.T) {
	db := client(t, server.Shared(t, server.Redis))
	own := prefix(t)
	f, err := NewFilter(db, FilterConfig{Prefix: own})
	if err != nil {
		t.Fatal(err)
	}
	ids := []event.ID{event.NewID(time.Now()), event.NewID(time.Now()), event.NewID(time.Now())}
	seen := func(scope string) string {
		t.Helper()
		got, err := f.Seen(t.Context(), scope, ids)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(got)
	}
	if got := seen("billing/1"); got != "[false false false]" {
		t.Fatalf("at first: %s", got)
	}
	for range 2 {
		if err := f.Remember(t.Context(), "billing/1", ids[:2]); err != nil {
			t.Fatal(err)
		}
	}
	if got := seen("billing/1"); got != "[true true false]" {
		t.Fatalf("after the commit: %s", got)
	}
	if got := seen("billing/2"); got != "[false false false]" {
		t.Fatalf("another scope: %s", got)
	}
	key := f.key("billing/1", ids[0])
	if ttl := db.TTL(t.Context(), key).Val(); ttl < 23*time.Hour || ttl > 24*time.Hour {
		t.Fatalf("remembered for %s, want 24h", ttl)
	}
	if n := db.MemoryUsage(t.Context(), key).Val(); n > 200 {
		t.Errorf("an event costs %d bytes", n)
	}
	db.Del(t.Context(), key)
	if got := seen("billing/1"); got != "[false true false]" {
		t.Fatalf("after a loss: %s", got)
	}
	_ = db.Close()
	if _, err := f.Seen(t.Context(), "billing/1", ids); err == nil {
		t.Fatal("an outage is an error")
	}
	if err := f.Remember(t.Context(), "billing/1", ids); err == nil {
		t.Fatal("an outage is an error")
	}
	for _, cfg := range []FilterConfig{{Prefix: "a:b"}, {TTL: -time.Second}} {
		if _, err := NewFilter(db, cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestCache(t *testing.T) {
	db := client(t, server.Shared(t, server.Redis))
	c, err := NewCache(db, CacheConfig{Prefix: prefix(t), TTL: time.Second, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	want := func(when, value string, version uint64) {
		t.Helper()
		got, v, ok := c.Get(ctx, "order-1")
		if ok != (value != "") || string(got) != value || v != version {
			t.Fatalf("%s: %q at %d (%v), want %q at %d", when, got, v, ok, value, version)
		}
	}
	put := func(version uint64, value string) {
		t.Helper()
		if err := c.Put(ctx, "order-1", version, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	want("at first", "", 0)
	put(9, "nine")
	want("put", "nine", 9)
	put(10, "ten")
	put(9, "nine, late")
	want("an older one comes late", "ten", 10)
	put(10, "ten again")
	want("the same version", "ten again", 10)
	if err := c.Delete(ctx, "order-1", 11); err != nil {
		t.Fatal(err)
	}
	want("deleted", "", 0)
	put(10, "ten, late")
	want("an older one after the deletion", "", 0)
	put(1<<63+1, "largest")
	put(1<<63, "large")
	want("large versions", "largest", 1<<63+1)
	wait(1100 * time.Millisecond)
	want("run out", "", 0)

	loads := 0
	load := func(context.Context) ([]byte, uint64, error) {
		loads++
		return []byte("loaded"), 12, nil
	}
	for range 3 {
		if got, err := c.Load(ctx, "order-1", load); err != nil || string(got) != "loaded" {
			t.Fatalf("load: %q %v", got, err)
		}
	}
	if loads != 1 {
		t.Errorf("loaded %d times, want once", loads)
	}
	failed := errors.New("no such row")
	if _, err := c.Load(ctx, "order-2", func(context.Context) ([]byte, uint64, error) { return nil, 0, failed }); !errors.Is(err, failed) {
		t.Errorf("load: %v, want the loader's error", err)
	}
	_ = db.Close()
	if got, err := c.Load(ctx, "order-1", load); err != nil || string(got) != "loaded" || loads != 2 {
		t.Errorf("load in an outage: %q %v, loaded %d times", got, err, loads)
	}
	if err := c.Put(ctx, "order-1", 1, make([]byte, cacheBytesMax+1)); err == nil {
		t.Error("a value that is too large was taken")
	}
}
