package dialects_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // The driver of database/sql.

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/internal/statement"
	"github.com/settledev/settle/shop/catalog"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/notify"
	"github.com/settledev/settle/shop/order"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/platform"
	"github.com/settledev/settle/shop/shipping"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// services are the folders of the shop's services that have tables.
var services = map[string]func(dialect string) fs.FS{
	"catalog": catalog.Migrations, "inventory": inventory.Migrations, "notify": notify.Migrations, "order": order.Migrations,
	"payment": payment.Migrations, "platform": platform.Migrations, "shipping": shipping.Migrations,
}

// load returns the statements of all services in a dialect.
func load(t *testing.T, dialect string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for service, files := range services {
		texts, err := statement.Load(files(dialect))
		if err != nil || len(texts) == 0 {
			t.Fatalf("%s/%s: %d statements, %v", service, dialect, len(texts), err)
		}
		maps.Copy(all, texts)
	}
	return all
}

// migrations returns the migrations of all services in a dialect.
func migrations(t *testing.T, dialect string) (texts []string) {
	t.Helper()
	for _, service := range slices.Sorted(maps.Keys(services)) {
		dir := services[service](dialect)
		names, err := fs.Glob(dir, "[0-9]*_*.sql")
		if err != nil || len(names) == 0 {
			t.Fatalf("%s/%s: %d migrations, %v", service, dialect, len(names), err)
		}
		for _, name := range names {
			text, err := fs.ReadFile(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(text))
		}
	}
	return texts
}

// database is a new database with the tables of all services.
type database struct {
	name, dialect string
	connect       func(t *testing.T) session
}

// session is a connection to it.
type session interface {
	control(t *testing.T, text string) // BEGIN, COMMIT and the like
	prepare(ctx context.Context, text string) error
	exec(ctx context.Context, text string, args ...any) (int64, error)
	// query returns the rows as lines of values.
	query(ctx context.Context, text string, args ...any) (string, error)
}

// each runs a test on every database: MySQL in both ways of counting rows.
func each(t *testing.T, servers bool, test func(t *testing.T, db *database)) {
	t.Helper()
	if !servers {
		t.Run("sqlite", func(t *testing.T) { test(t, openSQLite(t)) })
	}
	t.Run("postgres", func(t *testing.T) { test(t, openPostgres(t)) })
	for _, found := range []bool{false, true} {
		t.Run(fmt.Sprintf("mysql/clientFoundRows=%v", found), func(t *testing.T) { test(t, openMySQL(t, found)) })
	}
}

// newName returns the name of a database that nobody else has.
func newName(prefix string) string { return prefix + "_" + strings.ToLower(rand.Text()[:10]) }

func openSQLite(t *testing.T) *database {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "shop.db")+"?_pragma=foreign_keys(1)")
	return openSQL(t, "sqlite", statement.SQLite, db, err)
}

