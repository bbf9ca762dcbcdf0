package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/cmd/settle/internal/doctor"
	"github.com/settledev/settle/internal/server"
)

// TestNewerTables looks with an old program at tables to which a newer one has been: it tells so, and refuses to migrate
// only what it would not open.
func TestNewerTables(t *testing.T) {
	for _, kind := range []server.Kind{server.Postgres, server.MariaDB} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			shop, _ := newDatabase(t, server.Shared(t, kind))
			with := []string{"--store", shop, "--services", "order"}
			run := func(args ...string) (int, string) { return settle(append(args, with...)...) }
			if code, out := run("migrate", "up", "--create"); code != 0 {
				t.Fatalf("up: %d, %s", code, out)
			}
			all, err := app.Databases(shop, "", []string{"order"})
			if err != nil {
				t.Fatal(err)
			}
			db, err := all[0].Raw()
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			migrations, err := doctor.Migrations(all[0])
			if err != nil {
				t.Fatal(err)
			}
			known := map[string]int{}
			for _, m := range migrations {
				known[m.Schema] = m.Version
			}
			for _, test := range []struct {
				schema     string
				up, doctor int
				level      string
			}{
				{"order", 0, 0, "WARN"},
				{"settle", 1, 1, "FAIL"},
			} {
				newer := known[test.schema] + 1
				execute(t, db, doctor.Migration{Schema: test.schema, Version: newer, Text: "of tomorrow"}.Applied(all[0]))
				code, out := run("migrate", "status")
				if code != 0 || !strings.Contains(out, fmt.Sprintf("(this program knows up to %d)", newer-1)) {
					t.Errorf("status of a newer %s: %d\n%s", test.schema, code, out)
				}
				if code, out := run("migrate", "status", "--json"); code != 0 || !strings.Contains(out, fmt.Sprintf(`"schema":%q,"version":%d,"file":"","state":"newer","known":%d`, test.schema, newer, newer-1)) {
					t.Errorf("status of a newer %s as JSON: %d\n%s", test.schema, code, out)
				}
				if code, out := run("migrate", "up"); code != test.up {
					t.Errorf("up of a newer %s: %d, want %d\n%s", test.schema, code, test.up, out)
				}
				says := fmt.Sprintf("%s order: schema %s is at version %d, newer than this program's %d", test.level, test.schema, newer, newer-1)
				if code, out := run("doctor"); code != test.doctor || !strings.Contains(out, says) {
					t.Errorf("doctor of a newer %s: %d, want %d and %q\n%s", test.schema, code, test.doctor, says, out)
				}
			}
		})
	}
}
