package journey_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/test/internal/cluster"
)

// outboxTables are what a follower reads in the database of another service (docs/operate.md).
const outboxTables = "settle_meta, settle_schema, settle_outbox, settle_tick, settle_relay"

// TestRoles gives each service a role of its own, which has its own database and may only read the outboxes
// of the others. One Postgres is the whole installation: there is no broker.
func TestRoles(t *testing.T) {
	binary.NeedsProcesses(t)
	store := cluster.Databases(t, server.Shared(t, server.Postgres))
	u, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	role := func(service string) string { return strings.TrimPrefix(u.Path, "/") + "_" + service }
	for _, service := range cluster.Services() {
		sql(t, u, "postgres", "CREATE ROLE "+role(service)+" LOGIN", "CREATE DATABASE "+role(service)+" OWNER "+role(service))
	}
	for _, service := range cluster.Services() {
		own := *u
		own.User = url.User(role(service))
		if out := binary.Run(t, "migrate", "up", "--store", own.String(), "--services", service); out.Code != 0 {
			t.Fatalf("exit code %d\n%s", out.Code, out.Stderr)
		}
		for _, other := range cluster.Services() {
			if other != service {
				sql(t, u, role(service), fmt.Sprintf("GRANT SELECT ON %s TO %s", outboxTables, role(other)))
			}
		}
	}
	c := cluster.New(t, newDir(t), cluster.Config{Data: retailOfCluster(t), Store: store, Broker: "store", Roles: true})
	replayOn(t, c, func(string) {})
}

// sql runs statements as the server's administrator.
func sql(t *testing.T, server *url.URL, database string, statements ...string) {
	t.Helper()
	u := *server
	u.Path = "/" + database
	conn, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}
