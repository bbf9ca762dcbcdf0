package dialects_test

import (
	"context"
	"io/fs"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/internal/statement"
	"github.com/settledev/settle/sqlstore"
)

// openStore opens a service's store on a new database of a dialect.
func openStore(t *testing.T, dialect, service string, files fs.FS) *sqlstore.Store {
	t.Helper()
	cfg := sqlstore.Config{}
	if files != nil {
		cfg.Schemas = []sqlstore.Schema{{Name: service, Files: files}}
	}
	var store *sqlstore.Store
	var err error
	switch dialect {
	case statement.SQLite:
		store, err = settlesqlite.Open(t.Context(), filepath.Join(t.TempDir(), service+".db"), settlesqlite.Config{Migrate: true, Store: cfg})
	case statement.MySQL:
		target := newDatabase(t, server.MariaDB, service, settlemysql.EnsureDatabase, settlemysql.DropDatabase)
		store, err = settlemysql.Open(t.Context(), target, settlemysql.Config{Migrate: true, Store: cfg})
	case statement.Postgres:
		target := newDatabase(t, server.Postgres, service, settlepgx.EnsureDatabase, settlepgx.DropDatabase)
		store, err = settlepgx.Open(t.Context(), target, settlepgx.Config{Migrate: true, Store: cfg})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close %s: %v", service, err)
		}
	})
	return store
}

// newDatabase makes a database and returns its URL; it is dropped after whatever the test opens on it.
func newDatabase(t *testing.T, k server.Kind, service string, ensure, drop func(context.Context, string) error) string {
	t.Helper()
	u, err := url.Parse(server.Shared(t, k))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + newName(service)
	if err := ensure(t.Context(), u.String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(context.WithoutCancel(t.Context()), u.String()); err != nil {
			t.Errorf("drop: %v", err)
		}
	})
	return u.String()
}
