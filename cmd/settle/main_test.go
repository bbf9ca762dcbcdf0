package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/settledev/settle/cmd/settle/internal/app"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestExitCodes proves that wrong use is one line and code 2, and nothing else is.
func TestExitCodes(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no command", nil, 2, "expected one of"},
		{"unknown command", []string{"nonsense"}, 2, "nonsense"},
		{"unknown flag", []string{"demo", "--nonsense"}, 2, "--nonsense"},
		{"stock", []string{"demo", "--stock", "tight=101"}, 2, "tight=P"},
		{"decline", []string{"demo", "--decline", "101"}, 2, "0 to 100"},
		{"crash", []string{"demo", "--crash", "point"}, 2, "POINT:N"},
		{"data", []string{"demo", "--data", missing}, 2, "no such file"},
		{"token", []string{"dlq", "list", "--token-file", missing}, 2, "--token-file"},
		{"url", []string{"dlq", "list", "--token-file", token, "--url", "nonsense"}, 2, "--url"},
		{"dir", []string{"outbox", "status", "--dir", missing}, 2, "--dir"},
		{"service", []string{"outbox", "status", "--service", "nonsense"}, 2, "--service"},
		{"position", []string{"outbox", "list", "--after", "x"}, 2, "--after"},
		{"bench", []string{"bench", "nonsense"}, 2, "nonsense"},
		{"replay what", []string{"dlq", "replay", "--token-file", token}, 2, "--topic"},
		{"nobody there", []string{"dlq", "list", "--token-file", token, "--url", "http://127.0.0.1:1"}, 1, "refused"},
		{"broker", []string{"demo", "--dir", t.TempDir(), "--addr", "127.0.0.1:0", "--broker", "nonsense"}, 2, "nonsense"},
		{"filter", []string{"demo", "--dir", t.TempDir(), "--addr", "127.0.0.1:0", "--filter", "nonsense"}, 2, "--filter"},
		{"version", []string{"version"}, 0, ""},
		{"config", []string{"config", "demo"}, 0, ""},
		{"help", []string{"--help"}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			code := run(tt.args, &out, &errOut)
			if code != tt.code || !strings.Contains(errOut.String(), tt.says) {
				t.Errorf("settle %s: exit %d, want %d; said %q, want %q in it", strings.Join(tt.args, " "), code, tt.code, errOut.String(), tt.says)
			}
			if tt.code == 2 && strings.Count(errOut.String(), "\n") != 1 {
				t.Errorf("wrong use is one line, not %q", errOut.String())
			}
		})
	}
}

// TestHelp holds the help of the command, which is its reference.
func TestHelp(t *testing.T) {
	for _, name := range []string{
		"", "demo", "serve", "outside", "replay-data", "dlq", "outbox", "relay", "relay run", "migrate", "migrate up", "doctor", "lock", "lock run", "lock list", "stream", "order", "bench",
	} {
		t.Run("settle "+name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			args := append(strings.Fields(name), "--help")
			if code := run(args, &out, &errOut); code != 0 {
				t.Fatalf("exit %d: %s", code, errOut.String())
			}
			golden := filepath.Join("testdata", "help-"+strings.ReplaceAll(strings.TrimSpace("settle "+name), " ", "-")+".txt")
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := out.String(); got != string(want) {
				t.Errorf("help differs from %s (run with -update when that is meant):\n%s", golden, got)
			}
		})
	}
}

// TestSettings proves that a value comes from its variable before its default, and says so.
func TestSettings(t *testing.T) {
	t.Setenv("SETTLE_BROKER", "store")
	file := filepath.Join(t.TempDir(), "settle.json")
	if err := os.WriteFile(file, []byte(`{"decline": 7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := run([]string{"config", "demo", "--json", "--file", file}, &out, &errOut); code != 0 {
		t.Fatalf("exit %d: %s", code, errOut.String())
	}
	got := map[string]setting{}
	for line := range strings.SplitSeq(strings.TrimSpace(out.String()), "\n") {
		var s setting
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got[s.Name] = s
	}
	for name, want := range map[string]setting{
		"broker":  {"demo", "broker", "store", "SETTLE_BROKER"},
		"decline": {"demo", "decline", "7", "file"},
		"addr":    {"demo", "addr", "127.0.0.1:8080", "default"},
	} {
		if got[name] != want {
			t.Errorf("%s: %+v, want %+v", name, got[name], want)
		}
	}
}

// TestReset proves that --fresh deletes a shop's data and nothing else.
func TestReset(t *testing.T) {
	dir := t.TempDir()
	keep := filepath.Join(dir, "precious.txt")
	if err := os.WriteFile(keep, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := app.Reset(t.Context(), app.Options{Dir: dir}); !errors.Is(err, app.ErrNotOurs) {
		t.Errorf("a directory of somebody else's: %v, want ErrNotOurs", err)
	}
	for _, name := range []string{"operator-token", "order.db", "replay.journal"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Reset(t.Context(), app.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Errorf("a foreign file is gone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "order.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("order.db is still there: %v", err)
	}
	if err := app.Reset(t.Context(), app.Options{Dir: filepath.Join(dir, "missing")}); err != nil {
		t.Errorf("a missing directory: %v", err)
	}
}

// TestLocked proves that a second process is refused, with the first one's pid.
func TestLocked(t *testing.T) {
	opts, err := (&shopFlags{Dir: t.TempDir(), Addr: "127.0.0.1:0", Broker: "store"}).options(&terminal{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	if b, err := app.Open(context.Background(), opts); err == nil || !strings.Contains(err.Error(), "pid") {
		t.Errorf("a second one on the same directory: %v, %v; want an error with the pid", b, err)
	}
}
