package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle/shop/contract"
)

// Target is the shop that the replay speaks to, and the outside programs whose ledgers it compares.
type Target struct {
	ShopURL     string
	GatewayURL  string // of pgsim
	PlatformURL string // of platformsim
	// Token is the operator's.
	Token string
	// Client makes the requests. Required: with enough idle connections for Config.Workers.
	Client *http.Client
}

// Progress is told how many invoices have been handed out, of how many.
type Progress func(done, total int)

// Config of a replay.
type Config struct {
	Target Target
	// Workers is how many invoices are in flight. Default 64.
	Workers int
	// Progress is called by Send's own goroutine. Default: nobody is told.
	Progress Progress
	// RetryWait is the longest wait between attempts while the shop cannot be reached. Default 1s.
	RetryWait time.Duration
}

// workersMax bounds Config.Workers.
const workersMax = 1024

type importItem struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"`
	UnitPrice string `json:"unitPrice"`
}

type importRequest struct {
	Reference  string       `json:"reference"`
	CustomerID string       `json:"customerId"`
	Currency   string       `json:"currency"`
	Items      []importItem `json:"items"`
}

// Guest is the customer of an invoice that names none.
const Guest = "guest"

// Send sends every invoice of the file that the journal has no answer for, and journals the answers. It
// returns when all are answered; requests that fail are repeated until ctx is done, as the reference makes
// a repetition harmless.
func Send(ctx context.Context, file *File, j *Journal, cfg Config) error {
	if cfg.Workers == 0 {
		cfg.Workers = 64
	}
	if cfg.Workers < 1 || cfg.Workers > workersMax {
		return fmt.Errorf("replay: %d workers, 1 to %d allowed", cfg.Workers, workersMax)
	}
	if cfg.RetryWait == 0 {
		cfg.RetryWait = time.Second
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan *Invoice)
	var wg sync.WaitGroup
	for range cfg.Workers {
		wg.Go(func() {
			for inv := range work {
				if err := sendOne(ctx, inv, j, cfg); err != nil {
					cancel(err)
				}
			}
		})
	}
	done := 0
feed:
	for i := range file.Invoices {
		inv := &file.Invoices[i]
		if _, ok := j.Get(inv.Number); !ok {
			select {
			case work <- inv:
			case <-ctx.Done():
				break feed
			}
		}
		done++
		if cfg.Progress != nil {
			cfg.Progress(done, len(file.Invoices))
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

func sendOne(ctx context.Context, inv *Invoice, j *Journal, cfg Config) error {
	body := importRequest{Reference: inv.Number, CustomerID: inv.Customer, Currency: contract.GBP}
	if body.CustomerID == "" {
		body.CustomerID = Guest
	}
	for _, it := range inv.Items {
		body.Items = append(body.Items, importItem{ProductID: it.Product, Quantity: it.Quantity, UnitPrice: it.Price})
	}
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("replay: invoice %s: %w", inv.Number, err)
	}
	path := "/import/orders"
	if inv.Return {
		path = "/import/returns"
	}
	wait := 10 * time.Millisecond
	for {
		a, err := post(ctx, cfg.Target, path, b)
		if err == nil {
			a.Invoice = inv.Number
			return j.Add(a)
		}
		var refused *refusedError
		if errors.As(err, &refused) || ctx.Err() != nil {
			return fmt.Errorf("replay: invoice %s: %w", inv.Number, err)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		wait = min(2*wait, cfg.RetryWait)
	}
}

// refusedError is an answer that no repetition changes and that is no refusal of the invoice itself: a
// wrong token, a wrong address.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func post(ctx context.Context, t Target, path string, body []byte) (a Answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.ShopURL+path, bytes.NewReader(body))
	if err != nil {
		return a, &refusedError{err.Error()}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+t.Token)
	resp, err := t.Client.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return a, err
	}
	a.Status = resp.StatusCode
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted: // 200 is the answer to a repetition.
		var doc struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(answer, &doc); err != nil || doc.ID == "" {
			return a, &refusedError{fmt.Sprintf("%s answered %d without an id: %.200s", path, resp.StatusCode, answer)}
		}
		a.Status, a.ID = http.StatusAccepted, doc.ID
		return a, nil
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		var doc struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(answer, &doc); err != nil || doc.Type == "" {
			return a, &refusedError{fmt.Sprintf("%s answered %d without a problem: %.200s", path, resp.StatusCode, answer)}
		}
		a.Code = doc.Type[strings.LastIndexAny(doc.Type, "/:")+1:]
		return a, nil
	}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return a, fmt.Errorf("%s answered %d", path, resp.StatusCode)
	}
	return a, &refusedError{fmt.Sprintf("%s answered %d: %.300s", path, resp.StatusCode, answer)}
}
