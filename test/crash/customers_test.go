package crash_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// customersMax bounds the customers who cancel at the same time.
const customersMax = 32

// crowd are the customers of a shop. They follow its live feed and cancel every fifth order, half of them as soon as
// they are placed and half when they are paid. Nobody waits for another one: a cancel that comes after the shipment is
// too late.
type crowd struct {
	t    *testing.T
	url  string
	fine []int // statuses that are none to worry about
	seat chan struct{}

	mu      sync.Mutex
	answers map[string]int // status by order, the last one
}

// customers come to a shop until done is closed. wait returns when they have left, and what they were answered for each
// order: 202, 409 when they were too late, or one of away, as 502 and 503 are where a service of the shop may be killed alone. When
// the shop says nothing more they come back.
func customers(t *testing.T, url string, done <-chan struct{}, away ...int) (wait func() map[string]int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{
		t: t, url: url, fine: append([]int{http.StatusAccepted, http.StatusConflict}, away...),
		seat: make(chan struct{}, customersMax), answers: map[string]int{},
	}
	var all sync.WaitGroup
	all.Go(func() {
		<-done
		cancel()
	})
	all.Go(func() {
		for ctx.Err() == nil {
			c.follow(ctx)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	return func() map[string]int {
		all.Wait()
		return c.answers
	}
}

// follow follows the feed until the shop says nothing more.
func (c *crowd) follow(ctx context.Context) {
	c.t.Helper()
	status, body, err := request(ctx, http.MethodGet, c.url+"/stream")
	if err != nil {
		return // It has been killed before anybody could look.
	}
	defer body.Close()
	if status != http.StatusOK {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	for lines := bufio.NewScanner(body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var e struct{ Type, Key string }
		if !ok || json.Unmarshal([]byte(data), &e) != nil || !unwanted(e.Type, e.Key) {
			continue
		}
		c.seat <- struct{}{}
		all.Go(func() {
			defer func() { <-c.seat }()
			c.cancel(ctx, e.Key)
		})
	}
}

// cancel cancels an order. It is accepted, or too late; an error is a shop that was killed.
func (c *crowd) cancel(ctx context.Context, id string) {
	c.t.Helper()
	status, body, err := request(ctx, http.MethodPost, c.url+"/orders/"+id+"/cancel")
	if err != nil {
		return
	}
	said, err := io.ReadAll(io.LimitReader(body, 300))
	if err = errors.Join(err, body.Close()); err == nil && !slices.Contains(c.fine, status) {
		c.t.Errorf("cancel %s: %d %s", id, status, said)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[id] = status
}

// unwanted reports whether an order's customer changes his mind at an event.
func unwanted(event, id string) bool {
	h := fnv.New32a()
	_, _ = io.WriteString(h, id)
	switch h.Sum32() % 10 {
	case 0:
		return event == "OrderCreated"
	case 1:
		return event == "OrderPaid"
	}
	return false
}

// request returns an answer's status and its body, which the caller closes.
func request(ctx context.Context, method, url string) (status int, body io.ReadCloser, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, resp.Body, nil
}
