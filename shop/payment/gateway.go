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
	"slices"
	"strconv"
	"strings"
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

// Statuses of an answer. statusRefused is ours and stands for a refusal for good (409).
const (
	statusAuthorized = "AUTHORIZED"
	statusDeclined   = "DECLINED"
	statusCaptured   = "CAPTURED"
	statusVoided     = "VOIDED"
	statusRefunded   = "REFUNDED"
	statusRefused    = "REFUSED"
)

func newGateway(base string, client *http.Client, inFlight int) *gateway {
	if client == nil {
		client = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, IdleConnTimeout: 90 * time.Second,
			MaxIdleConns: 4 * inFlight, MaxIdleConnsPerHost: 4 * inFlight,
		}}
	}
	return &gateway{base, client}
}

// expected is what an answer must say to be one: of whom it speaks, and how the question may end. The first
// status is the success, which must be of the amount that was asked for unless that is zero. With no
// statuses every status is an answer.
type expected struct {
	reference string
	amount    contract.Money
	statuses  []string
}

func (g *gateway) authorize(ctx context.Context, key string, req authorizeRequest) (answer, error) {
	if !visible(req.CustomerID) {
		req.CustomerID = "" // The gateway takes no other names, and who pays is not to be refused for a name.
	}
	want := expected{req.Reference, req.Amount, []string{statusAuthorized, statusDeclined}}
	return g.do(ctx, http.MethodPost, "/v1/authorizations", key, req, want)
}

// visible reports whether a text has visible ASCII characters only.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (g *gateway) capture(ctx context.Context, key string, req captureRequest) (answer, error) {
	want := expected{req.Reference, req.Amount, []string{statusCaptured}}
	return g.do(ctx, http.MethodPost, "/v1/authorizations/"+url.PathEscape(req.Reference)+"/capture", key, amountOnly{req.Amount}, want)
}

func (g *gateway) void(ctx context.Context, key string, req contract.OrderRefV1) (answer, error) {
	want := expected{reference: req.OrderID, statuses: []string{statusVoided, statusDeclined}}
	return g.do(ctx, http.MethodPost, "/v1/authorizations/"+url.PathEscape(req.OrderID)+"/void", key, struct{}{}, want)
}

func (g *gateway) refund(ctx context.Context, key string, req refundRequest) (answer, error) {
	want := expected{req.Reference, req.Amount, []string{statusRefunded}}
	return g.do(ctx, http.MethodPost, "/v1/refunds", key, req, want)
}

// lookup asks what the gateway knows of a reference.
func (g *gateway) lookup(ctx context.Context, _ string, req contract.OrderRefV1) (answer, error) {
	want := expected{reference: req.OrderID}
	return g.do(ctx, http.MethodGet, "/v1/authorizations/"+url.PathEscape(req.OrderID), "", nil, want)
}

func (g *gateway) do(ctx context.Context, method, path, key string, body any, want expected) (a answer, err error) {
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
	return read(method+" "+path, resp, b, want)
}

// read tells an answer (a refusal for good included) from an unknown outcome and from a mistake of ours.
// Permanent is only what speaks of this very request: a wrong address or a lost credential is mended by an
// operator, and no payment must end by it.
func read(what string, resp *http.Response, body []byte, want expected) (a answer, err error) {
	switch code := resp.StatusCode; code {
	case http.StatusOK, http.StatusCreated:
		if err := json.Unmarshal(body, &a); err != nil {
			return answer{}, fmt.Errorf("gateway: %s: answer %d is not JSON: %w", what, code, err)
		}
		return a, want.check(what, a)
	case http.StatusConflict: // A problem document: its status is a number, not the reference's.
		var refusal struct {
			Code string `json:"code"`
		}
		if err := json.Unmarshal(body, &refusal); err != nil || refusal.Code == "" {
			return a, fmt.Errorf("gateway: %s: refusal without a code: outcome unknown: %.200s", what, body)
		}
		return answer{Reference: want.reference, Status: statusRefused, Code: refusal.Code}, nil
	case http.StatusAccepted: // The answer is known to come; the same key asks for it.
		return a, retry.After(waitOf(resp), fmt.Errorf("gateway: %s: still to be decided", what))
	case http.StatusTooManyRequests:
		return a, retry.After(waitOf(resp), fmt.Errorf("gateway: %s: too many requests", what))
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return a, retry.Permanent(fmt.Errorf("gateway: %s: status %d: %.200s", what, code, body))
	case http.StatusNotFound:
		if resp.Request != nil && resp.Request.Method == http.MethodGet {
			return a, retry.Permanent(fmt.Errorf("gateway: %s: unknown reference", what))
		}
	}
	return a, fmt.Errorf("gateway: %s: status %d: outcome unknown", what, resp.StatusCode)
}

// check returns an error, which means an unknown outcome, unless a answers the question.
func (w expected) check(what string, a answer) error {
	if a.Reference != w.reference || a.Status == "" || w.statuses != nil && !slices.Contains(w.statuses, a.Status) {
		return fmt.Errorf("gateway: %s: %.40q of %.40q is no answer: outcome unknown", what, a.Status, a.Reference)
	}
	if w.amount != (contract.Money{}) && a.Status == w.statuses[0] && a.Amount != w.amount {
		return fmt.Errorf("gateway: %s: %s of %s, %s was asked for: outcome unknown", what, a.Status, a.Amount, w.amount)
	}
	return nil
}

// retryAfterMax bounds how long the gateway can make a call wait: an order's deadline does not.
const retryAfterMax = time.Minute

// waitOf returns how long the gateway wants to be left alone, a second unless it says more.
func waitOf(resp *http.Response) time.Duration {
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		return min(time.Duration(min(n, 3600))*time.Second, retryAfterMax)
	}
	return time.Second
}
