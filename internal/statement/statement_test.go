package statement_test

import (
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/settledev/settle/internal/statement"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestLoad(t *testing.T) {
	texts, err := statement.Load(fstest.MapFS{
		"0001_tables.sql": file("CREATE TABLE t (n INTEGER)"),
		"a.sql":           file("-- A file.\n\n-- name: one\nSELECT 1\n  FROM t;\n\n-- Of the second.\n-- name: two\nSELECT 2;\n"),
		"b.sql":           file("-- name: one\nSELECT 3"),
		"readme.txt":      file("no SQL"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a.one": "SELECT 1\n  FROM t", "a.two": "SELECT 2", "b.one": "SELECT 3"}
	if !maps.Equal(texts, want) {
		t.Errorf("got %q", texts)
	}
}

func TestLoadRefuses(t *testing.T) {
	for bad, want := range map[string]string{
		"SELECT 1;\n-- name: a\nSELECT 1":                 "before the first name",
		"-- name: a\n":                                    "a.a is empty",
		"-- name: a\n;\n-- name: b\nSELECT 1":             "a.a is empty",
		"-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;":    "a.a stands there twice",
		"-- name: a\n-- only a comment\n-- name: b\nB;\n": "a.a is empty",
	} {
		_, err := statement.Load(fstest.MapFS{"a.sql": file(bad)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "a.sql: ") {
			t.Errorf("%q: got %v, want %q", bad, err, want)
		}
	}
}

type speaks string

func (s speaks) Dialect() string { return string(s) }

func TestBind(t *testing.T) {
	files := fstest.MapFS{
		"sqlite/s.sql":   file("-- name: one\nSELECT ?"),
		"postgres/s.sql": file("-- name: one\nSELECT $1"),
		"mysql/s.sql":    file("-- name: two\nSELECT ?1"),
	}
	var one string
	for _, tt := range []struct {
		store any
		want  string
		err   string
	}{
		{store: struct{}{}, want: "SELECT ?"},
		{store: speaks("sqlite"), want: "SELECT ?"},
		{store: speaks("postgres"), want: "SELECT $1"},
		{store: speaks("mysql"), err: "mysql/s.sql lacks statement one\nmysql/s.sql has statement two, which nobody runs"},
		{store: speaks("oracle"), err: `there are no statements for the dialect "oracle"`},
		{store: speaks(""), err: `there are no statements for the dialect ""`},
		{store: speaks("."), err: `there are no statements for the dialect "."`},
	} {
		err := statement.Bind(files, tt.store, map[string]*string{"s.one": &one})
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%v: got %v, want %s", tt.store, err, tt.err)
			}
			continue
		}
		if err != nil || one != tt.want {
			t.Errorf("%v: got %q, %v, want %q", tt.store, one, err, tt.want)
		}
	}
}
