package settlesqlite_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// groupTest puts members into one group, in order: the writer is held while they queue up.
type groupTest struct {
	t       *testing.T
	s       *sqlstore.Store
	release chan struct{}
	results []chan error
}

func newGroupTest(t *testing.T, path string, cfg settlesqlite.Config) *groupTest {
	t.Helper()
	cfg.Migrate = true
	s, err := settlesqlite.Open(context.Background(), path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &groupTest{t: t, s: s, release: make(chan struct{})}
	for _, table := range []string{
		"CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
		"CREATE TABLE part (id INTEGER PRIMARY KEY, item INTEGER REFERENCES item (id) DEFERRABLE INITIALLY DEFERRED)",
	} {
		if err := s.Run(t.Context(), sqlExec(table)); err != nil {
			t.Fatal(err)
		}
	}
	g.add(t.Context(), func(context.Context, *txn.Tx) error { <-g.release; return nil })
	return g
}

func (g *groupTest) add(ctx context.Context, fn func(context.Context, *txn.Tx) error) {
	c := make(chan error, 1)
	g.results = append(g.results, c)
	go func() { c <- g.s.Run(ctx, bound(fn)) }()
	synctest.Wait()
}

// commit lets the group go and returns the answers, that of the holder left out.
func (g *groupTest) commit() []error {
	close(g.release)
	errs := make([]error, 0, len(g.results))
	for _, c := range g.results[1:] {
		errs = append(errs, <-c)
	}
	return errs
}

// want checks which rows and which events are there, and closes the store.
func (g *groupTest) want(rows string, events ...string) {
	g.t.Helper()
	var got string
	err := g.s.QueryRow(g.t.Context(), "SELECT coalesce(group_concat(id ORDER BY id), '') FROM item", nil, &got)
	if err != nil || got != rows {
		g.t.Errorf("rows %q, %v, want %q", got, err, rows)
	}
	records, err := g.s.Outbox().Next(g.t.Context(), relay.Lease{}, outbox.Position{}, 100)
	if err != nil {
		g.t.Error(err)
	}
	var keys []string
	for i, r := range records {
		keys = append(keys, r.Event.AggregateID)
		if r.Position.ID != int64(i+1) {
			g.t.Errorf("event %d stands at %s", i+1, r.Position)
		}
	}
	if strings.Join(keys, ",") != strings.Join(events, ",") {
		g.t.Errorf("events %v, want %v", keys, events)
	}
	if err := g.s.Close(); err != nil {
		g.t.Error(err)
	}
}

func sqlExec(query string, args ...any) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
	}
}

const insertItem = "INSERT INTO item (id, name) VALUES (?, 'x')"

func item(id int) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		if err := sqlExec(insertItem, id)(ctx, tx); err != nil {
			return err
		}
		return add(fmt.Sprint("k", id))(ctx, tx)
	}
}

func then(first, second func(context.Context, *txn.Tx) error) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		if err := first(ctx, tx); err != nil {
			return err
		}
		return second(ctx, tx)
	}
}

