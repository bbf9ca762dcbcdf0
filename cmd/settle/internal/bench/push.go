package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/push"
)

// serve runs an HTTP server on a port of its own.
func serve(h http.Handler) (*http.Server, string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It is closed with the server.
	if err != nil {
		return nil, "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	return srv, "http://" + l.Addr().String(), nil
}

// idleClients measures the resident memory of browsers that wait, beside the usual handler: a goroutine of
// net/http and a channel each.
func idleClients(ctx context.Context, _ string) ([]Result, error) {
	const clients = 10_000
	usual := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprint(w, "retry: 1000\n\n")
		_ = http.NewResponseController(w).Flush()
		frames := make(chan []byte, 256)
		select {
		case <-frames:
		case <-r.Context().Done():
		}
	}
	base, err := perClient(ctx, http.HandlerFunc(usual), clients)
	if err != nil {
		return nil, err
	}
	hub, err := push.NewHub(memory.New().Feed(), push.Config{Heartbeat: time.Hour})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	ours, err := perClient(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub.ServeFeed(w, r, "order/"+r.URL.Query().Get("id"))
	}), clients)
	stop()
	if err = errors.Join(err, <-done); err != nil {
		return nil, err
	}
	return []Result{result("push/idle", "KB per client", ours, base, "net/http handler with a channel of 256", "<= 8 KB", ours <= 8)}, nil
}

// perClient lets another process connect clients that only wait, and returns what this one grew by for
// each, in KB.
func perClient(ctx context.Context, h http.Handler, n int) (kb float64, err error) {
	srv, url, err := serve(h)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	debug.FreeOSMemory()
	before, err := resident()
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, "bench", "--idle-clients", strings.TrimPrefix(url, "http://"), strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	hold, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var after float64
	if err == nil && strings.TrimSpace(line) != "connected" {
		err = fmt.Errorf("clients said %q", line)
	}
	if err == nil {
		debug.FreeOSMemory()
		after, err = resident()
	}
	if err = errors.Join(err, hold.Close(), cmd.Wait()); err != nil {
		return 0, err
	}
	return (after - before) / float64(n), nil
}

// IdleClients connects n clients to an address, says so, and holds them until in ends: the other process
// of the benchmark push.
func IdleClients(ctx context.Context, addr string, n int, in io.Reader, out io.Writer) (err error) {
	var d net.Dialer
	buf := make([]byte, 1024)
	for i := range n {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }() // All of them are held until the end.
		if _, err := fmt.Fprintf(c, "GET /?id=%d HTTP/1.1\r\nHost: bench\r\n\r\n", i); err != nil {
			return err
		}
		if _, err := c.Read(buf); err != nil { // The head of the answer: the handler is there.
			return err
		}
	}
	if _, err := fmt.Fprintln(out, "connected"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// resident returns the process's resident memory in KB.
func resident() (_ float64, err error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
		}
	}
	return 0, errors.New("/proc/self/status has no VmRSS")
}
