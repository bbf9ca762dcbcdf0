package settlemysql_test

import (
	"database/sql"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

// openRaw opens a store's database as a service does that has its own way to it. With interpolated, statements
// are sent with their arguments in the text.
func openRaw(t *testing.T, target string, interpolated bool) *sql.DB {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	cfg.User = u.User.Username()
	cfg.ClientFoundRows = u.Query().Get("clientFoundRows") == "true"
	cfg.InterpolateParams = interpolated
	db, err := sql.Open("mysql", cfg.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// TestWriter adds events in a transaction of database/sql, of which what is rolled back leaves nothing.
func TestWriter(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		for name, interpolated := range map[string]bool{"prepared": false, "interpolated": true} {
			t.Run(name, func(t *testing.T) {
				s := r.open(t)
				writeOutside(t, s, openRaw(t, r.urls[s], interpolated))
			})
		}
	})
	if _, err := sqlstore.NewWriter(sqlstore.MySQL(), "notebook", -1); err == nil {
		t.Error("a negative number of shards was taken")
	}
}

func writeOutside(t *testing.T, s *sqlstore.Store, db *sql.DB) {
	t.Helper()
	w, err := sqlstore.NewWriter(sqlstore.MySQL(), "notebook", 0)
	if err != nil {
		t.Fatal(err)
	}
	cause := event.Cause{CausationID: event.NewID(time.Now()), CorrelationID: "cor"}
	drafts := []event.Draft{noted.New(noteV1{"a", `1'2"\` + "\n"}), noted.Once("k", noteV1{"b", "2"})}
	for _, commit := range []bool{true, false} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(event.WithCause(t.Context(), cause), tx, drafts...); err != nil {
			t.Fatal(err)
		}
		end := tx.Rollback
		if commit {
			end = tx.Commit
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	lease, err := s.Outbox().Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := as[relay.Sequencer](t, s.Outbox()).Sequence(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	records, err := s.Outbox().Next(t.Context(), lease, outbox.Position{}, 10)
	if err != nil || len(records) != 2 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	first, second := records[0].Event, records[1].Event
	if first.Producer != "notebook" || first.CausationID != cause.CausationID || first.CorrelationID != "cor" ||
		first.AggregateID != "a" || second.IdempotencyKey != "k" || first.ID == second.ID {
		t.Errorf("events have changed: %+v, %+v", first, second)
	}
	if n, err := noted.Decode(first); err != nil || n.Data.Text != `1'2"\`+"\n" {
		t.Errorf("data has become %q, %v", n.Data.Text, err)
	}
}
