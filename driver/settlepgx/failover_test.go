package settlepgx_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

// pair is a primary and its standby, and a database whose URL names both.
type pair struct {
	primary, standby *server.Server
	target           string
	conn             *pgx.Conn // to the standby
}

// newPair starts two servers; the standby takes failover slots along.
func newPair(t *testing.T, settings map[string]string) *pair {
	t.Helper()
	p := &pair{primary: server.Start(t, server.Postgres17, server.Options{Settings: settings})}
	target := newDatabase(t, p.primary.URL())
	if _, err := connect(t, target).Exec(t.Context(), "SELECT pg_create_physical_replication_slot('standby', true)"); err != nil {
		t.Fatal(err)
	}
	p.standby = server.Start(t, server.Postgres17, server.Options{Upstream: p.primary.URL(), Settings: map[string]string{
		"primary_slot_name": "standby", "hot_standby_feedback": "on", "sync_replication_slots": "on",
	}})
	p.conn = connect(t, p.standby.URL())
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p.target = fmt.Sprintf("postgres://postgres@%s,%s%s?sslmode=disable&target_session_attrs=read-write",
		hostOf(t, p.primary.URL()), hostOf(t, p.standby.URL()), u.Path)
	return p
}

func hostOf(t *testing.T, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// synced reports whether the standby has a slot that can be read after a promotion.
func (p *pair) synced(t *testing.T, slot string) bool {
	t.Helper()
	var ok bool
	err := p.conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_replication_slots
		WHERE slot_name = $1 AND synced AND NOT temporary AND invalidation_reason IS NULL)`, slot).Scan(&ok)
	return err == nil && ok
}

// outrun ends the standby, and has events carried that it has not got.
func (p *pair) outrun(t *testing.T, out *sink) {
	t.Helper()
	p.standby.Kill()
	n := out.count()
	eventually(t, "events are carried that the standby has not got", func() bool { return out.count() > n+500 })
}

// promoteBehind has the standby that was outrun take the place of the primary, and more events carried from it.
func (p *pair) promoteBehind(t *testing.T, out *sink, more int) {
	t.Helper()
	p.primary.Kill()
	p.standby.Restart()
	p.standby.Promote()
	n := out.count()
	eventually(t, "events of the new primary are carried", func() bool { return out.count() > n+more })
}

// writers add events without end, each number once: whether a commit took place that had no answer, the database says.
type writers struct {
	stop func()
	n    atomic.Int64
}

func startWriters(t *testing.T, s *sqlstore.Store, keys int) *writers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	w := &writers{stop: func() { cancel(); wg.Wait() }}
	for k := range keys {
		wg.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				if s.Run(ctx, bound(add(n, fmt.Sprint("k", k)))) == nil {
					w.n.Add(1)
				}
				time.Sleep(2 * time.Millisecond) // A pace that a relay on a busy machine can keep.
			}
		})
	}
	t.Cleanup(w.stop)
	return w
}

// carried compares what was published with what the database has: all of it, and each key in its order. It returns
// how many were published that the database has not.
func carried(t *testing.T, s *sqlstore.Store, out *sink) (ghosts int) {
	t.Helper()
	rows, err := s.Query(t.Context(), "SELECT convert_from(data, 'UTF8') FROM settle_outbox ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	want := map[string][]int{}
	for rows.Next() {
		var data string
		var n noteV1
		if err := rows.Scan(&data); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(data), &n); err != nil {
			t.Fatal(err)
		}
		want[n.Key] = append(want[n.Key], n.N)
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	for key, seen := range out.seen {
		kept := slices.DeleteFunc(slices.Clone(seen), func(n int) bool { return !slices.Contains(want[key], n) })
		if !slices.Equal(kept, want[key]) {
			t.Errorf("%s: published %v, the database has %v", key, kept, want[key])
		}
		ghosts += len(seen) - len(kept)
	}
	if len(out.seen) != len(want) {
		t.Errorf("%d keys published, %d in the database", len(out.seen), len(want))
	}
	return ghosts
}

// carriedAll ends the writers and, when everything was published that the database has, the relay; see carried.
func carriedAll(t *testing.T, s *sqlstore.Store, out *sink, w *writers, stop func()) (ghosts int) {
	t.Helper()
	w.stop()
	eventually(t, "all events", func() bool { return has(t, s, out) })
	stop()
	return carried(t, s, out)
}

// has reports whether everything was published that the database has. It may be away.
func has(t *testing.T, s *sqlstore.Store, out *sink) bool {
	t.Helper()
	seen := map[string]bool{}
	out.mu.Lock()
	for id := range out.ids {
		seen[id.String()] = true
	}
	out.mu.Unlock()
	missed, err := missing(t, s, seen)
	return err == nil && missed == 0
}

// missing returns how many events of the database are not among those that were seen.
func missing(t *testing.T, s *sqlstore.Store, seen map[string]bool) (n int, err error) {
	t.Helper()
	rows, err := s.Query(t.Context(), "SELECT event_id::text FROM settle_outbox")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return 0, err
		}
		if !seen[id] {
			n++
		}
	}
	return n, rows.Err()
}

// TestWALFailover kills a primary under writers and a relay, and promotes its standby. The relay lives on, and so does
// its slot. The primary lets no event out that the standby has not got, so that nothing is published of what is lost.
func TestWALFailover(t *testing.T) {
	t.Parallel()
	p := newPair(t, map[string]string{"synchronized_standby_slots": "standby"})
	s := openStore(t, p.target, settlepgx.Config{Migrate: true, ConnectTimeout: 4 * time.Second})
	var m modes
	out := newSink()
	stop := carry(t, newWAL(t, s, p.target, &m, settlepgx.WALConfig{Slot: "failover", Failover: true}), out)
	w := startWriters(t, s, 4)
	eventually(t, "the log is read", func() bool { return m.last() == "wal" && out.count() > 100 })
	eventually(t, "the standby has the slot", func() bool { return p.synced(t, "failover") })
	n := out.count()
	eventually(t, "events are carried", func() bool { return out.count() > n+100 })
	p.primary.Kill()
	p.standby.Promote()
	n = out.count()
	eventually(t, "events of the new primary are carried", func() bool { return out.count() > n+200 })
	if ghosts := carriedAll(t, s, out, w, stop); ghosts > 0 {
		t.Errorf("%d events were published that the new primary has not", ghosts)
	}
	if slices.Contains(m.all, "window") {
		t.Errorf("the log was given up: %q", m.all)
	}
	t.Logf("%d commits answered, %d published, %d deliveries", w.n.Load(), out.count(), out.deliveries())
}

// TestWALFailoverLoses promotes a standby that is behind. What it had not got was published and is gone from the
// database; its places in the log are given to other commits, none of which may be taken for settled.
func TestWALFailoverLoses(t *testing.T) {
	t.Parallel()
	for _, failover := range []bool{true, false} {
		t.Run(fmt.Sprintf("failover=%t", failover), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, nil)
			s := openStore(t, p.target, settlepgx.Config{Migrate: true, ConnectTimeout: 4 * time.Second})
			var m modes
			out := newSink()
			src := newWAL(t, s, p.target, &m, settlepgx.WALConfig{Slot: "behind", Failover: failover})
			stop := carryFor(t, src, out, time.Minute) // It is not the lease that saves us.
			w := startWriters(t, s, 4)
			eventually(t, "the log is read", func() bool { return m.last() == "wal" && out.count() > 100 })
			if failover {
				eventually(t, "the standby has the slot", func() bool { return p.synced(t, "behind") })
			}
			p.outrun(t, out)
			p.promoteBehind(t, out, 100)
			if ghosts := carriedAll(t, s, out, w, stop); ghosts == 0 {
				t.Error("nothing was lost: the test shows nothing")
			}
			t.Logf("%d commits answered, %d published, %d deliveries, modes %q", w.n.Load(), out.count(), out.deliveries(), m.all)
		})
	}
}

// TestWindowFailoverLoses is TestWALFailoverLoses by windows, of which the standby lacks some. A follower has read them,
// and asks again when others could long have had their numbers.
func TestWindowFailoverLoses(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	s := openStore(t, p.target, settlepgx.Config{Migrate: true, ConnectTimeout: 4 * time.Second})
	out := newSink()
	stop := carryFor(t, s.Outbox(), out, time.Minute) // It is not the lease that saves us.
	w := startWriters(t, s, 4)
	eventually(t, "events are carried", func() bool { return out.count() > 100 })
	p.outrun(t, out)
	followed, at := map[string]bool{}, outbox.Position{}
	follow := func() {
		t.Helper()
		for {
			records, err := s.Outbox().Next(t.Context(), relay.Lease{}, at, 500)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				followed[r.Event.ID.String()], at = true, r.Position
			}
			if len(records) == 0 {
				return
			}
		}
	}
	follow()
	p.promoteBehind(t, out, 1000)
	if ghosts := carriedAll(t, s, out, w, stop); ghosts == 0 {
		t.Error("nothing was lost: the test shows nothing")
	}
	follow()
	if missed, err := missing(t, s, followed); err != nil || missed > 0 {
		t.Errorf("the follower has passed over %d events, %v", missed, err)
	}
	t.Logf("%d published, %d deliveries, %d followed", out.count(), out.deliveries(), len(followed))
}
