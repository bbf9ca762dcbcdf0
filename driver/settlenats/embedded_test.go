package settlenats

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
)

func TestEmbeddedDirectoryBelongsToOne(t *testing.T) {
	dir := t.TempDir()
	b := openEmbedded(t, Config{Dir: dir})
	_, err := OpenEmbedded(t.Context(), Config{Dir: dir, Logger: quiet()})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second open: %v, want ErrLocked with directory and process", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	openEmbedded(t, Config{Dir: dir})
}

func TestEmbeddedRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	b := openEmbedded(t, Config{Dir: dir})
	publishOne(t, b, "key")
	meta := filepath.Join(b.embedded.streamsDir(), b.cfg.streamName("order-events"), "meta.inf")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(meta, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenEmbedded(t.Context(), Config{Dir: dir, Logger: quiet()})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "settle_order-events") {
		t.Fatalf("open over a damaged stream: %v, want ErrCorrupt with its name", err)
	}
}

func TestEmbeddedRefusesAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenEmbedded(t.Context(), Config{Dir: file, Logger: quiet()}); err == nil || !strings.Contains(err.Error(), file) {
		t.Fatalf("open over a file: %v", err)
	}
	blocked := t.TempDir()
	if err := os.WriteFile(filepath.Join(blocked, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenEmbedded(t.Context(), Config{Dir: blocked, Logger: quiet()})
	if err == nil || !strings.Contains(err.Error(), "JetStream") {
		t.Fatalf("open where the server cannot store: %v, want its own words", err)
	}
}

func TestConfigRefusals(t *testing.T) {
	for name, cfg := range map[string]Config{
		"a dotted prefix":     {Prefix: "a.b"},
		"negative wait":       {Wait: -1},
		"a long wait":         {Wait: time.Minute},
		"too many partitions": {Partitions: partitionsMax + 1},
		"too many replicas":   {Replicas: 6},
		"dedup over max age":  {Dedup: time.Hour, MaxAge: time.Minute},
		"tiny dedup":          {Dedup: time.Millisecond},
	} {
		if _, err := cfg.withDefaults(); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := OpenEmbedded(t.Context(), Config{}); err == nil {
		t.Error("OpenEmbedded took no directory")
	}
}

// publishOne publishes one event of a key and returns its identity.
func publishOne(t *testing.T, b *Broker, key string) broker.Message {
	t.Helper()
	m := oneMessage(key)
	if err := b.Publish(t.Context(), []broker.Message{m})[0]; err != nil {
		t.Fatal(err)
	}
	return m
}

func oneMessage(key string) broker.Message {
	m := benchMessages(1)[0]
	m.Event.AggregateID = key
	m.Event.ID = newID()
	return m
}

func tailOf(t *testing.T, b *Broker) broker.Tail {
	t.Helper()
	tail, err := b.Tail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tail
}

func TestLifeGoesOnOverRestarts(t *testing.T) {
	if identify(t.TempDir()) == "" || bootID() == "" {
		t.Skip("this system cannot tell whether a directory is the same one")
	}
	dir := filepath.Join(t.TempDir(), "nats")
	b := openEmbedded(t, Config{Dir: dir})
	first := tailOf(t, b)
	publishOne(t, b, "key")
	_ = b.Close()

	b = openEmbedded(t, Config{Dir: dir})
	again := tailOf(t, b)
	if again.Life != first.Life || len(again.Opened) != 0 || again.Offsets["settle_order-events"] != 1 {
		t.Fatalf("tail %+v after a restart, before it was %+v", again, first)
	}
	_ = b.Close()

	// The same bytes in another place are another life: they may be older.
	copied := filepath.Join(t.TempDir(), "copy")
	copyDir(t, dir, copied)
	replaceDir(t, dir, copied)
	b = openEmbedded(t, Config{Dir: dir})
	replaced := tailOf(t, b)
	if replaced.Life == first.Life || replaced.Opened["settle_order-events"] != 1 || replaced.Incarnation != first.Incarnation {
		t.Fatalf("tail %+v over a replaced directory, before it was %+v", replaced, first)
	}
	_ = b.Close()

	// So is one stream that is replaced, under a stamp that stays.
	stream := filepath.Join(dir, "jetstream", "$G", "streams", "settle_order-events")
	replaceDir(t, stream, filepath.Join(copied, "jetstream", "$G", "streams", "settle_order-events"))
	b = openEmbedded(t, Config{Dir: dir})
	if partly := tailOf(t, b); partly.Life == replaced.Life || !maps.Equal(partly.Opened, replaced.Opened) {
		t.Fatalf("tail %+v over a replaced stream, before it was %+v", partly, replaced)
	}
}

// TestPositionPastTheEndBeginsAnIncarnation is a loss that no relay has seen: a consumer has handled
// what the broker does not have.
func TestPositionPastTheEndBeginsAnIncarnation(t *testing.T) {
	b := openEmbedded(t, Config{Wait: 20 * time.Millisecond, CheckEvery: 50 * time.Millisecond})
	want := publishOne(t, b, "key")
	before := tailOf(t, b)
	p := take(t, b)
	if err := p.Seek(t.Context(), broker.Position{Incarnation: before.Incarnation, Offset: 9}); err != nil {
		t.Fatal(err)
	}
	for {
		got := fetchSome(t, p)
		if got[0].Event.ID != want.Event.ID {
			t.Fatalf("got %s, want %s", got[0].Event.ID, want.Event.ID)
		}
		if got[0].Position.Incarnation != before.Incarnation {
			break // read again, in the new incarnation
		}
	}
	offsets, ok, err := b.LostAt(t.Context(), before.Incarnation)
	if err != nil || !ok || offsets["settle_order-events"] != 0 {
		t.Fatalf("lost at %v %v %v, want 0: the life began with nothing", offsets, ok, err)
	}
}
