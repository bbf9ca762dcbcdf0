package gateway

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/settledev/settle/shop/contract"
)

type document struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components map[string]map[string]json.RawMessage
}

type operation struct {
	Summary    string
	Security   []any
	Parameters []struct {
		Name, In string
		Ref      string `json:"$ref"`
	}
	Responses map[string]json.RawMessage
}

func readDocument(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(OpenAPI(), &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" {
		t.Errorf("openapi is %q", d.OpenAPI)
	}
	return d
}

// describedAs is how the document names a mux's pattern.
func describedAs(pattern string) string {
	switch pattern {
	case "GET /{$}":
		return "GET /"
	case "GET /assets/":
		return "GET /assets/{file}"
	}
	return pattern
}

func TestEveryRouteIsDescribed(t *testing.T) {
	r := newRig(t)
	d := readDocument(t)
	described := map[string]operation{}
	for path, methods := range d.Paths {
		for method, op := range methods {
			described[strings.ToUpper(method)+" "+path] = op
		}
	}
	served := map[string]bool{}
	for pattern := range r.gateway.routes() {
		served[describedAs(pattern)] = true
	}
	for route := range served {
		if _, ok := described[route]; !ok {
			t.Errorf("%s is served, and not described", route)
		}
	}
	for route, op := range described {
		if !served[route] {
			t.Errorf("%s is described, and not served", route)
		}
		checkOperation(t, d, route, op)
	}
}

// checkOperation checks what a reader of the document relies on.
func checkOperation(t *testing.T, d document, route string, op operation) {
	t.Helper()
	path := route[strings.IndexByte(route, ' ')+1:]
	operators := strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/internal/") || strings.HasPrefix(path, "/import/")
	if operators != (len(op.Security) > 0) {
		t.Errorf("%s: operators only is %v, described as %v", route, operators, len(op.Security) > 0)
	}
	if op.Summary == "" || len(op.Responses) < 2 {
		t.Errorf("%s: summary %q, %d responses", route, op.Summary, len(op.Responses))
	}
	named := map[string]bool{}
	for _, p := range op.Parameters {
		if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
			if err := json.Unmarshal(d.Components["parameters"][name], &p); err != nil {
				t.Errorf("%s: parameter %s: %v", route, name, err)
			}
		}
		if p.In == "path" {
			named[p.Name] = true
		}
	}
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
		if !named[m[1]] {
			t.Errorf("%s: parameter %s of the path is not described", route, m[1])
		}
	}
}

// Every reference leads somewhere, and everything that is defined is used.
func TestReferences(t *testing.T) {
	d := readDocument(t)
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"#/components/(\w+)/([\w-]+)"`).FindAllStringSubmatch(string(OpenAPI()), -1) {
		used[m[1]+"/"+m[2]] = true
		if d.Components[m[1]][m[2]] == nil {
			t.Errorf("%s leads nowhere", m[0])
		}
	}
	for kind, members := range d.Components {
		for name := range members {
			if kind != "securitySchemes" && !used[kind+"/"+name] {
				t.Errorf("components/%s/%s is not used", kind, name)
			}
		}
	}
}

// The codes of problems in the document are those that the services' code has.
func TestEveryProblemIsDescribed(t *testing.T) {
	d := readDocument(t)
	var schema struct {
		Properties struct{ Code struct{ Enum []string } }
	}
	if err := json.Unmarshal(d.Components["schemas"]["Problem"], &schema); err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, dir := range []string{".", "../order", "../payment", "../catalog", "../inventory", "../notify", "../platform", "../deliver", "../page", "../problem"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s has no source: %v", dir, err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				problemsOf(t, file, written)
			}
		}
	}
	for code, where := range written {
		if !slices.Contains(schema.Properties.Code.Enum, code) {
			t.Errorf("%s: the problem %s is not described", where, code)
		}
		anywhere := []string{"internal", "cross-origin", "canceled", "not-found", "service-unreachable", "service-broke-off", "store-unavailable"}
		named := regexp.MustCompile(`"description": "A problem: [^"]*\b` + code + `[,.]`)
		if !named.Match(OpenAPI()) && !slices.Contains(anywhere, code) {
			t.Errorf("%s: no route's description names the problem %s", where, code)
		}
	}
	for _, code := range schema.Properties.Code.Enum {
		if written[code] == "" {
			t.Errorf("the problem %s is described, and nobody has it", code)
		}
	}
}

// problemsOf collects the codes that a file gives to problem.New, problem.Write and the packages' own
// refuse.
func problemsOf(t *testing.T, file string, codes map[string]string) {
	t.Helper()
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		at := -1
		switch f := call.Fun.(type) {
		case *ast.Ident:
			switch f.Name {
			case "refuse":
				at = 0
			case "New": // In package problem itself.
				at = 1
			}
		case *ast.SelectorExpr:
			if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "problem" {
				switch f.Sel.Name {
				case "New":
					at = 1
				case "Write":
					at = 2
				}
			}
		}
		if at < 0 || at >= len(call.Args) {
			return true
		}
		if lit, ok := call.Args[at].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			code, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			codes[code] = set.Position(lit.Pos()).String()
		}
		return true
	})
}

// A browser hears only the events that the pages' script names.
func TestPagesKnowEveryEvent(t *testing.T) {
	script, err := web.ReadFile("web/assets/events.js")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(script), "export const EVENTS = {\n")
	list, _, _ = strings.Cut(list, "\n};")
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  (\w+): '`).FindAllStringSubmatch(list, -1) {
		known[m[1]] = true
	}
	for _, name := range contract.EventTypes() {
		if !known[name] {
			t.Errorf("events.js has no words for %s", name)
		}
		delete(known, name)
	}
	if len(known) > 0 {
		t.Errorf("events.js names events that do not exist: %v", slices.Sorted(maps.Keys(known)))
	}
}

// The policy of the pages allows no inline script or style, and a page that needs one would be broken.
func TestPagesHaveNothingInline(t *testing.T) {
	files, err := filepath.Glob("web/*.html")
	if err != nil || len(files) != 4 {
		t.Fatalf("pages: %v, %v", files, err)
	}
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script(?:[^>]*)>[^<]|https?://`)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if m := inline.Find(b); m != nil {
			t.Errorf("%s has %q", file, m)
		}
	}
}
