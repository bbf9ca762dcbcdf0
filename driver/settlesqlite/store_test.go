package settlesqlite_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

type noteV1 struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

var noted = event.Define("Noted", 1, event.Spec[noteV1]{
	Topic: "notes", Aggregate: "note", Key: func(n noteV1) string { return n.Key },
})

func openStore(tb testing.TB, path string, cfg settlesqlite.Config) *sqlstore.Store {
	tb.Helper()
	cfg.Migrate = true
	s, err := settlesqlite.Open(context.Background(), path, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func newStore(tb testing.TB) *sqlstore.Store {
	tb.Helper()
	return openStore(tb, filepath.Join(tb.TempDir(), "test.db"), settlesqlite.Config{})
}

func run(tb testing.TB, s txn.Runner, fn func(ctx context.Context, tx *txn.Tx) error) {
	tb.Helper()
	if err := s.Run(tb.Context(), bound(fn)); err != nil {
		tb.Fatal(err)
	}
}

func bound(fn func(context.Context, *txn.Tx) error) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		tx.Bind("notebook", nil)
		return fn(ctx, tx)
	}
}

func add(keys ...string) func(context.Context, *txn.Tx) error {
	return func(ctx context.Context, tx *txn.Tx) error {
		for _, k := range keys {
			if err := outbox.Add(ctx, tx, noted.New(noteV1{Key: k, Text: strings.Repeat("x", 20)})); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestEveryStatementPrepares(t *testing.T) {
	s := newStore(t)
	all, err := sqlstore.SQLite().Statements()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, text := range all {
		n++
		if strings.HasPrefix(name, "store.") {
			continue // Transactions and the schema are run by opening the store.
		}
		run(t, s, func(_ context.Context, tx *txn.Tx) error {
			e, err := txn.SQL(tx)
			if err != nil {
				return err
			}
			stmt, err := e.PrepareContext(t.Context(), text)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return nil
			}
			return stmt.Close()
		})
	}
	if n < 50 {
		t.Errorf("only %d statements", n)
	}
}

// next returns the keys and positions of the events after a position.
func next(t *testing.T, s *sqlstore.Store, after int64) string {
	t.Helper()
	records, err := s.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{ID: after}, 100)
	if err != nil {
		return err.Error()
	}
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = fmt.Sprintf("%s@%d", r.Event.AggregateID, r.Position.ID)
	}
	return strings.Join(out, " ")
}

// TestOutboxIsTheSameForAll compares what memory, SQL and another opener say of one log.
func TestOutboxIsTheSameForAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "o.db")
	s := openStore(t, path, settlesqlite.Config{})
	cause := event.Cause{TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", CorrelationID: "cor", CausationID: event.NewID(time.Now())}
	run(t, s, func(ctx context.Context, tx *txn.Tx) error {
		return outbox.Add(event.WithCause(ctx, cause), tx, noted.Once("k1", noteV1{Key: "a", Text: "ü"}), noted.New(noteV1{Key: "b"}))
	})
	reader, err := settlesqlite.OpenReader(t.Context(), path, settlesqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var all [2][]outbox.Record
	for i, st := range []*sqlstore.Store{s, reader} {
		if all[i], err = st.Outbox().Next(t.Context(), relay.Lease{}, outbox.Position{}, 10); err != nil || len(all[i]) != 2 {
			t.Fatalf("%d records, %v", len(all[i]), err)
		}
	}
	if !reflect.DeepEqual(all[0], all[1]) {
		t.Errorf("from memory\n%+v\nfrom SQL\n%+v", all[0], all[1])
	}
	e := all[1][0].Event
	if e.Cause().TraceParent != cause.TraceParent || e.CausationID != cause.CausationID || e.IdempotencyKey != "k1" || e.Producer != "notebook" || e.Version != 1 {
		t.Errorf("an envelope has changed: %+v", e)
	}
	var status, data string
	if err := reader.QueryRow(t.Context(), "SELECT status, data FROM settle_outbox_status WHERE id = 1", nil, &status, &data); err != nil || status != "PENDING" || !strings.Contains(data, "ü") {
		t.Errorf("view: %s %s, %v", status, data, err)
	}
}

// TestTail reads across the edge between memory and SQL.
func TestTail(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "o.db"), settlesqlite.Config{Store: sqlstore.Config{TailBytesMax: 2000}})
	var want []string
	for i := 1; i <= 20; i++ {
		k := fmt.Sprint("k", i)
		want = append(want, fmt.Sprintf("%s@%d", k, i))
		run(t, s, add(k))
		if err := s.Run(t.Context(), bound(then(add("never"), func(context.Context, *txn.Tx) error { return errors.New("no") }))); err == nil {
			t.Fatal("a failed transaction was confirmed")
		}
	}
	for after := range 21 {
		if got := next(t, s, int64(after)); got != strings.Join(want[after:], " ") {
			t.Errorf("after %d: %s", after, got)
		}
	}
}

