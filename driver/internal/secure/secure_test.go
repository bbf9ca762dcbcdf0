package secure_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/settledev/settle/driver/internal/secure"
	"github.com/settledev/settle/driver/internal/secure/securetest"
)

// listen takes connections by TLS, or in the clear when config is nil, says hello on each, and returns its address.
func listen(t *testing.T, config *tls.Config) string {
	t.Helper()
	return securetest.Listen(t, func(conn net.Conn) {
		if config != nil {
			conn = tls.Server(conn, config)
		}
		_, _ = conn.Write([]byte("hello, whoever you are"))
		_ = conn.Close() // By TLS it says so.
	})
}

// dial connects and reads a byte: in TLS 1.3 a client learns only so that its certificate was refused.
func dial(t *testing.T, address, name string, config *tls.Config) error {
	t.Helper()
	config.ServerName = name
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	return err
}

// configOf reads files.
func configOf(t *testing.T, f secure.Files) *tls.Config {
	t.Helper()
	config, err := f.Config(nil)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestRefusal has real handshakes fail in each way, and one connection that nobody takes.
func TestRefusal(t *testing.T) {
	good, goodKey := securetest.Pair(t, time.Hour)
	old, oldKey := securetest.Pair(t, -time.Hour)
	other, otherKey := securetest.Pair(t, time.Hour)
	serverOf := func(cert, key string, version uint16, auth tls.ClientAuthType) *tls.Config {
		config := configOf(t, secure.Files{CA: good, Cert: cert, Key: key})
		config.ClientCAs, config.MaxVersion, config.ClientAuth = config.RootCAs, version, auth
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return config.GetClientCertificate(nil) }
		return config
	}
	const demands = tls.RequireAndVerifyClientCert
	for name, test := range map[string]struct {
		server  *tls.Config
		files   secure.Files
		name    string
		refused bool
	}{
		"right":                   {serverOf(good, goodKey, 0, 0), secure.Files{CA: good}, "127.0.0.1", false},
		"ours is right":           {serverOf(good, goodKey, 0, demands), secure.Files{CA: good, Cert: good, Key: goodKey}, "127.0.0.1", false},
		"an unknown authority":    {serverOf(good, goodKey, 0, 0), secure.Files{CA: other}, "127.0.0.1", true},
		"another host":            {serverOf(good, goodKey, 0, 0), secure.Files{CA: good}, "127.0.0.2", true},
		"expired":                 {serverOf(old, oldKey, 0, 0), secure.Files{CA: old}, "127.0.0.1", true},
		"no TLS there":            {nil, secure.Files{CA: good}, "127.0.0.1", true},
		"ours is demanded":        {serverOf(good, goodKey, 0, demands), secure.Files{CA: good}, "127.0.0.1", true},
		"ours is demanded in 1.2": {serverOf(good, goodKey, tls.VersionTLS12, demands), secure.Files{CA: good}, "127.0.0.1", true},
		"ours is a stranger's":    {serverOf(good, goodKey, 0, demands), secure.Files{CA: good, Cert: other, Key: otherKey}, "127.0.0.1", true},
		"an old protocol":         {serverOf(good, goodKey, tls.VersionTLS11, 0), secure.Files{CA: good}, "127.0.0.1", true},
	} {
		err := dial(t, listen(t, test.server), test.name, configOf(t, test.files))
		got := secure.Refusal(fmt.Errorf("driver: %w", err))
		if (got != nil) != test.refused || test.refused && !errors.Is(got, secure.ErrTLS) || !test.refused && err != nil {
			t.Errorf("%s: %v of %v", name, got, err)
		}
	}
	err := dial(t, "127.0.0.1:1", "", &tls.Config{MinVersion: tls.VersionTLS12})
	if err == nil || secure.Refusal(err) != nil {
		t.Errorf("nobody there: %v is %v", err, secure.Refusal(err))
	}
	if secure.Refusal(nil) != nil {
		t.Error("no error was a refusal")
	}
}

func TestTake(t *testing.T) {
	values := url.Values{"ca": {"a"}, "cert": {"c"}, "key": {"k"}, "sasl": {"plain"}}
	f, err := secure.Take(values)
	if err != nil || f != (secure.Files{CA: "a", Cert: "c", Key: "k"}) || len(values) != 1 {
		t.Errorf("took %+v of %v: %v", f, values, err)
	}
	for name, bad := range map[string]url.Values{
		"half a certificate": {"cert": {"c"}},
		"a key alone":        {"key": {"k"}},
		"a file twice":       {"ca": {"a", "b"}},
		"no file":            {"ca": {""}},
	} {
		if f, err := secure.Take(bad); err == nil {
			t.Errorf("%s: took %+v", name, f)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	cert, key := securetest.Pair(t, time.Hour)
	_, otherKey := securetest.Pair(t, time.Hour)
	for name, f := range map[string]secure.Files{
		"no such authority":  {CA: "/nowhere"},
		"no certificates":    {CA: key},
		"no such key":        {Cert: cert, Key: "/nowhere"},
		"a key that differs": {Cert: cert, Key: otherKey},
	} {
		if _, err := f.Config(nil); !errors.Is(err, secure.ErrTLS) {
			t.Errorf("%s: %v, want ErrTLS", name, err)
		}
	}
}
