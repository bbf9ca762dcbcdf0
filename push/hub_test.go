package push_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/push"
)

func TestFeedShowsItsOwnInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		r.start()
		all, one := r.connect("", ""), r.connect("order/1", "")
		if one.status != http.StatusOK || one.header.Get("Content-Type") != "text/event-stream" || one.header.Get("Cache-Control") != "no-store" {
			t.Errorf("head: %d %v", one.status, one.header)
		}
		r.add(2, "order/1", "customer/ada")
		r.add(2, "order/2", "customer/ada")
		r.add(1, "order/1")
		all.want(1, 5)
		one.want(1, 2)
		one.want(5, 5)
		one.quiet()
		all.quiet()
		if r.hub.Clients() != 2 {
			t.Errorf("%d clients", r.hub.Clients())
		}
	})
}

func TestNewConnectionBeginsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		r.add(3, "order/1")
		r.start()
		c := r.connect("order/1", "")
		c.quiet()
		r.add(1, "order/1")
		c.want(4, 4)
	})
}

func TestResumeMissesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{Ring: 4})
		r.start()
		c := r.connect("order/1", "")
		r.add(3, "order/1")
		c.want(1, 3)
		_ = c.conn.Close()
		r.add(2, "order/1") // Within the ring.
		c = r.connect("order/1", c.last)
		c.want(4, 5)
		_ = c.conn.Close()
		r.add(1200, "order/1") // Only the log has these: more than two reads of it.
		synctest.Wait()
		c = r.connect("order/1", c.last)
		c.want(6, 1205)
		r.add(1, "order/1")
		c.want(1206, 1206)
		c.quiet()
	})
}

func TestResumeByQueryParameter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		r.start()
		first := r.connect("", "")
		r.add(2)
		first.want(1, 2)
		ctx, cancel := context.WithCancel(t.Context())
		w := httptest.NewRecorder() // A response that cannot be taken over, as of HTTP/2.
		req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/stream?lastEventId="+strings.Replace(first.last, "-2", "-1", 1), http.NoBody)
		done := make(chan struct{})
		go func() { defer close(done); r.hub.ServeFeed(w, req, "") }()
		synctest.Wait()
		cancel()
		<-done
		if got := w.Body.String(); !strings.HasPrefix(got, "retry: ") || !strings.HasSuffix(got, "event: Thing\ndata: 2\n\n") || !w.Flushed {
			t.Errorf("the stream is %q", got)
		}
	})
}

func TestRestartResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		stop := r.start()
		c := r.connect("order/1", "")
		r.add(2, "order/1")
		c.want(1, 2)
		stop()
		next := rigOver(t, r.store, push.Config{})
		next.n = r.n
		next.add(2, "order/1")
		next.start()
		d := next.connect("order/1", c.last)
		d.want(3, 4)
	})
}

func TestReset(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  push.Config
		add  int
		last func(epoch string) string
		trim int64
	}{
		"unknown epoch":      {add: 5, last: func(string) string { return "another-3" }},
		"no id of ours":      {add: 5, last: func(string) string { return "3" }},
		"no number":          {add: 5, last: func(epoch string) string { return epoch + "-three" }},
		"negative":           {add: 5, last: func(epoch string) string { return epoch + "--3" }},
		"a later time":       {add: 5, last: func(epoch string) string { return epoch + "-6" }},
		"too far":            {cfg: push.Config{ReplayMax: 3}, add: 5, last: func(epoch string) string { return epoch + "-1" }},
		"trimmed from log":   {add: 9, trim: 5, last: func(epoch string) string { return epoch + "-3" }},
		"beyond many a read": {cfg: push.Config{ReplayMax: 700}, add: 1000, last: func(epoch string) string { return epoch + "-0" }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, test.cfg)
				r.start()
				r.add(test.add, "order/1")
				synctest.Wait()
				if test.trim > 0 {
					if _, err := r.store.Feed().Trim(t.Context(), test.trim, 100); err != nil {
						t.Fatal(err)
					}
				}
				epoch, _, _, err := r.store.Feed().Bounds(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				c := r.connect("order/1", test.last(epoch))
				for c.last == "" || !strings.HasSuffix(c.last, "-"+strconv.Itoa(test.add)) { // What was read before it gave up is no harm.
					c.next()
				}
				// It goes on from there, also over the next reconnect.
				r.add(1, "order/1")
				c.want(test.add+1, test.add+1)
				_ = c.conn.Close()
				r.add(1, "order/1")
				r.connect("order/1", c.last).want(test.add+2, test.add+2)
			})
		})
	}
}

