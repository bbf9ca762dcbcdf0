package journey_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/test/internal/binary"
	"github.com/settledev/settle/test/internal/cluster"
)

// TestPooler runs the whole shop behind PgBouncer in transaction mode, which also makes its databases and their tables,
// and wants the books to balance.
func TestPooler(t *testing.T) {
	binary.NeedsProcesses(t)
	for _, kind := range []server.Kind{"", server.NATS} {
		broker := "store"
		if kind != "" {
			broker = server.Shared(t, kind)
		}
		name, _, _ := strings.Cut(broker, ":")
		t.Run(name, func(t *testing.T) {
			report := filepath.Join(t.TempDir(), "report.json")
			out := binary.Run(
				t, "demo", "--exit", "--dir", newDir(t), "--addr", "127.0.0.1:0", "--data", retail(t, 150), "--report", report,
				"--store", cluster.Databases(t, server.Shared(t, server.PgBouncer)), "--pooler", "--broker", broker,
			)
			if out.Code != 0 {
				t.Fatalf("exit code %d\n%s\n%s", out.Code, out.Stdout, out.Stderr)
			}
			if strings.Contains(out.Stderr, "level=") {
				t.Errorf("it warns:\n%s", out.Stderr)
			}
			r := binary.ReadReport(t, report)
			if !r.Balanced || r.Accepted != 150 || r.Terminal["COMPLETED"] != 150 {
				t.Errorf("report: balanced %t, %d accepted, terminal %v", r.Balanced, r.Accepted, r.Terminal)
			}
		})
	}
}

// TestPoolerRefused starts shops that cannot work behind a pooler: they end at once, and say why.
func TestPoolerRefused(t *testing.T) {
	binary.NeedsProcesses(t)
	store := cluster.Databases(t, server.Shared(t, server.PgBouncer))
	for name, test := range map[string]struct {
		flags []string
		says  string
	}{
		"no database": {[]string{"--pooler"}, "settle migrate up"},
		"not told":    {nil, "--pooler"},
	} {
		out := binary.Run(t, append([]string{"serve", "--dir", newDir(t), "--addr", "127.0.0.1:0", "--store", store}, test.flags...)...)
		if out.Code == 0 || strings.Count(out.Stderr, "\n") != 1 || !strings.Contains(out.Stderr, test.says) {
			t.Errorf("%s: exit code %d, want %q in one line:\n%s", name, out.Code, test.says, out.Stderr)
		}
	}
}

// TestPoolerMigrates makes databases and their tables through a pooler, and looks at them.
func TestPoolerMigrates(t *testing.T) {
	binary.NeedsProcesses(t)
	with := []string{"--store", cluster.Databases(t, server.Shared(t, server.PgBouncer)), "--services", "order,gateway"}
	for _, args := range [][]string{{"migrate", "up", "--create"}, {"migrate", "up", "--create"}, {"migrate", "status"}} {
		if out := binary.Run(t, append(args, with...)...); out.Code != 0 {
			t.Errorf("%v: exit code %d\n%s", args, out.Code, out.Stderr)
		}
	}
}
