package settlepgx_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/settledev/settle/driver/internal/secure/securetest"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/sqlstore"
)

// TestTLS runs the suite against a server that demands a certificate, with the names that its own driver gives the
// files. It says of a missing one that the credentials are refused, and the driver keeps back one of an authority that
// the server does not know.
func TestTLS(t *testing.T) {
	srv := server.Start(t, server.Postgres, server.Options{TLS: true, ClientCerts: true})
	cert, key := srv.ClientFiles()
	securetest.Run(t, securetest.Harness{
		URL: withDatabase(t, srv.URL(), "shop"), CA: srv.CAFile(), Cert: cert, Key: key,
		Names: [3]string{"sslrootcert", "sslcert", "sslkey"}, Unavailable: sqlstore.ErrUnavailable,
		Missing: settlepgx.ErrCredentials, Strange: settlepgx.ErrCredentials,
		Greet: func(conn net.Conn) error {
			if _, err := io.ReadFull(conn, make([]byte, 8)); err != nil { // SSLRequest
				return err
			}
			_, err := conn.Write([]byte{'S'})
			return err
		},
		Open: func(ctx context.Context, where string) (io.Closer, error) {
			if err := settlepgx.EnsureDatabase(ctx, where); err != nil {
				return nil, err
			}
			return settlepgx.Open(ctx, where, settlepgx.Config{Migrate: true})
		},
	})
}
