package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/push"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// Config is what a store may decide. The zero Config is ready for production.
type Config struct {
	// Gap is the least time between two commits of a busy writer. Default 2ms.
	Gap time.Duration
	// NoGap makes even a busy writer commit at once: lowest latency, several times the cost.
	NoGap bool
	// GatherMax ends the wait for the gap when so many members are there. Default 64.
	GatherMax int
	// GroupMax bounds the members of one commit. Default 256.
	GroupMax int
	// QueueMax bounds the transactions that wait for the writer; Run blocks beyond it. Default 1024.
	QueueMax int
	// StatementsMax bounds the prepared statements kept, for the writer and for the readers each.
	// Default 256.
	StatementsMax int
	// TailBytesMax bounds the newest events kept in memory for readers at the head. Default 4 MiB.
	TailBytesMax int
	// Schemas are the service's own tables, checked when the store is opened.
	Schemas []Schema
	// Logger receives what nobody can be told as an error. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field *int
		value int
		name  string
	}{
		{&c.GatherMax, 64, "GatherMax"},
		{&c.GroupMax, 256, "GroupMax"},
		{&c.QueueMax, 1024, "QueueMax"},
		{&c.StatementsMax, 256, "StatementsMax"},
		{&c.TailBytesMax, 4 << 20, "TailBytesMax"},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return c, fmt.Errorf("%s %d is negative", d.name, *d.field)
		}
	}
	if c.NoGap && c.Gap != 0 {
		return c, fmt.Errorf("gap of %s and NoGap contradict one another", c.Gap)
	}
	if c.Gap == 0 {
		c.Gap = 2 * time.Millisecond
	}
	if c.Gap < 0 || c.Gap > time.Second {
		return c, fmt.Errorf("gap %s must lie between 0 and 1s", c.Gap)
	}
	if c.StatementsMax < 64 {
		return c, fmt.Errorf("StatementsMax %d is below 64: the store's own statements would evict one another", c.StatementsMax)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Backend is what a driver package provides: the database and how to read its errors.
type Backend struct {
	Dialect Dialect
	// Writer is used with one connection; nil opens the store for reading only.
	Writer *sql.DB
	Reader *sql.DB
	// Classify returns one of the errors of this package that err is a case of, or nil.
	Classify func(err error) error
	// Close is called after the last statement: it closes both databases and ends ownership.
	Close func() error
}

func (b *Backend) classify(err error) error {
	if err == nil || b.Classify == nil {
		return err
	}
	if kind := b.Classify(err); kind != nil {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return err
}

// Store keeps every durable contract in one database. Open one with a driver package.
type Store struct {
	backend Backend
	cfg     Config
	writer  *writer // nil when open for reading
	read    *reader
	tail    tail

	outboxBell, timerBell, callBell, feedBell bell

	outbox    outboxStore
	inbox     inboxStore
	positions positionStore
	letters   letterStore
	timers    timerStore
	calls     callStore
	answers   answerStore
	feed      feedStore

	closeOnce sync.Once
	closeErr  error
}

// A store is every provider there is.
var (
	_ txn.Runner           = (*Store)(nil)
	_ relay.Provider       = (*Store)(nil)
	_ inbox.Provider       = (*Store)(nil)
	_ consumer.Provider    = (*Store)(nil)
	_ consumer.Classifier  = (*Store)(nil)
	_ deadletter.Provider  = (*Store)(nil)
	_ timer.Provider       = (*Store)(nil)
	_ call.Provider        = (*Store)(nil)
	_ idempotency.Provider = (*Store)(nil)
	_ push.Provider        = (*Store)(nil)
)

// Open opens a store over a driver's databases, for driver packages. It checks the schema and refuses
// with [ErrSchema] one that does not fit; see [Migrate]. When it fails, the backend is left open.
func Open(ctx context.Context, b Backend, cfg Config) (*Store, error) {
	s, err := open(ctx, b, cfg)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: open: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, b Backend, cfg Config) (*Store, error) {
	if b.Reader == nil {
		return nil, errors.New("backend has no reader")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	texts, err := b.Dialect.load()
	if err != nil {
		return nil, err
	}
	if err := checkSchemas(ctx, b.Reader, texts, append([]Schema{b.Dialect.Schema()}, cfg.Schemas...)); err != nil {
		return nil, b.classify(err)
	}
	s := &Store{backend: b, cfg: cfg}
	s.tail.bytesMax = cfg.TailBytesMax
	q := &statements{texts: texts}
	s.bind(q)
	s.read = newReader(b.Reader, &s.backend, cfg.StatementsMax)
	if b.Writer != nil {
		if s.writer, err = newWriter(ctx, s, q); err != nil {
			return nil, err
		}
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	if s.writer == nil {
		return s, nil
	}
	_, last, err := s.outbox.bounds(ctx)
	if err != nil {
		return nil, errors.Join(err, s.writer.conn.Close())
	}
	s.tail.start(last)
	go s.writer.serve()
	if err := s.calls.reclaim(ctx, time.Now()); err != nil {
		return nil, errors.Join(err, s.writer.close())
	}
	return s, nil
}

// bind gives each contract its statements.
func (s *Store) bind(q *statements) {
	s.initOutbox(q)
	s.initInbox(q)
	s.initPositions(q)
	s.initLetters(q)
	s.initTimers(q)
	s.initCalls(q)
	s.initAnswers(q)
	s.initFeed(q)
}

// Run implements [txn.Runner]: nil means that the transaction is on disk. fn runs on the writer's
// goroutine, so it must not wait for anything but its statements. fn may be called again when a neighbour
// has taken the group's transaction with it. A panic in fn becomes a [*txn.PanicError].
func (s *Store) Run(ctx context.Context, fn func(ctx context.Context, tx *txn.Tx) error) error {
	if s.writer == nil {
		return fmt.Errorf("sqlstore: run: %w", ErrReadOnly)
	}
	return s.writer.run(ctx, fn)
}

// Query runs a query outside any transaction, on a connection that only reads. It sees everything that
// has been committed. The caller closes the rows.
func (s *Store) Query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	rows, err := s.read.query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: query: %w", err)
	}
	return rows, nil
}

// QueryRow runs a query for one row, as Query does, and scans it; [sql.ErrNoRows] when there is none.
func (s *Store) QueryRow(ctx context.Context, query string, args []any, dest ...any) error {
	return s.read.row(ctx, query, args, dest...)
}

// each and row read for the store itself: short queries, which are not worth the price of a context
// that can be cancelled.
func (s *Store) each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.read.each(uncancelled(ctx), query, args, scan)
}

func (s *Store) row(ctx context.Context, query string, args []any, dest ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.read.row(uncancelled(ctx), query, args, dest...)
}

// Close waits for the transactions that have been handed over and closes the database. Run returns
// ErrClosed afterwards.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		var errs []error
		if s.writer != nil {
			errs = append(errs, s.writer.close())
		}
		s.read.close()
		if s.backend.Close != nil {
			errs = append(errs, s.backend.Close())
		}
		if err := errors.Join(errs...); err != nil {
			s.closeErr = fmt.Errorf("sqlstore: close: %w", err)
		}
	})
	return s.closeErr
}

