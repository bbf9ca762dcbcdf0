package sqlstore

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// TestDialects proves that each dialect has every statement that a store asks for, and no other.
func TestDialects(t *testing.T) {
	for _, d := range []Dialect{SQLite(), Postgres(), MySQL()} {
		texts, err := d.load()
		if err != nil {
			t.Fatal(err)
		}
		asked := map[string]string{}
		q := &statements{dialect: d.Name(), texts: texts, asked: func(name string) { asked[name] = "" }}
		s := &Store{}
		s.bind(q)
		if d.Name() == sqliteName {
			newWriterSQL(q)
		}
		if err := q.err(); err != nil {
			t.Errorf("%s: %v", d.Name(), err)
		}
		for name := range texts {
			if _, ok := asked[name]; !ok && !strings.HasPrefix(name, "store.") { // Those are the migrator's.
				t.Errorf("%s: nobody asks for %s", d.Name(), name)
			}
		}
		if all, err := d.Schema().migrations(); err != nil || len(all) == 0 {
			t.Errorf("%s: %d migrations, %v", d.Name(), len(all), err)
		}
	}
	q := &statements{texts: map[string]string{}}
	q.text("outbox.add")
	if err := q.err(); err == nil || !strings.Contains(err.Error(), "outbox.add") {
		t.Errorf("a dialect without statements: %v", err)
	}
}

func TestMigrationsRefused(t *testing.T) {
	file := &fstest.MapFile{Data: []byte("SELECT 1")}
	for name, s := range map[string]Schema{
		"no name":  {Files: fstest.MapFS{}},
		"no files": {Name: "x"},
		"gap":      {Name: "x", Files: fstest.MapFS{"0002_b.sql": file}},
		"twice":    {Name: "x", Files: fstest.MapFS{"0001_a.sql": file, "0001_b.sql": file}},
	} {
		if all, err := s.migrations(); err == nil {
			t.Errorf("%s: %d migrations", name, len(all))
		}
	}
}

func TestCheckControl(t *testing.T) {
	for _, text := range []string{"COMMIT", " begin immediate", "; rollback", "-- x\nEND", "/* x */ savepoint a", "release a"} {
		if checkControl(text) == nil {
			t.Errorf("%q may control the transaction", text)
		}
	}
	for _, text := range []string{"SELECT 1", "", "-- only", "/* open", "BEGINNING", "UPDATE t SET a = 'COMMIT'", "WITH begin AS (SELECT 1) SELECT 1"} {
		if err := checkControl(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTailGap(t *testing.T) {
	tl := &tail{bytesMax: 1 << 20}
	tl.start(10)
	commit := func(first int64, n int) {
		m := &member{tx: txn.NewTx(nil, nil, timeOf(1)), first: first}
		if err := m.tx.Append(t.Context(), make([]event.Envelope, n)...); err != nil {
			t.Fatal(err)
		}
		tl.append([]*member{m, {tx: txn.NewTx(nil, nil, timeOf(1))}})
	}
	commit(11, 2)
	for _, c := range []struct {
		after int64
		n     int
		ok    bool
	}{{9, 0, false}, {10, 2, true}, {11, 1, true}, {12, 0, true}, {99, 0, true}} {
		if got, ok := tl.next(c.after, 10); ok != c.ok || len(got) != c.n {
			t.Errorf("after %d: %d records, %t", c.after, len(got), ok)
		}
	}
	commit(20, 1) // Numbers that do not follow: what was before is only in the database.
	if _, ok := tl.next(12, 10); ok {
		t.Error("memory hides a gap")
	}
	if got, ok := tl.next(19, 10); !ok || len(got) != 1 || got[0].Position.ID != 20 {
		t.Errorf("after a gap: %v, %t", got, ok)
	}
	tl.forget(0)
	if _, ok := tl.next(19, 10); ok {
		t.Error("memory keeps what was purged")
	}
}