func TestGroupNeighboursUnharmed(t *testing.T) {
	refused := errors.New("refused")
	for _, tc := range []struct {
		name string
		bad  func(context.Context, *txn.Tx) error
		want func(error) bool
	}{
		{"returns an error", func(context.Context, *txn.Tx) error { return refused }, func(err error) bool { return errors.Is(err, refused) }},
		{"breaks a constraint", sqlExec(insertItem, 1), func(err error) bool { return err != nil }},
		{"hides a failed statement", func(ctx context.Context, tx *txn.Tx) error {
			_ = sqlExec(insertItem, 1)(ctx, tx)
			return nil
		}, func(err error) bool { return err != nil }},
		{"goes on after a failed statement", func(ctx context.Context, tx *txn.Tx) error {
			_ = sqlExec(insertItem, 1)(ctx, tx)
			return sqlExec(insertItem, 99)(ctx, tx)
		}, func(err error) bool { return err != nil }},
		{"panics", func(context.Context, *txn.Tx) error { panic(refused) }, func(err error) bool {
			var p *txn.PanicError
			return errors.As(err, &p) && errors.Is(err, refused) && strings.Contains(string(p.Stack), "group_test.go")
		}},
		{"rolls the whole group back", sqlExec("INSERT OR ROLLBACK INTO item (id, name) VALUES (1, 'x')"), func(err error) bool { return err != nil }},
		{"rolls the whole group back and hides it", func(ctx context.Context, tx *txn.Tx) error {
			_ = sqlExec("INSERT OR ROLLBACK INTO item (id, name) VALUES (1, 'x')")(ctx, tx)
			return sqlExec(insertItem, 98)(ctx, tx)
		}, func(err error) bool { return err != nil }},
		{"breaks a constraint that is checked by COMMIT", sqlExec("INSERT INTO part (id, item) VALUES (1, 777)"), func(err error) bool { return err != nil }},
		{"queues a statement that fails", func(_ context.Context, tx *txn.Tx) error {
			tx.Queue(insertItem, 1)
			return nil
		}, func(err error) bool { return err != nil }},
		{"ends the group behind the store's back", func(ctx context.Context, tx *txn.Tx) error {
			e, err := txn.SQL(tx)
			if err != nil {
				return err
			}
			stmt, err := e.PrepareContext(ctx, "INSERT OR ROLLBACK INTO item (id, name) VALUES (1, 'x')")
			if err != nil {
				return err
			}
			_, _ = stmt.ExecContext(ctx)
			return stmt.Close()
		}, func(err error) bool { return err != nil }},
		{"commits itself", sqlExec(" /* ha */ Commit"), func(err error) bool { return err != nil }},
		{"leaves rows open", func(ctx context.Context, tx *txn.Tx) error {
			if _, err := tx.Query(ctx, "SELECT id FROM item"); err != nil {
				return err
			}
			_, err := tx.Query(ctx, "SELECT id FROM item")
			return err
		}, func(err error) bool { return errors.Is(err, sqlstore.ErrRowsOpen) }},
	} {
		for _, place := range []string{"first", "middle", "last"} {
			t.Run(tc.name+" "+place, func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{})
					bad := then(sqlExec("INSERT INTO item (id, name) VALUES (50, 'bad')"), then(add("bad"), tc.bad))
					members := []func(context.Context, *txn.Tx) error{item(1), item(2)}
					at := map[string]int{"first": 0, "middle": 1, "last": 2}[place]
					if place == "first" && !strings.Contains(tc.name, "by COMMIT") {
						bad = then(sqlExec(insertItem, 1), bad) // There is no neighbour's row yet to collide with.
					}
					members = append(members[:at], append([]func(context.Context, *txn.Tx) error{bad}, members[at:]...)...)
					for _, m := range members {
						g.add(t.Context(), m)
					}
					for i, err := range g.commit() {
						if i == at && !tc.want(err) || i != at && err != nil {
							t.Errorf("member %d: %v", i, err)
						}
					}
					g.want("1,2", "k1", "k2")
				})
			})
		}
	}
}

func TestGroupSkipsCancelled(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		g.add(t.Context(), item(1))
		g.add(ctx, item(2))
		g.add(t.Context(), item(3))
		cancel()
		if err := <-g.results[2]; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled member: %v", err)
		}
		g.results = append(g.results[:2], g.results[3:]...)
		for i, err := range g.commit() {
			if err != nil {
				t.Errorf("member %d: %v", i, err)
			}
		}
		g.want("1,3", "k1", "k3")
	})
}

func TestGroupFinishesWhatHasBegun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		g.add(t.Context(), item(1))
		g.add(ctx, func(inner context.Context, tx *txn.Tx) error {
			cancel()
			if inner.Err() != nil {
				t.Error("a member's context was cancelled")
			}
			return item(2)(ctx, tx) // Its own, cancelled context does not reach SQLite either.
		})
		g.add(t.Context(), item(3))
		for i, err := range g.commit() {
			if err != nil {
				t.Errorf("member %d: %v", i, err)
			}
		}
		g.want("1,2,3", "k1", "k2", "k3")
	})
}

