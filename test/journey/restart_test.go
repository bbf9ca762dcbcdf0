package journey_test

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/settledev/settle/test/internal/binary"
)

// TestOlderBroker replaces the JetStream directory by an older copy of itself, as a restored backup or a lost
// tail does: what the broker lost is published again, and nothing is handled twice.
func TestOlderBroker(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	p := serve(t, dir)
	placed := 0
	orders := func(n int) {
		t.Helper()
		for range n {
			place(t, p)
			placed++
		}
	}
	orders(30)
	p.WaitQuiet(patience)
	stop(t, p)
	broker, old := filepath.Join(dir, "jetstream"), filepath.Join(t.TempDir(), "jetstream")
	if err := os.CopyFS(old, os.DirFS(broker)); err != nil {
		t.Fatal(err)
	}
	p = serve(t, dir)
	orders(30)
	p.WaitQuiet(patience)
	orders(20)
	p.Kill() // In the midst of the last ones: some are published and not handled, some the other way round.
	if err := os.RemoveAll(broker); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(broker, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	p = serve(t, dir)
	orders(20)
	traffic := p.WaitQuiet(patience)
	if got := states(t, p); got["COMPLETED"] != placed || len(got) != 1 {
		t.Errorf("orders %v, want %d completed", got, placed)
	}
	if traffic.Parked != 0 {
		t.Errorf("traffic %+v", traffic)
	}
	stop(t, p)
	if _, n := binary.CheckEvents(t, dir); n != placed {
		t.Errorf("%d orders in the outbox, want %d", n, placed)
	}
}

// stream is an open live feed.
type stream struct {
	t     *testing.T
	lines *bufio.Scanner
	end   func()
}

// follow opens a feed after an id, or from now on.
func follow(t *testing.T, p *binary.Process, path, lastID string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("content type %q", got)
	}
	s := &stream{t, bufio.NewScanner(resp.Body), func() { cancel(); _ = resp.Body.Close() }}
	t.Cleanup(s.end)
	return s
}

// frame is one server-sent event.
type frame struct{ id, event, data string }

// next returns the next event; ok is false at the end of the stream.
func (s *stream) next() (f frame, ok bool) {
	for s.lines.Scan() {
		line := s.lines.Text()
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			f.id = value
		case "event":
			f.event = value
		case "data":
			f.data = value
		case "":
			if f.event != "" {
				return f, true
			}
		}
	}
	return f, false
}

// until reads up to an event and returns all the events' names on the way.
func (s *stream) until(event string) (names []string, last frame) {
	s.t.Helper()
	for {
		f, ok := s.next()
		if !ok {
			s.t.Fatalf("the stream ended before %s, after %v", event, names)
		}
		if names = append(names, f.event); f.event == event {
			return names, f
		}
	}
}

// TestStreamResumes follows an order's feed, loses the shop, and goes on where it was with the next one: every
// event is seen once. An id that the log has never given is answered by a reset.
func TestStreamResumes(t *testing.T) {
	binary.NeedsProcesses(t)
	t.Parallel()
	dir := newDir(t)
	p := serve(t, dir, "--ship-delay", "3s")
	all := follow(t, p, "/stream", "")
	id := place(t, p)
	before, last := all.until("OrderPaid")
	p.Kill() // The shipment is not due yet.
	if _, ok := all.next(); ok {
		for ok { // What was on its way; it is not remembered, as by a browser that has seen no more.
			_, ok = all.next()
		}
	}
	p = serve(t, dir, "--ship-delay", "3s")
	after, _ := follow(t, p, "/orders/"+id+"/events", last.id).until("OrderCompleted")
	p.WaitQuiet(patience)
	var timeline []string
	for _, e := range show(t, p, id).Timeline {
		timeline = append(timeline, e.Type)
	}
	if got, want := strings.Join(append(before, after...), " "), strings.Join(timeline, " "); got != want {
		t.Errorf("the feed showed\n%s\nthe order had\n%s", got, want)
	}
	again, _ := follow(t, p, "/orders/"+id+"/events", last.id).until("OrderCompleted")
	if strings.Join(again, " ") != strings.Join(after, " ") {
		t.Errorf("resumed again: %v, before %v", again, after)
	}
	if f, ok := follow(t, p, "/orders/"+id+"/events", "another-epoch-7").next(); !ok || f.event != "reset" {
		t.Errorf("an unknown epoch got %+v, want a reset", f)
	}
	open := follow(t, p, "/stream", "")
	stop(t, p) // Open streams don't hold it up.
	if f, ok := open.next(); ok {
		t.Errorf("the stream went on with %+v", f)
	}
}
