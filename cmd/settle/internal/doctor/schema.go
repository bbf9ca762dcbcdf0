package doctor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/sqlstore"
)

// Migration is one step of a schema.
type Migration struct {
	Schema  string `json:"schema"`
	Version int    `json:"version"`
	File    string `json:"file"`
	// State is applied, pending, changed: the file is not the one that was applied, or newer: this program has no such
	// file.
	State string `json:"state"`
	// Known is the highest version of the schema that this program has.
	Known int `json:"known"`

	Text string `json:"-"`
}

// migrationsOf reads a schema's files.
func migrationsOf(s sqlstore.Schema) ([]Migration, error) {
	files, err := fs.Glob(s.Files, "[0-9]*_*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []Migration
	for i, file := range files {
		text, err := fs.ReadFile(s.Files, file)
		if err != nil {
			return nil, err
		}
		all = append(all, Migration{
			Schema: s.Name, Version: i + 1, File: file, State: "pending", Known: len(files), Text: string(text),
		})
	}
	return all, nil
}

// Migrations returns every migration of a database, in the order in which they are applied.
func Migrations(d app.Database) ([]Migration, error) {
	var all []Migration
	for _, s := range d.AllSchemas() {
		of, err := migrationsOf(s)
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", s.Name, err)
		}
		all = append(all, of...)
	}
	return all, nil
}

// Status returns every migration of a database with its state, also those that the database has and this program does
// not know.
func Status(ctx context.Context, d app.Database) (_ []Migration, err error) {
	db, err := d.Raw()
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return status(ctx, db, d)
}

func status(ctx context.Context, db *sql.DB, d app.Database) ([]Migration, error) {
	all, err := Migrations(d)
	if err != nil {
		return nil, err
	}
	known := map[string]string{
		"postgres": "SELECT count(*) FROM pg_catalog.pg_class WHERE oid = to_regclass('settle_schema')",
		"mysql":    "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'settle_schema'",
		"sqlite":   "SELECT count(*) FROM sqlite_master WHERE name = 'settle_schema'",
	}
	var tables int
	if err := db.QueryRowContext(ctx, known[d.Dialect]).Scan(&tables); err != nil || tables == 0 {
		return all, err
	}
	rows, err := db.QueryContext(ctx, "SELECT name, version, digest FROM settle_schema ORDER BY name, version")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ours := map[string]int{}
	for _, m := range all {
		ours[m.Schema] = m.Known
	}
	for rows.Next() {
		var name string
		var version int
		var digest []byte
		if err := rows.Scan(&name, &version, &digest); err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(m Migration) bool { return m.Schema == name && m.Version == version })
		if i < 0 {
			if knows, ok := ours[name]; ok { // Others are the tables of somebody else.
				all = append(all, Migration{Schema: name, Version: version, State: "newer", Known: knows})
			}
			continue
		}
		all[i].State = "applied"
		if sum := sha256.Sum256([]byte(all[i].Text)); !bytes.Equal(sum[:], digest) {
			all[i].State = "changed"
		}
	}
	return all, rows.Err()
}

// schemas compares versions and digests, and whether what was made is still there.
func (l *look) schemas(ctx context.Context) {
	all, err := status(ctx, l.db, l.d)
	if err != nil {
		l.failed("migrations", err)
		return
	}
	versions, known := map[string]int{}, map[string]int{}
	for _, m := range all {
		known[m.Schema] = m.Known
		switch m.State {
		case "pending":
			l.add(Fail, "settle migrate up --store URL", "schema %s lacks migration %s", m.Schema, m.File)
		case "changed":
			l.add(Fail, "run the program that migrated it", "schema %s: %s is not the one that was applied", m.Schema, m.File)
		default:
			versions[m.Schema] = m.Version
		}
	}
	for _, s := range l.d.AllSchemas() {
		at, knows := versions[s.Name], known[s.Name]
		switch {
		case at > knows && s.Newer:
			l.add(Warn, "run the newer program when its deploy is done", "schema %s is at version %d, newer than this program's %d", s.Name, at, knows)
		case at > knows:
			l.add(Fail, "run the newer program", "schema %s is at version %d, newer than this program's %d", s.Name, at, knows)
		case !Failed(l.all):
			l.ok("schema %s is at version %d", s.Name, at)
		}
	}
	if !Failed(l.all) {
		l.objects(ctx, all)
	}
}

var madeObject = regexp.MustCompile(`(?im)^CREATE\s+(?:UNIQUE\s+)?(TABLE|INDEX|VIEW|SEQUENCE)\s+(?:IF\s+NOT\s+EXISTS\s+)?([a-z0-9_]+)`)

// objects finds tables and indexes that somebody has dropped.
func (l *look) objects(ctx context.Context, all []Migration) {
	there := map[string]string{
		"postgres": "SELECT c.relname FROM pg_catalog.pg_class c WHERE pg_table_is_visible(c.oid)",
		"mysql": `SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()
			UNION SELECT index_name FROM information_schema.statistics WHERE table_schema = DATABASE()`,
		"sqlite": "SELECT name FROM sqlite_master",
	}
	rows, err := l.db.QueryContext(ctx, there[l.d.Dialect])
	if err != nil {
		l.failed("tables", err)
		return
	}
	defer rows.Close()
	has := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			l.failed("tables", err)
			return
		}
		has[strings.ToLower(name)] = true
	}
	if err := rows.Err(); err != nil {
		l.failed("tables", err)
		return
	}
	missing := 0
	for _, m := range all {
		for _, found := range madeObject.FindAllStringSubmatch(m.Text, -1) {
			if kind, name := strings.ToLower(found[1]), strings.ToLower(found[2]); !has[name] && !dropped(all, name) {
				missing++
				l.add(Fail, "make it again by its statement in: settle migrate print", "%s %s of schema %s is gone", kind, name, m.Schema)
			}
		}
	}
	if missing == 0 {
		l.ok("tables and indexes are there")
	}
}

// dropped reports whether a later migration has dropped or renamed what an earlier one made.
func dropped(all []Migration, name string) bool {
	gone := regexp.MustCompile(`(?i)(DROP\s+\w+\s+(IF\s+EXISTS\s+)?` + name + `\b|\b` + name + `\s+RENAME\s+TO\b)`)
	return slices.ContainsFunc(all, func(m Migration) bool { return gone.MatchString(m.Text) })
}

// Record returns the statement that makes the table in which migrations are noted down.
func Record(d app.Database) (string, error) {
	for _, s := range d.AllSchemas()[:1] {
		text, err := fs.ReadFile(s.Files, "store.sql")
		if err != nil {
			return "", err
		}
		_, rest, ok := strings.Cut(string(text), "-- name: schema_table\n")
		if ok {
			statement, _, _ := strings.Cut(rest, "\n-- name:")
			return strings.TrimSpace(statement) + "\n", nil
		}
	}
	return "", fmt.Errorf("statement of the table settle_schema: %w", fs.ErrNotExist)
}

// Applied returns the statement that notes down that a migration was applied by another tool: a program checks it.
func (m Migration) Applied(d app.Database) string {
	sum := sha256.Sum256([]byte(m.Text))
	literal := fmt.Sprintf("X'%x'", sum)
	if d.Dialect == "postgres" {
		literal = fmt.Sprintf(`'\x%x'`, sum)
	}
	return fmt.Sprintf("INSERT INTO settle_schema (name, version, digest, applied_at) VALUES ('%s', %d, %s, 1);\n", m.Schema, m.Version, literal)
}
