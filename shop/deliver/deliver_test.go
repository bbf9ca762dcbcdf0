package deliver_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/shop/deliver"
)

func TestDeliver(t *testing.T) {
	var status int
	var body, got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.Path + " " + r.Header.Get("Idempotency-Key") + " " + string(b)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer server.Close()
	c := deliver.New(server.URL, nil, 1)
	d := deliver.Delivery{EventID: "e1", Kind: "order", Reference: "o1", Data: []byte(`{"state":"COMPLETED"}`)}
	for _, tt := range []struct {
		status    int
		body      string
		want      deliver.Receipt
		err       bool
		permanent bool
	}{
		{status: 202, body: `{"duplicate":false}`},
		{status: 202, body: `{"duplicate":true}`, want: deliver.Receipt{Duplicate: true}},
		{status: 200, body: `{}`},
		{status: 202, body: `<html>`, err: true},
		{status: 202, body: `{"x":"` + strings.Repeat("x", 1<<17) + `"}`, err: true},
		{status: 500, err: true},
		{status: 503, err: true},
		{status: 429, err: true},
		{status: 408, err: true},
		{status: 401, err: true},
		{status: 404, err: true},
		{status: 422, err: true, permanent: true},
		{status: 413, err: true, permanent: true},
		{status: 400, err: true, permanent: true},
	} {
		status, body = tt.status, tt.body
		r, err := c.Deliver(t.Context(), "e1", d)
		if r != tt.want || (err != nil) != tt.err || retry.IsPermanent(err) != tt.permanent {
			t.Errorf("%d %.20s: %+v %v", tt.status, tt.body, r, err)
		}
		if want := `POST /v1/deliveries e1 {"eventId":"e1","kind":"order","reference":"o1","data":{"state":"COMPLETED"}}`; got != want {
			t.Fatalf("sent %s", got)
		}
	}
}

// TestDeliverSilence proves that no answer is an unknown outcome.
func TestDeliverSilence(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := deliver.New(server.URL, nil, 1).Deliver(ctx, "e1", deliver.Delivery{EventID: "e1", Data: []byte("{}")})
	if err == nil || retry.IsPermanent(err) {
		t.Errorf("silent: %v", err)
	}
}
