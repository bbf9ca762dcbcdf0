package sqlstore

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
)

//go:embed sqlite/*.sql postgres/*.sql mysql/*.sql
var files embed.FS

// Dialect is a database's SQL: a folder of files, one for each contract, and numbered migrations. Every
// dialect defines the same names.
type Dialect struct {
	name string
	dir  fs.FS
}

// The folders of the dialects, and their names.
const (
	sqliteName   = "sqlite"
	postgresName = "postgres"
	mysqlName    = "mysql"
)

// SQLite is the dialect of SQLite 3.45 and newer.
func SQLite() Dialect { return dialect(sqliteName) }

// Postgres is the dialect of PostgreSQL 14 and newer.
func Postgres() Dialect { return dialect(postgresName) }

// MySQL is the dialect of MySQL 8.0 and MariaDB 10.6, and newer.
func MySQL() Dialect { return dialect(mysqlName) }

func dialect(name string) Dialect {
	dir, err := fs.Sub(files, name)
	if err != nil {
		panic(err) // The folders are embedded above.
	}
	return Dialect{name: name, dir: dir}
}

// Name returns the dialect's folder.
func (d Dialect) Name() string { return d.name }

// Statements yields the name (contract.statement) and the text of every statement, in order of name, for
// tests and for people.
func (d Dialect) Statements() (iter.Seq2[string, string], error) {
	texts, err := d.load()
	if err != nil {
		return nil, err
	}
	return func(yield func(string, string) bool) {
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			if !yield(name, texts[name]) {
				return
			}
		}
	}, nil
}

// load reads the statements of all files that are not migrations.
func (d Dialect) load() (map[string]string, error) {
	if d.dir == nil {
		return nil, errors.New("no dialect")
	}
	names, err := fs.Glob(d.dir, "[a-z]*.sql")
	if err != nil {
		return nil, err
	}
	texts := map[string]string{}
	for _, file := range names {
		src, err := fs.ReadFile(d.dir, file)
		if err != nil {
			return nil, err
		}
		contract := strings.TrimSuffix(path.Base(file), ".sql")
		if err := parseStatements(texts, contract, string(src)); err != nil {
			return nil, fmt.Errorf("%s/%s: %w", d.name, file, err)
		}
	}
	return texts, nil
}

// parseStatements splits a file at its lines "-- name: x". Other comment lines are left out: they are
// for whoever reads the file.
func parseStatements(texts map[string]string, contract, src string) error {
	name := ""
	for line := range strings.Lines(src) {
		if after, ok := strings.CutPrefix(line, "-- name: "); ok {
			name = contract + "." + strings.TrimSpace(after)
			if _, dup := texts[name]; dup {
				return fmt.Errorf("statement %s stands there twice", name)
			}
			texts[name] = ""
			continue
		}
		if strings.HasPrefix(line, "--") {
			continue
		}
		if name == "" {
			if strings.TrimSpace(line) != "" {
				return fmt.Errorf("text before the first name: %.60q", line)
			}
			continue
		}
		texts[name] += line
	}
	for name, text := range texts {
		text = strings.TrimSuffix(strings.TrimSpace(text), ";")
		if text == "" {
			return fmt.Errorf("statement %s is empty", name)
		}
		texts[name] = text
	}
	return nil
}

// statements hands out texts by name and remembers which were missing, so that a dialect that lacks one
// is refused when a store is opened and not when the statement is needed.
type statements struct {
	dialect string
	texts   map[string]string
	missing []string
	asked   func(name string) // for the test that no statement is left over
}

func (s *statements) text(name string) string {
	if s.asked != nil {
		s.asked(name)
	}
	t, ok := s.texts[name]
	if !ok {
		s.missing = append(s.missing, name)
	}
	return t
}

func (s *statements) err() error {
	if len(s.missing) == 0 {
		return nil
	}
	return fmt.Errorf("dialect lacks %s", strings.Join(s.missing, ", "))
}