// A resume at the oldest frame that the log keeps is none too far: the one before it was seen.
func TestResumeAtTheLogsEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		r.start()
		r.add(9, "order/1")
		synctest.Wait()
		if _, err := r.store.Feed().Trim(t.Context(), 5, 100); err != nil {
			t.Fatal(err)
		}
		epoch, _, _, _ := r.store.Feed().Bounds(t.Context())
		r.connect("order/1", epoch+"-4").want(5, 9)
	})
}

// A client that does not read falls behind the ring and is told so; what it is sent then is in order.
func TestSlowClientIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{Ring: 8})
		r.start()
		slow, fast := r.connect("order/1", ""), r.connect("order/1", "")
		r.add(1, "order/1")
		fast.want(1, 1)
		synctest.Wait()
		for i := 2; i <= 30; i++ { // Nobody reads from slow: the hub waits in its write.
			r.add(1, "order/1")
			fast.want(i, i)
		}
		slow.want(1, 1)
		slow.wantReset(30)
		r.add(2, "order/1")
		slow.want(31, 32)
		fast.want(31, 32)
	})
}

func TestStuckClientIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		r.start()
		stuck, well := r.connect("", ""), r.connect("", "")
		r.add(1)
		well.want(1, 1)
		<-time.After(6 * time.Second) // Config.WriteTimeout is 5s.
		select {
		case <-stuck.ended:
		default:
			t.Error("a connection that takes nothing is still served")
		}
		r.add(1)
		well.want(2, 2)
		if r.hub.Clients() != 1 {
			t.Errorf("%d clients, want 1", r.hub.Clients())
		}
	})
}

// Frames of a burst come in writes of a bounded size, all of them, in order.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		r.start()
		c := r.connect("order/1", "")
		for range 300 {
			r.add(1, "order/1")
			r.add(1, "order/2")
		}
		for i := 1; i < 600; i += 2 {
			c.want(i, i)
		}
		c.quiet()
	})
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{Heartbeat: 20 * time.Second})
		r.start()
		c := r.connect("order/1", "")
		began := time.Now()
		for i := range 3 {
			if e := c.next(); e.comment != "beat" || e.id != "" {
				t.Fatalf("event is %+v, want a comment", e)
			}
			if passed, want := time.Since(began), time.Duration(i+1)*20*time.Second; passed != want {
				t.Errorf("beat %d after %v, want %v", i, passed, want)
			}
		}
	})
}

func TestTooManyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{ClientsMax: 2})
		r.start()
		one := r.connect("", "")
		r.connect("", "")
		w := httptest.NewRecorder()
		r.hub.ServeFeed(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/stream", http.NoBody), "")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("the third one got %d %v", w.Code, w.Header())
		}
		_ = one.conn.Close()
		r.add(1)
		<-one.ended
		r.connect("", "") // Its place is free.
	})
}

func TestShutdownEndsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		stop := r.start()
		c := r.connect("order/1", "")
		stop()
		<-c.ended
		if r.hub.Clients() != 0 {
			t.Errorf("%d clients after the end", r.hub.Clients())
		}
		w := httptest.NewRecorder()
		r.hub.ServeFeed(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/stream", http.NoBody), "")
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("a hub that has ended answers %d", w.Code)
		}
	})
}

func TestHeadHasNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{})
		r.start()
		w := httptest.NewRecorder()
		r.hub.ServeFeed(w, httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/stream", http.NoBody), "")
		if w.Body.Len() != 0 || w.Header().Get("Content-Type") != "text/event-stream" {
			t.Errorf("HEAD: %v %q", w.Header(), w.Body)
		}
	})
}

// A log that grows by more than one slice a minute is trimmed all the same, or it would fill the disk.
func TestTrimKeepsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{Keep: 10, ReplayMax: 5})
		r.add(25_000, "order/1")
		r.start()
		<-time.After(2 * time.Minute)
		_, first, last, err := r.store.Feed().Bounds(t.Context())
		if err != nil || last-first+1 != 10 {
			t.Errorf("log keeps %d to %d (%v), want 10 frames", first, last, err)
		}
	})
}

func TestLogIsTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, push.Config{Keep: 10, ReplayMax: 5})
		r.start()
		r.add(25, "order/1")
		<-time.After(time.Minute + time.Second)
		if _, first, last, err := r.store.Feed().Bounds(t.Context()); first != 16 || last != 25 || err != nil {
			t.Errorf("log has %d to %d, %v", first, last, err)
		}
	})
}

func TestConfig(t *testing.T) {
	log := memory.New().Feed()
	for name, cfg := range map[string]push.Config{
		"ring too small":     {Ring: -1},
		"ring too large":     {Ring: push.RingMax + 1},
		"no clients":         {ClientsMax: -1},
		"negative heartbeat": {Heartbeat: -time.Second},
		"keeps too few":      {Keep: 10, ReplayMax: 11},
	} {
		if _, err := push.NewHub(log, cfg); err == nil || !strings.HasPrefix(err.Error(), "push: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
