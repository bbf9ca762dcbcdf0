// Package arch holds the test that keeps imports pointing down, in every module of the workspace.
//
// Go itself refuses cycles, so packages of one level may import one another where nothing below
// says otherwise. What Go can't see is direction: a contract that learns of its implementation
// compiles well, and from then on no user can have the one without the other.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/settledev/settle"

// The levels of the root module. A package imports its own level and those below.
const (
	levelBase = iota + 1
	levelContract
	levelEngine
	levelService
	levelAdapter
)

// levels gives each folder of the root module its level; what lies inside a folder shares it.
// Conformance suites (broker/brokertest) and internal/ are known by their names.
var levels = map[string]int{
	"event": levelBase,
	"retry": levelBase,
	"txn":   levelBase,

	"broker":      levelContract,
	"call":        levelContract,
	"deadletter":  levelContract,
	"eventstore":  levelContract,
	"idempotency": levelContract,
	"inbox":       levelContract,
	"lock":        levelContract,
	"outbox":      levelContract,
	"timer":       levelContract,

	"consumer":   levelEngine,
	"observe":    levelEngine,
	"projection": levelEngine,
	"push":       levelEngine,
	"relay":      levelEngine,
	"saga":       levelEngine,
	"topology":   levelEngine,

	"":        levelService,
	"console": levelService,

	"memory":      levelAdapter,
	"sqlstore":    levelAdapter,
	"storebroker": levelAdapter,
}

// namesRefused say nothing about what moves an event, stores one, or shows one.
var namesRefused = []string{
	"common", "helper", "helpers", "mock", "mocks", "model", "models", "pkg", "types", "util", "utils",
}

// shopShared are the folders of the shop that its services may share; every other one is a service. They
// speak protocols (problem documents, pages, webhooks, deliveries) or simulate faults, and own no data.
var shopShared = []string{"contract", "deliver", "faults", "internal", "page", "problem", "webhook"}

// internalShared are the folders of internal/ that the shop may import, and internalForTests those that the
// tests of every module may.
var (
	internalShared   = []string{"statement"}
	internalForTests = []string{"server"}
)

// databases are the driver packages that open a sqlstore.Store.
var databases = []string{"settlesqlite", "settlepgx", "settlemysql"}

