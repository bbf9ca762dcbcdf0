package settlemysql_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// version is the data of the events of this file: the version of an aggregate that a transaction wrote.
type version struct {
	Key     string `json:"key"`
	Version int    `json:"version"`
}

var changed = event.Define("AccountChanged", 1, event.Spec[version]{
	Topic: "accounts", Aggregate: "account", Key: func(v version) string { return v.Key },
})

const (
	accountRaise = "UPDATE account SET version = version + 1 WHERE name = ?"
	accountRead  = "SELECT version FROM account WHERE name = ?"
)

// bank is a database with aggregates whose versions count their commits.
type bank struct {
	target string
	store  *sqlstore.Store
	db     *sql.DB // of a program that is not ours
}

func openBank(t *testing.T, target string, aggregates int) *bank {
	t.Helper()
	b := &bank{target: target, store: openStore(t, target, settlemysql.Config{}), db: connect(t, target)}
	run(t, b.store, exec("CREATE TABLE account (name VARCHAR(64) PRIMARY KEY, version INT NOT NULL)"))
	run(t, b.store, exec("CREATE TABLE work (id BIGINT AUTO_INCREMENT PRIMARY KEY)"))
	for i := range aggregates {
		run(t, b.store, exec("INSERT INTO account (name, version) VALUES (?, 0)", fmt.Sprint("a", i)))
	}
	run(t, b.store, exec("INSERT INTO account (name, version) VALUES ('long', 0)"))
	return b
}

// write raises an aggregate's version by the store.
func (b *bank) write(ctx context.Context, name string, before bool) error {
	return b.store.Run(ctx, bound(func(ctx context.Context, tx *txn.Tx) error {
		if before {
			if _, err := tx.Exec(ctx, "INSERT INTO work () VALUES ()"); err != nil {
				return err
			}
		}
		v := version{Key: name}
		if _, err := tx.Exec(ctx, accountRaise, name); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, accountRead, []any{name}, &v.Version); err != nil {
			return err
		}
		return outbox.Add(ctx, tx, changed.New(v))
	}))
}

// writeSQL does the same as a program in another language would, which stalls before its commit.
func (b *bank) writeSQL(ctx context.Context, name string, before bool, stall time.Duration) (err error) {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback()
		}
	}()
	if before {
		if _, err = tx.ExecContext(ctx, "INSERT INTO work () VALUES ()"); err != nil {
			return err
		}
	}
	if _, err = tx.ExecContext(ctx, accountRaise, name); err != nil {
		return err
	}
	v := version{Key: name}
	if err = tx.QueryRowContext(ctx, accountRead, name).Scan(&v.Version); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err = tx.ExecContext(ctx, "INSERT INTO settle_outbox (type, topic, aggregate_id, data) VALUES ('AccountChanged', 'accounts', ?, ?)", name, data); err != nil {
		return err
	}
	time.Sleep(stall)
	return tx.Commit()
}

// versions returns how often each aggregate was changed.
func (b *bank) versions(t *testing.T) map[string]int {
	t.Helper()
	rows, err := b.store.Query(context.WithoutCancel(t.Context()), "SELECT name, version FROM account")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[string]int{}
	for rows.Next() {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		out[name] = n
	}
	return out
}

// told is what a reader has been told, in the order in which it came.
type told struct {
	mu      sync.Mutex
	records []outbox.Record
	late    []time.Duration // how old each was
	batches int
}

func (w *told) take(records []outbox.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batches++
	for _, r := range records {
		w.records = append(w.records, r)
		w.late = append(w.late, time.Since(r.CreatedAt))
	}
}

// await waits until both have been told as many events as there are.
func (w *told) await(other *told, versions map[string]int) {
	total := 0
	for _, n := range versions {
		total += n
	}
	whole := func(w *told) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		seen := map[outbox.Position]bool{}
		for i := range w.records {
			seen[w.records[i].Position] = true
		}
		return len(seen) >= total
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && (!whole(w) || !whole(other)); {
		time.Sleep(20 * time.Millisecond)
	}
}

// check proves that nothing was lost and that no event overtook one of its aggregate. Repetitions are those of
// an owner that died: they have the same position.
func (w *told) check(t *testing.T, who string, versions map[string]int, repeats bool) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[outbox.Position]version{}
	last := map[string]int{}
	lost, inverted, repeated := 0, 0, 0
	for _, r := range w.records {
		var v version
		if err := json.Unmarshal(r.Event.Data, &v); err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[r.Position]; ok {
			if repeated++; before != v {
				t.Errorf("%s: position %s was %v, then %v", who, r.Position, before, v)
			}
			continue
		}
		seen[r.Position] = v
		if v.Version != last[v.Key]+1 {
			inverted++
		}
		last[v.Key] = max(last[v.Key], v.Version)
	}
	total := 0
	for name, n := range versions {
		total += n
		if last[name] != n {
			lost++
		}
	}
	late := slices.Clone(w.late)
	slices.Sort(late)
	t.Logf("%s: %d events, %d told in %d batches, %d repeated, %d inverted; age p50 %s p99 %s max %s", who, total, len(seen), w.batches, repeated, inverted,
		late[len(late)/2].Round(time.Millisecond), late[len(late)*99/100].Round(time.Millisecond), late[len(late)-1].Round(time.Millisecond))
	if lost > 0 || inverted > 0 || len(seen) != total || !repeats && repeated > 0 {
		t.Errorf("%s: %d of %d events told, %d aggregates short, %d inverted, %d repeated", who, len(seen), total, lost, inverted, repeated)
	}
}

