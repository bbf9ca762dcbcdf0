package dialects_test

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/settledev/settle"
	"github.com/settledev/settle/internal/statement"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/shop/catalog"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/notify"
	"github.com/settledev/settle/shop/order"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/platform"
	"github.com/settledev/settle/shop/shipping"
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

// speaks is a store of a dialect.
type speaks struct {
	settle.Store
	dialect string
}

func (s speaks) Dialect() string { return s.dialect }

// TestNew proves that every service finds all its statements in every dialect, uses each of them, and is
// refused in a dialect that it has no files for.
func TestNew(t *testing.T) {
	for _, dialect := range []string{statement.SQLite, statement.Postgres, statement.MySQL, "oracle"} {
		store := speaks{memory.New(), dialect}
		for name, fresh := range map[string]func() error{
			"catalog":   func() error { _, err := catalog.New(store, nil, catalog.Config{}); return err },
			"inventory": func() error { _, err := inventory.New(store, nil, inventory.Config{}); return err },
			"notify":    func() error { _, err := notify.New(store, nil, notify.Config{}); return err },
			"order":     func() error { _, err := order.New(store, nil, order.Config{Catalog: noCatalog{}}); return err },
			"payment":   func() error { _, err := payment.New(store, nil, payment.Config{}); return err },
			"platform":  func() error { _, err := platform.New(store, nil, platform.Config{}); return err },
			"shipping":  func() error { _, err := shipping.New(store, nil, shipping.Config{}); return err },
		} {
			if err := fresh(); (err != nil) != (dialect == "oracle") {
				t.Errorf("%s on %s: %v", name, dialect, err)
			}
		}
	}
}

type noCatalog struct{}

func (noCatalog) Products(context.Context, []string) (map[string]order.Product, error) {
	return nil, nil
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
