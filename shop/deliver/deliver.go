// Package deliver speaks the data platform's HTTP API: orders, reservations and messages to customers,
// each under its event's identity, which the platform remembers.
//
// It retries nothing: package call does, under the same identity.
package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/settledev/settle/retry"
)

// Delivery is what the platform is given.
type Delivery struct {
	EventID   string          `json:"eventId"`
	Kind      string          `json:"kind"` // order, reservation or message
	Reference string          `json:"reference"`
	Data      json.RawMessage `json:"data"`
}

// Receipt is the platform's answer.
type Receipt struct {
	Duplicate bool `json:"duplicate"`
}

// Client delivers to one platform.
type Client struct {
	url    string
	client *http.Client
}

// New returns a client for the platform at base, with enough idle connections for inFlight calls. A nil
// client means a default one.
func New(base string, client *http.Client, inFlight int) *Client {
	if client == nil {
		client = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, IdleConnTimeout: 90 * time.Second,
			MaxIdleConns: 2 * inFlight, MaxIdleConnsPerHost: 2 * inFlight,
		}}
	}
	return &Client{base + "/v1/deliveries", client}
}

// Deliver hands one delivery over. An error that is not permanent means that the outcome is unknown.
func (c *Client) Deliver(ctx context.Context, key string, d Delivery) (receipt Receipt, err error) {
	body, err := json.Marshal(d)
	if err != nil {
		return receipt, retry.Permanent(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return receipt, retry.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := c.client.Do(req)
	if err != nil {
		return receipt, fmt.Errorf("platform: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return receipt, fmt.Errorf("platform: %w", err)
	}
	switch {
	case resp.StatusCode/100 == 2:
		if err := json.Unmarshal(answer, &receipt); err != nil {
			return receipt, fmt.Errorf("platform: answer is not JSON: %w", err)
		}
		return receipt, nil
	case ofDelivery(resp.StatusCode):
		return receipt, retry.Permanent(fmt.Errorf("platform: status %d: %.200s", resp.StatusCode, answer))
	default:
		return receipt, fmt.Errorf("platform: status %d", resp.StatusCode)
	}
}

// ofDelivery reports whether a status refuses this very delivery, so that repeating it is of no use. A wrong
// address or a lost credential is mended by an operator, and the delivery only waits for that.
func ofDelivery(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}
