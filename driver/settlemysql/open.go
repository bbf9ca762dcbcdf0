package settlemysql

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/settledev/settle/driver/internal/secure"
	"github.com/settledev/settle/sqlstore"
)

// Config is what may be decided about a database. The zero Config is ready for production.
type Config struct {
	// Store configures the store.
	Store sqlstore.Config
	// Migrate applies missing migrations before the store is opened: for a demo, for tests. In
	// production, call Migrate by command.
	Migrate bool
	// ConnsMax bounds the connections of this process. Default 32.
	ConnsMax int
	// Timeout bounds connecting, and each wait of a connection for the server. It must exceed the longest
	// statement; migrations are not bounded by it. Default 30s.
	Timeout time.Duration
	// LockWait bounds the wait for a row lock; after it the transaction runs again. Whole seconds. Default 10s.
	LockWait time.Duration
	// TLS secures the connections with certificates of one's own. Default: what the URL says.
	TLS *tls.Config
}

func (c Config) withDefaults() (Config, error) {
	if c.ConnsMax == 0 {
		c.ConnsMax = 32
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.LockWait == 0 {
		c.LockWait = 10 * time.Second
	}
	switch {
	case c.ConnsMax < 2:
		return c, fmt.Errorf("%d connections, at least 2 needed", c.ConnsMax)
	case c.LockWait < time.Second || c.LockWait%time.Second != 0:
		return c, fmt.Errorf("lock wait %s is not a number of whole seconds", c.LockWait)
	case c.Timeout <= c.LockWait:
		return c, fmt.Errorf("timeout %s must exceed lock wait %s", c.Timeout, c.LockWait)
	}
	return c, nil
}

// Open connects to mysql://user:password@host:port/database?parameters, where the parameters are those of
// go-sql-driver/mysql, and opens its store. Besides, ca names a PEM file of the authorities to trust instead of the
// system's, and cert and key our own certificate: each of them turns TLS on. The error is [ErrCredentials], [ErrTLS],
// [ErrNoDatabase], sqlstore.ErrUnavailable when no server answers, sqlstore.ErrSchema when the database has to be
// migrated first. Close the store in the end.
func Open(ctx context.Context, target string, cfg Config) (*sqlstore.Store, error) {
	s, err := open(ctx, target, cfg)
	if err != nil {
		return nil, fmt.Errorf("settlemysql: open %s: %w", redact(target), err)
	}
	return s, nil
}

func open(ctx context.Context, target string, cfg Config) (_ *sqlstore.Store, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Migrate {
		if _, err := migrate(ctx, target, cfg, cfg.Store.Schemas...); err != nil {
			return nil, err
		}
	}
	db, err := connect(target, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if err := db.PingContext(ctx); err != nil {
		return nil, openError(err)
	}
	return sqlstore.Open(ctx, sqlstore.Backend{
		Dialect: sqlstore.MySQL(), Server: &server{db: db}, Classify: classify, Close: db.Close,
	}, cfg.Store)
}

// Raw returns the URL's database without a store, whose tables may be missing: for a look at what is there. It
// connects when it is used.
func Raw(target string) (*sql.DB, error) {
	cfg, err := Config{}.withDefaults()
	if err != nil {
		return nil, err
	}
	db, err := connect(target, cfg)
	if err != nil {
		return nil, fmt.Errorf("settlemysql: %s: %w", redact(target), err)
	}
	return db, nil
}

// connect returns a database that opens its connections when they are needed.
func connect(target string, cfg Config) (*sql.DB, error) {
	c, err := parse(target, cfg.TLS)
	if err != nil {
		return nil, err
	}
	if c.DBName == "" {
		return nil, errors.New("the URL names no database")
	}
	return pool(c, cfg)
}

func pool(c *mysql.Config, cfg Config) (*sql.DB, error) {
	c.InterpolateParams = true // One round trip for a statement instead of three.
	c.Timeout, c.ReadTimeout, c.WriteTimeout = cfg.Timeout, cfg.Timeout, cfg.Timeout
	if c.MultiStatements { // A migration takes as long as it takes.
		c.ReadTimeout = 0
	}
	c.MaxAllowedPacket = 0 // The server's: what it refuses would look like a lost connection.
	heard := &ear{}
	c.Logger = heard
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(&session{connector, fmt.Sprintf(sessionText, int(cfg.LockWait/time.Second)), heard})
	db.SetMaxOpenConns(cfg.ConnsMax)
	db.SetMaxIdleConns(cfg.ConnsMax)
	db.SetConnMaxIdleTime(time.Minute)
	return db, nil
}

// What a session needs whatever the server's defaults are. A server that is not strict would cut what is too
// long for its column. The isolation level has no variable of one name on all servers.
const (
	sessionLevel = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
	sessionText  = "SET SESSION innodb_lock_wait_timeout = %d, sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION')"
)

// session sets up each connection.
type session struct {
	driver.Connector

	text string
	ear  *ear
}

// ear hears why a connection ended, which the driver tells its log only: its error of one that could not be written
// to has neither a cause nor a type.
type ear struct{ last atomic.Pointer[error] }

// Print implements [mysql.Logger].
func (e *ear) Print(v ...any) {
	for _, one := range v {
		if err, ok := one.(error); ok {
			e.last.Store(&err)
		}
	}
}

// Connect implements [driver.Connector].
func (s *session) Connect(ctx context.Context) (driver.Conn, error) {
	s.ear.last.Store(nil)
	conn, err := s.Connector.Connect(ctx)
	if err != nil {
		if heard := s.ear.last.Load(); heard != nil {
			err = fmt.Errorf("%w: %w", err, *heard)
		}
		return nil, err
	}
	e, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connection %T runs no statement", conn), conn.Close())
	}
	for _, text := range []string{sessionLevel, s.text} {
		if _, err := e.ExecContext(ctx, text, nil); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

// parse reads a URL into the driver's own form. TLS is as the URL says, upon base.
func parse(target string, base *tls.Config) (*mysql.Config, error) {
	u, err := url.Parse(target)
	if err != nil {
		// The error would repeat the text, which may have a password in it.
		return nil, errors.New("not a URL such as mysql://user@host:3306/database")
	}
	switch {
	case u.Scheme != "mysql" && u.Scheme != "mariadb":
		return nil, fmt.Errorf("scheme %q is not mysql or mariadb", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("no host")
	}
	port := u.Port()
	if port == "" {
		port = "3306"
	}
	c, err := parameters(u, base)
	if err != nil {
		return nil, err
	}
	if c.Timeout+c.ReadTimeout+c.WriteTimeout != 0 || c.MultiStatements {
		return nil, errors.New("parameters: timeouts and several statements at once are not the URL's to decide")
	}
	password, _ := u.User.Password()
	c.Net, c.Addr, c.User, c.Passwd = "tcp", u.Hostname()+":"+port, u.User.Username(), password
	if strings.Contains(u.Hostname(), ":") {
		c.Addr = "[" + u.Hostname() + "]:" + port
	}
	c.DBName = strings.TrimPrefix(u.Path, "/")
	return c, nil
}

// parameters reads what stands behind a URL's question mark.
func parameters(u *url.URL, base *tls.Config) (*mysql.Config, error) {
	query, text := u.Query(), u.RawQuery
	files, err := secure.Take(query)
	if err != nil {
		return nil, err
	}
	if files.Any() {
		text = query.Encode()
	}
	c, err := mysql.ParseDSN("/?" + text)
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	c.TLS = base // Or what tls says, made when the host is known whose name is to be in the certificate.
	if files.Any() {
		if c.TLSConfig != "" && c.TLSConfig != "true" {
			return nil, fmt.Errorf("tls=%.40s and certificates contradict one another", c.TLSConfig)
		}
		if c.TLS, err = files.Config(base); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// redact returns a URL without its password.
func redact(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "(unreadable URL)"
	}
	return u.Redacted()
}

// Migrate applies missing migrations and returns how many. Several processes may call it: one works, the
// others wait.
func Migrate(ctx context.Context, target string, schemas ...sqlstore.Schema) (int, error) {
	cfg, err := Config{}.withDefaults()
	if err == nil {
		var n int
		if n, err = migrate(ctx, target, cfg, schemas...); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("settlemysql: migrate %s: %w", redact(target), err)
}

// migrateWait bounds the wait for another process that migrates, in seconds.
const migrateWait = 60

func migrate(ctx context.Context, target string, cfg Config, schemas ...sqlstore.Schema) (_ int, err error) {
	c, err := parse(target, cfg.TLS)
	if err != nil {
		return 0, err
	}
	if c.DBName == "" {
		return 0, errors.New("the URL names no database")
	}
	c.MultiStatements = true // A migration is a file.
	db, err := pool(c, cfg)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return 0, openError(err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// The lock is the session's: it ends with the connection, whatever becomes of us. Its name has 64
	// characters at most, as that of a database has.
	var got sql.NullInt64
	err = conn.QueryRowContext(ctx, "SELECT GET_LOCK(CONCAT('settle.', SHA1(DATABASE())), ?)", migrateWait).Scan(&got)
	if err != nil {
		return 0, classified(err)
	}
	if got.Int64 != 1 {
		return 0, fmt.Errorf("another process has been migrating for %d s", migrateWait)
	}
	n, err := sqlstore.Migrate(ctx, db, sqlstore.MySQL(), schemas...)
	return n, classified(err)
}

// EnsureDatabase makes the URL's database when it is missing: for a demo.
func EnsureDatabase(ctx context.Context, target string) error {
	return withoutDatabase(target, func(db *sql.DB, name string) error {
		_, err := db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+name+" CHARACTER SET utf8mb4")
		return err
	})
}

// ErrNotOurs says that a database has no tables of settle: nothing of it was dropped.
var ErrNotOurs = errors.New("database has no tables of settle")

// DropDatabase drops the URL's database, if it has settle's tables; a missing one is no error.
func DropDatabase(ctx context.Context, target string) error {
	return withoutDatabase(target, func(db *sql.DB, name string) error {
		var tables, ours int
		err := db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(table_name = 'settle_meta'), 0)
			FROM information_schema.tables WHERE table_schema = ?`, strings.Trim(name, "`")).Scan(&tables, &ours)
		if err == nil && tables > 0 && ours == 0 {
			err = ErrNotOurs
		}
		if err == nil {
			_, err = db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+name)
		}
		return err
	})
}

// withoutDatabase connects to the server and calls fn with the quoted name of the URL's database.
func withoutDatabase(target string, fn func(db *sql.DB, name string) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("settlemysql: database of %s: %w", redact(target), openError(err))
		}
	}()
	cfg, err := Config{}.withDefaults()
	if err != nil {
		return err
	}
	c, err := parse(target, cfg.TLS)
	if err != nil {
		return err
	}
	name := c.DBName
	if name == "" || strings.ContainsAny(name, "`\x00/") {
		return fmt.Errorf("database name %q is not usable", name)
	}
	c.DBName = ""
	db, err := pool(c, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return fn(db, "`"+name+"`")
}
