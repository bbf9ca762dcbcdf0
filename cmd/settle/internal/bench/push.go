package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
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

// perClient connects clients that only wait, and returns what the process grew by for each, in KB. The
// clients are sockets without a goroutine in the same process.
func perClient(ctx context.Context, h http.Handler, n int) (kb float64, err error) {
	srv, url, err := serve(h)
	if err != nil {
		return 0, err
	}
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
		err = errors.Join(err, srv.Close())
	}()
	debug.FreeOSMemory()
	before, err := resident()
	if err != nil {
		return 0, err
	}
	var d net.Dialer
	buf := make([]byte, 1024)
	for i := range n {
		c, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			return 0, err
		}
		conns = append(conns, c)
		if _, err := fmt.Fprintf(c, "GET /?id=%d HTTP/1.1\r\nHost: bench\r\n\r\n", i); err != nil {
			return 0, err
		}
		if _, err := c.Read(buf); err != nil { // The head of the answer: the handler is there.
			return 0, err
		}
	}
	debug.FreeOSMemory()
	after, err := resident()
	if err != nil {
		return 0, err
	}
	return (after - before) / float64(n), nil
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
