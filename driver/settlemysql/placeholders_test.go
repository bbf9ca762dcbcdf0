package settlemysql

import (
	"fmt"
	"reflect"
	"testing"
)

func TestRewrite(t *testing.T) {
	for query, want := range map[string]struct {
		text  string
		order []int
	}{
		"SELECT 1":                              {"SELECT 1", nil},
		"SELECT ?, ?":                           {"SELECT ?, ?", nil},
		"SELECT ?2, ?1, ?2":                     {"SELECT ?, ?, ?", []int{1, 0, 1}},
		"SELECT ?10":                            {"SELECT ?", []int{9}},
		"SELECT '?1', \"?2\", `?3`, ?1":         {"SELECT '?1', \"?2\", `?3`, ?", []int{0}},
		`SELECT 'it''s ?1', '\' ?2', ?1`:        {`SELECT 'it''s ?1', '\' ?2', ?`, []int{0}},
		"SELECT `a\\`, ?1":                      {"SELECT `a\\`, ?", []int{0}},
		"SELECT /* ?1 */ ?1 # ?2\n, ?2 -- ?3\n": {"SELECT /* ?1 */ ? # ?2\n, ? -- ?3\n", []int{0, 1}},
		"SELECT 3--?1":                          {"SELECT 3--?", []int{0}},
		"SELECT ?1 --":                          {"SELECT ? --", []int{0}},
		"SELECT ?1 'open ?2":                    {"SELECT ? 'open ?2", []int{0}},
	} {
		if got := rewrite(query); got.err != nil || got.text != want.text || !reflect.DeepEqual(got.order, want.order) {
			t.Errorf("%s: got %q %v %v", query, got.text, got.order, got.err)
		}
	}
	for _, query := range []string{"SELECT ?0", "SELECT ?, ?1"} {
		if got := rewrite(query); got.err == nil {
			t.Errorf("%s became %q", query, got.text)
		}
	}
}

func TestBind(t *testing.T) {
	var r rewriter
	for range 2 {
		query, args, err := r.bind("SELECT ?2, ?1, ?2", []any{"a", "b"})
		if err != nil || query != "SELECT ?, ?, ?" || !reflect.DeepEqual(args, []any{"b", "a", "b"}) {
			t.Errorf("%q %v, %v", query, args, err)
		}
	}
	if _, _, err := r.bind("SELECT ?3", []any{1, 2}); err == nil {
		t.Error("a missing argument was bound")
	}
	for n := range textsMax + 10 { // Texts that differ.
		if _, _, err := r.bind(fmt.Sprintf("SELECT ?1, %d", n), []any{1}); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	r.seen.Range(func(any, any) bool { kept++; return true })
	if kept > textsMax {
		t.Errorf("%d texts kept", kept)
	}
}

// FuzzRewrite proves that only numbers behind placeholders are taken out.
func FuzzRewrite(f *testing.F) {
	for _, s := range []string{"SELECT ?1, '?2' FROM `t?3` -- ?4\n", "?1?2", "'\\'?1", "/*?1", "?99999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := rewrite(query)
		if got.err != nil {
			return
		}
		if got.order == nil && got.text != query {
			t.Errorf("%q became %q", query, got.text)
		}
		again := rewrite(got.text)
		if again.err != nil || again.order != nil || again.text != got.text {
			t.Errorf("%q became %q, and then %q, %v", query, got.text, again.text, again.err)
		}
	})
}