// own carries the shard while it holds it, as a relay does, until ctx ends. It dies as a process does: it
// releases nothing. Now and then it is paused for longer than its lease.
func own(ctx context.Context, src relay.Source, name string, ttl time.Duration, publish func([]outbox.Record)) error {
	var lease relay.Lease
	var at outbox.Position
	var until, renewed time.Time
	for ctx.Err() == nil {
		if began := time.Now(); lease.Fence == 0 || began.Sub(renewed) > ttl/3 {
			next, err := src.Claim(ctx, 0, name, ttl)
			if err != nil {
				lease = relay.Lease{}
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if next.Fence != lease.Fence {
				at = next.Position
			}
			lease, renewed, until = next, began, began.Add(ttl*2/3)
		}
		if rand.IntN(400) == 0 {
			time.Sleep(ttl * 3 / 2)
		}
		records, err := src.Next(ctx, lease, at, 200)
		switch {
		case errors.Is(err, relay.ErrFenced):
			lease = relay.Lease{}
			continue
		case errors.Is(err, relay.ErrRetention):
			return err
		case err != nil, !time.Now().Before(until), len(records) == 0:
			time.Sleep(2 * time.Millisecond)
			continue
		}
		publish(records)
		at = records[len(records)-1].Position
		if rand.IntN(3) == 0 {
			_ = src.Advance(ctx, lease, at)
		}
	}
	return nil
}

// follow reads without owning anything.
func follow(ctx context.Context, src relay.Source, publish func([]outbox.Record)) error {
	var at outbox.Position
	for {
		records, err := src.Next(ctx, relay.Lease{}, at, 200)
		if errors.Is(err, relay.ErrRetention) {
			return err
		}
		if len(records) > 0 {
			at = records[len(records)-1].Position
			publish(records)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// lasting is how long writers write; more of it by hand.
func lasting(t *testing.T, otherwise time.Duration) time.Duration {
	t.Helper()
	if text := os.Getenv("SETTLE_TEST_LASTING"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return otherwise
}

// TestOrder lets 12 writers change 20 aggregates, half of them in plain SQL, with work before the aggregate's
// row is locked and stalls before the commit, while one transaction stays open. Two owners take the shard from
// one another and one of them dies; a follower follows. Nothing is lost, no event overtakes one of its
// aggregate, and others arrive while the long transaction lasts.
func TestOrder(t *testing.T) {
	const writers, aggregates = 12, 20
	b := openBank(t, database(t, server.Shared(t, server.MariaDB), ""), aggregates)
	length := lasting(t, 3*time.Second)
	var relayed, followed told
	reading, stopReading := context.WithCancel(t.Context())
	defer stopReading()
	var readers, writing sync.WaitGroup
	dying, die := context.WithCancel(reading)
	defer die()
	a, c, f := openStore(t, b.target, settlemysql.Config{}), openStore(t, b.target, settlemysql.Config{}), openStore(t, b.target, settlemysql.Config{})
	failed := make(chan error, 3)
	for _, reader := range []func() error{
		func() error { return own(dying, a.Outbox(), "a", 300*time.Millisecond, relayed.take) },
		func() error { return own(reading, c.Outbox(), "c", 300*time.Millisecond, relayed.take) },
		func() error { return follow(reading, f.Outbox(), followed.take) },
	} {
		readers.Go(func() {
			if err := reader(); err != nil {
				failed <- err
			}
		})
	}
	end := time.Now().Add(length)
	for w := range writers {
		writing.Go(func() {
			for time.Now().Before(end) {
				name, before := fmt.Sprint("a", rand.IntN(aggregates)), rand.IntN(10) < 3
				var err error
				if w%2 == 0 {
					err = b.write(t.Context(), name, before)
				} else {
					err = b.writeSQL(t.Context(), name, before, time.Duration(rand.IntN(10)/7)*time.Duration(rand.IntN(3000))*time.Microsecond)
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	writing.Go(func() {
		if err := b.writeSQL(t.Context(), "long", true, length*2/3); err != nil {
			t.Errorf("long transaction: %v", err)
		}
	})
	time.AfterFunc(length/2, die)
	writing.Wait()
	versions := b.versions(t)
	relayed.await(&followed, versions)
	stopReading()
	readers.Wait()
	select {
	case err := <-failed:
		t.Error(err)
	default:
	}
	relayed.check(t, "owners", versions, true)
	followed.check(t, "follower", versions, false)
	if len(followed.late) > 0 {
		slices.Sort(followed.late)
		if p99 := followed.late[len(followed.late)*99/100]; p99 > length/3 {
			t.Errorf("events of other aggregates waited for the long transaction: p99 is %s", p99)
		}
	}
}
