package settleredis

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/internal/secure/securetest"
	"github.com/settledev/settle/internal/server"
)

// TestTLS runs the suite against a server that demands a certificate.
func TestTLS(t *testing.T) {
	srv := server.Start(t, server.Redis, server.Options{TLS: true, ClientCerts: true})
	cert, key := srv.ClientFiles()
	securetest.Run(t, securetest.Harness{
		URL: srv.URL(), CA: srv.CAFile(), Cert: cert, Key: key, Unavailable: broker.ErrUnavailable,
		Open: func(ctx context.Context, where string) (io.Closer, error) {
			return Open(ctx, where, Config{Logger: quiet()})
		},
	})
}

func TestFilesAreForTLS(t *testing.T) {
	if _, err := Open(t.Context(), "redis://127.0.0.1:1?ca=/nowhere", Config{}); err == nil || errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("an authority without TLS: %v, want a refusal", err)
	}
}
