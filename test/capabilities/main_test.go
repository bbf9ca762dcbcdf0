package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// TestEverySuiteRunIsOnThePage fails when a driver runs a suite that the page says nothing of, and when there
// is a suite that no driver is asked for.
func TestEverySuiteRunIsOnThePage(t *testing.T) {
	known, suites := map[string]bool{}, map[string]bool{}
	for _, s := range spots() {
		name, _, _ := strings.Cut(s.suite, ",")
		known[s.folder+" "+name], suites[name] = true, true
	}
	runs := regexp.MustCompile(`\b(\w+test)\.(?:Run|RunHints)\(t, `)
	isSuite := regexp.MustCompile(`(?m)^func Run\(t \*testing\.T, `)
	seen := 0
	eachFile(t, func(path, text string) {
		folder := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range runs.FindAllStringSubmatch(text, -1) {
				if seen++; suites[m[1]] && !known[folder+" "+m[1]] {
					t.Errorf("%s runs %s, and test/capabilities/spots.go has no column for it", path, m[1])
				}
			}
			return
		}
		if name := filepath.Base(folder); strings.HasSuffix(name, "test") && isSuite.MatchString(text) &&
			!strings.Contains(folder, "internal/") && !suites[name] {
			t.Errorf("%s is a suite, and test/capabilities/spots.go does not know it", folder)
		}
	})
	if seen < 40 {
		t.Errorf("found %d runs of suites in the tree, which are more", seen)
	}
	for _, s := range spots() {
		name, _, _ := strings.Cut(s.test, "/")
		if !declared(t, filepath.Join(root, s.folder), name) {
			t.Errorf("%s has no %s, which %s on %s is to run", s.folder, name, s.suite, s.column)
		}
	}
}

// TestEveryDriverHasASuite fails when a driver of a store or a broker runs none.
func TestEveryDriverHasASuite(t *testing.T) {
	known := map[string]bool{"driver/settleprom": true} // metrics
	for _, s := range spots() {
		known[s.folder] = true
	}
	folders, err := filepath.Glob(root + "/driver/*/doc.go")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no drivers: %v", err)
	}
	for _, f := range folders {
		if folder := "driver/" + filepath.Base(filepath.Dir(f)); !known[folder] {
			t.Errorf("%s runs no conformance suite", folder)
		}
	}
}

// TestPage fails when the page is older than the list of suites and drivers, or tells of a failure.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/capabilities.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	want := []string{"| suite | " + strings.Join(stores(), " | ") + " |"}
	for _, s := range storeSuites() {
		want = append(want, "| `"+s.name+"` | ")
	}
	for _, s := range append(brokerSpots(), hintSpots()...) {
		want = append(want, "\n| "+s.column+" | ")
	}
	for _, w := range want {
		if !strings.Contains(page, w) {
			t.Errorf("docs/capabilities.md lacks %q: run make gen", w)
		}
	}
	for _, bad := range []string{"failed", "| 0 |", "| 0 ("} {
		if strings.Contains(page, bad) {
			t.Errorf("docs/capabilities.md says %q", bad)
		}
	}
}

// TestParse counts cases: skipped ones with their reason, failed ones also when they are deep.
func TestParse(t *testing.T) {
	const p = `"Package":"github.com/settledev/settle/driver/settlerabbit","Test":"TestBroker`
	results, err := parse(strings.NewReader(`{"Action":"pass",` + p + `/Order"}
{"Action":"pass",` + p + `/Order/deep"}
{"Action":"output",` + p + `/Seek","Output":"    positions.go:34: skipped: partitions cannot seek\n"}
{"Action":"skip",` + p + `/Seek"}
{"Action":"fail",` + p + `/Lag/deep"}
{"Action":"output",` + p + `/Bubble","Output":"    x.go:1: skipped: the harness says so\n"}
{"Action":"pass",` + p + `/Bubble"}
`))
	if err != nil {
		t.Fatal(err)
	}
	for s, r := range results {
		if got := r.String(); s.column != "RabbitMQ" || got != "1 (2 skipped) **1 failed**" || r.skipped[0] != "Seek: partitions cannot seek" {
			t.Errorf("%s: %s, %q", s.column, got, r.skipped)
		}
	}
	if len(results) != 1 {
		t.Errorf("%d results, want 1", len(results))
	}
	if failed := write(&strings.Builder{}, results); len(failed) != len(spots()) {
		t.Errorf("%d spots failed or did not run, want all %d", len(failed), len(spots()))
	}
}

// TestStatusNamesTests fails when docs/status.md or docs/guarantees.md rests on a test that is not there.
func TestStatusNamesTests(t *testing.T) {
	declared := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	eachFile(t, func(path, text string) {
		for _, m := range function.FindAllStringSubmatch(text, -1) {
			declared[m[1]] = strings.HasSuffix(path, "_test.go")
		}
	})
	for _, page := range []string{"status.md", "guarantees.md"} {
		text, err := os.ReadFile(filepath.Join(root, "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(text), -1) {
			if !declared[name] {
				t.Errorf("docs/%s names %s, which is no test of the tree", page, name)
			}
		}
	}
}

// eachFile calls fn with every Go file of the tree.
func eachFile(t *testing.T, fn func(path, text string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path == ".git" || path == "tmp" || path == "bin" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err == nil {
			fn(path, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// declared tells whether a folder has a test.
func declared(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(folder + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
