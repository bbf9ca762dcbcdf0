package settlemysql_test

import (
	"context"
	"errors"
	"io"
	"net/url"
	"testing"

	"github.com/settledev/settle/driver/internal/secure/securetest"
	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/sqlstore"
)

// TestTLS runs the suite against a server whose account demands a certificate. It says of a missing one that the
// credentials are refused.
func TestTLS(t *testing.T) {
	srv := server.Start(t, server.MariaDB, server.Options{TLS: true})
	cert, key := srv.ClientFiles()
	base, err := url.Parse(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	base.Path, base.RawQuery = "/shop", url.Values{"ca": {srv.CAFile()}}.Encode()
	if err := settlemysql.EnsureDatabase(t.Context(), base.String()); err != nil {
		t.Fatal(err)
	}
	db, err := settlemysql.Raw(base.String())
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
		Unavailable: sqlstore.ErrUnavailable, Missing: settlemysql.ErrCredentials,
		Open: func(ctx context.Context, where string) (io.Closer, error) {
			return settlemysql.Open(ctx, where, settlemysql.Config{Migrate: true})
		},
	})
	for name, query := range map[string]string{"skipped": "tls=skip-verify&ca=" + url.QueryEscape(srv.CAFile()), "half": "cert=a"} {
		base.RawQuery = query
		if _, err := settlemysql.Open(t.Context(), base.String(), settlemysql.Config{}); err == nil || errors.Is(err, sqlstore.ErrUnavailable) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}
