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
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/push"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// shardsMax bounds Config.Shards.
const shardsMax = 1024

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
	// Shards is into how many parts the outbox is divided, each with a relay of its own: for fault isolation, as
	// one relay reads faster than brokers write. Only on a server. Never lower it. Default 1.
	Shards int
	// TxTimeout bounds one transaction on a server, from its begin to its commit. Default 30s.
	TxTimeout time.Duration
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
		{&c.Shards, 1, "Shards"},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return c, fmt.Errorf("%s %d is negative", d.name, *d.field)
		}
	}
	if c.Shards > shardsMax {
		return c, fmt.Errorf("%d shards, %d allowed", c.Shards, shardsMax)
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
	if c.TxTimeout == 0 {
		c.TxTimeout = 30 * time.Second
	}
	if c.TxTimeout < 0 {
		return c, fmt.Errorf("TxTimeout %s is negative", c.TxTimeout)
	}
	if c.StatementsMax < 64 {
		return c, fmt.Errorf("StatementsMax %d is below 64: the store's own statements would evict one another", c.StatementsMax)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Backend is what a driver package provides: the database and how to read its errors. It is a file with
// one writer (SQLite: Writer and Reader), or a server with many (Server).
type Backend struct {
	Dialect Dialect
	// Writer is used with one connection; nil opens the file for reading only.
	Writer *sql.DB
	Reader *sql.DB
	// Server stands in for Writer and Reader.
	Server Server
	// Doorbell carries the news of a commit to other processes. Default: they poll.
	Doorbell Doorbell
	// Classify returns one of the errors of this package that err is a case of, or nil.
	Classify func(err error) error
	// Close is called after the last statement: it closes the database and ends ownership.
	Close func() error
}

func (b *Backend) classify(err error) error {
	if err == nil || b.Classify == nil {
		return err
	}
	if kind := b.Classify(err); kind != nil && !errors.Is(err, kind) {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return err
}

// engine runs a store's transactions and queries.
type engine interface {
	run(ctx context.Context, fn func(ctx context.Context, tx *txn.Tx) error) error
	query(ctx context.Context, query string, args ...any) (txn.Rows, error)
	close() error
}

// eventLog is the outbox as a relay and an operator see it; each kind of database has its own.
type eventLog interface { //nolint:interfacebloat // It is the sum of small ones.
	relay.Source
	relay.Parking
	relay.Bell
	relay.Marks
	relay.Observer
	relay.Lister
	relay.Purger
}

// Store keeps every durable contract in one database. Open one with a driver package.
type Store struct {
	backend Backend
	cfg     Config
	engine  engine
	tail    tail

	outboxBell, timerBell, callBell, feedBell bell

	outbox    eventLog
	rowid     *rowidLog // the outbox, on SQLite
	inbox     inboxStore
	positions positionStore
	letters   letterStore
	timers    timerStore
	calls     callStore
	answers   answerStore
	feed      feedStore
	leases    leaseStore

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
	if (b.Reader == nil) == (b.Server == nil) {
		return nil, errors.New("backend needs either a reader or a server")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	texts, err := b.Dialect.load()
	if err != nil {
		return nil, err
	}
	s := &Store{backend: b, cfg: cfg}
	q := &statements{dialect: b.Dialect.name, texts: texts}
	s.bind(q)
	if b.Server != nil {
		s.engine = newServerEngine(s, q)
	} else {
		s.engine = newFileEngine(s, q)
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	if err := s.checkSchemas(ctx, texts); err != nil {
		return nil, err
	}
	switch e := s.engine.(type) {
	case *serverEngine:
		e.start()
	case *fileEngine:
		if b.Writer == nil {
			break
		}
		if err := e.start(ctx); err != nil {
			return nil, err
		}
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
	s.initLeases(q)
}

// initOutbox gives the store the log that its kind of database can keep in order.
func (s *Store) initOutbox(q *statements) {
	switch q.dialect {
	case postgresName:
		s.outbox = newWindowLog(s, q)
	case mysqlName:
		s.outbox = newShardLog(s, q)
	default:
		s.rowid = newRowidLog(s, q)
		s.outbox = s.rowid
	}
}

// Dialect returns the name of the database's SQL: sqlite, postgres or mysql. Services choose their own
// statements by it.
func (s *Store) Dialect() string { return s.backend.Dialect.name }

// Run implements [txn.Runner]: nil means that the transaction is on disk. fn runs on the writer's
// goroutine, so it must not wait for anything but its statements. fn may be called again when a neighbour
// has taken the group's transaction with it. A panic in fn becomes a [*txn.PanicError].
func (s *Store) Run(ctx context.Context, fn func(ctx context.Context, tx *txn.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Value(insideKey{}) == any(s) {
		return ErrNested
	}
	return s.engine.run(ctx, fn)
}

// Query runs a query outside any transaction, on a connection that only reads. It sees everything that
// has been committed. The caller closes the rows.
func (s *Store) Query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	rows, err := s.engine.query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: query: %w", err)
	}
	return rows, nil
}

// QueryRow runs a query for one row, as Query does, and scans it; [sql.ErrNoRows] when there is none.
func (s *Store) QueryRow(ctx context.Context, query string, args []any, dest ...any) error {
	found := false
	err := s.scan(ctx, query, args, func(rows txn.Rows) error {
		if found {
			return errors.New("more than one row")
		}
		found = true
		return rows.Scan(dest...)
	})
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
}

// scan calls fn for every row.
func (s *Store) scan(ctx context.Context, query string, args []any, fn func(txn.Rows) error) error {
	rows, err := s.engine.query(ctx, query, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := fn(rows); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return s.backend.classify(err)
	}
	return nil
}

// each and row read for the store itself: short queries. On a file they are not worth the price of a
// context that can be cancelled; a server can be away.
func (s *Store) each(ctx context.Context, query string, args []any, scan func(txn.Rows) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.scan(s.brief(ctx), query, args, scan)
}

func (s *Store) row(ctx context.Context, query string, args []any, dest ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.QueryRow(s.brief(ctx), query, args, dest...)
}

func (s *Store) brief(ctx context.Context) context.Context {
	if s.backend.Server != nil {
		return ctx
	}
	return uncancelled(ctx)
}

// delete runs one bounded statement in a transaction of its own and returns how many rows it deleted.
func (s *Store) delete(ctx context.Context, query string, args ...any) (int, error) {
	var n int64
	err := s.Run(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		n, err = tx.Exec(ctx, query, args...)
		return err
	})
	return int(n), err
}

// Close waits for the transactions that have been handed over and closes the database. Run returns
// ErrClosed afterwards.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		errs := []error{s.engine.close()}
		if s.backend.Close != nil {
			errs = append(errs, s.backend.Close())
		}
		if err := errors.Join(errs...); err != nil {
			s.closeErr = fmt.Errorf("sqlstore: close: %w", err)
		}
	})
	return s.closeErr
}

// Transient implements [consumer.Classifier]: a full or failing disk, a server that is away or a conflict
// with a neighbour says nothing about the event at hand.
func (s *Store) Transient(err error) bool {
	for _, kind := range []error{ErrDiskFull, ErrIO, ErrClosed, ErrUnavailable, ErrConflict} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// Outbox implements [relay.Provider]. The source is also relay.Parking, Bell, Marks, Observer, Lister
// and Purger.
func (s *Store) Outbox() relay.Source { return s.outbox }

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

// Leases implements [lock.Provider].
func (s *Store) Leases() lock.Leases { return &s.leases }

// Serializer implements [lock.Provider].
func (s *Store) Serializer() lock.Serializer { return &s.leases }

// Feed implements [push.Provider].
func (s *Store) Feed() push.Log { return &s.feed }
