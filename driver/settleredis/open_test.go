package settleredis

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/internal/server"
)

func TestOpenErrorsArePrecise(t *testing.T) {
	s := server.Start(t, server.Redis, server.Options{})
	plain, err := Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	ctx := t.Context()
	if err := plain.Do(ctx, "ACL", "SETUSER", "shop", "on", ">s3cret", "~*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	if err := plain.Do(ctx, "ACL", "SETUSER", "weak", "on", ">s3cret", "~*", "+ping", "+client").Err(); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(s.URL(), "redis://")
	for name, test := range map[string]struct {
		url  string
		is   error
		says string
	}{
		"wrong password":  {"redis://shop:hush-hush@" + host, ErrCredentials, "127.0.0.1"},
		"unknown user":    {"redis://nobody:hush-hush@" + host, ErrCredentials, ""},
		"weak user":       {"redis://weak:s3cret@" + host, ErrCredentials, "info"},
		"nobody there":    {"redis://user:hush-hush@127.0.0.1:1/0", broker.ErrUnavailable, "127.0.0.1:1"},
		"no TLS there":    {"rediss://user:hush-hush@" + host + "?dial_timeout=500ms", broker.ErrUnavailable, ""},
		"a wrong scheme":  {"http://127.0.0.1:6379", nil, "http"},
		"no scheme":       {"127.0.0.1:6379", nil, "redis://"},
		"no host":         {"redis://", nil, "host"},
		"nothing":         {"", nil, "scheme"},
		"a bad port":      {"redis://u:hush-hush@host:port", nil, "URL"},
		"a bad database":  {"redis://u:hush-hush@" + strings.TrimSuffix(host, "0") + "zero", nil, "URL"},
		"password asked":  {"redis://" + host + "?password=hush-hush", nil, "URL"},
		"kafka, mistaken": {"kafka://u:hush-hush@host:9092", nil, "kafka"},
	} {
		b, err := Open(ctx, test.url, Config{Logger: quiet()})
		if err == nil {
			_ = b.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %v saying %q", name, err, test.is, test.says)
		}
		if strings.Contains(err.Error(), "hush-hush") {
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
	b := openAt(t, "redis://shop:s3cret@"+host, Config{})
	publishOne(t, b, "key")
	if err := plain.ConfigSet(ctx, "requirepass", "s3cret").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, s.URL(), Config{}); !errors.Is(err, ErrCredentials) {
		t.Errorf("without a password: %v, want ErrCredentials", err)
	}
}

func TestUnsuitableServersAreRefused(t *testing.T) {
	evicts := server.Start(t, server.Redis, server.Options{Settings: map[string]string{"maxmemory-policy": "allkeys-lru"}})
	if _, err := Open(t.Context(), evicts.URL(), Config{}); !errors.Is(err, ErrUnsuitable) || !strings.Contains(err.Error(), "allkeys-lru") {
		t.Errorf("a server that evicts: %v, want ErrUnsuitable", err)
	}
	for name, info := range map[string]map[string]string{
		"version 6.2.14": {"redis_version": "6.2.14"},
		"no version":     {},
		"a cluster":      {"redis_version": "7.0.15", "redis_mode": "cluster"},
		"a replica":      {"redis_version": "7.0.15", "role": "slave"},
	} {
		if err := suitable(info); !errors.Is(err, ErrUnsuitable) {
			t.Errorf("%s: %v, want ErrUnsuitable", name, err)
		}
	}
	var log bytes.Buffer
	volatile := server.Start(t, server.Redis, server.Options{Settings: map[string]string{"appendonly": "no"}})
	openAt(t, volatile.URL(), Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if !strings.Contains(log.String(), "append-only") {
		t.Errorf("no warning about a server without an append-only file: %s", log.String())
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"a prefix with a brace": {Prefix: "a}b"},
		"partitions":            {Partitions: partitionsMax + 1},
		"a long wait":           {Wait: time.Minute},
		"a short lease":         {Lease: time.Millisecond},
		"a negative retention":  {Retention: -time.Hour},
		"negative bytes":        {BytesMax: -1},
	} {
		if _, err := Open(t.Context(), "redis://127.0.0.1:1", cfg); err == nil || errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

func TestTopicKeepsItsPartitions(t *testing.T) {
	url, cfg := server.Shared(t, server.Redis), config(t)
	publishOne(t, openAt(t, url, cfg), "key")
	cfg.Partitions = 7
	other := openAt(t, url, cfg)
	publishOne(t, other, "key")
	if n, _, err := other.topic(t.Context(), topic); err != nil || n != 3 {
		t.Fatalf("%d partitions (%v), want the 3 that the topic was created with", n, err)
	}
	other.db.HSet(t.Context(), other.cfg.topicsKey(), "broken", "many")
	m := oneMessage("key")
	m.Event.Topic = "broken"
	if err := other.Publish(t.Context(), []broker.Message{m})[0]; err == nil || !strings.Contains(err.Error(), "many") {
		t.Fatalf("publish to a topic with many partitions: %v", err)
	}
}

func TestRefusalsAreTheMessages(t *testing.T) {
	cfg := config(t)
	cfg.BytesMax = 2000
	b := openAt(t, server.Shared(t, server.Redis), cfg)
	big, small, badTopic := oneMessage("big"), oneMessage("small"), oneMessage("key")
	big.Event.Data = bytes.Repeat([]byte("1"), 1900) // With its attributes it is too large.
	badTopic.Event.Topic = "no such topic"
	errs := b.Publish(t.Context(), []broker.Message{big, small, badTopic})
	var rejected *broker.RejectedError
	if !errors.As(errs[0], &rejected) || errs[1] != nil || !errors.As(errs[2], &rejected) {
		t.Fatalf("results %v", errs)
	}
	if !strings.Contains(errs[0].Error(), "2000") || !strings.Contains(errs[0].Error(), "1900") {
		t.Errorf("the refusal lacks its numbers: %v", errs[0])
	}
}

func TestDeletedFromTheMiddle(t *testing.T) {
	var log bytes.Buffer
	cfg := config(t)
	cfg.Partitions, cfg.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
	b := openAt(t, server.Shared(t, server.Redis), cfg)
	for range 6 {
		publishOne(t, b, "key")
	}
	b.db.XDel(t.Context(), b.cfg.logKey(logName(topic, 0)), entryID(3), entryID(4))
	_, parts := join(t, b, "g", 1)
	got := fetchAll(t, 4, parts[0])
	if got[2].Position.Offset != 5 || !strings.Contains(log.String(), "missing") {
		t.Fatalf("third message is %s; log: %s", got[2].Position, log.String())
	}
}
