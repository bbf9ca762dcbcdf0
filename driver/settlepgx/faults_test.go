package settlepgx_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// TestServerKilled kills the server under writers and a relay: what was committed is carried, in order.
func TestServerKilled(t *testing.T) {
	srv := server.Start(t, server.Postgres, server.Options{})
	b := openBank(t, newDatabase(t, srv.URL()))
	out := newSink()
	stopRelay := carry(t, b.store.Outbox(), out)
	stop := make(chan struct{})
	wait := b.load(t, stop)
	for range 2 {
		n := out.count()
		eventually(t, "events are carried", func() bool { return out.count() > n+200 })
		srv.Kill()
		time.Sleep(200 * time.Millisecond)
		srv.Restart()
	}
	n := out.count()
	eventually(t, "events are carried after the restart", func() bool { return out.count() > n+200 })
	close(stop)
	wait()
	total := b.total(t)
	eventually(t, "everything is carried", func() bool { return out.count() >= total })
	stopRelay()
	t.Logf("%d events over two kills", b.balance(t, out))
}

// TestServerHangs stops the server: a transaction ends in time, and the store works again afterwards.
func TestServerHangs(t *testing.T) {
	srv := server.Start(t, server.Postgres, server.Options{})
	s := openStore(t, newDatabase(t, srv.URL()), settlepgx.Config{
		Migrate: true, QueryTimeout: 4 * time.Second, ConnectTimeout: 4 * time.Second, LockWait: 2 * time.Second,
		Store: sqlstore.Config{TxTimeout: 4 * time.Second},
	})
	run(t, s, add(1, "a"))
	srv.Pause()
	began := time.Now()
	if err := s.Run(t.Context(), bound(add(2, "a"))); !errors.Is(err, sqlstore.ErrUnavailable) {
		t.Errorf("a transaction on a server that hangs: %v", err)
	}
	if _, err := s.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{}, 10); !errors.Is(err, sqlstore.ErrUnavailable) {
		t.Errorf("a query on a server that hangs: %v", err)
	}
	if took := time.Since(began); took > 40*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	srv.Resume()
	eventually(t, "the store works again", func() bool { return s.Run(t.Context(), bound(add(3, "a"))) == nil })
}

