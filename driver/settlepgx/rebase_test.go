package settlepgx_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

// TestRestoredElsewhere dumps an outbox and restores it in another cluster, whose transactions have other
// numbers: it is refused until it is rebased, and then nothing is lost.
func TestRestoredElsewhere(t *testing.T) {
	from := newDatabase(t, shared(t))
	s := openStore(t, from, settlepgx.Config{Migrate: true})
	src := s.Outbox()
	lease, err := src.Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, add(1, "a", "b", "a"))
	records, err := src.Next(t.Context(), lease, outbox.Position{}, 10)
	if err != nil || len(records) != 3 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	if err := src.Advance(t.Context(), lease, records[1].Position); err != nil {
		t.Fatal(err)
	}
	run(t, s, add(4, "a"))
	if _, err := src.Next(t.Context(), lease, records[2].Position, 10); err != nil { // A window of its own.
		t.Fatal(err)
	}
	if err := as[relay.Parking](t, src).Park(t.Context(), lease, "refused", records[2]); err != nil {
		t.Fatal(err)
	}
	run(t, s, add(5, "b")) // In no window yet.

	other := server.Start(t, server.Postgres, server.Options{})
	to := newDatabase(t, other.URL())
	dump, err := exec.CommandContext(t.Context(), "pg_dump", "--dbname", from).Output()
	if err != nil {
		t.Fatal(err)
	}
	restore := exec.CommandContext(t.Context(), "psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", to)
	restore.Stdin = strings.NewReader(string(dump))
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	r := openStore(t, to, settlepgx.Config{})
	if _, err := r.Outbox().Claim(t.Context(), 0, "owner", time.Minute); !errors.Is(err, sqlstore.ErrRebase) {
		t.Fatalf("a claim of what was restored: %v", err)
	}
	n, err := r.Rebase(t.Context())
	if err != nil || n != 3 {
		t.Fatalf("rebase: %d events, %v, want 3", n, err)
	}
	lease, err = r.Outbox().Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	run(t, r, add(6, "c"))
	got := labels(t, r.Outbox(), lease, lease.Position)
	if got != "a/3 a/4 b/5 c/6" {
		t.Errorf("after a rebase: %s", got)
	}
	// A follower that had read everything up to the settled place goes on; one that had not is told.
	if got := labels(t, r.Outbox(), relay.Lease{}, records[1].Position); got != "a/3 a/4 b/5 c/6" {
		t.Errorf("a follower after a rebase: %s", got)
	}
	// One that had read windows that are not here, and numbers that others would have come to, gets all that was not settled.
	ahead := outbox.Position{Tick: records[2].Position.Tick + 1_000_000, ID: 7}
	if got := labels(t, r.Outbox(), relay.Lease{}, ahead); got != "a/3 a/4 b/5 c/6" {
		t.Errorf("a follower that was ahead: %s", got)
	}
	if _, err := r.Outbox().Next(t.Context(), relay.Lease{}, records[0].Position, 10); !errors.Is(err, relay.ErrRetention) {
		t.Errorf("a follower that was behind: %v", err)
	}
	// What was parked and comes again is the same event, and is known to be parked.
	parked, err := as[relay.Parking](t, r.Outbox()).Parked(t.Context(), relay.ParkedQuery{Limit: 10})
	if err != nil || len(parked) != 1 {
		t.Fatalf("%d parked, %v", len(parked), err)
	}
	first, err := r.Outbox().Next(t.Context(), lease, lease.Position, 1)
	if err != nil || len(first) != 1 || first[0].Position != parked[0].Record.Position {
		t.Errorf("%v is parked at %s, %v", first, parked[0].Record.Position, err)
	}
	if _, err := s.Rebase(t.Context()); err != nil { // It is harmless where it was not needed.
		t.Error(err)
	}
	lease, err = src.Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if got := labels(t, src, lease, lease.Position); got != "a/3 a/4 b/5" {
		t.Errorf("after a rebase without need: %s", got)
	}
	// Windows begin far behind what may be purged. What is purged row by row follows them.
	last, err := as[relay.Sequencer](t, src).Sequence(t.Context(), lease)
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Advance(t.Context(), lease, last); err != nil {
		t.Fatal(err)
	}
	purge(t, s, -time.Minute, 3)
}

// labels returns key/n of all that follows a position.
func labels(t *testing.T, src relay.Source, lease relay.Lease, at outbox.Position) string {
	t.Helper()
	var out []string
	for {
		records, err := src.Next(context.WithoutCancel(t.Context()), lease, at, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			return strings.Join(out, " ")
		}
		for _, r := range records {
			at = r.Position
			out = append(out, label(t, r))
		}
	}
}
