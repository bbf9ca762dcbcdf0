package push_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/push"
	"github.com/settledev/settle/txn"
)

// rig is a hub that follows the log of a memory store, in a bubble.
type rig struct {
	t     *testing.T
	store *memory.Store
	hub   *push.Hub
	n     int // frames added
}

func newRig(t *testing.T, cfg push.Config) *rig {
	t.Helper()
	return rigOver(t, memory.New(), cfg)
}

// rigOver is the next process over a store.
func rigOver(t *testing.T, s *memory.Store, cfg push.Config) *rig {
	t.Helper()
	hub, err := push.NewHub(s.Feed(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, store: s, hub: hub}
}

// start runs the hub until the test ends, or stop is called.
func (r *rig) start() (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.hub.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	}
	r.t.Cleanup(stop)
	return stop
}

// add appends n frames to feeds, each in a transaction of its own; their data count from 1.
func (r *rig) add(n int, feeds ...string) {
	r.t.Helper()
	for range n {
		r.n++
		f := push.Frame{Feeds: feeds, Event: "Thing", Data: []byte(strconv.Itoa(r.n))}
		if err := r.store.Run(r.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			return r.store.Feed().Append(ctx, tx, f)
		}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// connection is what a browser has: the far end of a connection that the hub took over.
type connection struct {
	t      *testing.T
	conn   net.Conn
	in     *bufio.Reader
	status int
	header http.Header
	ended  chan struct{} // closed when ServeFeed has returned
	last   string        // id of the last event
}

// connect opens a feed, resuming after lastID, which may be empty.
func (r *rig) connect(feed, lastID string) *connection {
	r.t.Helper()
	near, far := net.Pipe()
	c := &connection{t: r.t, conn: far, in: bufio.NewReader(far), ended: make(chan struct{})}
	req := httptest.NewRequestWithContext(r.t.Context(), http.MethodGet, "/stream", http.NoBody)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	go func() {
		defer close(c.ended)
		r.hub.ServeFeed(&hijackable{ResponseRecorder: httptest.NewRecorder(), conn: near}, req, feed)
		_ = near.Close()
	}()
	r.t.Cleanup(func() { _ = far.Close(); <-c.ended })
	c.deadline(10 * time.Second)
	resp, err := http.ReadResponse(c.in, req)
	if err != nil {
		r.t.Fatalf("no response: %v", err)
	}
	c.status, c.header = resp.StatusCode, resp.Header
	if line := c.line(); !strings.HasPrefix(line, "retry: ") || c.line() != "" {
		r.t.Fatalf("the stream begins with %q", line)
	}
	return c
}

func (c *connection) deadline(d time.Duration) {
	if err := c.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *connection) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("the stream ended after %q: %v", c.last, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// received is one server-sent event; comment holds that of a comment instead.
type received struct{ id, event, data, comment string }

// next reads one event or comment.
func (c *connection) next() received {
	c.t.Helper()
	c.deadline(time.Minute)
	var e received
	for {
		line := c.line()
		field, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			if e.id != "" {
				c.last = e.id
			}
			return e
		case field == "":
			e.comment = value
		case field == "id":
			e.id = value
		case field == "event":
			e.event = value
		case field == "data":
			e.data = value
		default:
			c.t.Fatalf("the stream has the line %q", line)
		}
	}
}

// want reads events with the data from to to.
func (c *connection) want(from, to int) {
	c.t.Helper()
	for i := from; i <= to; i++ {
		if e := c.next(); e.event != "Thing" || e.data != strconv.Itoa(i) {
			c.t.Fatalf("event is %+v, want the one with data %d", e, i)
		}
	}
}

// wantReset reads a reset whose id is a position.
func (c *connection) wantReset(position int64) {
	c.t.Helper()
	if e := c.next(); e.event != "reset" || !strings.HasSuffix(e.id, fmt.Sprintf("-%d", position)) {
		c.t.Fatalf("event is %+v, want a reset at %d", e, position)
	}
}

// quiet fails if anything comes within a second.
func (c *connection) quiet() {
	c.t.Helper()
	c.deadline(time.Second)
	if b, err := c.in.Peek(1); err == nil {
		c.t.Fatalf("the stream goes on with %q", b)
	}
}

// hijackable is a response whose connection can be taken over, as an HTTP/1 server's can.
type hijackable struct {
	*httptest.ResponseRecorder

	conn net.Conn
}

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(&bytes.Buffer{})), nil
}
