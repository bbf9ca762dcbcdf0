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

// customers follow the live feed of a shop and cancel every fifth order, half of them as soon as they are
// placed and half when they are paid, until done is closed. wait returns when they have stopped. When the
// shop says nothing more they come back, and answers of away are none to worry about: 503 where a service of
// the shop may be killed alone.
func customers(t *testing.T, url string, done <-chan struct{}, away ...int) (wait func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		<-done
		cancel()
	})
	all.Go(func() {
		for ctx.Err() == nil {
			cancelOrders(ctx, t, url, away)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	return all.Wait
}

// cancelOrders does it until the shop says nothing more.
func cancelOrders(ctx context.Context, t *testing.T, url string, away []int) {
	t.Helper()
	body, err := request(ctx, http.MethodGet, url+"/stream", away...)
	if err != nil {
		return // It has been killed before anybody could look.
	}
	defer body.Close()
	fine := append([]int{http.StatusAccepted, http.StatusConflict}, away...)
	for lines := bufio.NewScanner(body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var e struct{ Type, Key string }
		if !ok || json.Unmarshal([]byte(data), &e) != nil || !unwanted(e.Type, e.Key) {
			continue
		}
		// Accepted, or too late; an error is a shop that was killed.
		answer, err := request(ctx, http.MethodPost, url+"/orders/"+e.Key+"/cancel", fine...)
		if err == nil {
			err = answer.Close()
		}
		if _, ok := errors.AsType[statusError](err); ok {
			t.Errorf("cancel %s: %v", e.Key, err)
		}
	}
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
func request(ctx context.Context, method, url string, expected ...int) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
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