// Transient implements [consumer.Classifier]: a full or failing disk says nothing about the event at hand.
func (s *Store) Transient(err error) bool {
	return errors.Is(err, ErrDiskFull) || errors.Is(err, ErrIO) || errors.Is(err, ErrClosed)
}

// Outbox implements [relay.Provider]. The source is also relay.Parking, Bell, Marks, Observer, Lister
// and Purger.
func (s *Store) Outbox() relay.Source { return &s.outbox }

// Inbox implements [inbox.Provider].
func (s *Store) Inbox() inbox.Store { return &s.inbox }

// Positions implements [consumer.Provider].
func (s *Store) Positions() consumer.Positions { return &s.positions }

// Letters implements [deadletter.Provider]. The store is also a Grouper and an Auditor.
func (s *Store) Letters() deadletter.Store { return &s.letters }

// Timers implements [timer.Provider]. The store has a bell, Listen, as the outbox has.
func (s *Store) Timers() timer.Store { return &s.timers }

// Calls implements [call.Provider]. The store is also an Observer and has a bell, Listen.
func (s *Store) Calls() call.Store { return &s.calls }

// Answers implements [idempotency.Provider].
func (s *Store) Answers() idempotency.Store { return &s.answers }

// Feed implements [push.Provider].
func (s *Store) Feed() push.Log { return &s.feed }
