package settlepgx_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// sink is a broker that only remembers, in the order in which it acknowledged.
type sink struct {
	mu   sync.Mutex
	seen map[string][]int // by key, first deliveries
	ids  map[event.ID]int
}

func newSink() *sink { return &sink{seen: map[string][]int{}, ids: map[event.ID]int{}} }

func (s *sink) Ordered() bool { return true }

func (s *sink) Publish(_ context.Context, messages []broker.Message) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		if s.ids[m.Event.ID]++; s.ids[m.Event.ID] == 1 {
			var n noteV1
			if err := json.Unmarshal(m.Event.Data, &n); err != nil {
				panic(err)
			}
			s.seen[n.Key] = append(s.seen[n.Key], n.N)
		}
	}
	return make([]error, len(messages))
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

// deliveries counts those of the same event too.
func (s *sink) deliveries() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, times := range s.ids {
		n += times
	}
	return n
}

// inOrder fails unless each key has its numbers from 1 to n.
func (s *sink) inOrder(t *testing.T, keys, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) != keys {
		t.Errorf("%d keys, want %d", len(s.seen), keys)
	}
	for key, got := range s.seen {
		if len(got) != n {
			t.Errorf("%s: %d events, want %d", key, len(got), n)
		}
		for i := range got {
			if got[i] != i+1 {
				t.Errorf("%s: event %d is number %d", key, i+1, got[i])
				break
			}
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // Of a busy machine; it takes as long only to fail.
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes", what)
		}
		time.Sleep(5 * time.Millisecond) // A real server's time.
	}
}

// modes are what a WAL source said of itself.
type modes struct {
	mu  sync.Mutex
	all []string
}

func (m *modes) hook(mode, _ string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, mode)
}

func (m *modes) last() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.all) == 0 {
		return ""
	}
	return m.all[len(m.all)-1]
}

