package settleredis

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/internal/server"
)

// TestNothingLostNothingTwice has Redis fail while a relay publishes and a consumer with a filter handles.
func TestNothingLostNothingTwice(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(r *rig, db *redis.Client, rewind func())
		// loses says that acknowledged events are gone, so that a relay must have published them again.
		loses bool
	}{
		"Kill":  {fault: func(r *rig, _ *redis.Client, _ func()) { r.server.Kill(); r.server.Restart() }},
		"Pause": {fault: func(r *rig, _ *redis.Client, _ func()) { r.server.Pause(); wait(3 * time.Second); r.server.Resume() }},
		"Flush": {loses: true, fault: func(r *rig, db *redis.Client, _ func()) { db.FlushAll(r.t.Context()) }},
		"FlushAndKill": {loses: true, fault: func(r *rig, db *redis.Client, _ func()) {
			db.FlushAll(r.t.Context())
			r.server.Kill()
			r.server.Restart()
		}},
		"OlderData": {loses: true, fault: func(_ *rig, _ *redis.Client, rewind func()) { rewind() }},
		"Wipe": {loses: true, fault: func(r *rig, _ *redis.Client, _ func()) {
			r.server.Kill()
			r.server.Wipe()
			r.server.Restart()
		}},
		"StreamDeleted": {loses: true, fault: func(r *rig, db *redis.Client, _ func()) {
			db.Del(r.t.Context(), r.cfg.logKey(logName(topic, 1)))
		}},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/late=%t", name, late), func(t *testing.T) {
				t.Parallel()
				s := server.Start(t, server.Redis, server.Options{})
				r := newRig(t, s)
				db, err := Connect(t.Context(), s.URL())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = db.Close() })
				filter, err := NewFilter(db, FilterConfig{Prefix: r.cfg.Prefix})
				if err != nil {
					t.Fatal(err)
				}
				r.relay()
				if !late {
					r.consume(filter)
				}
				r.add(200)
				rewind := snapshot(t, s)
				r.add(200)
				rewound := r.count(&r.rewound)
				test.fault(r, db, rewind)
				r.add(200)
				if late { // It has seen nothing of what was lost, so the order shows.
					r.consume(filter)
				}
				r.settled()
				if test.loses && r.count(&r.rewound) == rewound {
					t.Error("the relay did not notice the loss")
				}
				t.Logf("%d rewinds, %d duplicates", r.count(&r.rewound), r.count(&r.dups))
			})
		}
	}
}

// TestLifeIsOneRunOverOneSetOfData tells what begins a new life or incarnation, and that nothing is published
// in it before the producer has looked.
func TestLifeIsOneRunOverOneSetOfData(t *testing.T) {
	s := server.Start(t, server.Redis, server.Options{})
	b := openAt(t, s.URL(), config(t))
	for range 30 {
		publishOne(t, b, fmt.Sprint(time.Now().UnixNano()))
	}
	before := tailOf(t, b)
	refused := func(why string) broker.Tail {
		t.Helper()
		for n := range 3 { // And again, until it looks.
			if err := b.Publish(t.Context(), []broker.Message{oneMessage("key")})[0]; !errors.Is(err, broker.ErrUnavailable) {
				t.Fatalf("publish %d after %s: %v, want ErrUnavailable", n, why, err)
			}
		}
		tail := tailOf(t, b)
		publishOne(t, b, "key")
		return tail
	}
	s.Kill()
	s.Restart()
	after := refused("a restart")
	if after.Life == before.Life || after.Incarnation != before.Incarnation {
		t.Fatalf("tail %+v after a restart, %+v before", after, before)
	}
	if fmt.Sprint(after.Opened) != fmt.Sprint(before.Offsets) {
		t.Fatalf("life began at %v, its logs reached %v", after.Opened, before.Offsets)
	}

	log := logName(topic, 2)
	if err := b.db.Del(t.Context(), b.cfg.logKey(log)).Err(); err != nil {
		t.Fatal(err)
	}
	err := error(nil)
	for i := 0; err == nil && i < 100; i++ { // Other logs may be published to until somebody looks.
		err = b.Publish(t.Context(), []broker.Message{oneMessage(fmt.Sprint(i))})[0]
	}
	if !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("publish to a log that was deleted: %v, want ErrUnavailable", err)
	}
	deleted := refused("a log was deleted")
	if deleted.Life == after.Life || deleted.Offsets[log] != 0 || deleted.Opened[log] != 0 {
		t.Fatalf("tail %+v after %s was deleted", deleted, log)
	}

	if err := b.db.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	flushed := refused("the data was flushed")
	if flushed.Incarnation == before.Incarnation || flushed.Life == deleted.Life {
		t.Fatalf("tail %+v after a flush", flushed)
	}
	if _, ok, err := b.LostAt(t.Context(), before.Incarnation); ok || err != nil {
		t.Fatalf("a flushed broker knows of %s: %v %v", before.Incarnation, ok, err)
	}
}