func TestGroupSurvivesGoexit(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{})
		g.add(t.Context(), item(1))
		g.add(t.Context(), func(context.Context, *txn.Tx) error { runtime.Goexit(); return nil })
		for i, err := range g.commit() {
			if err == nil {
				t.Errorf("member %d was confirmed", i)
			}
		}
		if err := g.s.Run(t.Context(), bound(item(4))); err != nil {
			t.Error(err)
		}
		g.want("4", "k4")
	})
}

// TestGroupAnswersOnlyWhatIsCommitted: a member that was refused because of a neighbour's row is asked
// again when that row is not committed after all.
func TestGroupAnswersOnlyWhatIsCommitted(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{})
		g.add(t.Context(), then(item(1), sqlExec("INSERT INTO part (id, item) VALUES (1, 777)"))) // Refused by COMMIT.
		g.add(t.Context(), item(1))
		g.add(t.Context(), item(2))
		errs := g.commit()
		if errs[0] == nil || errs[1] != nil || errs[2] != nil {
			t.Errorf("answers %v", errs)
		}
		g.want("1,2", "k1", "k2")
	})
}

// TestGroupGoexitAfterLoss ends the goroutine while the members of a lost group run again.
func TestGroupGoexitAfterLoss(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{})
		calls := 0
		g.add(t.Context(), item(1))
		g.add(t.Context(), func(context.Context, *txn.Tx) error {
			if calls++; calls == 2 {
				runtime.Goexit()
			}
			return nil
		})
		g.add(t.Context(), item(2))
		g.add(t.Context(), sqlExec("INSERT OR ROLLBACK INTO item (id, name) VALUES (1, 'x')"))
		for i, err := range g.commit() {
			if (err == nil) != (i == 0 || i == 2) {
				t.Errorf("member %d: %v", i, err)
			}
		}
		g.want("1,2", "k1", "k2")
	})
}

func TestGroupSurvivesHook(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{})
		g.add(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			tx.AfterCommit(func() { panic("hook") })
			return item(1)(ctx, tx)
		})
		g.add(t.Context(), item(2))
		for i, err := range g.commit() {
			if err != nil {
				t.Errorf("member %d: %v", i, err)
			}
		}
		g.want("1,2", "k1", "k2")
	})
}

func TestGroupAnswersAfterCommit(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{})
		var order []string
		for _, name := range []string{"a", "b"} {
			g.add(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
				order = append(order, "run "+name)
				tx.AfterCommit(func() { order = append(order, "committed "+name) })
				return nil
			})
		}
		g.add(t.Context(), func(_ context.Context, tx *txn.Tx) error {
			tx.AfterCommit(func() { t.Error("hook of a failed member was called") })
			return errors.New("no")
		})
		g.commit()
		if got := strings.Join(order, ", "); got != "run a, run b, committed a, committed b" {
			t.Error(got)
		}
		g.want("")
	})
}

// TestGap shows the rule: an idle writer commits at once, a busy one gathers.
func TestGap(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t, filepath.Join(dir, "g.db"), settlesqlite.Config{Store: sqlstore.Config{Gap: 10 * time.Millisecond}})
		for id := range 3 {
			g.add(t.Context(), item(id+1))
		}
		g.commit()
		began := time.Now()
		if err := g.s.Run(t.Context(), bound(item(4))); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited != 10*time.Millisecond {
			t.Errorf("a busy writer waited %s, not the gap", waited)
		}
		began = time.Now()
		if err := g.s.Run(t.Context(), bound(item(5))); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %s though gathering brought nobody together", waited)
		}
		time.Sleep(time.Second)
		began = time.Now()
		if err := g.s.Run(t.Context(), bound(item(6))); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("an idle writer waited %s", waited)
		}
		g.want("1,2,3,4,5,6", "k1", "k2", "k3", "k4", "k5", "k6")
	})
}
