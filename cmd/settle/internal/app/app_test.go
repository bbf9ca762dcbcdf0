package app_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/shop/order"
	"github.com/settledev/settle/sqlstore"
)

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestUsage(t *testing.T) {
	catalog := map[string][]string{"catalog": {"http://127.0.0.1:1"}}
	for name, tt := range map[string]struct {
		opts app.Options
		says string
	}{
		"service":            {app.Options{Services: []string{"orders"}}, `"orders"`},
		"peer's name":        {app.Options{Peers: map[string][]string{"orders": {"http://x"}}}, `"orders"`},
		"peer's address":     {app.Options{Services: []string{"order"}, Broker: "store", Peers: map[string][]string{"catalog": {"x:1"}}}, "--peer"},
		"store":              {app.Options{Store: "oracle://x"}, "oracle"},
		"store's URL":        {app.Options{Store: "mysql://"}, "mysql://user@host"},
		"broker":             {app.Options{Broker: "smoke://signals"}, "smoke"},
		"embedded, in parts": {app.Options{Services: []string{"order"}, Peers: catalog}, "every service"},
		"relay":              {app.Options{Relay: "pipe"}, "pipe"},
		"relay of a file":    {app.Options{Relay: "wal"}, "sqlite"},
		"relay of nothing":   {app.Options{Relay: "wal", Store: "postgres://x/y", Broker: "store"}, "no relay"},
		"conns":              {app.Options{ConnsMax: 1}, "below 2"},
		"order alone":        {app.Options{Services: []string{"order"}, Broker: "store"}, "--peer catalog"},
		"gateway alone":      {app.Options{Services: []string{"gateway"}, Broker: "store", Peers: catalog}, "--peer inventory"},
		"payment alone":      {app.Options{Services: []string{"payment"}, Broker: "store"}, "--gateway-url"},
		"notify alone":       {app.Options{Services: []string{"notify"}, Broker: "store"}, "--platform-url"},
		"token":              {app.Options{OperatorTokenFile: "/no/such/file", Broker: "store"}, "/no/such/file"},
	} {
		tt.opts.Dir, tt.opts.Addr, tt.opts.Logger = t.TempDir(), "127.0.0.1:0", silent()
		a, err := app.Open(t.Context(), tt.opts)
		if !errors.Is(err, app.ErrUsage) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, %v; want wrong use with %q", name, a, err, tt.says)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: wrong use is one line, not %q", name, err)
		}
	}
}

// TestSchema wants a file that does not fit refused with the command that mends it, and left as it is until
// somebody asks for it.
func TestSchema(t *testing.T) {
	opts := app.Options{Dir: t.TempDir(), Addr: "127.0.0.1:0", Broker: "store", Logger: silent()}
	path := filepath.Join(opts.Dir, "order.db")
	if _, err := settlesqlite.Migrate(t.Context(), path); err != nil { // settle's own tables and none of the service.
		t.Fatal(err)
	}
	for range 2 {
		a, err := app.Open(t.Context(), opts)
		if !errors.Is(err, sqlstore.ErrSchema) || !strings.Contains(err.Error(), "settle migrate up --services order") {
			t.Fatalf("a file without the service's tables: %v, %v", a, err)
		}
	}
	opts.Migrate = true
	opened := func() {
		t.Helper()
		a, err := app.Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	opened()
	// The next version adds a column: this one can be started again, with and without --migrate.
	next := fstest.MapFS{"0002_note.sql": {Data: []byte("ALTER TABLE orders ADD COLUMN note TEXT NOT NULL DEFAULT '';")}}
	first, err := fs.ReadFile(order.Migrations("sqlite"), "0001_order.sql")
	if err != nil {
		t.Fatal(err)
	}
	next["0001_order.sql"] = &fstest.MapFile{Data: first}
	if n, err := settlesqlite.Migrate(t.Context(), path, sqlstore.Schema{Name: "order", Files: next}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	opened()
	opts.Migrate = false
	opened()
}

// TestSecrets opens the parts of a shop on one directory at once: all of them have the same secrets.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	tokens := make([]string, 5)
	var wg sync.WaitGroup
	for i, name := range []string{"inventory", "shipping", "catalog"} {
		wg.Go(func() {
			// Following the outboxes of the others would wait for them.
			a, err := app.Open(t.Context(), app.Options{
				Dir: dir, Addr: "127.0.0.1:0", Broker: "nats://127.0.0.1:1", Services: []string{name}, Logger: silent(),
			})
			if err == nil {
				t.Errorf("%s found a broker: %v", name, a.Close())
			}
			b, err := os.ReadFile(filepath.Join(dir, "operator-token"))
			if err != nil {
				t.Error(err)
			}
			tokens[i] = string(b)
		})
	}
	wg.Wait()
	if tokens[0] == "" || tokens[0] != tokens[1] || tokens[1] != tokens[2] {
		t.Errorf("tokens %q", tokens)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".secret-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestDrain wants a process that ends to say that it is not ready before it stops to listen.
func TestDrain(t *testing.T) {
	a, err := app.Open(t.Context(), app.Options{
		Dir: t.TempDir(), Addr: "127.0.0.1:0", Broker: "store", DrainDelay: 500 * time.Millisecond, Logger: silent(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	if a.Ready(t.Context()) == nil {
		t.Error("ready before it runs")
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	a.Start()
	if a.Ready(t.Context()) == nil {
		t.Error("ready before it reads anything")
	}
	go func() { done <- a.Run(ctx) }()
	if err := a.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	closes := false // the connection, after the last answer
	status := func(path string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		closes = resp.Close
		return resp.StatusCode
	}
	if got := status("/readyz"); got != http.StatusOK {
		t.Errorf("readyz answers %d", got)
	}
	stop()
	draining := false
	for {
		got := status("/readyz")
		if got == 0 {
			break
		}
		if got == http.StatusServiceUnavailable {
			if draining = true; !closes {
				t.Error("a draining process keeps a connection")
			}
			if got := status("/products"); got != http.StatusOK && got != 0 {
				t.Errorf("a draining process answers %d", got)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !draining {
		t.Error("nobody could see that it drains")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFreshPrefix(t *testing.T) {
	opts := app.Options{Dir: filepath.Join(t.TempDir(), "new"), Broker: "kafka://x"}
	if p, err := app.FreshPrefix(opts, false); p != "" || err != nil {
		t.Errorf("at first: %q, %v", p, err)
	}
	first, err := app.FreshPrefix(opts, true)
	if err != nil || first == "" {
		t.Errorf("fresh: %q, %v", first, err)
	}
	if p, err := app.FreshPrefix(opts, false); p != first || err != nil {
		t.Errorf("afterwards: %q, %v; want %q", p, err, first)
	}
	if p, err := app.FreshPrefix(opts, true); p == first || err != nil {
		t.Errorf("fresh again: %q, %v", p, err)
	}
	for _, o := range []app.Options{{Broker: "nats"}, {Broker: "store"}} {
		if p, err := app.FreshPrefix(o, true); p != "" || err != nil {
			t.Errorf("%s: %q, %v", o.Broker, p, err)
		}
	}
	if p, err := app.FreshPrefix(app.Options{Broker: "kafka://x", TopicPrefix: "mine"}, true); p != "mine" || err != nil {
		t.Errorf("asked for: %q, %v", p, err)
	}
}
