package settlerabbit

import (
	"context"
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
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
		_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
		switch {
		case name == "an unknown authority" && !unknown:
			t.Errorf("%s: %v, want an x509.UnknownAuthorityError", name, err)
		case name == "a wrong password" && !errors.Is(err, ErrCredentials):
			t.Errorf("%s: %v, want ErrCredentials", name, err)
		case strings.Contains(err.Error(), "hush-hush") || strings.Contains(err.Error(), "guest:guest"):
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
}
