package settlemysql_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// Publish implements [broker.Publisher].
func (w *told) Publish(_ context.Context, messages []broker.Message) []error {
	records := make([]outbox.Record, len(messages))
	for i, m := range messages {
		at, err := outbox.ParsePosition(m.Origin[strings.LastIndexByte(m.Origin, '/')+1:])
		if err != nil {
			panic(err)
		}
		records[i] = outbox.Record{Position: at, CreatedAt: m.Event.OccurredAt, Event: m.Event}
	}
	w.take(records)
	return make([]error, len(messages))
}

// TestServerKilled kills the server three times under writers, a relay and a follower. A server without a
// binary log shows commits before they are on disk: what a follower was told must be what is there afterwards.
func TestServerKilled(t *testing.T) {
	for name, settings := range map[string]map[string]string{"binlog": nil, "no binlog": {"log-bin": "0", "skip-log-bin": "1"}} {
		t.Run(name, func(t *testing.T) {
			serverKilled(t, server.Start(t, server.MariaDB, server.Options{Settings: settings}))
		})
	}
}

func serverKilled(t *testing.T, s *server.Server) {
	t.Helper()
	const writers, aggregates, kills = 8, 20, 3
	b := openBank(t, database(t, s.URL(), ""), aggregates)
	carrier := openStore(t, b.target, settlemysql.Config{})
	follower := openStore(t, b.target, settlemysql.Config{})
	var relayed, followed told
	r, err := relay.New(carrier.Outbox(), &relayed, relay.Config{LeaseTTL: time.Second, PublishTimeout: 500 * time.Millisecond, RetryMax: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work, writing sync.WaitGroup
	work.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	work.Go(func() {
		if err := follow(ctx, follower.Outbox(), followed.take); err != nil {
			t.Errorf("follower: %v", err)
		}
	})
	var over atomic.Bool
	var failures atomic.Int64
	for range writers {
		writing.Go(func() {
			for !over.Load() {
				err := b.write(t.Context(), fmt.Sprint("a", rand.IntN(aggregates)), rand.IntN(10) < 3)
				if err == nil {
					continue
				}
				if failures.Add(1); !b.store.Transient(err) {
					t.Errorf("writer: %v", err)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	for range kills {
		time.Sleep(lasting(t, 700*time.Millisecond))
		s.Kill()
		s.Restart()
	}
	time.Sleep(300 * time.Millisecond)
	over.Store(true)
	writing.Wait()
	versions := b.versions(t)
	relayed.await(&followed, versions)
	stop()
	work.Wait()
	t.Logf("%d attempts failed", failures.Load())
	relayed.check(t, "relay", versions, true)
	followed.check(t, "follower", versions, false)
}

func TestPausedOwner(t *testing.T) {
	s := newStore(t)
	src := s.Outbox()
	seq := as[relay.Sequencer](t, src)
	run(t, s, add("a", "b"))
	ctx := t.Context()
	old, err := src.Claim(ctx, 0, "old", 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(80 * time.Millisecond)
	taken, err := src.Claim(ctx, 0, "new", time.Minute)
	if err != nil || taken.Fence <= old.Fence {
		t.Fatalf("lease %+v after %+v, %v", taken, old, err)
	}
	if _, err := seq.Sequence(ctx, old); !errors.Is(err, relay.ErrFenced) {
		t.Errorf("an old owner numbered: %v", err)
	}
	if records, err := src.Next(ctx, old, outbox.Position{}, 10); !errors.Is(err, relay.ErrFenced) {
		t.Errorf("an old owner read %d, %v", len(records), err)
	}
	if records, err := src.Next(ctx, relay.Lease{}, outbox.Position{}, 10); err != nil || len(records) != 0 {
		t.Errorf("a follower read %d that have no position, %v", len(records), err)
	}
	at, err := seq.Sequence(ctx, taken)
	if err != nil || at != (outbox.Position{ID: 2}) {
		t.Fatalf("numbered up to %s, %v", at, err)
	}
	// Another process, which knows only what the database shows.
	other := openStore(t, database(t, server.Shared(t, server.MariaDB), ""), settlemysql.Config{})
	if at, err = as[relay.Sequencer](t, other.Outbox()).Sequence(ctx, relay.Lease{Fence: 1, Owner: "nobody"}); !errors.Is(err, relay.ErrFenced) {
		t.Errorf("who never claimed numbered up to %s, %v", at, err)
	}
	if err := src.Advance(ctx, taken, outbox.Position{ID: 3}); err == nil {
		t.Error("advanced to a position that was never given")
	}
}

// TestShown proves that a reader in another process goes no further than what is on disk.
func TestShown(t *testing.T) {
	target := database(t, server.Shared(t, server.MariaDB), "")
	s, other := openStore(t, target, settlemysql.Config{}), openStore(t, target, settlemysql.Config{})
	ctx := t.Context()
	run(t, s, add("a", "b", "c"))
	lease, err := s.Outbox().Claim(ctx, 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	read := func(s *sqlstore.Store, lease relay.Lease) int {
		t.Helper()
		records, err := s.Outbox().Next(ctx, lease, outbox.Position{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(records)
	}
	if n := read(s, lease); n != 3 {
		t.Errorf("the owner reads %d of 3", n)
	}
	if n := read(other, relay.Lease{}); n != 0 {
		t.Errorf("another process reads %d whose numbers may not be on disk", n)
	}
	// The owner's next look shows them.
	if records, err := s.Outbox().Next(ctx, lease, outbox.Position{ID: 3}, 10); err != nil || len(records) != 0 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	if n := read(other, relay.Lease{}); n != 3 {
		t.Errorf("another process reads %d of 3", n)
	}
	run(t, s, add("d"))
	if at, err := as[relay.Sequencer](t, s.Outbox()).Sequence(ctx, lease); err != nil || at.ID != 4 {
		t.Errorf("numbered up to %s, %v", at, err)
	}
	if records, err := other.Outbox().Next(ctx, relay.Lease{}, outbox.Position{ID: 3}, 10); err != nil || len(records) != 1 {
		t.Errorf("another process reads %d of 1 after Sequence, %v", len(records), err)
	}
}

// TestDeadlock lets two transactions take two rows in opposite orders: one of them runs again.
func TestDeadlock(t *testing.T) {
	s := newStore(t)
	run(t, s, exec("CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL)"))
	run(t, s, exec("INSERT INTO item VALUES (1, 0), (2, 0)"))
	var met, wg sync.WaitGroup
	met.Add(2)
	var attempts atomic.Int64
	for _, ids := range [][2]int{{1, 2}, {2, 1}} {
		first := true
		wg.Go(func() {
			err := s.Run(t.Context(), bound(func(ctx context.Context, tx *txn.Tx) error {
				attempts.Add(1)
				if _, err := tx.Exec(ctx, "UPDATE item SET n = n + 1 WHERE id = ?", ids[0]); err != nil {
					return err
				}
				if first {
					first = false
					met.Done()
					met.Wait()
				}
				_, err := tx.Exec(ctx, "UPDATE item SET n = n + 1 WHERE id = ?", ids[1])
				if err != nil && !errors.Is(err, sqlstore.ErrConflict) {
					t.Errorf("deadlock: %v", err)
				}
				if err == nil {
					err = add("k")(ctx, tx)
				}
				return err
			}))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var sum, events int
	err := s.QueryRow(t.Context(), "SELECT (SELECT sum(n) FROM item), (SELECT count(*) FROM settle_outbox)", nil, &sum, &events)
	if err != nil || sum != 4 || events != 2 || attempts.Load() != 3 {
		t.Errorf("sum %d, %d events, %d attempts, %v", sum, events, attempts.Load(), err)
	}
}

// TestServerStalls lets the server answer nothing for a while.
func TestServerStalls(t *testing.T) {
	s := server.Start(t, server.MariaDB, server.Options{})
	store := openStore(t, database(t, s.URL(), ""), settlemysql.Config{LockWait: time.Second, Timeout: 2 * time.Second})
	run(t, store, add("a"))
	s.Pause()
	began := time.Now()
	err := store.Run(t.Context(), bound(add("b")))
	if took := time.Since(began); !errors.Is(err, sqlstore.ErrUnavailable) || !store.Transient(err) || took > 30*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := store.Run(ctx, bound(add("c"))); err == nil {
		t.Error("confirmed by a server that stands still")
	}
	s.Resume()
	run(t, store, add("d"))
}

func TestOpenErrors(t *testing.T) {
	const secret = "5ecret/word"
	good := database(t, server.Shared(t, server.MariaDB), "")
	with := func(change func(u *url.URL)) string {
		u, err := url.Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("root", "")
		change(u)
		return u.String()
	}
	for name, c := range map[string]struct {
		target string
		kind   error
		text   string
	}{
		"unmigrated":     {good, sqlstore.ErrSchema, "migrate first"},
		"wrong password": {with(func(u *url.URL) { u.User = url.UserPassword("root", secret) }), settlemysql.ErrCredentials, "root"},
		"unknown user":   {with(func(u *url.URL) { u.User = url.UserPassword("nobody", secret) }), settlemysql.ErrCredentials, "nobody"},
		"no such database": {
			with(func(u *url.URL) { u.Path = "/nowhere" }), settlemysql.ErrNoDatabase, "nowhere",
		},
		"nobody there": {"mysql://root:" + url.QueryEscape(secret) + "@127.0.0.1:1/x", sqlstore.ErrUnavailable, "127.0.0.1:1"},
		"no database":  {with(func(u *url.URL) { u.Path = "/" }), nil, "names no database"},
		"no host":      {"mysql:///x", nil, "no host"},
		"scheme":       {"postgres://root@h/x", nil, "scheme"},
		"no URL":       {"mysql://root:" + secret + "@h:port/%zz", nil, "not a URL"},
		"parameter":    {good + "?readTimeout=1s", nil, "parameters"},
		"unknown":      {good + "?tls=none-such", nil, "none-such"},
	} {
		_, err := settlemysql.Open(t.Context(), c.target, settlemysql.Config{})
		if err == nil || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "5ecret") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "unmigrated" {
			continue
		}
		if _, err := settlemysql.Migrate(t.Context(), c.target); err == nil || strings.Contains(err.Error(), "5ecret") {
			t.Errorf("%s: migrate: %v", name, err)
		}
	}
	for name, cfg := range map[string]settlemysql.Config{
		"one connection": {ConnsMax: 1}, "lock wait": {LockWait: time.Millisecond}, "timeout": {Timeout: time.Second}, "gap": {Store: sqlstore.Config{NoGap: true, Gap: 1}},
	} {
		if s, err := settlemysql.Open(t.Context(), good, cfg); err == nil {
			t.Errorf("%s: opened", name)
			s.Close()
		}
	}
}

// TestPromotedReplica puts a database back to what a replica that was behind has when it is promoted: without the last
// commits, and without some of the last numbers. Nobody goes on with numbers that are given to other events.
func TestPromotedReplica(t *testing.T) {
	target := database(t, server.Shared(t, server.MariaDB), "")
	s, other := openStore(t, target, settlemysql.Config{}), openStore(t, target, settlemysql.Config{})
	ctx, none := t.Context(), relay.Lease{}
	for _, k := range []string{"a", "b", "c", "d", "e", "f"} {
		run(t, s, add(k))
	}
	lease, err := s.Outbox().Claim(ctx, 0, "relay", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := as[relay.Sequencer](t, s.Outbox()).Sequence(ctx, lease); err != nil || at.ID != 6 {
		t.Fatalf("numbered up to %s, %v", at, err)
	}
	if err := s.Outbox().Advance(ctx, lease, outbox.Position{ID: 2}); err != nil {
		t.Fatal(err)
	}
	if got := next(t, other, none, 0); got != "a@1 b@2 c@3 d@4 e@5 f@6" {
		t.Fatalf("a follower reads %s", got)
	}
	run(t, s, exec("DELETE FROM settle_outbox WHERE seq > 4"))
	run(t, s, exec("UPDATE settle_outbox SET seq = NULL WHERE seq = 4"))
	run(t, s, exec("UPDATE settle_relay SET seq = 3, shown = 3"))
	for _, k := range []string{"g", "h", "i", "j"} {
		run(t, s, add(k))
	}
	for _, after := range []int64{4, 6} {
		if got := next(t, other, none, after); !strings.Contains(got, relay.ErrRetention.Error()) {
			t.Errorf("a follower after %d got %s", after, got)
		}
		if got := next(t, s, lease, after); !strings.Contains(got, relay.ErrFenced.Error()) {
			t.Errorf("the owner after %d got %s", after, got)
		}
		if err := s.Outbox().Advance(ctx, lease, outbox.Position{ID: after}); !errors.Is(err, relay.ErrFenced) {
			t.Errorf("the owner settles %d: %v", after, err)
		}
	}
	if lease, err = s.Outbox().Claim(ctx, 0, "relay", time.Minute); err != nil || lease.Position.ID != 2 {
		t.Fatalf("claimed at %s, %v", lease.Position, err)
	}
	if got := next(t, s, lease, 2) + " " + next(t, s, lease, 3); got != "c@3 d@4 g@5 h@6 i@7 j@8" {
		t.Errorf("the owner reads %s", got)
	}
	if _, err := as[relay.Sequencer](t, s.Outbox()).Sequence(ctx, lease); err != nil {
		t.Fatal(err)
	}
	if got := next(t, other, none, 2) + " " + next(t, other, none, 3); got != "c@3 d@4 g@5 h@6 i@7 j@8" {
		t.Errorf("a follower reads %s", got)
	}
}
