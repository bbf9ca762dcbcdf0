package settlepgx_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

func label(t *testing.T, r outbox.Record) string {
	t.Helper()
	var n noteV1
	if err := json.Unmarshal(r.Event.Data, &n); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s/%d", n.Key, n.N)
}

// age makes every row of the log older by a number of half days, as if it had been written then.
func age(t *testing.T, s *sqlstore.Store, halfDays int) {
	t.Helper()
	conn := connect(t, databaseOf(t, s))
	_, err := conn.Exec(t.Context(), `UPDATE settle_outbox SET slot = ((slot - $1::integer) % 4 + 4) % 4,
		created_at = created_at - $1::bigint * 43200 * 1000000000`, halfDays)
	if err != nil {
		t.Fatal(err)
	}
}

func purge(t *testing.T, s *sqlstore.Store, retention time.Duration, want int) {
	t.Helper()
	n, err := as[relay.Purger](t, s.Outbox()).Purge(t.Context(), time.Now().Add(-retention), 10)
	if err != nil || n != want {
		t.Fatalf("purged %d, %v, want %d", n, err, want)
	}
}

// relfile is the file of a partition: TRUNCATE gives it another one.
func relfile(t *testing.T, s *sqlstore.Store, slot int) (n int64) {
	t.Helper()
	err := s.QueryRow(t.Context(), "SELECT relfilenode::bigint FROM pg_class WHERE relname = $1", []any{fmt.Sprint("settle_outbox_", slot)}, &n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSlotsRotate empties slots that are old and settled by TRUNCATE, and nothing else.
func TestSlotsRotate(t *testing.T) {
	s := newStore(t)
	src := s.Outbox()
	lease, err := src.Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	settle := func() outbox.Position {
		t.Helper()
		all := readAll(t, owned{src, lease}, 100)
		at := all[len(all)-1].Position
		if err := src.Advance(t.Context(), lease, at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	for n := range 15 { // More than the limit of a purge.
		run(t, s, add(n, "a", "b"))
	}
	settle()
	age(t, s, 3)
	for n := range 5 {
		run(t, s, add(100+n, "a"))
	}
	at := settle()
	run(t, s, add(200, "c")) // Not settled, and in no window.
	var slot int
	if err := s.QueryRow(t.Context(), "SELECT slot FROM settle_outbox ORDER BY created_at LIMIT 1", nil, &slot); err != nil {
		t.Fatal(err)
	}
	before := relfile(t, s, slot)

	conn := connect(t, databaseOf(t, s)) // Somebody reads the slot: it is not waited for.
	if _, err := conn.Exec(t.Context(), fmt.Sprintf("BEGIN; SELECT count(*) FROM settle_outbox_%d", slot)); err != nil {
		t.Fatal(err)
	}
	purge(t, s, 24*time.Hour, 0)
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	purge(t, s, 48*time.Hour, 0) // Nothing is that old.
	purge(t, s, 24*time.Hour, 30)
	if relfile(t, s, slot) == before {
		t.Error("rows of an old slot were deleted, not truncated")
	}
	purge(t, s, 24*time.Hour, 0)
	if got := labels(t, src, lease, outbox.Position{}); got != "a/100 a/101 a/102 a/103 a/104 c/200" {
		t.Errorf("kept: %s", got)
	}
	if err := src.Rewind(t.Context(), lease, outbox.Position{Tick: 1}); !errors.Is(err, relay.ErrRetention) {
		t.Errorf("a rewind to what is gone: %v", err)
	}
	if _, err := src.Next(t.Context(), relay.Lease{}, outbox.Position{Tick: 1, ID: 1}, 10); !errors.Is(err, relay.ErrRetention) {
		t.Errorf("a reader of what is gone: %v", err)
	}
	if _, err := src.Next(t.Context(), relay.Lease{}, outbox.Position{Tick: 999, ID: 1}, 10); !errors.Is(err, relay.ErrRetention) {
		t.Errorf("a reader beyond the log: %v", err)
	}
	if got := labels(t, src, relay.Lease{}, at); got != "c/200" {
		t.Errorf("a reader at the head: %s", got)
	}
	// A retention longer than a day and a half deletes what stands in a slot of younger rows.
	age(t, s, 4)
	run(t, s, add(300, "d"))
	settle()
	purge(t, s, 36*time.Hour, 6)
	if got := labels(t, src, lease, outbox.Position{}); got != "d/300" {
		t.Errorf("kept: %s", got)
	}
	var ticks int
	if err := s.QueryRow(t.Context(), "SELECT count(*) FROM settle_tick", nil, &ticks); err != nil || ticks > 4 {
		t.Errorf("%d ticks are kept, %v", ticks, err)
	}
}

// owned reads as the owner of a shard.
type owned struct {
	relay.Source

	lease relay.Lease
}

func (o owned) Next(ctx context.Context, _ relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	return o.Source.Next(ctx, o.lease, after, limit)
}

// TestLargeWindowIsPurgedInPart asks for what follows a place in a large window of which the next part is purged,
// or all of the next page: the gap is told, whoever finds it.
func TestLargeWindowIsPurgedInPart(t *testing.T) {
	for _, gone := range []int{511, 800} { // 511 is the end of a part.
		t.Run(fmt.Sprint(gone), func(t *testing.T) { purgeInPart(t, gone) })
	}
}

func purgeInPart(t *testing.T, gone int) {
	t.Helper()
	s := newStore(t)
	src := s.Outbox()
	run(t, s, add(0, slices.Repeat([]string{"a"}, gone)...))
	age(t, s, 4)
	for range 4 {
		run(t, s, add(0, slices.Repeat([]string{"a"}, 500)...))
	}
	lease, err := src.Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	all := readAll(t, owned{src, lease}, 500)
	run(t, s, add(0, "later")) // In a window of its own.
	if n := len(readAll(t, owned{src, lease}, 500)); n != len(all)+1 {
		t.Fatalf("%d events, want %d", n, len(all)+1)
	}
	if err := src.Advance(t.Context(), lease, all[len(all)-1].Position); err != nil {
		t.Fatal(err)
	}
	// Another process knows the window from before, and has read nothing of it ahead.
	other := openStore(t, databaseOf(t, s), settlepgx.Config{})
	if _, err := other.Outbox().Next(t.Context(), relay.Lease{}, all[len(all)-11].Position, 10); err != nil {
		t.Fatal(err)
	}
	if n, err := as[relay.Purger](t, src).Purge(t.Context(), time.Now().Add(-36*time.Hour), gone); err != nil || n != gone {
		t.Fatalf("purged %d, %v", n, err)
	}
	records, err := other.Outbox().Next(t.Context(), relay.Lease{}, all[49].Position, 500)
	if !errors.Is(err, relay.ErrRetention) {
		t.Errorf("%d records and %v, want ErrRetention", len(records), err)
	}
	if records, err = other.Outbox().Next(t.Context(), relay.Lease{}, all[gone-1].Position, 500); err != nil || len(records) != 500 {
		t.Errorf("%d records, %v after what is purged", len(records), err)
	}
}
