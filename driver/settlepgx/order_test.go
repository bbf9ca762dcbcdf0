package settlepgx_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

const aggregates = 20

// bank is a database with aggregates that count their transactions.
type bank struct {
	target string
	store  *sqlstore.Store
	sql    *pgxpool.Pool // of a program that is not ours
}

func openBank(t *testing.T, target string) *bank {
	t.Helper()
	b := &bank{target: target, store: openStore(t, target, settlepgx.Config{Migrate: true, ConnsMax: 16})}
	run(t, b.store, sqlExec("CREATE TABLE account (name text PRIMARY KEY, n integer NOT NULL DEFAULT 0)"))
	run(t, b.store, sqlExec("CREATE TABLE early (id bigint GENERATED ALWAYS AS IDENTITY)"))
	run(t, b.store, sqlExec("INSERT INTO account (name) SELECT 'a' || n FROM generate_series(0, $1::integer - 1) n", aggregates))
	run(t, b.store, sqlExec("INSERT INTO account (name) VALUES ('long')"))
	var err error
	if b.sql, err = pgxpool.New(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.sql.Close)
	return b
}

const (
	writeEarly = "INSERT INTO early DEFAULT VALUES"
	raise      = "UPDATE account SET n = n + 1 WHERE name = $1 RETURNING n"
)

// write is a transaction of the library. early gives it its number before it waits for the aggregate's row.
func (b *bank) write(ctx context.Context, name string, early bool, stall time.Duration) error {
	return b.store.Run(ctx, bound(func(ctx context.Context, tx *txn.Tx) error {
		if early {
			if _, err := tx.Exec(ctx, writeEarly); err != nil {
				return err
			}
		}
		note := noteV1{Key: name}
		if err := tx.QueryRow(ctx, raise, []any{name}, &note.N); err != nil {
			return err
		}
		time.Sleep(stall)
		return outbox.Add(ctx, tx, noted.New(note))
	}))
}

