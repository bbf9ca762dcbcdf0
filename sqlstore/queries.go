package sqlstore

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/settledev/settle/internal/statement"
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
	sqliteName   = statement.SQLite
	postgresName = statement.Postgres
	mysqlName    = statement.MySQL
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
	texts, err := statement.Load(d.dir)
	if err != nil {
		return nil, fmt.Errorf("%s/%w", d.name, err)
	}
	return texts, nil
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