func TestImports(t *testing.T) {
	packages := list(t)
	if len(packages) == 0 {
		t.Fatal("go list names no package")
	}
	for _, p := range packages {
		if p.Error != nil {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		for _, reason := range refusePackage(p.ImportPath, p.Name) {
			t.Errorf("%s: %s", p.ImportPath, reason)
		}
		check(t, p.ImportPath, p.Imports, false)
		check(t, p.ImportPath, slices.Concat(p.TestImports, p.XTestImports), true)
	}
}

func check(t *testing.T, from string, imports []string, inTest bool) {
	t.Helper()
	slices.Sort(imports)
	for _, to := range slices.Compact(imports) {
		if reason := refuse(parse(from), parse(to), inTest); reason != "" {
			where := ""
			if inTest {
				where = " in a test"
			}
			t.Errorf("%s imports %s%s: %s", from, to, where, reason)
		}
	}
}

// node is one end of an import.
type node struct {
	module string // root, driver, shop, cmd or test; empty for the standard library, "foreign" else
	folder string // first folder inside the module: the service, the adapter, the contract
	inner  string // the folder inside internal/ of the root module
	level  int    // in the root module; 0 for internal/ and for a folder without a level
	suite  bool   // settletest or a conformance suite
}

func parse(importPath string) node {
	inside, ours := strings.CutPrefix(importPath, module)
	if !ours || inside != "" && inside[0] != '/' {
		if first, _, _ := strings.Cut(importPath, "/"); strings.Contains(first, ".") {
			return node{module: "foreign"}
		}
		return node{}
	}
	inside = strings.TrimPrefix(inside, "/")
	first, rest, _ := strings.Cut(inside, "/")
	switch first {
	case "driver", "shop", "test":
		folder, _, _ := strings.Cut(rest, "/")
		return node{module: first, folder: folder}
	case "cmd":
		return node{module: first}
	}
	n := node{module: "root", folder: first, level: levels[first]}
	if first == "internal" {
		n.inner, _, _ = strings.Cut(rest, "/")
	}
	parent, base := path.Split(inside)
	if first == "settletest" || parent != "" && base == path.Base(parent)+"test" {
		n.level, n.suite = levelAdapter, true
	}
	return n
}

// refusePackage says what is wrong with a package by itself.
func refusePackage(importPath, name string) []string {
	var reasons []string
	elements := strings.Split(strings.TrimPrefix(importPath, module), "/")
	for _, refused := range namesRefused {
		if slices.Contains(elements, refused) || strings.TrimSuffix(name, "_test") == refused {
			reasons = append(reasons, "the name "+refused+" says nothing; name it after what it does")
		}
	}
	n := parse(importPath)
	if n.module == "root" && n.level == 0 && n.folder != "internal" {
		reasons = append(reasons, "give it a level in internal/arch")
	}
	return reasons
}

// refuse gives the reason why from must not import to, or nothing.
func refuse(from, to node, inTest bool) string {
	if to.module == "" {
		return ""
	}
	switch from.module {
	case "root":
		return refuseRoot(from, to, inTest)
	case "driver":
		return refuseDriver(from, to, inTest)
	case "shop":
		return refuseShop(from, to, inTest)
	case "cmd":
		if to.module == "test" {
			return "cmd ships, test does not"
		}
	}
	return ""
}

func refuseRoot(from, to node, inTest bool) string {
	switch {
	case to.module == "foreign":
		return "the root module is standard library only, tests included"
	case to.module != "root":
		return "the root module never requires a nested module, even in tests"
	case to.folder == "internal":
		return ""
	case from.folder == to.folder && !to.suite:
		return ""
	case inTest:
		if isAdapter(to) && to.folder != "memory" {
			return "a test of the root module uses memory; a test that needs more lives in test/"
		}
		return ""
	case from.folder == "internal":
		if to.level != levelBase {
			return "internal/ is below the contracts and imports event, retry and txn only"
		}
		return ""
	case to.suite && !from.suite:
		return "suites and settletest are for tests; users' binaries must not link package testing"
	case isAdapter(from) && isAdapter(to):
		return "an adapter imports the contract it implements, never another adapter"
	case from.suite && isAdapter(to) && to.folder != "memory":
		return "of the adapters, suites and settletest may import memory only"
	case to.level > from.level && isAdapter(to):
		return "contracts, engines and the service never import an adapter; they are handed one"
	case to.level > from.level:
		return "imports point down"
	}
	return ""
}

func refuseDriver(from, to node, inTest bool) string {
	switch {
	case to.module == "shop" || to.module == "cmd" || to.module == "test":
		return "imports point down"
	case inTest && slices.Contains(internalForTests, to.inner):
		return ""
	case to.module == "root" && to.folder == "internal":
		return "internal/ belongs to the root module; driver is released by itself"
	case inTest:
		return ""
	case to.suite:
		return "suites and settletest are for tests; users' binaries must not link package testing"
	case to.module == "root" && to.folder == "sqlstore" && slices.Contains(databases, from.folder):
		return "" // sqlstore is database/sql without a driver: these complete it.
	case isAdapter(to) && (to.module != "driver" || to.folder != from.folder):
		return "an adapter imports the contract it implements, never another adapter"
	}
	return ""
}

func refuseShop(from, to node, inTest bool) string {
	switch {
	case to.module == "cmd" || to.module == "test":
		return "imports point down"
	case to.module == "driver":
		return "cmd/settle is the only place naming drivers; a test that needs one lives in test/"
	case to.module == "root" && to.folder == "internal" && !slices.Contains(internalShared, to.inner):
		return "internal/ belongs to the root module; shop uses what users can use"
	case inTest:
		return ""
	case to.suite:
		return "suites and settletest are for tests"
	case isAdapter(to):
		return "a shop service is handed its store and broker; cmd/settle chooses them"
	case to.module == "shop" && to.folder != from.folder && !slices.Contains(shopShared, to.folder):
		return "shop services share only shop/contract, never each other"
	}
	return ""
}

// isAdapter tells the packages that implement contracts from all others.
func isAdapter(n node) bool {
	switch n.module {
	case "root":
		return n.level == levelAdapter && !n.suite
	case "driver":
		return n.folder != "internal"
	}
	return false
}

type listed struct {
	ImportPath   string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Error        *struct{ Err string }
}

// list reads the packages of every module of the workspace. Outside of the repository (a user
// testing the released root module) there is no workspace, and the root module is all there is.
func list(t *testing.T) []listed {
	t.Helper()
	root := filepath.Join("..", "..")
	pattern := "work"
	if _, err := os.Stat(filepath.Join(root, "go.work")); errors.Is(err, os.ErrNotExist) {
		pattern = "./..."
	}
	fields := "-json=ImportPath,Name,Imports,TestImports,XTestImports,Error"
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", fields, pattern)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var packages []listed
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}

// TestRefuse proves that the rules can fail; TestImports alone would pass with none.
func TestRefuse(t *testing.T) {
	const inCode, inTest = false, true
	tests := []struct {
		from, to string
		inTest   bool
		refused  bool
	}{
		{"event", "=encoding/json", inCode, false},
		{"event", "=github.com/google/uuid", inCode, true},
		{"event", "=github.com/google/uuid", inTest, true},
		{"event", "=github.com/settledev/settlement", inCode, true},
		{"event", "outbox", inCode, true},
		{"event", "outbox", inTest, false},
		{"event", "memory", inTest, false},
		{"txn", "event", inCode, false},
		{"outbox", "event", inCode, false},
		{"call", "outbox", inCode, false},
		{"broker", "broker/brokertest", inCode, true},
		{"broker", "broker/brokertest", inTest, false},
		{"relay", "outbox", inCode, false},
		{"relay", "", inCode, true},
		{"relay", "memory", inCode, true},
		{"relay", "memory", inTest, false},
		{"relay", "sqlstore", inTest, true},
		{"relay", "driver/settlenats", inTest, true},
		{"relay/window", "relay", inCode, false},
		{"observe", "relay", inCode, false},
		{"", "relay", inCode, false},
		{"", "console", inCode, false},
		{"", "memory", inCode, true},
		{"", "memory", inTest, false},
		{"memory", "relay", inCode, false},
		{"memory", "sqlstore", inCode, true},
		{"memory", "settletest", inCode, true},
		{"memory", "broker/brokertest", inTest, false},
		{"sqlstore", "sqlstore/postgres", inCode, false},
		{"sqlstore", "sqlstore", inTest, false},
		{"storebroker", "memory", inCode, true},
		{"settletest", "memory", inCode, false},
		{"settletest", "sqlstore", inCode, true},
		{"broker/brokertest", "settletest", inCode, false},
		{"broker/brokertest", "memory", inCode, false},
		{"internal/hex", "event", inCode, false},
		{"internal/hex", "outbox", inCode, true},
		{"outbox", "internal/hex", inCode, false},

		{"driver/settlenats", "broker", inCode, false},
		{"driver/settlenats", "=github.com/nats-io/nats.go", inCode, false},
		{"driver/settlenats", "driver/settlenats/embedded", inCode, false},
		{"driver/settlenats", "driver/internal/tls", inCode, false},
		{"driver/settlenats", "driver/settlekafka", inCode, true},
		{"driver/settlesqlite", "sqlstore", inCode, false},
		{"driver/settlenats", "sqlstore", inCode, true},
		{"driver/settlesqlite", "sqlstore", inTest, false},
		{"driver/settlenats", "broker/brokertest", inCode, true},
		{"driver/settlenats", "broker/brokertest", inTest, false},
		{"driver/settlenats", "shop/contract", inTest, true},
		{"driver/settlenats", "internal/hex", inCode, true},
		{"driver/settlenats", "internal/hex", inTest, true},
		{"driver/settlenats", "internal/server", inCode, true},
		{"driver/settlenats", "internal/server", inTest, false},

		{"shop/order", "shop/contract", inCode, false},
		{"shop/order", "shop/order/page", inCode, false},
		{"shop/order", "", inCode, false},
		{"shop/order", "outbox", inCode, false},
		{"shop/order", "=github.com/shopspring/decimal", inCode, false},
		{"shop/order", "shop/payment", inCode, true},
		{"shop/order", "shop/payment", inTest, false},
		{"shop/contract", "shop/order", inCode, true},
		{"shop/order", "memory", inCode, true},
		{"shop/order", "memory", inTest, false},
		{"shop/order", "sqlstore", inCode, true},
		{"shop/order", "storebroker", inCode, true},
		{"shop/order", "driver/settlesqlite", inCode, true},
		{"shop/order", "driver/settlesqlite", inTest, true},
		{"shop/gateway", "shop/internal/problem", inCode, false},
		{"shop/order", "internal/statement", inCode, false},
		{"shop/order", "internal/hex", inCode, true},

		{"cmd/settle", "driver/settlenats", inCode, false},
		{"cmd/settle", "shop/order", inCode, false},
		{"cmd/settle", "test/journey", inCode, true},
		{"test/journey", "shop/order", inTest, false},
		{"test/journey", "sqlstore", inTest, false},
	}
	for _, tt := range tests {
		reason := refuse(parse(whole(tt.from)), parse(whole(tt.to)), tt.inTest)
		if (reason != "") != tt.refused {
			t.Errorf("%q imports %q, in test %v: got reason %q, want refused %v",
				tt.from, tt.to, tt.inTest, reason, tt.refused)
		}
	}
}

func TestRefusePackage(t *testing.T) {
	tests := []struct {
		path, name string
		want       int
	}{
		{"", "settle", 0},
		{"outbox", "outbox", 0},
		{"relay/window", "window", 0},
		{"relay/relaytest", "relaytest", 0},
		{"internal/hex", "hex", 0},
		{"shop/anything", "anything", 0},
		{"newidea", "newidea", 1},
		{"shop/util", "util", 1},
		{"internal/mock/clock", "clock", 1},
		{"driver/settlenats", "helpers", 1},
	}
	for _, tt := range tests {
		if got := refusePackage(whole(tt.path), tt.name); len(got) != tt.want {
			t.Errorf("%q package %s: got %q, want %d reasons", tt.path, tt.name, got, tt.want)
		}
	}
}

// whole completes a path of this repository; "=" marks one that is complete.
func whole(p string) string {
	if complete, ok := strings.CutPrefix(p, "="); ok {
		return complete
	}
	return path.Join(module, p)
}