// TestOtherProducerIsRefusedOnce has a producer that was away while another one noticed a restart.
func TestOtherProducerIsRefusedOnce(t *testing.T) {
	s := server.Start(t, server.Redis, server.Options{})
	b := openAt(t, s.URL(), config(t))
	other := oneMessage("key")
	other.Event.Producer = "other"
	publish := func() error { return b.Publish(t.Context(), []broker.Message{other})[0] }
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	publishOne(t, b, "key")
	s.Kill()
	s.Restart()
	_ = b.Publish(t.Context(), []broker.Message{oneMessage("key")})
	tailOf(t, b)
	publishOne(t, b, "key")
	if err := publish(); !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("a producer that has not looked: %v, want ErrUnavailable", err)
	}
	tailOf(t, b)
	if err := publish(); err != nil {
		t.Fatal(err)
	}
}

// TestOtherProcessIsRefused has another process notice a restart, and a loss, first: what it wrote down is
// not what this one knows.
func TestOtherProcessIsRefused(t *testing.T) {
	s := server.Start(t, server.Redis, server.Options{})
	cfg := config(t)
	b, other := openAt(t, s.URL(), cfg), openAt(t, s.URL(), cfg)
	publishOne(t, b, "key")
	refused := func(why string) {
		t.Helper()
		for range 2 {
			if err := b.Publish(t.Context(), []broker.Message{oneMessage("key")})[0]; !errors.Is(err, errLife) {
				t.Fatalf("publish after another process noticed %s: %v, want a refusal", why, err)
			}
		}
		tailOf(t, b)
		publishOne(t, b, "key")
	}
	s.Kill()
	s.Restart()
	lost := tailOf(t, other)
	for b.db.Ping(t.Context()).Err() != nil { // Connections that broke with the server.
		wait(10 * time.Millisecond)
	}
	refused("a restart")
	if err := other.Incarnate(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	refused("a loss")
}

// TestConsumerPastTheEnd meets a loss before any relay does.
func TestConsumerPastTheEnd(t *testing.T) {
	s := server.Start(t, server.Redis, server.Options{})
	cfg := config(t)
	cfg.Partitions = 1
	b := openAt(t, s.URL(), cfg)
	publishOne(t, b, "a")
	rewind := snapshot(t, s)
	tailOf(t, b)
	_ = b.Publish(t.Context(), []broker.Message{oneMessage("a")}) // Another run: refused once.
	tailOf(t, b)
	for range 5 {
		publishOne(t, b, "a")
	}
	_, parts := join(t, b, "g", 1)
	old := fetchAll(t, 6, parts...)
	rewind()
	tailOf(t, b)
	late := openAt(t, s.URL(), cfg)
	_, parts = join(t, late, "late", 1)
	if err := parts[0].Seek(t.Context(), old[5].Position); err != nil {
		t.Fatal(err)
	}
	got := fetchAll(t, 1, parts...)
	if got[0].Event.ID != old[0].Event.ID || got[0].Position.Incarnation == old[0].Position.Incarnation {
		t.Fatalf("%s at %s, want the first message in another incarnation", got[0].Event.ID, got[0].Position)
	}
}

// TestFullMemory has a server that takes nothing more: consumers go on, also new ones, and make room.
func TestFullMemory(t *testing.T) {
	s := server.Start(t, server.Redis, server.Options{Settings: map[string]string{"stream-node-max-entries": "10"}})
	cfg := config(t)
	cfg.Partitions, cfg.Retention, cfg.TrimEvery = 1, time.Millisecond, time.Hour
	b := openAt(t, s.URL(), cfg)
	large := make([]byte, 20_000)
	for i := range large {
		large[i] = '1'
	}
	publish := func() error {
		m := oneMessage("key")
		m.Event.Data = large
		return b.Publish(t.Context(), []broker.Message{m})[0]
	}
	for range 200 {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.trim(t.Context()); err != nil { // Notes how far the log reaches.
		t.Fatal(err)
	}
	full := b.db.Info(t.Context(), "memory").Val()
	var used int64
	for line := range strings.SplitSeq(full, "\r\n") {
		if value, ok := strings.CutPrefix(line, "used_memory:"); ok {
			used, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	if err := b.db.ConfigSet(t.Context(), "maxmemory", strconv.FormatInt(used-1_000_000, 10)).Err(); err != nil {
		t.Fatal(err)
	}
	if err := publish(); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
		t.Fatalf("publish to a full server: %v, want ErrUnavailable", err)
	}
	tailOf(t, b)
	_, parts := join(t, openAt(t, s.URL(), cfg), "g", 1)
	got := fetchAll(t, 200, parts[0])
	if err := parts[0].Ack(t.Context(), got[199].Position); err != nil {
		t.Fatal(err)
	}
	if err := b.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := publish(); err != nil {
		t.Fatalf("publish after trimming: %v", err)
	}
}