func newWAL(t *testing.T, s *sqlstore.Store, target string, m *modes, cfg settlepgx.WALConfig) *settlepgx.WAL {
	t.Helper()
	cfg.Logger = quiet()
	cfg.WatchEvery = 50 * time.Millisecond
	if m != nil {
		cfg.Hooks.Mode = m.hook
	}
	w, err := settlepgx.NewWAL(s, target, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// carry runs a relay until the returned function is called.
func carry(t *testing.T, src relay.Source, to broker.Publisher) (stop func()) {
	t.Helper()
	return carryFor(t, src, to, 3*time.Second)
}

// carryFor is carry with leases of another length.
func carryFor(t *testing.T, src relay.Source, to broker.Publisher, ttl time.Duration) (stop func()) {
	t.Helper()
	r, err := relay.New(src, to, relay.Config{
		Logger: quiet(), LeaseTTL: ttl, PublishTimeout: time.Second, RetryMin: 20 * time.Millisecond, RetryMax: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("relay: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// write adds events number from to to of each key, from several writers.
func write(t *testing.T, s *sqlstore.Store, keys, from, to int) {
	t.Helper()
	var wg sync.WaitGroup
	for k := range keys {
		wg.Go(func() {
			for n := from; n <= to; n++ {
				for s.Run(t.Context(), bound(add(n, fmt.Sprint("k", k)))) != nil && t.Context().Err() == nil {
					time.Sleep(10 * time.Millisecond) // The server is away: it was not committed, or the test counts it.
				}
			}
		})
	}
	wg.Wait()
}

func TestWAL(t *testing.T) {
	t.Parallel()
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	var m modes
	out := newSink()
	write(t, s, 5, 1, 20) // Before there is a slot: only the table has them.
	stop := carry(t, newWAL(t, s, target, &m, settlepgx.WALConfig{}), out)
	write(t, s, 5, 21, 60)
	eventually(t, "the log is read", func() bool { return m.last() == "wal" })
	write(t, s, 5, 61, 100)
	eventually(t, "all events", func() bool { return out.count() == 500 })
	stop()
	write(t, s, 5, 101, 120) // The slot has them.
	stop = carry(t, newWAL(t, s, target, &m, settlepgx.WALConfig{}), out)
	eventually(t, "what was written meanwhile", func() bool { return out.count() == 600 })
	out.inOrder(t, 5, 120)
	eventually(t, "the outbox says that all is sent", func() bool {
		st, err := as[relay.Observer](t, s.Outbox()).Stats(t.Context())
		return err == nil && st.Pending == 0 && st.Sent == 600
	})
	stop()
}

// TestWALSlotLost lets the server throw away what the slot needs: the windows go on, nothing is lost.
func TestWALSlotLost(t *testing.T) {
	t.Parallel()
	srv := server.Start(t, server.Postgres, server.Options{Settings: smallLog()})
	target := newDatabase(t, srv.URL())
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	var m modes
	out := newSink()
	stop := carry(t, newWAL(t, s, target, &m, settlepgx.WALConfig{Slot: slotIn(target)}), out)
	write(t, s, 4, 1, 20)
	eventually(t, "the log is read", func() bool { return m.last() == "wal" && out.count() == 80 })
	stop()
	write(t, s, 4, 21, 40)
	outgrow(t, connect(t, target), slotIn(target))
	stop = carry(t, newWAL(t, s, target, &m, settlepgx.WALConfig{Slot: slotIn(target)}), out)
	write(t, s, 4, 41, 60)
	eventually(t, "all events", func() bool { return out.count() == 240 })
	eventually(t, "a new slot is read", func() bool { return m.last() == "wal" })
	write(t, s, 4, 61, 80)
	eventually(t, "events of the new slot", func() bool { return out.count() == 320 })
	stop()
	out.inOrder(t, 4, 80)
}

// TestWALSlotDropped lets somebody drop the slot under a running relay.
func TestWALSlotDropped(t *testing.T) {
	t.Parallel()
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	slot := slotIn(target)
	var m modes
	out := newSink()
	stop := carry(t, newWAL(t, s, target, &m, settlepgx.WALConfig{Slot: slot}), out)
	write(t, s, 4, 1, 20)
	eventually(t, "the log is read", func() bool { return m.last() == "wal" && out.count() == 80 })
	conn := connect(t, target)
	done := make(chan struct{})
	go func() { defer close(done); write(t, s, 4, 21, 120) }()
	dropSlot(t, conn, slot)
	<-done
	eventually(t, "all events", func() bool { return out.count() == 480 })
	stop()
	out.inOrder(t, 4, 120)
}

// TestWALServerKilled kills the database under a running relay and running writers.
func TestWALServerKilled(t *testing.T) {
	t.Parallel()
	srv := server.Start(t, server.Postgres, server.Options{})
	target := newDatabase(t, srv.URL())
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	var m modes
	out := newSink()
	stop := carry(t, newWAL(t, s, target, &m, settlepgx.WALConfig{}), out)
	write(t, s, 3, 1, 10)
	eventually(t, "the log is read", func() bool { return m.last() == "wal" && out.count() == 30 })
	for range 3 {
		srv.Kill()
		srv.Restart()
	}
	write(t, s, 3, 11, 30)
	eventually(t, "all events", func() bool { return out.count() == 90 })
	stop()
	out.inOrder(t, 3, 30)
}

// TestWALIdleSlot: a slot of an idle outbox must not keep the log of a busy cluster.
func TestWALIdleSlot(t *testing.T) {
	t.Parallel()
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	var m modes
	out := newSink()
	stop := carry(t, newWAL(t, s, target, &m, settlepgx.WALConfig{Slot: slotIn(target)}), out)
	defer stop()
	write(t, s, 1, 1, 3)
	eventually(t, "the log is read", func() bool { return m.last() == "wal" && out.count() == 3 })
	conn := connect(t, target)
	var before string
	if err := conn.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&before); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE busy AS SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the idle slot is confirmed beyond others' log", func() bool {
		var ok bool
		err := conn.QueryRow(t.Context(), "SELECT confirmed_flush_lsn > $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $2", before, slotIn(target)).Scan(&ok)
		return err == nil && ok
	})
}

// TestDebeziumLayout drains a table in the default layout of Debezium's outbox event router, whose rows are
// deleted in the transaction that made them, as its users do.
func TestDebeziumLayout(t *testing.T) {
	t.Parallel()
	target := newDatabase(t, shared(t))
	s := openStore(t, target, settlepgx.Config{Migrate: true})
	conn := connect(t, target)
	if _, err := conn.Exec(t.Context(), `CREATE TABLE outboxevent (id uuid PRIMARY KEY, aggregatetype varchar(255) NOT NULL,
		aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL, payload jsonb)`); err != nil {
		t.Fatal(err)
	}
	layout, err := settlepgx.DebeziumLayout("outboxevent", "-events", "shop")
	if err != nil {
		t.Fatal(err)
	}
	var m modes
	out := newSink()
	src := newWAL(t, s, target, &m, settlepgx.WALConfig{Slot: slotIn(target), Publication: "debezium_layout_test", Layout: layout})
	stop := carry(t, src, out)
	eventually(t, "the log is read", func() bool { return m.last() == "wal" })
	insert := func(n int) {
		t.Helper()
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		id := event.NewID(time.Now()).String()
		if _, err := tx.Exec(t.Context(), `INSERT INTO outboxevent VALUES ($1, 'order', 'k1', 'OrderPlaced', jsonb_build_object('key', 'k1', 'n', $2::int))`, id, n); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "DELETE FROM outboxevent WHERE id = $1", id); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= 30; n++ {
		insert(n)
	}
	eventually(t, "all events", func() bool { return out.count() == 30 })
	stop()
	for n := 31; n <= 50; n++ {
		insert(n)
	}
	stop = carry(t, newWAL(t, s, target, &m, settlepgx.WALConfig{Slot: slotIn(target), Publication: "debezium_layout_test", Layout: layout}), out)
	eventually(t, "what was written meanwhile", func() bool { return out.count() == 50 })
	stop()
	out.inOrder(t, 1, 50)
}
