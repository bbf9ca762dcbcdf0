package settlepgx_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

// TestLargeWindow reads a window of many pages, which is read by parts, by several readers at once: each sees the
// same, in the order of row numbers.
func TestLargeWindow(t *testing.T) {
	s := newStore(t)
	src := s.Outbox()
	lease, err := src.Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	const events = 6000
	for n := 0; n < events; n += 500 {
		run(t, s, add(n, slices.Repeat([]string{"a"}, 500)...))
	}
	want := readAll(t, owned{src, lease}, 1000)
	if len(want) != events || want[0].Position.Tick != want[events-1].Position.Tick {
		t.Fatalf("%d events in windows %s to %s", len(want), want[0].Position, want[len(want)-1].Position)
	}
	at := [2]outbox.Position{}
	var got [2][]outbox.Record
	for len(got[0]) < events || len(got[1]) < events {
		for i := range at {
			records, err := src.Next(t.Context(), relay.Lease{}, at[i], 100+i)
			if err != nil {
				t.Fatal(err)
			}
			got[i] = append(got[i], records...)
			at[i] = got[i][len(got[i])-1].Position
		}
	}
	for i := range got {
		if len(got[i]) != events {
			t.Fatalf("reader %d: %d events", i, len(got[i]))
		}
		for k := range want {
			if got[i][k].Position != want[k].Position || label(t, got[i][k]) != fmt.Sprint("a/", k) {
				t.Fatalf("reader %d: record %d is %s at %s", i, k, label(t, got[i][k]), got[i][k].Position)
			}
		}
	}
}

// TestWindowGap reads each event as soon as it is committed: windows keep their distance, each has its event, and
// a reader that may wait no longer loses none.
func TestWindowGap(t *testing.T) {
	s := newStore(t)
	src := s.Outbox()
	lease, err := src.Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 25
	var after outbox.Position
	began := time.Now()
	for n := range rounds {
		run(t, s, add(n, "a"))
		records, err := src.Next(t.Context(), lease, after, 10)
		if err != nil || len(records) != 1 || label(t, records[0]) != fmt.Sprint("a/", n) {
			t.Fatalf("round %d: %d records, %v", n, len(records), err)
		}
		after = records[0].Position
	}
	if took := time.Since(began); took < (rounds-1)*2*time.Millisecond {
		t.Errorf("%d windows in %s", rounds, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	run(t, s, add(rounds, "a"))
	if records, err := src.Next(ctx, lease, after, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %d records, %v", len(records), err)
	}
	if records, err := src.Next(t.Context(), lease, after, 10); err != nil || len(records) != 1 {
		t.Errorf("after it: %d records, %v", len(records), err)
	}
}

// TestShards divides an outbox: each aggregate is in one part, and each part has its own owner.
func TestShards(t *testing.T) {
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true, Store: sqlstore.Config{Shards: 3}})
	var keys []string
	for n := range 30 {
		keys = append(keys, fmt.Sprint("k", n))
	}
	run(t, s, add(0, keys...))
	run(t, s, add(100, keys...))
	seen := map[string]int{}
	for shard := range 3 {
		lease, err := s.Outbox().Claim(t.Context(), shard, fmt.Sprint("owner", shard), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		all := readAll(t, owned{s.Outbox(), lease}, 7)
		if len(all) == 0 || len(all) == 60 {
			t.Errorf("shard %d has %d events", shard, len(all))
		}
		for _, r := range all {
			if was, ok := seen[r.Event.AggregateID]; ok && was != shard {
				t.Errorf("%s is in shards %d and %d", r.Event.AggregateID, was, shard)
			}
			seen[r.Event.AggregateID] = shard
		}
		if err := s.Outbox().Advance(t.Context(), lease, all[len(all)-1].Position); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 30 {
		t.Errorf("%d of 30 aggregates", len(seen))
	}
	if _, err := s.Outbox().Claim(t.Context(), 3, "owner", time.Minute); err == nil {
		t.Error("a shard that is none was claimed")
	}
	st, err := as[relay.Observer](t, s.Outbox()).Stats(t.Context())
	if err != nil || st.Pending != 0 || st.Sent != 60 {
		t.Errorf("stats %+v, %v", st, err)
	}
}

// TestUnsynced lets commits return before they are on disk. A tick is on disk when its events are read, and
// with it everything that its snapshot shows: what was published cannot vanish.
func TestUnsynced(t *testing.T) {
	srv := server.Start(t, server.Postgres, server.Options{Settings: map[string]string{
		"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB",
	}})
	s := openStore(t, newDatabase(t, srv.URL()), settlepgx.Config{Migrate: true})
	lease, err := s.Outbox().Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, add(0, "a", "b"))
	before, err := s.Outbox().Next(t.Context(), lease, outbox.Position{}, 10)
	if err != nil || len(before) != 2 {
		t.Fatalf("%d records, %v", len(before), err)
	}
	srv.Kill()
	srv.Restart()
	var after []outbox.Record
	eventually(t, "the server is back", func() bool {
		after, err = s.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{}, 10)
		return err == nil
	})
	if len(after) != 2 || after[1].Position != before[1].Position || after[1].Event.ID != before[1].Event.ID {
		t.Errorf("after a crash %v, before it %v", after, before)
	}
}

// TestSequenceRings asserts that who gives events their positions tells those that wait for them: at the commit
// there was nothing to be read yet.
func TestSequenceRings(t *testing.T) {
	s := openStore(t, newDatabase(t, shared(t)), settlepgx.Config{Migrate: true, NoDoorbell: true})
	lease, err := s.Outbox().Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, add(0, "a"))
	ring, stop := as[relay.Bell](t, s.Outbox()).Listen()
	defer stop()
	for _, want := range []bool{true, false} {
		if _, err := as[relay.Sequencer](t, s.Outbox()).Sequence(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		rung := false
		select {
		case <-ring:
			rung = true
		default:
		}
		if rung != want {
			t.Errorf("rung %t, want %t", rung, want)
		}
	}
}
