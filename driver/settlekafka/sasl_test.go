package settlekafka

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/internal/server"
)

// TestSASLOverTLS logs in by each mechanism, and is refused at once where user or password is wrong. Nothing that is
// said has the password in it.
func TestSASLOverTLS(t *testing.T) {
	srv := server.Start(t, server.Kafka, server.Options{TLS: true, Users: map[string]string{"shop": "s3cret-enough"}})
	_, host, _ := strings.Cut(srv.URL(), "@")
	as := func(user, password, mechanism string) string {
		query := url.Values{"ca": {srv.CAFile()}}
		if mechanism != "" {
			query.Set("sasl", mechanism)
		}
		return "kafka+tls://" + url.UserPassword(user, password).String() + "@" + host + "?" + query.Encode()
	}
	for _, mechanism := range []string{"", "plain", "scram-sha-256", "SCRAM-SHA-512"} {
		prefix := "sasl-" + strings.ToLower(mechanism) + "-"
		b := open(t, as("shop", "s3cret-enough", mechanism), Config{Prefix: prefix, Partitions: 1})
		m := subscribe(t, b, "billing", orders)
		publishPatiently(t, b, oneMessage("key", "{}"))
		fetchSome(t, next(t, m))
		for name, bad := range map[string]string{
			"a wrong password": as("shop", "hush-hush", mechanism), "nobody": as("nobody", "hush-hush", mechanism),
		} {
			var log bytes.Buffer
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			refused, err := Open(ctx, bad, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			cancel()
			if err == nil {
				_ = refused.Close()
				t.Errorf("%s by %q was taken", name, mechanism)
				continue
			}
			t.Logf("%s by %q after %s: %v", name, mechanism, time.Since(began).Round(time.Millisecond), err)
			if !errors.Is(err, ErrCredentials) || errors.Is(err, broker.ErrUnavailable) || time.Since(began) > 15*time.Second {
				t.Errorf("%s by %q after %s: %v, want ErrCredentials at once", name, mechanism, time.Since(began), err)
			}
			if said := err.Error() + log.String(); strings.Contains(said, "hush-hush") {
				t.Errorf("%s by %q: the password is told: %s", name, mechanism, said)
			}
		}
	}
}
