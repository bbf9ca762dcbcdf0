package settlepgx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/settledev/settle/sqlstore"
)

// Config is what may be decided about a database. The zero Config is ready for production.
type Config struct {
	// Store configures the store.
	Store sqlstore.Config
	// Migrate applies missing migrations before the store is opened: for a demo, for tests. In
	// production, call Migrate by command.
	Migrate bool
	// ConnsMax bounds the connections of this process, besides one that listens and one that rings.
	// Default 32.
	ConnsMax int
	// Pooler says that the URL leads to a pooler in transaction mode, such as PgBouncer: no statement is kept
	// prepared, and nobody listens.
	Pooler bool
	// NoDoorbell neither rings nor listens: other processes find new events by polling only.
	NoDoorbell bool
	// LockWait bounds the wait for a lock; after it the transaction runs again. Default 10s.
	LockWait time.Duration
	// ConnectTimeout bounds the making of one connection. Default 5s.
	ConnectTimeout time.Duration
	// QueryTimeout bounds a query outside a transaction, from its begin until its rows are closed. A
	// transaction is bounded by Store.TxTimeout. Default 30s.
	QueryTimeout time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.ConnsMax == 0 {
		c.ConnsMax = 32
	}
	if c.LockWait == 0 {
		c.LockWait = 10 * time.Second
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	if c.QueryTimeout == 0 {
		c.QueryTimeout = 30 * time.Second
	}
	if c.Store.Logger == nil {
		c.Store.Logger = slog.Default()
	}
	if c.ConnsMax < 2 {
		return c, fmt.Errorf("%d connections, at least 2 needed", c.ConnsMax)
	}
	if min(c.LockWait, c.ConnectTimeout, c.QueryTimeout) < time.Millisecond {
		return c, fmt.Errorf("lock wait %s, connect timeout %s, query timeout %s: 1ms is the least", c.LockWait, c.ConnectTimeout, c.QueryTimeout)
	}
	return c, nil
}

// Open connects to postgres://user:password@host:port/database?parameters, where the parameters are those
// of pgx, and opens its store. The error is [ErrCredentials], [ErrTLS], [ErrNoDatabase], [ErrPooler],
// sqlstore.ErrUnavailable when no server answers, sqlstore.ErrSchema when the database has to be migrated first. Close
// the store in the end.
func Open(ctx context.Context, target string, cfg Config) (*sqlstore.Store, error) {
	s, err := open(ctx, target, cfg)
	if err != nil {
		return nil, fmt.Errorf("settlepgx: open %s: %w", redact(target), err)
	}
	return s, nil
}

func open(ctx context.Context, target string, cfg Config) (_ *sqlstore.Store, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	pc, err := cfg.pool(target)
	if err != nil {
		return nil, err
	}
	if cfg.Migrate {
		if _, err := migrate(ctx, pc.ConnConfig, cfg.Store.Schemas...); err != nil {
			return nil, err
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			pool.Close()
		}
	}()
	if err := pool.Ping(ctx); err != nil {
		return nil, openError(err)
	}
	b := sqlstore.Backend{
		Dialect: sqlstore.Postgres(), Server: &server{pool: pool, timeout: cfg.QueryTimeout}, Classify: classify,
		Close: func() error { pool.Close(); return nil },
	}
	if !cfg.NoDoorbell && !cfg.Pooler {
		d := newDoorbell(pc.ConnConfig, cfg.Store.Logger)
		b.Doorbell = d
		b.Close = func() error { d.close(); pool.Close(); return nil }
	}
	s, err := sqlstore.Open(ctx, b, cfg.Store)
	if err != nil && b.Doorbell != nil {
		b.Doorbell.(*doorbell).close() //nolint:errcheck // It was made above.
	}
	return s, err
}

// pool is the configuration of the connections.
func (c Config) pool(target string) (*pgxpool.Config, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		// The error would repeat the text, which may have a password in it.
		return nil, errors.New("not a URL such as postgres://user@host:5432/database")
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, fmt.Errorf("scheme %q is not postgres", u.Scheme)
	}
	pc, err := pgxpool.ParseConfig(target)
	if refusal := fileError(err); refusal != nil {
		return nil, refusal
	}
	if err != nil {
		return nil, errors.New("parameters of the URL are not usable") // It repeats the URL too.
	}
	pc.MaxConns = int32(min(c.ConnsMax, 10_000))
	pc.PingTimeout = c.ConnectTimeout
	cc := pc.ConnConfig
	cc.ConnectTimeout = c.ConnectTimeout
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveCount,
	}}
	cc.DialFunc = dialer.DialContext
	if c.Pooler {
		cc.DefaultQueryExecMode = forPoolers
		return pc, nil // It refuses settings that it does not know.
	}
	cc.RuntimeParams["lock_timeout"] = fmt.Sprint(c.LockWait.Milliseconds())
	cc.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint(idleInTransaction.Milliseconds())
	cc.RuntimeParams["application_name"] = "settle"
	return pc, nil
}

