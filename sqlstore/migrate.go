package sqlstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/settledev/settle/txn"
)

// Schema is a sequence of migrations that share a name: settle's own, or a service's tables. Files holds
// NNNN_title.sql with NNNN from 0001 without a gap; other files are ignored. A migration that has been
// applied must never change: its digest is kept and compared.
type Schema struct {
	Name  string
	Files fs.FS
	// Newer accepts tables to which further migrations have been applied than Files has, so that an old program
	// can be started beside a new one, or again instead of it. It promises that migrations leave alone what
	// older programs use: they add, and take away only what no program that may still start knows.
	Newer bool
}

// schemaName is the name of settle's own schema.
const schemaName = "settle"

// Schema returns the migrations of the tables that the store itself needs.
func (d Dialect) Schema() Schema { return Schema{Name: schemaName, Files: d.dir} }

type migration struct {
	version int
	file    string
	text    string
	digest  [sha256.Size]byte
}

func (s Schema) migrations() ([]migration, error) {
	if s.Name == "" || s.Files == nil {
		return nil, errors.New("schema needs a name and files")
	}
	files, err := fs.Glob(s.Files, "[0-9]*_*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	out := make([]migration, 0, len(files))
	for i, file := range files {
		number, _, _ := strings.Cut(file, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("schema %s: %s is not migration %04d", s.Name, file, i+1)
		}
		text, err := fs.ReadFile(s.Files, file)
		if err != nil {
			return nil, err
		}
		out = append(out, migration{version, file, string(text), sha256.Sum256(text)})
	}
	return out, nil
}

// Migrate applies what is missing of the dialect's own schema and then of the given ones, each
// migration in a transaction of its own, and returns how many were applied. Call it by command, and
// only in one process at a time; a program that serves never calls it in production.
func Migrate(ctx context.Context, db *sql.DB, d Dialect, schemas ...Schema) (int, error) {
	texts, err := d.load()
	if err != nil {
		return 0, fmt.Errorf("sqlstore: migrate: %w", err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return 0, fmt.Errorf("sqlstore: migrate: %w", err)
	}
	defer conn.Close()
	m := migrator{conn: conn, q: statements{texts: texts}}
	if _, err := conn.ExecContext(ctx, m.q.text("store.schema_table")); err != nil {
		return 0, fmt.Errorf("sqlstore: migrate: %w", err)
	}
	applied := 0
	for _, s := range append([]Schema{d.Schema()}, schemas...) {
		n, err := m.schema(ctx, s)
		applied += n
		if err != nil {
			return applied, fmt.Errorf("sqlstore: migrate %s: %w", s.Name, err)
		}
	}
	return applied, nil
}

type migrator struct {
	conn *sql.Conn
	q    statements
}

func (m *migrator) schema(ctx context.Context, s Schema) (int, error) {
	all, err := s.migrations()
	if err != nil {
		return 0, err
	}
	done, err := applied(ctx, m.query, s.Name)
	if err != nil {
		return 0, err
	}
	if err := s.compare(all, done); err != nil {
		return 0, err
	}
	missing := all[min(len(done), len(all)):]
	for i, mig := range missing {
		if err := m.apply(ctx, s.Name, mig); err != nil {
			return i, fmt.Errorf("%s: %w", mig.file, err)
		}
	}
	return len(missing), nil
}

func (m *migrator) apply(ctx context.Context, schema string, mig migration) (err error) {
	if _, err := m.conn.ExecContext(ctx, m.q.text("store.begin")); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, rerr := m.conn.ExecContext(context.WithoutCancel(ctx), m.q.text("store.rollback"))
			err = errors.Join(err, rerr)
		}
	}()
	if _, err := m.conn.ExecContext(ctx, mig.text); err != nil {
		return err
	}
	if _, err := m.conn.ExecContext(ctx, m.q.text("store.schema_applied"),
		schema, mig.version, mig.digest[:], time.Now().UnixNano()); err != nil {
		return err
	}
	_, err = m.conn.ExecContext(ctx, m.q.text("store.commit"))
	return err
}

func (m *migrator) query(ctx context.Context, name string, args ...any) (txn.Rows, error) {
	return m.conn.QueryContext(ctx, m.q.text(name), args...)
}

// applied returns the digests of the migrations in the database, in order.
func applied(ctx context.Context, query func(context.Context, string, ...any) (txn.Rows, error), schema string) ([][]byte, error) {
	known := false
	err := eachRow(ctx, query, "store.schema_known", nil, func(rows txn.Rows) error {
		var n int64
		err := rows.Scan(&n)
		known = n > 0
		return err
	})
	if err != nil || !known {
		return nil, err
	}
	var done [][]byte
	err = eachRow(ctx, query, "store.schema_versions", []any{schema}, func(rows txn.Rows) error {
		var version int
		var digest []byte
		if err := rows.Scan(&version, &digest); err != nil {
			return err
		}
		if version != len(done)+1 {
			return fmt.Errorf("migration %d is missing between those applied: %w", len(done)+1, ErrSchema)
		}
		done = append(done, digest)
		return nil
	})
	return done, err
}

func eachRow(
	ctx context.Context, query func(context.Context, string, ...any) (txn.Rows, error), name string, args []any, fn func(txn.Rows) error,
) error {
	rows, err := query(ctx, name, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := fn(rows); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// compare refuses a database that is newer than the program, unless it may be, or whose past is another one.
func (s Schema) compare(all []migration, done [][]byte) error {
	if len(done) > len(all) && !s.Newer {
		return fmt.Errorf("schema %s is at version %d, this program knows %d: %w", s.Name, len(done), len(all), ErrSchema)
	}
	for i, digest := range done[:min(len(done), len(all))] {
		if !bytes.Equal(digest, all[i].digest[:]) {
			return fmt.Errorf("schema %s: %s is not the one that was applied: %w", s.Name, all[i].file, ErrSchema)
		}
	}
	return nil
}

// checkSchemas refuses a database to which not every migration has been applied.
func (s *Store) checkSchemas(ctx context.Context, texts map[string]string) error {
	q := statements{texts: texts}
	query := func(ctx context.Context, name string, args ...any) (txn.Rows, error) {
		return s.engine.query(ctx, q.text(name), args...)
	}
	for _, schema := range append([]Schema{s.backend.Dialect.Schema()}, s.cfg.Schemas...) {
		all, err := schema.migrations()
		if err != nil {
			return err
		}
		done, err := applied(ctx, query, schema.Name)
		if err != nil {
			return s.backend.classify(err)
		}
		if err := schema.compare(all, done); err != nil {
			return err
		}
		if len(done) < len(all) {
			return fmt.Errorf("schema %s is at version %d, this program needs %d, migrate first: %w",
				schema.Name, len(done), len(all), ErrSchema)
		}
	}
	return nil
}
