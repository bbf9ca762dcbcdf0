package settlerabbit

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
	srv := server.Start(t, server.Rabbit, server.Options{TLS: true})
	where := srv.URL() + "?cacertfile=" + url.QueryEscape(srv.CAFile())
	cfg := config(t)
	cfg.Groups = []broker.Subscription{subscription("billing")}
	to := openAt(t, where, cfg)
	messages := benchMessages(1)
	for _, err := range to.Publish(t.Context(), messages) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, bad := range map[string]string{
		"an unknown authority": srv.URL(),
		"a wrong password":     strings.Replace(where, "guest:guest@", "guest:hush-hush@", 1),
		"no such file":         srv.URL() + "?cacertfile=/nowhere",
		"no TLS":               strings.Replace(srv.URL(), "amqps:", "amqp:", 1),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		b, err := Open(ctx, bad, config(t))
		cancel()
		if err == nil {
			_ = b.Close()
			t.Errorf("%s was taken", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		switch {
		case (name == "an unknown authority" || name == "no such file") && (!errors.Is(err, ErrTLS) || errors.Is(err, broker.ErrUnavailable)):
			t.Errorf("%s: %v, want ErrTLS", name, err)
		case name == "a wrong password" && !errors.Is(err, ErrCredentials):
			t.Errorf("%s: %v, want ErrCredentials", name, err)
		case strings.Contains(err.Error(), "hush-hush") || strings.Contains(err.Error(), "guest:guest"):
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
}

// TestTLS runs the suite against a server that demands a certificate.
func TestTLS(t *testing.T) {
	srv := server.Start(t, server.Rabbit, server.Options{TLS: true, ClientCerts: true})
	cert, key := srv.ClientFiles()
	securetest.Run(t, securetest.Harness{
		URL: srv.URL(), CA: srv.CAFile(), Cert: cert, Key: key, Unavailable: broker.ErrUnavailable,
		Open: func(ctx context.Context, where string) (io.Closer, error) {
			return Open(ctx, where, Config{Prefix: config(t).Prefix})
		},
	})
}
