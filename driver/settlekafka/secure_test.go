package settlekafka

import (
	"context"
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

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
		_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
		if name == "an unknown authority" && !unknown {
			t.Errorf("%s: %v, want an x509.UnknownAuthorityError", name, err)
		}
	}
}
