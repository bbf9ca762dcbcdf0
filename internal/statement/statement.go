// Package statement reads SQL statements from the files that they stand in, one folder a dialect, so that
// a service has the same statements on every database and no string of its program is SQL.
//
//	-- name: select_state
//	SELECT state FROM shipment WHERE order_id = ?;
//
// It parses no SQL: a statement is what stands between two lines with a name. Other lines that begin with
// "--" are for whoever reads the file.
package statement

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// The dialects, by the names of their folders.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
	MySQL    = "mysql"
)

// Load returns the statements of all files in a folder that are not numbered migrations, each under its
// file's name, a dot and its own: "order.select_facts".
func Load(dir fs.FS) (map[string]string, error) {
	files, err := fs.Glob(dir, "[a-z]*.sql")
	if err != nil {
		return nil, err
	}
	texts := map[string]string{}
	for _, file := range files {
		src, err := fs.ReadFile(dir, file)
		if err != nil {
			return nil, err
		}
		if err := parse(texts, strings.TrimSuffix(path.Base(file), ".sql"), string(src)); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return texts, nil
}

// parse adds the statements of one file to texts.
func parse(texts map[string]string, base, src string) error {
	var name string
	var text strings.Builder
	end := func() error {
		if name == "" {
			return nil
		}
		texts[name] = strings.TrimSuffix(strings.TrimSpace(text.String()), ";")
		text.Reset()
		if texts[name] == "" {
			return fmt.Errorf("statement %s is empty", name)
		}
		return nil
	}
	for line := range strings.Lines(src) {
		after, begins := strings.CutPrefix(line, "-- name: ")
		switch {
		case begins:
			if err := end(); err != nil {
				return err
			}
			name = base + "." + strings.TrimSpace(after)
			if _, twice := texts[name]; twice {
				return fmt.Errorf("statement %s stands there twice", name)
			}
		case strings.HasPrefix(line, "--"):
		case name == "" && strings.TrimSpace(line) != "":
			return fmt.Errorf("text before the first name: %.60q", line)
		default:
			text.WriteString(line)
		}
	}
	return end()
}

// DialectOf returns the dialect that a store says it speaks, by its method Dialect; SQLite when it says
// nothing.
func DialectOf(store any) string {
	if s, ok := store.(interface{ Dialect() string }); ok {
		return s.Dialect()
	}
	return SQLite
}

// Folder returns the files of a dialect. It refuses one that there is no folder for: an empty one would
// pass for a service without tables.
func Folder(files fs.FS, dialect string) (fs.FS, error) {
	found, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(found, func(d fs.DirEntry) bool { return d.IsDir() && d.Name() == dialect }) {
		return nil, fmt.Errorf("there are no statements for the dialect %.40q", dialect)
	}
	return fs.Sub(files, dialect)
}

// Bind sets each destination to the statement of its name, in the dialect that a store speaks. A statement
// that is missing, and one that nobody asks for, is a mistake that it names with its file.
func Bind(files fs.FS, store any, dest map[string]*string) error {
	dialect := DialectOf(store)
	dir, err := Folder(files, dialect)
	if err != nil {
		return err
	}
	texts, err := Load(dir)
	if err != nil {
		return fmt.Errorf("%s/%w", dialect, err)
	}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(dest)) {
		text, ok := texts[name]
		if !ok {
			wrong = append(wrong, fmt.Errorf("%s lacks statement %s", where(dialect, name), rest(name)))
		}
		*dest[name] = text
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if dest[name] == nil {
			wrong = append(wrong, fmt.Errorf("%s has statement %s, which nobody runs", where(dialect, name), rest(name)))
		}
	}
	return errors.Join(wrong...)
}

// where returns the file of a statement, rest its name in there.
func where(dialect, name string) string {
	base, _, _ := strings.Cut(name, ".")
	return dialect + "/" + base + ".sql"
}

func rest(name string) string {
	_, rest, _ := strings.Cut(name, ".")
	return rest
}
