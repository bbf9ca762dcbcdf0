package settlenats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/brokertest"
	"github.com/settledev/settle/event"
)

// remote is a server with a port, as another process would have it.
type remote struct {
	options server.Options
	server  *server.Server
}

func startRemote(t *testing.T, edit func(o *server.Options)) *remote {
	t.Helper()
	r := &remote{options: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: filepath.Join(t.TempDir(), "remote"), MaxPayload: event.DataBytesMax + headerRoom,
	}}
	if edit != nil {
		edit(&r.options)
	}
	r.start(t)
	t.Cleanup(r.stop)
	return r
}

func (r *remote) start(t *testing.T) {
	t.Helper()
	options := r.options
	var err error
	if r.server, err = server.NewServer(&options); err != nil {
		t.Fatal(err)
	}
	r.server.Start()
	if !r.server.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	address, ok := r.server.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("the server listens on %v", r.server.Addr())
	}
	r.options.Port = address.Port
}

func (r *remote) stop() {
	r.server.Shutdown()
	r.server.WaitForShutdown()
}

func (r *remote) url(user string) string {
	if user != "" {
		user += "@"
	}
	return fmt.Sprintf("nats://%s127.0.0.1:%d", user, r.options.Port)
}

func openRemote(t *testing.T, r *remote, cfg Config) *Broker {
	t.Helper()
	cfg.Logger = quiet()
	b, err := Open(t.Context(), r.url(""), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestRemote(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		r := startRemote(t, nil)
		cfg := Config{Partitions: 2, Wait: 50 * time.Millisecond}
		b := openRemote(t, r, cfg)
		return brokertest.Harness{
			Broker: b, Partitions: 2, DataBytesMax: event.DataBytesMax + headerRoom,
			Reopen: func(t *testing.T) broker.Broker {
				_ = b.Close()
				b = openRemote(t, r, cfg)
				return b
			},
			LoseTail: func(t *testing.T, _ int, publish func(broker.Broker)) broker.Broker {
				older := filepath.Join(t.TempDir(), "older")
				restart := func(while func()) {
					r.stop()
					while()
					r.start(t)
					_ = b.Close()
					b = openRemote(t, r, cfg)
				}
				restart(func() { copyDir(t, r.options.StoreDir, older) })
				publish(b)
				restart(func() { replaceDir(t, r.options.StoreDir, older) })
				return b
			},
			Expire: func(t *testing.T, n int) { expire(t, b, n) },
			Garble: func(t *testing.T, key string) { garble(t, b, key) },
			Revoke: func(_ *testing.T, group string) { b.table.Revoke(group) },
		}
	})
}

func TestOpenErrorsArePrecise(t *testing.T) {
	withUser := startRemote(t, func(o *server.Options) { o.Username, o.Password = "shop", "secret" })
	plain := startRemote(t, func(o *server.Options) { o.JetStream = false })
	for name, test := range map[string]struct {
		url  string
		is   error
		says string
	}{
		"wrong password":  {withUser.url("shop:hush-hush"), ErrCredentials, "127.0.0.1"},
		"no credentials":  {withUser.url(""), ErrCredentials, ""},
		"no JetStream":    {plain.url(""), ErrNoJetStream, ""},
		"nobody there":    {"nats://user:hush-hush@127.0.0.1:1", broker.ErrUnavailable, "127.0.0.1:1"},
		"a wrong scheme":  {"http://127.0.0.1:4222", nil, "http"},
		"no scheme":       {"127.0.0.1:4222", nil, "nats://"},
		"no host":         {"nats://:4222", nil, "host"},
		"nothing":         {"", nil, "scheme"},
		"a bad second":    {withUser.url("") + ",nats://u:hush-hush@%zz", nil, "URL"},
		"a bad port":      {"nats://u:hush-hush@host:port", nil, "URL"},
		"kafka, mistaken": {"kafka://u:hush-hush@host:9092", nil, "kafka"},
	} {
		b, err := Open(t.Context(), test.url, Config{Logger: quiet()})
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
}

// publishPatiently repeats one message until it is acknowledged, as a relay does, and returns how often
// it was unavailable.
func publishPatiently(t *testing.T, b *Broker, m broker.Message) (refused int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		err := b.Publish(ctx, []broker.Message{m})[0]
		if err == nil {
			return refused
		}
		if !errors.Is(err, broker.ErrUnavailable) {
			t.Fatal(err)
		}
		refused++
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerRestartIsSurvived(t *testing.T) {
	r := startRemote(t, nil)
	b := openRemote(t, r, Config{Wait: 20 * time.Millisecond, AckWait: time.Second})
	p := take(t, b)
	expect(t, p, publishOne(t, b, "key"))
	for range 3 {
		r.stop()
		m := oneMessage("key")
		if err := b.Publish(t.Context(), []broker.Message{m})[0]; !errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("publish without a server: %v, want ErrUnavailable", err)
		}
		if _, err := b.Tail(t.Context()); !errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("tail without a server: %v, want ErrUnavailable", err)
		}
		r.start(t)
		publishPatiently(t, b, m)
		expect(t, p, m, publishOne(t, b, "key"))
	}
}

