package payment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/shop/contract"
)

// answerBytesMax bounds what is read of an answer of the gateway.
const answerBytesMax = 64 << 10

// gateway speaks the payment gateway's HTTP API. A refusal is an answer; an error that is not permanent
// means that the outcome is unknown, and the same key is asked again.
type gateway struct {
	base   string
	client *http.Client
}

type authorizeRequest struct {
	Reference  string         `json:"reference"`
	Amount     contract.Money `json:"amount"`
	CustomerID string         `json:"customerId"`
}

type captureRequest struct {
	Reference string         `json:"reference"`
	Amount    contract.Money `json:"amount"`
}

// amountOnly is what a capture sends: the reference stands in the path.
type amountOnly struct {
	Amount contract.Money `json:"amount"`
}

type refundRequest struct {
	Reference     string         `json:"reference"`
	Authorization string         `json:"authorization,omitempty"`
	Amount        contract.Money `json:"amount"`
}

// answer is what the gateway says of a reference.
type answer struct {
	Reference string         `json:"reference"`
	Status    string         `json:"status"`
	Code      string         `json:"code"`
	Amount    contract.Money `json:"amount"`
}

// statusRefused stands for a refusal for good (409).
const statusRefused = "REFUSED"

func newGateway(base string, client *http.Client, inFlight int) *gateway {
	if client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 4*inFlight, 4*inFlight
		client = &http.Client{Transport: transport}
	}
	return &gateway{base, client}
}

func (g *gateway) authorize(ctx context.Context, key string, req authorizeRequest) (answer, error) {
	return g.do(ctx, http.MethodPost, "/v1/authorizations", key, req)
}

func (g *gateway) capture(ctx context.Context, key string, req captureRequest) (answer, error) {
	return g.do(ctx, http.MethodPost, "/v1/authorizations/"+url.PathEscape(req.Reference)+"/capture", key, amountOnly{req.Amount})
}

func (g *gateway) void(ctx context.Context, key string, req contract.OrderRefV1) (answer, error) {
	return g.do(ctx, http.MethodPost, "/v1/authorizations/"+url.PathEscape(req.OrderID)+"/void", key, struct{}{})
}

func (g *gateway) refund(ctx context.Context, key string, req refundRequest) (answer, error) {
	return g.do(ctx, http.MethodPost, "/v1/refunds", key, req)
}

// lookup asks what the gateway knows of a reference.
func (g *gateway) lookup(ctx context.Context, _ string, req contract.OrderRefV1) (answer, error) {
	return g.do(ctx, http.MethodGet, "/v1/authorizations/"+url.PathEscape(req.OrderID), "", nil)
}

func (g *gateway) do(ctx context.Context, method, path, key string, body any) (a answer, err error) {
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return a, retry.Permanent(err)
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, g.base+path, reader)
	if err != nil {
		return a, retry.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return a, fmt.Errorf("gateway: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return a, fmt.Errorf("gateway: %s %s: %w", method, path, err)
	}
	return read(method+" "+path, resp, b)
}

// read tells an answer (a refusal for good included) from an unknown outcome and from a mistake of ours.
func read(what string, resp *http.Response, body []byte) (a answer, err error) {
	switch code := resp.StatusCode; {
	case code == http.StatusOK || code == http.StatusCreated || code == http.StatusConflict:
		if err := json.Unmarshal(body, &a); err != nil {
			return a, fmt.Errorf("gateway: %s: answer %d is not JSON: %w", what, code, err)
		}
		if code == http.StatusConflict {
			a.Status = statusRefused
		}
		return a, nil
	case code == http.StatusTooManyRequests:
		wait := time.Second
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 && n < 3600 {
			wait = time.Duration(n) * time.Second
		}
		return a, retry.After(wait, fmt.Errorf("gateway: %s: too many requests", what))
	case code >= 500 || code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusAccepted:
		return a, fmt.Errorf("gateway: %s: status %d: outcome unknown", what, code)
	default:
		return a, retry.Permanent(fmt.Errorf("gateway: %s: status %d: %.200s", what, code, body))
	}
}
