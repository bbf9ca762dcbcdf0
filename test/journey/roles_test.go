package journey_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/test/internal/cluster"
)

// outboxTables are what a follower reads in the database of another service (docs/operate.md). MySQL has no
// settle_tick.
func outboxTables() []string {
	return []string{"settle_meta", "settle_schema", "settle_outbox", "settle_relay", "settle_tick"}
}

// TestRoles gives each service a role of its own, which has its own database and may only read the outboxes
// of the others. One server is the whole installation: there is no broker.
func TestRoles(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Run("postgres", func(t *testing.T) {
		r := newRoles(t, server.Shared(t, server.Postgres))
		for _, service := range cluster.Services() {
			r.postgres("postgres", "CREATE ROLE "+r.of(service)+" LOGIN", "CREATE DATABASE "+r.of(service)+" OWNER "+r.of(service))
		}
		r.run(func(reader, owner string) {
			r.postgres(r.of(owner), fmt.Sprintf("GRANT SELECT ON %s TO %s", strings.Join(outboxTables(), ", "), r.of(reader)))
		})
	})
	t.Run("mysql", func(t *testing.T) {
		r := newRoles(t, server.Shared(t, server.MariaDB))
		for _, service := range cluster.Services() {
			role := r.of(service)
			r.mysql(
				"CREATE USER "+role, "CREATE DATABASE "+role+" CHARACTER SET utf8mb4",
				fmt.Sprintf("GRANT ALL ON `%s`.* TO %s", strings.ReplaceAll(role, "_", `\_`), role),
			)
		}
		r.run(func(reader, owner string) {
			for _, table := range outboxTables()[:4] {
				r.mysql(fmt.Sprintf("GRANT SELECT ON %s.%s TO %s", r.of(owner), table, r.of(reader)))
			}
		})
	})
}

// roles are those of a shop on one server, each named after its database.
type roles struct {
	t     *testing.T
	store *url.URL
}

func newRoles(t *testing.T, server string) roles {
	t.Helper()
	u, err := url.Parse(cluster.Databases(t, server))
	if err != nil {
		t.Fatal(err)
	}
	return roles{t, u}
}

func (r roles) of(service string) string {
	return strings.TrimPrefix(r.store.Path, "/") + "_" + service
}

// run has each role make its tables, lets the others read its outbox, and runs the shop so.
func (r roles) run(grant func(reader, owner string)) {
	r.t.Helper()
	for _, service := range cluster.Services() {
		own := *r.store
		own.User = url.User(r.of(service))
		if out := binary.Run(r.t, "migrate", "up", "--store", own.String(), "--services", service); out.Code != 0 {
			r.t.Fatalf("exit code %d\n%s", out.Code, out.Stderr)
		}
		for _, other := range cluster.Services() {
			if other != service {
				grant(other, service)
			}
		}
	}
	c := cluster.New(r.t, newDir(r.t), cluster.Config{Data: retailOfCluster(r.t), Store: r.store.String(), Broker: "store", Roles: true})
	replayOn(r.t, c, func(string) {})
}

// postgres runs statements in a database as the server's administrator.
func (r roles) postgres(database string, statements ...string) {
	r.t.Helper()
	u := *r.store
	u.Path = "/" + database
	conn, err := pgx.Connect(r.t.Context(), u.String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(r.t.Context())
	for _, s := range statements {
		if _, err := conn.Exec(r.t.Context(), s); err != nil {
			r.t.Fatal(err)
		}
	}
}

// mysql runs statements as the server's administrator.
func (r roles) mysql(statements ...string) {
	r.t.Helper()
	u := *r.store
	u.Path = "/mysql"
	db, err := settlemysql.Raw(u.String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(r.t.Context(), s); err != nil {
			r.t.Fatalf("%s: %v", s, err)
		}
	}
}
