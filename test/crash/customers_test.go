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

	"github.com/settledev/settle/test/internal/binary"
)

// customers follow the live feed of a shop and cancel every fifth order, half of them as soon as they are
// placed and half when they are paid, until the shop has ended. wait returns when they have stopped.
func customers(t *testing.T, p *binary.Process) (wait func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		<-p.Done()
		cancel()
	})
	all.Go(func() {
		body, err := request(ctx, p, http.MethodGet, "/stream")
		if err != nil {
			return // It has been killed before anybody could look.
		}
		defer body.Close()
		for lines := bufio.NewScanner(body); lines.Scan(); {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var e struct{ Type, Key string }
			if !ok || json.Unmarshal([]byte(data), &e) != nil || !unwanted(e.Type, e.Key) {
				continue
			}
			// Accepted, or too late; an error is a shop that was killed.
			answer, err := request(ctx, p, http.MethodPost, "/orders/"+e.Key+"/cancel", http.StatusAccepted, http.StatusConflict)
			if err == nil {
				err = answer.Close()
			}
			if _, ok := errors.AsType[statusError](err); ok {
				t.Errorf("cancel %s: %v", e.Key, err)
			}
		}
	})
	return all.Wait
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

// statusError is an answer that nobody expected.
type statusError string

func (e statusError) Error() string { return string(e) }

// request returns the body of an answer with one of the statuses that are expected, by default 200.
func request(ctx context.Context, p *binary.Process, method, path string, expected ...int) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.URL+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if slices.Contains(append(expected, http.StatusOK), resp.StatusCode) {
		return resp.Body, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 300))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	return nil, statusError(resp.Status + ": " + string(text))
}