// writeSQL is one of a program in another language, which dawdles between its last statement and COMMIT.
func (b *bank) writeSQL(ctx context.Context, name string, early bool, stall time.Duration, open func()) error {
	return pgx.BeginFunc(ctx, b.sql, func(tx pgx.Tx) error {
		if early {
			if _, err := tx.Exec(ctx, writeEarly); err != nil {
				return err
			}
		}
		var n int
		if err := tx.QueryRow(ctx, raise, name).Scan(&n); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO settle_outbox (type, topic, aggregate_id, data)
			VALUES ('Noted', 'notes', $1, convert_to(json_build_object('key', $1::text, 'n', $2::integer)::text, 'UTF8'))`, name, n)
		if err != nil {
			return err
		}
		if open != nil {
			open()
		}
		time.Sleep(stall)
		return nil
	})
}

// load lets 12 writers work until stop is closed.
func (b *bank) load(t *testing.T, stop <-chan struct{}) (wait func()) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 12 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				name, early := fmt.Sprint("a", rand.IntN(aggregates)), rand.IntN(10) < 3
				var stall time.Duration
				if rand.IntN(10) < 3 {
					stall = time.Duration(rand.IntN(3000)) * time.Microsecond
				}
				var err error
				if w%3 == 0 {
					err = b.writeSQL(t.Context(), name, early, stall, nil)
				} else {
					err = b.write(t.Context(), name, early, stall)
				}
				if err != nil && !errors.Is(err, sqlstore.ErrUnavailable) && !errors.Is(err, context.Canceled) {
					time.Sleep(10 * time.Millisecond) // The server is away; the books say what was committed.
				}
			}
		})
	}
	return wg.Wait
}

// balance compares what was carried with the books: nothing lost, nothing inverted.
func (b *bank) balance(t *testing.T, out *sink) (events int) {
	t.Helper()
	rows, err := b.store.Query(t.Context(), "SELECT name, n FROM account WHERE n > 0")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	want := map[string]int{}
	for rows.Next() {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		want[name] = n
		events += n
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	lost, inverted := 0, 0
	for name, n := range want {
		got := out.seen[name]
		lost += n - len(got)
		for i := 1; i < len(got); i++ {
			if got[i] < got[i-1] {
				inverted++
			}
		}
	}
	if lost != 0 || inverted != 0 {
		t.Errorf("of %d events %d lost, %d inverted", events, lost, inverted)
	}
	return events
}

func (b *bank) total(t *testing.T) (n int) {
	t.Helper()
	if err := b.store.QueryRow(t.Context(), "SELECT sum(n)::bigint FROM account", nil, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// log is an outbox with all that it can do.
type log interface { //nolint:interfacebloat // Each part is small.
	relay.Source
	relay.Parking
	relay.Bell
	relay.Marks
	relay.Observer
	relay.Lister
	relay.Purger
}

// gate holds up a relay's every call, as a process is held up that was stopped.
type gate struct {
	log

	out  *sink
	shut atomic.Pointer[chan struct{}]
}

func (g *gate) pass() {
	if c := g.shut.Load(); c != nil {
		<-*c
	}
}

func (g *gate) Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (relay.Lease, error) {
	g.pass()
	return g.log.Claim(ctx, shard, owner, ttl)
}

func (g *gate) Next(ctx context.Context, lease relay.Lease, after outbox.Position, limit int) ([]outbox.Record, error) {
	g.pass()
	return g.log.Next(ctx, lease, after, limit)
}

func (g *gate) Advance(ctx context.Context, lease relay.Lease, to outbox.Position) error {
	g.pass()
	return g.log.Advance(ctx, lease, to)
}

// carrier publishes through the gate.
type carrier struct{ g *gate }

func (c carrier) Ordered() bool { return true }

func (c carrier) Publish(ctx context.Context, messages []broker.Message) []error {
	c.g.pass()
	return c.g.out.Publish(ctx, messages)
}

// TestOrder is the proof of the window: transactions that have their number before they wait for a lock, that
// dawdle before their commit, and one that stays open for seconds; two relays, of which the owner is stopped in
// the middle and wakes up when the other one has taken over. Nothing is lost, no key is inverted, and nobody
// waits for the long transaction.
func TestOrder(t *testing.T) {
	b := openBank(t, newDatabase(t, shared(t)))
	out := newSink()
	first := &gate{log: as[log](t, b.store.Outbox()), out: out}
	stopFirst := carry(t, first, carrier{first})
	eventually(t, "the first relay owns the shard", func() bool {
		var owner string
		return b.store.QueryRow(t.Context(), "SELECT owner FROM settle_relay WHERE shard = 0", nil, &owner) == nil && owner != ""
	})
	other := openStore(t, b.target, settlepgx.Config{ConnsMax: 8})
	stopOther := carry(t, other.Outbox(), out)
	stop := make(chan struct{})
	wait := b.load(t, stop)

	var during int
	err := b.writeSQL(t.Context(), "long", true, time.Second, func() {
		before := out.count()
		eventually(t, "events pass a long transaction", func() bool { during = out.count() - before; return during > 500 })
	})
	if err != nil {
		t.Fatal(err)
	}
	wake := make(chan struct{})
	first.shut.Store(&wake)
	stopped := out.count()
	eventually(t, "the other relay takes over", func() bool { return out.count() > stopped+500 })
	first.shut.Store(nil)
	close(wake)
	time.Sleep(time.Second)
	close(stop)
	wait()
	total := b.total(t)
	eventually(t, "everything is carried", func() bool { return out.count() >= total })
	stopFirst()
	stopOther()
	t.Logf("%d events, 0 lost, 0 inverted; %d of them while a transaction was open", b.balance(t, out), during)

	// Whoever reads afterwards reads the same, also what other page sizes make of it.
	var all []outbox.Record
	for _, page := range []int{1000, 50, 333} {
		again := readAll(t, other.Outbox(), page)
		if all == nil {
			all = again
		}
		if len(again) != total || len(all) != total {
			t.Fatalf("%d and %d records of %d", len(all), len(again), total)
		}
		for i := range all {
			if all[i].Position != again[i].Position || all[i].Event.ID != again[i].Event.ID {
				t.Fatalf("record %d is %s, then %s", i, all[i].Position, again[i].Position)
			}
		}
	}
}

func readAll(t *testing.T, src relay.Source, page int) (all []outbox.Record) {
	t.Helper()
	var at outbox.Position
	for {
		records, err := src.Next(t.Context(), relay.Lease{}, at, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			return all
		}
		for _, r := range records {
			if r.Position.Compare(at) <= 0 {
				t.Fatalf("%s follows %s", r.Position, at)
			}
			at = r.Position
		}
		all = append(all, records...)
	}
}
