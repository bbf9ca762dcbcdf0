package settlemysql

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/settledev/settle/driver/internal/secure/securetest"
	servers "github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/sqlstore"
)

// TestTLS runs the suite against a server whose account demands a certificate. It says of a missing one that the
// credentials are refused.
func TestTLS(t *testing.T) {
	srv := servers.Start(t, servers.MariaDB, servers.Options{TLS: true})
	cert, key := srv.ClientFiles()
	base, err := url.Parse(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	base.Path, base.RawQuery = "/shop", url.Values{"ca": {srv.CAFile()}}.Encode()
	if err := EnsureDatabase(t.Context(), base.String()); err != nil {
		t.Fatal(err)
	}
	db, err := Raw(base.String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range []string{
		"CREATE USER shop@'127.0.0.1' REQUIRE X509", "GRANT ALL ON shop.* TO shop@'127.0.0.1'",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	base.User, base.RawQuery = url.User("shop"), ""
	securetest.Run(t, securetest.Harness{
		URL: base.String(), CA: srv.CAFile(), Cert: cert, Key: key,
		Unavailable: sqlstore.ErrUnavailable, Missing: ErrCredentials,
		Greet: func(conn net.Conn) error {
			if _, err := conn.Write(greeting(true)); err != nil {
				return err
			}
			_, err := io.ReadFull(conn, make([]byte, 4+32)) // SSLRequest
			return err
		},
		Open: func(ctx context.Context, where string) (io.Closer, error) {
			return Open(ctx, where, Config{Migrate: true})
		},
	})
	for name, query := range map[string]string{"skipped": "tls=skip-verify&ca=" + url.QueryEscape(srv.CAFile()), "half": "cert=a"} {
		base.RawQuery = query
		if _, err := Open(t.Context(), base.String(), Config{}); err == nil || errors.Is(err, sqlstore.ErrUnavailable) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

// greeting is a server's first packet: its version, a connection's number, the challenge in two halves and what it can do.
func greeting(secure bool) []byte {
	able := "\x00\x02" // Protocol 4.1
	if secure {
		able = "\x00\x0a" // and TLS.
	}
	packet := "\x0a5.7.0\x00" + "\x01\x00\x00\x00" + "challeng\x00" + able + "\x2d\x00\x00" + "\x00\x00" + "\x15" + "0123456789" + "e-of-twelve\x00\x00"
	return append([]byte{byte(len(packet)), 0, 0, 0}, packet...)
}

// brokenPipe greets as a server does, and is gone when it is written to.
type brokenPipe struct {
	net.Conn

	greeting io.Reader
}

func (b brokenPipe) Read(p []byte) (int, error) { return b.greeting.Read(p) }

func (brokenPipe) Write([]byte) (int, error) { return 0, &net.OpError{Op: "write", Err: syscall.EPIPE} }

// TestBreaksWhileGreeted wants a server that ends between its greeting and our answer to be one that is waited for:
// so a certificate's refusal looks when its end overtakes its reason.
func TestBreaksWhileGreeted(t *testing.T) {
	c := mysql.NewConfig()
	c.User = "shop"
	c.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		return brokenPipe{near, bytes.NewReader(greeting(false))}, nil
	}
	cfg, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	db, err := pool(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := openError(db.PingContext(t.Context())); !errors.Is(err, sqlstore.ErrUnavailable) {
		t.Errorf("%v, want %v", err, sqlstore.ErrUnavailable)
	}
}
