package push

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// framesPerWrite bounds the frames of one write.
const framesPerWrite = 64

// writer is a connection that frames go to.
type writer struct {
	conn net.Conn // nil for a connection that cannot be taken over (HTTP/2)
	w    http.ResponseWriter
	rc   *http.ResponseController
	wait time.Duration
}

// ServeFeed serves the request as a stream of server-sent events: the frames of feed after the request's
// Last-Event-ID (or query parameter lastEventId), or from now on. It returns when the connection ends
// or the request's context is done.
func (h *Hub) ServeFeed(w http.ResponseWriter, r *http.Request, feed string) {
	select {
	case <-h.ready:
	case <-h.done:
	case <-r.Context().Done():
		return
	}
	if h.ended() {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	if r.Method == http.MethodHead { // A mux sends them to the handler of GET.
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	c, epoch, head, ok := h.join(feed)
	if !ok {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many streams", http.StatusServiceUnavailable)
		return
	}
	defer h.leave(c)
	lastID := r.Header.Get("Last-Event-ID")
	if lastID == "" {
		lastID = r.URL.Query().Get("lastEventId")
	}
	ctx := r.Context()
	out, err := h.open(w)
	if err != nil {
		return
	}
	defer out.close()
	if !h.resume(ctx, out, c, epoch, head, lastID) {
		return
	}
	// The request and its buffers are not needed from here on: an idle connection keeps a small stack.
	h.stream(ctx, out, c, epoch)
}

// ended reports whether Run has ended.
func (h *Hub) ended() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// open takes the connection over where it can: net/http keeps about 20 KB for each otherwise (measured:
// mechanisms 7), and sends the head of the response.
func (h *Hub) open(w http.ResponseWriter) (*writer, error) {
	// Reconnecting browsers are spread, so that a restart is not followed by all of them at once.
	hello := "retry: " + strconv.Itoa(1000+rand.IntN(2000)) + "\n\n"
	rc := http.NewResponseController(w)
	head := w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Accel-Buffering", "no")
	if hijacker, ok := w.(http.Hijacker); ok {
		if conn, rw, err := hijacker.Hijack(); err == nil {
			out := &writer{conn: conn, wait: h.cfg.WriteTimeout}
			_ = rw.Flush()
			_ = conn.SetReadDeadline(time.Time{})
			var b strings.Builder
			b.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n")
			_ = head.Write(&b)
			b.WriteString("\r\n" + hello)
			return out, out.write([]byte(b.String()))
		}
	}
	out := &writer{w: w, rc: rc, wait: h.cfg.WriteTimeout}
	w.WriteHeader(http.StatusOK)
	return out, out.write([]byte(hello))
}

// resume sends what the client missed up to head, or a reset. It reports whether to go on.
func (h *Hub) resume(ctx context.Context, out *writer, c *client, epoch string, head int64, lastID string) bool {
	if lastID == "" {
		return true
	}
	at, ok := parseID(epoch, lastID)
	if !ok || at > head {
		return out.write(reset(epoch, head)) == nil
	}
	return h.catchUp(ctx, out, c, epoch, at, head)
}

// catchUp sends the frames of the client's feed from the log after at up to head.
func (h *Hub) catchUp(ctx context.Context, out *writer, c *client, epoch string, at, head int64) bool {
	_, first, _, err := h.log.Bounds(ctx)
	if err != nil || at+1 < first {
		return out.write(reset(epoch, head)) == nil
	}
	for sent := 0; at < head; {
		frames, err := h.log.After(ctx, c.feed, at, ReadMax)
		if err != nil || sent+len(frames) > h.cfg.ReplayMax {
			return out.write(reset(epoch, head)) == nil
		}
		for _, f := range frames {
			if f.Position > head {
				return true // The ring has it, and the client is marked.
			}
			if out.write(encode(epoch, f)) != nil {
				return false
			}
			at = f.Position
		}
		sent += len(frames)
		if len(frames) < ReadMax {
			break
		}
	}
	return true
}

// stream writes what the hub has for the client until the connection ends.
func (h *Hub) stream(ctx context.Context, out *writer, c *client, epoch string) {
	beat := time.NewTimer(h.cfg.Heartbeat)
	defer beat.Stop()
	var buf [][]byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.done: // A connection that was taken over outlives the server's shutdown.
			return
		case <-beat.C:
			if out.write([]byte(": beat\n\n")) != nil {
				return
			}
		case <-c.wake:
			for {
				frames, last, lost := h.take(c, buf)
				if lost {
					frames = append(frames, reset(epoch, last))
				}
				if len(frames) == 0 {
					break
				}
				if out.writeAll(frames) != nil {
					return
				}
				if buf = frames; cap(buf) > framesPerWrite/4 {
					buf = nil // A burst must not stay in every connection's memory.
				}
			}
		}
		beat.Reset(h.cfg.Heartbeat)
	}
}

func (o *writer) write(b []byte) error { return o.writeAll([][]byte{b}) }

func (o *writer) writeAll(frames [][]byte) error {
	if o.conn != nil {
		if err := o.conn.SetWriteDeadline(time.Now().Add(o.wait)); err != nil {
			return err
		}
		buffers := make(net.Buffers, len(frames)) // WriteTo consumes it, so it needs its own.
		copy(buffers, frames)
		_, err := buffers.WriteTo(o.conn)
		return err
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(o.wait)) // Not every server has deadlines.
	for _, f := range frames {
		if _, err := o.w.Write(f); err != nil {
			return err
		}
	}
	return o.rc.Flush()
}

func (o *writer) close() {
	if o.conn != nil {
		_ = o.conn.Close()
	}
}

// reset tells the page that frames are missing: load the data anew, then go on from here.
func reset(epoch string, head int64) []byte {
	return fmt.Appendf(nil, "id: %s-%d\nevent: reset\ndata: {}\n\n", epoch, head)
}

// parseID reads an event id of ours: epoch-position. ok is false for one of another epoch.
func parseID(epoch, id string) (int64, bool) {
	cut := strings.LastIndexByte(id, '-')
	if cut < 0 || id[:cut] != epoch {
		return 0, false
	}
	position, err := strconv.ParseInt(id[cut+1:], 10, 64)
	return position, err == nil && position >= 0
}