// TestPausedOwner lets an owner's lease run out: whatever it still wants is refused.
func TestPausedOwner(t *testing.T) {
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	run(t, s, add(1, "a", "b"))
	src := s.Outbox()
	old, err := src.Claim(t.Context(), 0, "old", 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	records, err := src.Next(t.Context(), old, outbox.Position{}, 10)
	if err != nil || len(records) != 2 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	next := openStore(t, target, settlepgx.Config{}).Outbox()
	var lease relay.Lease
	eventually(t, "another owner", func() bool {
		lease, err = next.Claim(t.Context(), 0, "new", time.Minute)
		return err == nil
	})
	run(t, s, add(3, "a"))
	for name, err := range map[string]error{
		"advance": src.Advance(t.Context(), old, records[1].Position),
		"rewind":  src.Rewind(t.Context(), old, outbox.Position{}),
		"park":    as[relay.Parking](t, src).Park(t.Context(), old, "cause", records[0]),
		"mark":    as[relay.Marks](t, src).AddMark(t.Context(), old, relay.Mark{Position: records[0].Position}),
	} {
		if !errors.Is(err, relay.ErrFenced) {
			t.Errorf("%s by an old owner: %v", name, err)
		}
	}
	if _, err := as[relay.Sequencer](t, src).Sequence(t.Context(), old); !errors.Is(err, relay.ErrFenced) {
		t.Errorf("sequence by an old owner: %v", err)
	}
	if got, err := src.Next(t.Context(), old, records[1].Position, 10); len(got) > 0 {
		t.Errorf("an old owner ended a window: %d records, %v", len(got), err)
	}
	if got, err := next.Next(t.Context(), lease, records[1].Position, 10); err != nil || len(got) != 1 {
		t.Errorf("the new owner: %d records, %v", len(got), err)
	}
}

// TestDoorbell tells another process of a commit, without its polling.
func TestDoorbell(t *testing.T) {
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	other := openStore(t, target, settlepgx.Config{})
	ring, stop := as[relay.Bell](t, other.Outbox()).Listen()
	defer stop()
	eventually(t, "the other process hears", func() bool {
		run(t, s, add(1, "a"))
		select {
		case <-ring:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
	drop(t, target) // Also the connections that ring and listen.
	eventually(t, "it hears again", func() bool {
		if s.Run(t.Context(), bound(add(1, "a"))) != nil {
			return false
		}
		select {
		case <-ring:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
}

// TestIdle looks for new events where there are none: that must write nothing, and hold nothing.
func TestIdle(t *testing.T) {
	s := newStore(t)
	src := s.Outbox()
	lease, err := src.Claim(t.Context(), 0, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, add(1, "a"))
	records, err := src.Next(t.Context(), lease, outbox.Position{}, 10)
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	state := func() (row string) {
		t.Helper()
		const query = "SELECT r.xmin || ' ' || r.xmax || ' ' || r.ctid || ' ' || (SELECT count(*) FROM settle_tick) FROM settle_relay r"
		if err := s.QueryRow(t.Context(), query, nil, &row); err != nil {
			t.Fatal(err)
		}
		return row
	}
	before := state()
	for range 20 {
		if got, err := src.Next(t.Context(), lease, records[0].Position, 10); err != nil || len(got) != 0 {
			t.Fatalf("%d records, %v", len(got), err)
		}
	}
	if after := state(); after != before {
		t.Errorf("the owner's row was %s, is %s", before, after)
	}
}

// TestMigratedMeanwhile changes a table under a program that has prepared a statement on it.
func TestMigratedMeanwhile(t *testing.T) {
	s := newStore(t)
	run(t, s, sqlExec("CREATE TABLE item (id bigint PRIMARY KEY)"))
	insert := func(id int) error {
		return s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			rows, err := tx.Query(ctx, "INSERT INTO item (id) VALUES ($1) RETURNING *", id)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return rows.Close()
		})
	}
	for id := range 3 {
		if err := insert(id); err != nil {
			t.Fatal(err)
		}
	}
	run(t, s, sqlExec("ALTER TABLE item ADD COLUMN name text"))
	if err := insert(3); err != nil {
		t.Errorf("after a migration: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	base := shared(t)
	target := newDatabase(t, base)
	conn := connect(t, base)
	role := "r" + strings.TrimPrefix(path(t, target), "/")
	if _, err := conn.Exec(t.Context(), "CREATE ROLE "+role+" LOGIN PASSWORD 'sesame'"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = conn.Exec(t.Context(), "DROP ROLE "+role) })
	for name, c := range map[string]struct {
		target string
		want   error
	}{
		"no tables":   {target, sqlstore.ErrSchema},
		"no database": {withDatabase(t, base, "nowhere"), settlepgx.ErrNoDatabase},
		"no role":     {strings.Replace(target, "postgres@", "nobody:sesame@", 1), settlepgx.ErrCredentials},
		"no server":   {"postgres://postgres:sesame@127.0.0.1:1/x", sqlstore.ErrUnavailable},
		"no URL":      {"postgres://postgres:sesame@%zz", nil},
		"no scheme":   {"mysql://postgres:sesame@127.0.0.1/x", nil},
		"parameters":  {"postgres://postgres:sesame@127.0.0.1/x?sslmode=perhaps", nil},
	} {
		s, err := settlepgx.Open(t.Context(), c.target, settlepgx.Config{ConnectTimeout: 10 * time.Second})
		if err == nil {
			t.Errorf("%s: opened", name)
			s.Close()
			continue
		}
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
	for name, cfg := range map[string]settlepgx.Config{
		"connections": {ConnsMax: 1}, "lock wait": {LockWait: -1}, "shards": {Store: sqlstore.Config{Shards: -1}},
	} {
		if s, err := settlepgx.Open(t.Context(), target, cfg); err == nil {
			t.Errorf("%s: opened", name)
			s.Close()
		}
	}
	if err := settlepgx.DropDatabase(t.Context(), withDatabase(t, base, "nowhere")); err != nil {
		t.Errorf("drop what is not there: %v", err)
	}
	if _, err := connect(t, target).Exec(t.Context(), "CREATE TABLE somebodys (id integer)"); err != nil {
		t.Fatal(err)
	}
	if err := settlepgx.DropDatabase(t.Context(), target); !errors.Is(err, settlepgx.ErrNotOurs) {
		t.Errorf("dropped somebody's database: %v", err)
	}
}

func path(t *testing.T, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return u.Path
}
