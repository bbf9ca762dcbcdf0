package settlenats

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/internal/secure/securetest"
	"github.com/settledev/settle/internal/server"
)

// TestTLSByURL connects to a server that wants TLS and a password, with all of it in the URL.
func TestTLSByURL(t *testing.T) {
	srv := server.Start(t, server.NATSCluster, server.Options{TLS: true, Users: map[string]string{"shop": "secret"}})
	where := srv.URL() + "?ca=" + url.QueryEscape(srv.CAFile())
	b := openURL(t, where, Config{})
	publishPatiently(t, b, oneMessage("key"))
	if b.cfg.Replicas != clusterReplicas {
		t.Errorf("%d replicas in a cluster, want %d", b.cfg.Replicas, clusterReplicas)
	}
	for name, bad := range map[string]string{
		"a wrong password":       strings.Replace(where, "secret", "hush-hush", 1),
		"an unknown certificate": srv.URL(),
		"no such file":           srv.URL() + "?ca=/nowhere",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		b, err := Open(ctx, bad, Config{Logger: quiet()})
		cancel()
		switch {
		case err == nil:
			_ = b.Close()
			t.Errorf("%s was taken", name)
		case name == "a wrong password" && !errors.Is(err, ErrCredentials):
			t.Errorf("%s: %v, want ErrCredentials", name, err)
		case strings.Contains(err.Error(), "hush-hush") || strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
}

// user is a key pair, with its seed in a file.
func user(t *testing.T, make func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair, public string, file string) {
	t.Helper()
	pair, err := make()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	return pair, public, file
}

func TestNKey(t *testing.T) {
	_, public, file := user(t, nkeys.CreateUser)
	_, _, stranger := user(t, nkeys.CreateUser)
	r := startRemote(t, func(o *natsserver.Options) { o.Nkeys = []*natsserver.NkeyUser{{Nkey: public}} })
	publishOne(t, openURL(t, r.url("")+"?nkey="+file, Config{}), "key")
	refused(t, r.url(""), Config{NKeyFile: stranger})
	refused(t, r.url("")+"?nkey="+filepath.Join(t.TempDir(), "none"), Config{})
}

// refused wants an Open that fails because of who asks.
func refused(t *testing.T, where string, cfg Config) {
	t.Helper()
	cfg.Logger = quiet()
	b, err := Open(t.Context(), where, cfg)
	if err == nil {
		_ = b.Close()
	}
	if !errors.Is(err, ErrCredentials) {
		t.Errorf("open: %v, want ErrCredentials", err)
	}
}

// TestCredsFile has a server that knows an operator, and a user whose account the operator signed.
func TestCredsFile(t *testing.T) {
	operator, operatorKey, _ := user(t, nkeys.CreateOperator)
	account, accountKey, _ := user(t, nkeys.CreateAccount)
	_, systemKey, _ := user(t, nkeys.CreateAccount)
	person, personKey, _ := user(t, nkeys.CreateUser)
	sign := func(claims jwt.Claims, by nkeys.KeyPair) string {
		token, err := claims.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	of := jwt.NewAccountClaims(accountKey)
	of.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	accounts := &natsserver.MemAccResolver{}
	if err := accounts.Store(accountKey, sign(of, operator)); err != nil {
		t.Fatal(err)
	}
	if err := accounts.Store(systemKey, sign(jwt.NewAccountClaims(systemKey), operator)); err != nil {
		t.Fatal(err)
	}
	r := startRemote(t, func(o *natsserver.Options) {
		o.SystemAccount = systemKey
		o.TrustedOperators, o.AccountResolver = []*jwt.OperatorClaims{jwt.NewOperatorClaims(operatorKey)}, accounts
	})
	seed, err := person.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(sign(jwt.NewUserClaims(personKey), account), seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "shop.creds")
	if err := os.WriteFile(file, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	publishOne(t, openURL(t, r.url("")+"?creds="+file, Config{}), "key")
	refused(t, r.url(""), Config{})
}

func TestURLIsChecked(t *testing.T) {
	for name, bad := range map[string]struct {
		url string
		cfg Config
	}{
		"an unknown name":      {"nats://127.0.0.1:1?pass=hush-hush", Config{}},
		"a file twice":         {"nats://127.0.0.1:1?ca=a&ca=b", Config{}},
		"a bad query":          {"nats://127.0.0.1:1?ca=%hush-hush", Config{}},
		"half a certificate":   {"nats://127.0.0.1:1?cert=a", Config{}},
		"two ways to be known": {"nats://127.0.0.1:1?creds=a", Config{NKeyFile: "b"}},
	} {
		bad.cfg.Logger = quiet()
		_, err := Open(t.Context(), bad.url, bad.cfg)
		if err == nil || errors.Is(err, broker.ErrUnavailable) || strings.Contains(err.Error(), "hush-hush") {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

// asleep is a context whose deadline has passed while nobody was there to notice.
type asleep struct{ context.Context } //nolint:containedctx // It is one.

func (asleep) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// TestLateCallSendsNothing has a relay wake up in the middle of a call, when its lease has another owner.
func TestLateCallSendsNothing(t *testing.T) {
	r := startRemote(t, nil)
	b := openRemote(t, r, Config{Wait: 20 * time.Millisecond, AckWait: time.Second})
	p := take(t, b)
	expect(t, p, publishOne(t, b, "key"))
	if err := b.Publish(asleep{t.Context()}, []broker.Message{oneMessage("key")})[0]; !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("publish after the deadline: %v, want ErrUnavailable", err)
	}
	late := b.lateness(t.Context())
	if err := late(); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.start(t)
	publishPatiently(t, b, oneMessage("other"))
	if err := late(); !errors.Is(err, errReplaced) {
		t.Errorf("a call of the connection before: %v, want errReplaced", err)
	}
	got := fetchSome(t, p)
	for len(got) == 0 {
		got = fetchSome(t, p)
	}
	if len(got) != 1 || got[0].Event.AggregateID != "other" {
		t.Errorf("%d messages, the first of %s, want one of other", len(got), got[0].Event.AggregateID)
	}
}

// TestTLS runs the suite against a server that demands a certificate.
func TestTLS(t *testing.T) {
	srv := server.Start(t, server.NATS, server.Options{TLS: true, ClientCerts: true})
	cert, key := srv.ClientFiles()
	securetest.Run(t, securetest.Harness{
		URL: srv.URL(), CA: srv.CAFile(), Cert: cert, Key: key, Unavailable: broker.ErrUnavailable,
		Greet: func(conn net.Conn) error {
			_, err := conn.Write([]byte(`INFO {"server_id":"X","version":"2.10.0","proto":1,"tls_required":true,"max_payload":1024}` + "\r\n"))
			return err
		},
		Open: func(ctx context.Context, where string) (io.Closer, error) {
			return Open(ctx, where, Config{Logger: quiet()})
		},
	})
}
