package dialects_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/settledev/settle/internal/statement"
)

var (
	placeholder = map[string]*regexp.Regexp{
		statement.SQLite:   regexp.MustCompile(`\?(\d+)`),
		statement.Postgres: regexp.MustCompile(`\$(\d+)`),
		statement.MySQL:    regexp.MustCompile(`\?(\d+)`),
	}
	plain = regexp.MustCompile(`\?(\D|$)`)
)

// parameters returns the numbers of a statement's placeholders, each once, sorted. A placeholder without a
// number would depend on where it stands.
func parameters(t *testing.T, dialect, name, text string) []string {
	t.Helper()
	if plain.MatchString(text) {
		t.Errorf("%s: %s has a placeholder without a number", dialect, name)
	}
	var numbers []string
	for _, m := range placeholder[dialect].FindAllStringSubmatch(text, -1) {
		numbers = append(numbers, m[1])
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// TestSameStatements proves that every dialect has the same statements with the same parameters, so that
// the program calls all of them alike.
func TestSameStatements(t *testing.T) {
	base := load(t, statement.SQLite)
	for _, dialect := range []string{statement.Postgres, statement.MySQL} {
		texts := load(t, dialect)
		if got, want := slices.Sorted(maps.Keys(texts)), slices.Sorted(maps.Keys(base)); !slices.Equal(got, want) {
			t.Errorf("%s has %v\nwant %v", dialect, got, want)
		}
		for name, text := range texts {
			got, want := parameters(t, dialect, name, text), parameters(t, statement.SQLite, name, base[name])
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s has parameters %v, want %v", dialect, name, got, want)
			}
		}
	}
	for name, text := range load(t, statement.MySQL) {
		if upper := strings.ToUpper(text); strings.Contains(upper, "IGNORE") || strings.Contains(upper, "RETURNING") {
			t.Errorf("mysql: %s hides faults, or needs MariaDB: %s", name, text)
		}
	}
}

// TestPrepare proves that every database accepts every statement.
func TestPrepare(t *testing.T) {
	each(t, false, func(t *testing.T, db *database) {
		s := db.connect(t)
		for name, text := range load(t, db.dialect) {
			if err := s.prepare(t.Context(), text); err != nil {
				t.Errorf("%s: %v\n%s", name, err, text)
			}
		}
	})
}
