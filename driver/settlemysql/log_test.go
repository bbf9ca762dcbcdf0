package settlemysql_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// next returns the keys and positions of the events after a position.
func next(t *testing.T, s *sqlstore.Store, lease relay.Lease, after int64) string {
	t.Helper()
	records, err := s.Outbox().Next(t.Context(), lease, outbox.Position{ID: after}, 100)
	if err != nil {
		return err.Error()
	}
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = fmt.Sprintf("%s@%d", r.Event.AggregateID, r.Position.ID)
	}
	return strings.Join(out, " ")
}

// TestPurge deletes settled events only, in order, and tells a reader that is too late, in any process.
func TestPurge(t *testing.T) {
	target := database(t, server.Shared(t, server.MariaDB), "")
	s, other := openStore(t, target, settlemysql.Config{}), openStore(t, target, settlemysql.Config{})
	ctx, none := t.Context(), relay.Lease{}
	for _, k := range []string{"a", "b", "c", "d", "e", "f"} {
		run(t, s, add(k))
	}
	purge := func(before time.Time, limit, want int) {
		t.Helper()
		if n, err := as[relay.Purger](t, other.Outbox()).Purge(ctx, before, limit); n != want || err != nil {
			t.Fatalf("purged %d, %v, want %d", n, err, want)
		}
	}
	future := time.Now().Add(time.Hour)
	purge(future, 10, 0)
	lease, err := s.Outbox().Claim(ctx, 0, "relay", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if got := next(t, s, lease, 0); got != "a@1 b@2 c@3 d@4 e@5 f@6" {
		t.Fatalf("the log is %s", got)
	}
	if _, err := as[relay.Sequencer](t, s.Outbox()).Sequence(ctx, lease); err != nil {
		t.Fatal(err)
	}
	if err := s.Outbox().Advance(ctx, lease, outbox.Position{ID: 5}); err != nil {
		t.Fatal(err)
	}
	// One that is young ends the purge, though what follows is old: the log has no holes.
	run(t, s, exec("UPDATE settle_outbox SET created_at = ?2 WHERE seq = ?1", 3, future.Add(time.Hour).UnixNano()))
	purge(future, 1, 1)
	purge(future, 10, 1)
	purge(future, 10, 0)
	for _, reader := range []*sqlstore.Store{s, other} {
		if got := next(t, reader, none, 0); got != "c@3 d@4 e@5 f@6" {
			t.Errorf("from the start: %s", got)
		}
		if got := next(t, reader, none, 1); !strings.Contains(got, relay.ErrRetention.Error()) {
			t.Errorf("a late reader got %s", got)
		}
		if got := next(t, reader, none, 2); got != "c@3 d@4 e@5 f@6" {
			t.Errorf("a reader in time got %s", got)
		}
	}
	if err := s.Outbox().Rewind(ctx, lease, outbox.Position{ID: 1}); !errors.Is(err, relay.ErrRetention) {
		t.Errorf("rewound to what is gone: %v", err)
	}
	run(t, s, exec("UPDATE settle_outbox SET created_at = 1"))
	purge(future, 10, 3)
	if err := s.Outbox().Advance(ctx, lease, outbox.Position{ID: 6}); err != nil {
		t.Fatal(err)
	}
	purge(future, 10, 1)
	for _, reader := range []*sqlstore.Store{s, other} {
		if got := next(t, reader, none, 5); !strings.Contains(got, relay.ErrRetention.Error()) {
			t.Errorf("a late reader of an empty log got %s", got)
		}
		if got := next(t, reader, none, 6); got != "" {
			t.Errorf("a reader at the head of an empty log got %s", got)
		}
	}
	run(t, s, add("g"))
	if got := next(t, s, lease, 6); got != "g@7" {
		t.Errorf("after a purge of everything: %s", got)
	}
}

// TestList shows also what has no position yet, page by page.
func TestList(t *testing.T) {
	s := newStore(t)
	run(t, s, add("a", "b", "c"))
	lister := as[relay.Lister](t, s.Outbox())
	list := func(status relay.Status, limit int) string {
		t.Helper()
		var out []string
		var after outbox.Position
		for {
			page, err := lister.List(t.Context(), status, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page {
				out = append(out, e.Record.Event.AggregateID+" "+string(e.Status))
				after = e.Record.Position
			}
			if len(page) < limit {
				return strings.Join(out, ", ")
			}
		}
	}
	if got := list(relay.StatusPending, 2); got != "a PENDING, b PENDING, c PENDING" {
		t.Errorf("before there is an owner: %s", got)
	}
	lease, err := s.Outbox().Claim(t.Context(), 0, "relay", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	next(t, s, lease, 0)
	if err := s.Outbox().Advance(t.Context(), lease, outbox.Position{ID: 2}); err != nil {
		t.Fatal(err)
	}
	run(t, s, add("d"))
	for limit := 1; limit < 6; limit++ {
		if got := list("", limit); got != "a SENT, b SENT, c PENDING, d PENDING" {
			t.Errorf("all: %s", got)
		}
		if got := list(relay.StatusSent, limit); got != "a SENT, b SENT" {
			t.Errorf("sent: %s", got)
		}
		if got := list(relay.StatusPending, limit); got != "c PENDING, d PENDING" {
			t.Errorf("pending: %s", got)
		}
	}
	if _, err := lister.List(t.Context(), "NONE", outbox.Position{}, 1); err == nil {
		t.Error("there is no such status")
	}
	var view string
	err = s.QueryRow(t.Context(), "SELECT group_concat(concat(aggregate_id, ' ', status) ORDER BY id SEPARATOR ', ') FROM settle_outbox_status", nil, &view)
	if err != nil || view != "a SENT, b SENT, c PENDING, d PENDING" {
		t.Errorf("the view shows %s, %v", view, err)
	}
}

// TestShards carries each aggregate's events in one shard, and each shard by itself.
func TestShards(t *testing.T) {
	const shards = 4
	s := openStore(t, database(t, server.Shared(t, server.MariaDB), ""), settlemysql.Config{Store: sqlstore.Config{Shards: shards}})
	keys := make([]string, 40)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i%20)
	}
	run(t, s, add(keys...))
	where, total := map[string]int{}, 0
	for shard := range shards {
		lease, err := s.Outbox().Claim(t.Context(), shard, "relay", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		records, err := s.Outbox().Next(t.Context(), lease, outbox.Position{}, 100)
		if err != nil || len(records) == 0 {
			t.Fatalf("shard %d: %d records, %v", shard, len(records), err)
		}
		for i, r := range records {
			if r.Position != (outbox.Position{ID: int64(i + 1)}) {
				t.Errorf("shard %d: record %d has position %s", shard, i, r.Position)
			}
			if other, ok := where[r.Event.AggregateID]; ok && other != shard {
				t.Errorf("%s is in shards %d and %d", r.Event.AggregateID, other, shard)
			}
			where[r.Event.AggregateID] = shard
		}
		total += len(records)
	}
	if total != len(keys) {
		t.Errorf("%d of %d events", total, len(keys))
	}
	if _, err := s.Outbox().Claim(t.Context(), shards, "relay", time.Minute); err == nil {
		t.Error("there is no such shard")
	}
}

// TestRewindTakesOneConnection: one that waited for a second with the shard's row in its hand could wait for
// others that wait for the row.
func TestRewindTakesOneConnection(t *testing.T) {
	target := database(t, server.Shared(t, server.MariaDB), "")
	s := openStore(t, target, settlemysql.Config{ConnsMax: 2})
	run(t, s, add("a"))
	lease, err := s.Outbox().Claim(t.Context(), 0, "relay", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, func(context.Context, *txn.Tx) error { // Has the other connection.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := s.Outbox().Rewind(ctx, lease, outbox.Position{}); err != nil {
			t.Errorf("rewind: %v", err)
		}
		if err := as[relay.Marks](t, s.Outbox()).AddMark(ctx, lease, relay.Mark{At: time.Now()}); err != nil {
			t.Errorf("mark: %v", err)
		}
		return nil
	})
}
