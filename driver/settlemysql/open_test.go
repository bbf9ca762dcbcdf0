package settlemysql

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/settledev/settle/sqlstore"
)

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
	const packet = "\x0a5.7.0\x00" + "\x01\x00\x00\x00" + "challeng\x00" + // Version, connection, half of the challenge.
		"\x00\x02" + "\x2d\x00\x00" + "\x00\x00" + "\x15" + "0123456789" + "e-of-twelve\x00" + "\x00" // Protocol 4.1, the other half.
	c := mysql.NewConfig()
	c.User = "shop"
	c.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		return brokenPipe{near, bytes.NewReader(append([]byte{byte(len(packet)), 0, 0, 0}, packet...))}, nil
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