const (
	// Keepalive ends a connection whose server is gone without a word, within half a minute.
	keepaliveIdle     = 15 * time.Second
	keepaliveInterval = 5 * time.Second
	keepaliveCount    = 3
	// idleInTransaction ends the transaction of a process of ours that hangs and holds locks.
	idleInTransaction = time.Minute
)

// redact returns a URL without its password.
func redact(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "(unreadable URL)"
	}
	if q := u.Query(); q.Has("password") || q.Has("sslpassword") {
		u.RawQuery = ""
	}
	return u.Redacted()
}

// Migrate applies missing migrations and returns how many. Several processes may call it: one works, the
// others wait.
func Migrate(ctx context.Context, target string, schemas ...sqlstore.Schema) (int, error) {
	cfg, err := Config{}.withDefaults()
	if err == nil {
		pc, perr := cfg.pool(target)
		if err = perr; err == nil {
			var n int
			if n, err = migrate(ctx, pc.ConnConfig, schemas...); err == nil {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("settlepgx: migrate %s: %w", redact(target), err)
}

// migrateLock is the advisory lock of migrations.
const migrateLock = 0x5e771e

func migrate(ctx context.Context, cc *pgx.ConnConfig, schemas ...sqlstore.Schema) (_ int, err error) {
	cc = cc.Copy()
	cc.DefaultQueryExecMode = forPoolers
	// Another migration may take its time.
	delete(cc.RuntimeParams, "lock_timeout")
	delete(cc.RuntimeParams, "idle_in_transaction_session_timeout")
	guard, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return 0, openError(err)
	}
	defer func() { _ = guard.Close(context.WithoutCancel(ctx)) }() // The lock ends with the session.
	// It is a transaction's, which also a pooler keeps on one session.
	if _, err := guard.Exec(ctx, "BEGIN"); err != nil {
		return 0, classified(err)
	}
	if _, err := guard.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrateLock); err != nil {
		return 0, classified(err)
	}
	db := stdlib.OpenDB(*cc)
	defer func() { err = errors.Join(err, db.Close()) }()
	n, err := sqlstore.Migrate(ctx, db, sqlstore.Postgres(), schemas...)
	return n, classified(err)
}

// forPoolers keeps no statement prepared, which the next one would not find behind a pooler in transaction mode.
const forPoolers = pgx.QueryExecModeCacheDescribe

// Raw returns the URL's database without a store, whose tables may be missing: for a look at what is there. It connects
// when it is used, also behind a pooler.
func Raw(target string) (*sql.DB, error) {
	cfg, err := Config{Pooler: true}.withDefaults()
	if err != nil {
		return nil, err
	}
	pc, err := cfg.pool(target)
	if err != nil {
		return nil, fmt.Errorf("settlepgx: %s: %w", redact(target), err)
	}
	return stdlib.OpenDB(*pc.ConnConfig), nil
}

// connect returns a session for a few statements.
func connect(ctx context.Context, target string) (*pgx.Conn, error) {
	cc, err := pgx.ParseConfig(target)
	if err != nil {
		return nil, err
	}
	cc.DefaultQueryExecMode = forPoolers
	return pgx.ConnectConfig(ctx, cc)
}

// ErrNotOurs says that a database has no tables of settle: nothing of it was dropped.
var ErrNotOurs = errors.New("database has no tables of settle")

// EnsureDatabase makes the URL's database when it is missing: for a demo.
func EnsureDatabase(ctx context.Context, target string) error {
	return maintain(ctx, target, func(conn *pgx.Conn, name string) error {
		var there bool
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", name).Scan(&there)
		if err == nil && !there {
			_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
		}
		if isCode(err, "42P04") || isCode(err, "23505") {
			return nil // Another process was quicker.
		}
		return err
	})
}

// DropDatabase drops the URL's database, if it has settle's tables; a missing one is no error.
func DropDatabase(ctx context.Context, target string) error {
	if err := ours(ctx, target); err != nil {
		if errors.Is(err, ErrNoDatabase) {
			return nil
		}
		return fmt.Errorf("settlepgx: drop %s: %w", redact(target), err)
	}
	return maintain(ctx, target, func(conn *pgx.Conn, name string) error {
		_, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
		return err
	})
}

// ours refuses a database that has tables, but not settle's.
func ours(ctx context.Context, target string) error {
	conn, err := connect(ctx, target)
	if err != nil {
		return classified(err)
	}
	defer conn.Close(ctx)
	var tables int
	var settle sql.NullString
	err = conn.QueryRow(ctx, `SELECT count(*), to_regclass('settle_meta')::text FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')`).
		Scan(&tables, &settle)
	if err == nil && tables > 0 && !settle.Valid {
		err = ErrNotOurs
	}
	return err
}

// maintain connects to the server's own database and calls fn with the name of the URL's.
func maintain(ctx context.Context, target string, fn func(conn *pgx.Conn, name string) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("settlepgx: database of %s: %w", redact(target), openError(err))
		}
	}()
	u, err := url.Parse(target)
	if err != nil {
		return errors.New("not a URL")
	}
	name := strings.TrimPrefix(u.Path, "/")
	if name == "" {
		return errors.New("the URL names no database")
	}
	u.Path = "/postgres"
	conn, err := connect(ctx, u.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return fn(conn, name)
}
