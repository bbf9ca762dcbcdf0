package journey_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/test/internal/binary"
)

// TestFilterLost runs a shop whose redis, which remembers what is handled, is away when it starts, comes, is emptied, dies
// and comes back empty: it costs no order, and no effect happens twice.
func TestFilterLost(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	redis := server.Start(t, server.Redis, server.Options{})
	cli := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-u", redis.URL()}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	redis.Kill()
	dir, placed := newDir(t), 0
	p := serve(t, dir, "--filter", redis.URL())
	orders := func() {
		t.Helper()
		for range 20 {
			place(t, p)
			placed++
		}
	}
	orders()
	redis.Restart()
	cli("FLUSHALL")
	binary.Eventually(t, patience, "the filter is taught", func() bool {
		place(t, p)
		placed++
		return cli("DBSIZE") != "0"
	})
	orders()
	cli("FLUSHALL")
	orders()
	redis.Kill()
	orders()
	redis.Wipe()
	redis.Restart()
	p.Kill()
	p = serve(t, dir, "--filter", redis.URL())
	orders()
	traffic := p.WaitQuiet(patience)
	if got := states(t, p); got["COMPLETED"] != placed || len(got) != 1 || traffic.Parked != 0 {
		t.Errorf("orders %v, want %d completed; traffic %+v", got, placed, traffic)
	}
	stop(t, p)
	if _, n := binary.CheckEvents(t, dir); n != placed {
		t.Errorf("%d orders in the outbox, want %d", n, placed)
	}
}