func openMySQL(t *testing.T, found bool) *database {
	t.Helper()
	u, err := url.Parse(server.Shared(t, server.MariaDB))
	if err != nil {
		t.Fatal(err)
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.MultiStatements, cfg.ClientFoundRows = u.User.Username(), "tcp", u.Host, true, found
	cfg.InterpolateParams = true // As the driver of settle does.
	cfg.Passwd, _ = u.User.Password()
	name := newName("shop")
	admin := connectMySQL(t, cfg)
	run(t, admin, "CREATE DATABASE "+name)
	t.Cleanup(func() { run(t, admin, "DROP DATABASE "+name) })
	cfg.DBName = name
	return openSQL(t, fmt.Sprintf("mysql found=%v", found), statement.MySQL, connectMySQL(t, cfg), nil)
}

func connectMySQL(t *testing.T, cfg *mysql.Config) *sql.DB {
	t.Helper()
	c, err := mysql.NewConnector(cfg.Clone())
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(c)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func run(t *testing.T, db *sql.DB, text string) {
	t.Helper()
	if _, err := db.ExecContext(context.WithoutCancel(t.Context()), text); err != nil {
		t.Errorf("%.60s: %v", text, err)
	}
}

func openSQL(t *testing.T, name, dialect string, db *sql.DB, err error) *database {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, text := range migrations(t, dialect) {
		run(t, db, text)
		if dialect == statement.MySQL {
			run(t, db, text) // One that was cut off is repeated.
		}
	}
	return &database{name: name, dialect: dialect, connect: func(t *testing.T) session {
		t.Helper()
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s := &sqlSession{conn, dialect}
		if dialect == statement.MySQL { // As the driver does.
			s.control(t, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
		}
		return s
	}}
}

func openPostgres(t *testing.T) *database {
	t.Helper()
	base := server.Shared(t, server.Postgres)
	name := newName("shop")
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = name
	admin := connectPostgres(t, base)
	if _, err := admin.exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.exec(context.WithoutCancel(t.Context()), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop: %v", err)
		}
	})
	first := connectPostgres(t, u.String())
	for _, text := range migrations(t, statement.Postgres) {
		if _, err := first.conn.PgConn().Exec(t.Context(), text).ReadAll(); err != nil {
			t.Fatalf("%.60s: %v", text, err)
		}
	}
	return &database{"postgres", statement.Postgres, func(t *testing.T) session { return connectPostgres(t, u.String()) }}
}

func connectPostgres(t *testing.T, u string) *pgxSession {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return &pgxSession{conn}
}

// sqlSession is a session of database/sql.
type sqlSession struct {
	conn    *sql.Conn
	dialect string
}

// numbered is a placeholder with a number.
var numbered = regexp.MustCompile(`\?(\d+)`)

// positional rewrites numbered placeholders, as the MySQL driver of settle does.
func (s *sqlSession) positional(text string, args []any) (string, []any) {
	if s.dialect != statement.MySQL {
		return text, args
	}
	var out []any
	text = numbered.ReplaceAllStringFunc(text, func(p string) string {
		n, _ := strconv.Atoi(p[1:])
		if n <= len(args) {
			out = append(out, args[n-1])
		}
		return "?"
	})
	if out == nil {
		out = args
	}
	return text, out
}

func (s *sqlSession) control(t *testing.T, text string) {
	t.Helper()
	if _, err := s.conn.ExecContext(t.Context(), text); err != nil {
		t.Error(err)
	}
}

func (s *sqlSession) prepare(ctx context.Context, text string) error {
	text, _ = s.positional(text, nil)
	stmt, err := s.conn.PrepareContext(ctx, text)
	if err == nil {
		defer stmt.Close()
	}
	return err
}

func (s *sqlSession) exec(ctx context.Context, text string, args ...any) (int64, error) {
	text, args = s.positional(text, args)
	res, err := s.conn.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *sqlSession) query(ctx context.Context, text string, args ...any) (string, error) {
	text, args = s.positional(text, args)
	rows, err := s.conn.QueryContext(ctx, text, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var lines []string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		dest := make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return "", err
		}
		words := make([]string, len(columns))
		for i, v := range values {
			words[i] = v.String
		}
		lines = append(lines, strings.Join(words, "|"))
	}
	return strings.Join(lines, "\n"), rows.Err()
}

// pgxSession is a session of pgx, which is stricter with types than database/sql.
type pgxSession struct{ conn *pgx.Conn }

func (s *pgxSession) control(t *testing.T, text string) {
	t.Helper()
	if _, err := s.exec(t.Context(), text); err != nil {
		t.Error(err)
	}
}

func (s *pgxSession) prepare(ctx context.Context, text string) error {
	_, err := s.conn.Prepare(ctx, "", text)
	return err
}

func (s *pgxSession) exec(ctx context.Context, text string, args ...any) (int64, error) {
	tag, err := s.conn.Exec(ctx, text, args...)
	return tag.RowsAffected(), err
}

func (s *pgxSession) query(ctx context.Context, text string, args ...any) (string, error) {
	rows, err := s.conn.Query(ctx, text, args...)
	if err != nil {
		return "", err
	}
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		words := make([]string, len(values))
		for i, v := range values {
			if v != nil {
				words[i] = fmt.Sprint(v)
			}
		}
		return strings.Join(words, "|"), err
	})
	return strings.Join(lines, "\n"), err
}
