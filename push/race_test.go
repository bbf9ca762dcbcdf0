package push_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/push"
)

// Over real connections that break at random, each client sees every frame of its feed exactly once, in
// order, while frames are added.
func TestClientsThatComeAndGo(t *testing.T) {
	const clients, frames = 12, 600
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRig(t, push.Config{Ring: 2 * frames, ReplayMax: 2 * frames})
	r.start()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.hub.ServeFeed(w, q, q.URL.Query().Get("feed"))
	}))
	defer srv.Close()
	epoch, _, _, err := r.store.Feed().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			f := follower{url: fmt.Sprintf("%s/?feed=f%d", srv.URL, i%3), last: epoch + "-0"}
			for len(f.got) < frames/3 && ctx.Err() == nil {
				if err := f.follow(ctx, 1+rnd.IntN(80), frames/3); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
			for n, data := range f.got {
				if want := strconv.Itoa(n*3 + i%3 + 1); data != want {
					t.Errorf("client %d: event %d has data %s, want %s", i, n, data, want)
					return
				}
			}
			if len(f.got) != frames/3 {
				t.Errorf("client %d: %d events, want %d", i, len(f.got), frames/3)
			}
		})
	}
	for i := range frames {
		r.add(1, fmt.Sprintf("f%d", i%3))
	}
	all.Wait()
}

// follower is a browser: it resumes where it stopped.
type follower struct {
	url, last string
	got       []string
}

// follow reads up to n events over one connection.
func (f *follower) follow(ctx context.Context, n, enough int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Last-Event-ID", f.last)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	id := ""
	lines := bufio.NewScanner(resp.Body)
	for n > 0 && len(f.got) < enough && lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			if value == "reset" {
				return fmt.Errorf("reset after %s", f.last)
			}
		case "data":
			f.last = id
			f.got = append(f.got, value)
			n--
		}
	}
	return nil
}
