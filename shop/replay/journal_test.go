package replay_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/settledev/settle/shop/replay"
)

func openJournal(t *testing.T, path string) *replay.Journal {
	t.Helper()
	j, err := replay.OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestJournalRestart adds from many goroutines, and finds all again; a torn last line is dropped and
// written over.
func TestJournalRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	const n = 200
	j := openJournal(t, path)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := j.Add(replay.Answer{Invoice: fmt.Sprint(i), Status: 202, ID: fmt.Sprint("o", i)}); err != nil {
				t.Error(err)
			}
			if _, ok := j.Get(fmt.Sprint(i)); !ok {
				t.Errorf("%d is not there", i)
			}
		})
	}
	wg.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("torn\t20"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	refused := replay.Answer{Invoice: "dirty", Status: 422, Code: "no-items"}
	for range 2 { // The second time nothing is torn any more.
		j = openJournal(t, path)
		if _, ok := j.Get("torn"); ok {
			t.Error("a torn line counts")
		}
		if err := j.Add(refused); err != nil {
			t.Fatal(err)
		}
		all := j.Answers()
		if len(all) != n+1 || all["dirty"] != refused || refused.Accepted() || all["7"].ID != "o7" || !all["7"].Accepted() {
			t.Errorf("%d answers, %+v, %+v", len(all), all["dirty"], all["7"])
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJournalRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openJournal(t, path)
	for _, a := range []replay.Answer{{Invoice: "a\tb"}, {Invoice: "a", ID: "b\n"}, {Invoice: "a", Code: "\r"}} {
		if err := j.Add(a); err == nil {
			t.Errorf("%+v was journalled", a)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"no fields\n", "a\tb\tc\td\n", "a\t1\tc\td\te\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := replay.OpenJournal(path); err == nil {
			t.Errorf("%q is a journal", text)
		}
	}
	if _, err := replay.OpenJournal(filepath.Join(path, "x")); err == nil {
		t.Error("a journal below a file was opened")
	}
}