// TestPurge deletes settled events only, gives no row number twice, and tells a reader that is too late.
func TestPurge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "o.db")
	s := openStore(t, path, settlesqlite.Config{})
	run(t, s, add("a", "b", "c"))
	purge := func(limit, want int) {
		t.Helper()
		if n, err := as[relay.Purger](t, s.Outbox()).Purge(t.Context(), time.Now().Add(time.Hour), limit); n != want || err != nil {
			t.Fatalf("purged %d, %v, want %d", n, err, want)
		}
	}
	purge(10, 0)
	lease, err := s.Outbox().Claim(t.Context(), 0, "relay", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Outbox().Advance(t.Context(), lease, outbox.Position{ID: 4}); err == nil {
		t.Error("advanced beyond the last event")
	}
	if err := s.Outbox().Advance(t.Context(), lease, outbox.Position{ID: 3}); err != nil {
		t.Fatal(err)
	}
	if n, err := as[relay.Purger](t, s.Outbox()).Purge(t.Context(), time.Now().Add(-time.Hour), 10); n != 0 || err != nil {
		t.Errorf("purged %d of what is young, %v", n, err)
	}
	purge(2, 2)
	if got := next(t, s, 0); got != "c@3" {
		t.Errorf("after a purge: %s", got)
	}
	if got := next(t, s, 1); !strings.Contains(got, relay.ErrRetention.Error()) {
		t.Errorf("a late reader got %s", got)
	}
	purge(2, 1)
	if got := next(t, s, 3); got != "" {
		t.Errorf("at the end of an empty log: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, settlesqlite.Config{})
	if got := next(t, s, 2); !strings.Contains(got, relay.ErrRetention.Error()) {
		t.Errorf("a late reader got %s", got)
	}
	run(t, s, add("d"))
	if got := next(t, s, 3); got != "d@4" {
		t.Errorf("a purged row number was given again, or lost: %s", got)
	}
	if st, err := as[relay.Observer](t, s.Outbox()).Stats(t.Context()); err != nil || st.Pending != 1 || st.Sent != 0 || st.Age <= 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
}

func TestForget(t *testing.T) {
	s := newStore(t)
	remember := func(group string, ids ...event.ID) (fresh []bool) {
		t.Helper()
		run(t, s, func(ctx context.Context, tx *txn.Tx) (err error) {
			fresh, err = inbox.Remember(ctx, tx, group, ids...)
			return err
		})
		return fresh
	}
	old, derived := event.NewID(time.Now().Add(-time.Hour)), event.DerivedID(event.ID{1}, "x")
	late := event.NewID(time.Now().Add(30 * time.Second)) // A producer's clock is ahead.
	if got := remember("g", old, derived, old, late); !slices.Equal(got, []bool{true, true, false, true}) {
		t.Errorf("fresh %v", got)
	}
	remember("h", old)
	if n, err := s.Inbox().Forget(t.Context(), time.Now().Add(-time.Minute), 10); n != 0 || err != nil {
		t.Errorf("forgot %d of what is young, %v", n, err)
	}
	if n, err := s.Inbox().Forget(t.Context(), time.Now().Add(time.Second), 3); n != 3 || err != nil {
		t.Errorf("forgot %d of 3, %v", n, err)
	}
	if n, err := s.Inbox().Forget(t.Context(), time.Now().Add(time.Second), 3); n != 1 || err != nil {
		t.Errorf("forgot %d of 1, %v", n, err)
	}
	if got := remember("g", old, derived, late); !slices.Equal(got, []bool{true, true, true}) {
		t.Errorf("after forgetting: %v", got)
	}
}

func TestSQL(t *testing.T) {
	s := newStore(t)
	run(t, s, sqlExec("CREATE TABLE item (id INTEGER PRIMARY KEY)"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	run(t, s, func(_ context.Context, tx *txn.Tx) error {
		e, err := txn.SQL(tx)
		if err != nil {
			return err
		}
		if _, err := e.ExecContext(ctx, "INSERT INTO item VALUES (1), (2)"); err != nil {
			return err // The cancelled context must not reach SQLite.
		}
		var n int
		return errors.Join(e.QueryRowContext(ctx, "SELECT count(*) FROM item").Scan(&n), map[bool]error{true: nil, false: errors.New("rows are missing")}[n == 2])
	})
	for name, bad := range map[string]func(ctx context.Context, e txn.Executor) error{
		"statement": func(ctx context.Context, e txn.Executor) error {
			_, _ = e.ExecContext(ctx, "INSERT INTO item VALUES (1)")
			return nil
		},
		"query": func(ctx context.Context, e txn.Executor) error { return e.QueryRowContext(ctx, "COMMIT").Err() },
		"transaction": func(ctx context.Context, e txn.Executor) error {
			_, err := e.PrepareContext(ctx, "ROLLBACK")
			return err
		},
	} {
		err := s.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			e, err := txn.SQL(tx)
			if err != nil {
				return err
			}
			if _, err := e.ExecContext(ctx, "INSERT INTO item VALUES (7)"); err != nil {
				return err
			}
			return bad(ctx, e)
		})
		if err == nil {
			t.Errorf("%s: confirmed", name)
		}
	}
	var rows int
	if err := s.QueryRow(t.Context(), "SELECT count(*) FROM item", nil, &rows); err != nil || rows != 2 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

func TestRunRefuses(t *testing.T) {
	s := newStore(t)
	var kept *txn.Tx
	run(t, s, func(ctx context.Context, tx *txn.Tx) error {
		kept = tx
		if err := s.Run(ctx, add("a")); !errors.Is(err, sqlstore.ErrNested) {
			t.Errorf("a transaction inside a transaction: %v", err)
		}
		return nil
	})
	if _, err := kept.Exec(t.Context(), "SELECT 1"); !errors.Is(err, txn.ErrClosed) {
		t.Errorf("a transaction that is over: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, add("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), add("a")); !errors.Is(err, sqlstore.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestManyWriters lets transactions that succeed, fail and give up race, and counts.
func TestManyWriters(t *testing.T) {
	s := newStore(t)
	run(t, s, sqlExec("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"))
	ring, stop := as[relay.Bell](t, s.Outbox()).Listen()
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	confirmed := map[int]bool{}
	for w := range 16 {
		wg.Go(func() {
			for i := range 100 {
				id := w*1000 + i
				ctx, cancel := context.WithCancel(t.Context())
				fn := item(id)
				switch i % 10 {
				case 3:
					fn = then(fn, func(context.Context, *txn.Tx) error { return errors.New("no") })
				case 5:
					fn = then(fn, sqlExec("INSERT OR ROLLBACK INTO item (id, name) VALUES (?, 'again')", id))
				case 7:
					go cancel()
				}
				if err := s.Run(ctx, bound(fn)); err == nil {
					mu.Lock()
					confirmed[id] = true
					mu.Unlock()
				}
				cancel()
			}
		})
	}
	seen := map[string]bool{}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	at := outbox.Position{}
	for open := true; open; {
		select {
		case <-ring:
		case <-done:
			open = false
		}
		for {
			records, err := s.Outbox().Next(t.Context(), relay.Lease{}, at, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				if r.Position.ID != at.ID+1 {
					t.Fatalf("%s follows %s", r.Position, at)
				}
				at, seen[r.Event.AggregateID] = r.Position, true
			}
			if len(records) == 0 {
				break
			}
		}
	}
	var rows int
	if err := s.QueryRow(t.Context(), "SELECT count(*) FROM item", nil, &rows); err != nil {
		t.Fatal(err)
	}
	if rows != len(confirmed) || len(seen) != len(confirmed) {
		t.Errorf("%d confirmed, %d rows, %d events", len(confirmed), rows, len(seen))
	}
}
