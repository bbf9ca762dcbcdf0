package settlekafka

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/internal/secure/securetest"
	"github.com/settledev/settle/internal/server"
)

// TestTLSByURL connects with the authority in the URL, and to nobody whom that does not vouch for.
func TestTLSByURL(t *testing.T) {
	srv := server.Start(t, server.Kafka, server.Options{TLS: true})
	b := open(t, srv.URL()+"?ca="+url.QueryEscape(srv.CAFile()), Config{})
	if _, err := b.topic(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"an unknown authority": srv.URL(),
		"no such file":         srv.URL() + "?ca=/nowhere",
		"no TLS":               strings.Replace(srv.URL(), "kafka+tls:", "kafka:", 1),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		b, err := Open(ctx, bad, Config{Logger: quiet(), AckWait: time.Second})
		cancel()
		if err == nil {
			_ = b.Close()
			t.Errorf("%s was taken", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		if !errors.Is(err, ErrTLS) || errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrTLS", name, err)
		}
	}
}

// TestTLS runs the suite against a cluster that demands a certificate.
func TestTLS(t *testing.T) {
	srv := server.Start(t, server.Kafka, server.Options{TLS: true, ClientCerts: true})
	cert, key := srv.ClientFiles()
	securetest.Run(t, securetest.Harness{
		URL: srv.URL(), CA: srv.CAFile(), Cert: cert, Key: key, Unavailable: broker.ErrUnavailable,
		Open: func(ctx context.Context, where string) (io.Closer, error) {
			return Open(ctx, where, Config{Logger: quiet(), AckWait: time.Second})
		},
	})
}