// TestTailLostUnderOurFeet has the server come back with an older directory while both sides run.
func TestTailLostUnderOurFeet(t *testing.T) {
	r := startRemote(t, nil)
	b := openRemote(t, r, Config{Wait: 20 * time.Millisecond, AckWait: time.Second, CheckEvery: 100 * time.Millisecond})
	p := take(t, b)
	first := publishOne(t, b, "key")
	expect(t, p, first)
	older := filepath.Join(t.TempDir(), "older")
	r.stop()
	copyDir(t, r.options.StoreDir, older)
	r.start(t)
	for range 5 {
		m := oneMessage("key")
		publishPatiently(t, b, m)
		expect(t, p, m)
	}
	before := tailOf(t, b)
	r.stop()
	replaceDir(t, r.options.StoreDir, older)
	r.start(t)

	m := oneMessage("key")
	if refused := publishPatiently(t, b, m); refused == 0 {
		t.Fatal("an acknowledgement that went back was taken for good")
	}
	now := tailOf(t, b)
	if now.Incarnation == before.Incarnation || now.Life == before.Life {
		t.Fatalf("tail %+v after the loss, before it was %+v", now, before)
	}
	offsets, ok, err := b.LostAt(t.Context(), before.Incarnation)
	if err != nil || !ok || offsets["settle_order-events"] > 2 {
		t.Fatalf("lost at %v %v %v, want 1, or 2 with the message that showed it", offsets, ok, err)
	}
	seen := map[event.ID]bool{}
	for !seen[m.Event.ID] || !seen[first.Event.ID] {
		for _, got := range fetchSome(t, p) {
			seen[got.Event.ID] = true
		}
	}
}

func TestServerLimitsRejectTheMessage(t *testing.T) {
	r := startRemote(t, func(o *server.Options) { o.MaxPayload = 2000 })
	b := openRemote(t, r, Config{})
	big := oneMessage("big")
	big.Event.Data = bytes.Repeat([]byte("1"), 1900) // with its headers it is too large
	small := oneMessage("small")
	badTopic := oneMessage("key")
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

func TestForbiddenTopicIsRejected(t *testing.T) {
	r := startRemote(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "all", Password: "all"},
			{Username: "some", Password: "some", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{"settle.Secret-events.>"}},
			}},
		}
	})
	b, err := Open(t.Context(), r.url("some:some"), Config{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	secret, open := oneMessage("key"), oneMessage("key")
	secret.Event.Topic = "Secret-events"
	errs := b.Publish(t.Context(), []broker.Message{secret, open})
	var rejected *broker.RejectedError
	if !errors.As(errs[0], &rejected) || errs[1] != nil {
		t.Fatalf("results %v, want the first rejected only", errs)
	}
}

// TestForeignGiantDoesNotBlock puts a message on the stream that is larger than one pull may bring.
func TestForeignGiantDoesNotBlock(t *testing.T) {
	r := startRemote(t, func(o *server.Options) { o.MaxPayload = 16 << 20 })
	b := openRemote(t, r, Config{Wait: 50 * time.Millisecond})
	before := publishOne(t, b, "key")
	err := b.nc.PublishMsg(&nats.Msg{Subject: "settle.order-events.0", Data: bytes.Repeat([]byte("x"), pullBytesMax+1)})
	if err != nil {
		t.Fatal(err)
	}
	after := publishOne(t, b, "key")
	p := take(t, b)
	var got []broker.Message
	for len(got) < 3 {
		got = append(got, fetchSome(t, p)...)
	}
	giant := got[1]
	if !errors.Is(giant.Err, event.ErrMalformed) || len(giant.Event.Data) != pullBytesMax+1 {
		t.Fatalf("got %s of %d bytes, %v", giant.Event.ID, len(giant.Event.Data), giant.Err)
	}
	if len(got) != 3 || got[0].Event.ID != before.Event.ID || got[2].Event.ID != after.Event.ID {
		t.Fatalf("%d messages, or not the giant's neighbours", len(got))
	}
}

func TestTopicKeepsItsPartitions(t *testing.T) {
	r := startRemote(t, nil)
	publishOne(t, openRemote(t, r, Config{Partitions: 3}), "key")
	other := openRemote(t, r, Config{Partitions: 7})
	publishOne(t, other, "key")
	known, err := other.topic(t.Context(), "order-events")
	if err != nil || known.partitions != 3 {
		t.Fatalf("%d partitions (%v), want the 3 that the topic was created with", known.partitions, err)
	}
}
