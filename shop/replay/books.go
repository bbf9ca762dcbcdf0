package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
)

// The page sizes that the books are read with: the outside world's ledgers allow less.
const (
	shopPage    = page.LimitMax
	outsidePage = 1000
)

// orderEntry is an order in the order service's book.
type orderEntry struct {
	ID        string          `json:"id"`
	Reference string          `json:"reference"`
	State     string          `json:"state"`
	Reason    contract.Reason `json:"reason"`
	Total     contract.Money  `json:"total"`
	PlacedAt  time.Time       `json:"placedAt"`
	UpdatedAt time.Time       `json:"updatedAt"`
}

// returnEntry is a return in the order service's book.
type returnEntry struct {
	ID        string         `json:"id"`
	Reference string         `json:"reference"`
	State     string         `json:"state"`
	Amount    contract.Money `json:"amount"`
}

// deliveryEntry is a delivery or a message in the book of the service that sends it.
type deliveryEntry struct {
	EventID string `json:"eventId"`
	OrderID string `json:"orderId"`
	State   string `json:"state"`
}

// stockEntry is a product in inventory's book.
type stockEntry struct {
	Product  string `json:"product"`
	Initial  int64  `json:"initial"`
	Free     int64  `json:"free"`
	Reserved int64  `json:"reserved"`
	Sold     int64  `json:"sold"`
	Returned int64  `json:"returned"`
}

// movementEntry is an order in inventory's ledger of movements.
type movementEntry struct {
	OrderID string   `json:"orderId"`
	State   string   `json:"state"`
	Short   []string `json:"short"`
}

// paymentEntry is an order in payment's book.
type paymentEntry struct {
	OrderID string `json:"orderId"`
	State   string `json:"state"`
}

// refundEntry is a return in payment's book.
type refundEntry struct {
	ReturnID string `json:"returnId"`
}

// ledgerEntry is a reference in the gateway's ledger. Amounts are decimals with two digits.
type ledgerEntry struct {
	Reference  string `json:"reference"`
	Kind       string `json:"kind"` // authorization or refund
	Status     string `json:"status"`
	Authorized string `json:"authorized"`
	Captured   string `json:"captured"`
	Voided     string `json:"voided"`
	Refunded   string `json:"refunded"`
	Code       string `json:"code"`
}

// receivedEntry is an event that the platform has.
type receivedEntry struct {
	EventID    string `json:"eventId"`
	Kind       string `json:"kind"`
	Reference  string `json:"reference"`
	Deliveries int64  `json:"deliveries"`
}

// Traffic is what the services' engines say of themselves; see GET /internal/stats.
type Traffic struct {
	Emitted      int64 `json:"emitted"`
	Published    int64 `json:"published"`
	Handled      int64 `json:"handled"`
	Duplicates   int64 `json:"duplicatesIgnored"`
	Parked       int64 `json:"parked"`
	Unpublished  int64 `json:"unpublished"`
	Lag          int64 `json:"lag"`
	CallsPending int64 `json:"callsPending"`
	// Timers and Retrying are work that will still come: deadlines of open orders, events to be tried again.
	Timers   int64 `json:"timers"`
	Retrying int64 `json:"retrying"`
}

// Quiet reports whether nothing is on its way any more.
func (t Traffic) Quiet() bool {
	return t.Unpublished == 0 && t.Lag == 0 && t.CallsPending == 0 && t.Timers == 0 && t.Retrying == 0
}

// Books are all that the services and the outside world have written.
type Books struct {
	Orders     []orderEntry
	Returns    []returnEntry
	Stock      []stockEntry
	Movements  []movementEntry
	Payments   []paymentEntry
	Refunds    []refundEntry
	Messages   []deliveryEntry
	Deliveries []deliveryEntry
	Ledger     []ledgerEntry
	Received   []receivedEntry
	Traffic    Traffic
}

// ReadBooks asks everybody for their book.
func ReadBooks(ctx context.Context, t Target) (*Books, error) {
	b := &Books{}
	if err := b.readShop(ctx, t); err != nil {
		return nil, err
	}
	var err error
	if b.Ledger, err = list[ledgerEntry](ctx, t, t.GatewayURL+"/v1/ledger", outsidePage); err != nil {
		return nil, err
	}
	if b.Received, err = list[receivedEntry](ctx, t, t.PlatformURL+"/v1/ledger", outsidePage); err != nil {
		return nil, err
	}
	b.Traffic, err = ReadTraffic(ctx, t)
	return b, err
}

func (b *Books) readShop(ctx context.Context, t Target) (err error) {
	if b.Orders, err = list[orderEntry](ctx, t, t.ShopURL+"/internal/orders", shopPage); err != nil {
		return err
	}
	if b.Returns, err = list[returnEntry](ctx, t, t.ShopURL+"/internal/returns", shopPage); err != nil {
		return err
	}
	if b.Stock, err = list[stockEntry](ctx, t, t.ShopURL+"/internal/stock", shopPage); err != nil {
		return err
	}
	if b.Movements, err = list[movementEntry](ctx, t, t.ShopURL+"/internal/movements", shopPage); err != nil {
		return err
	}
	if b.Payments, err = list[paymentEntry](ctx, t, t.ShopURL+"/internal/payments", shopPage); err != nil {
		return err
	}
	if b.Refunds, err = list[refundEntry](ctx, t, t.ShopURL+"/internal/refunds", shopPage); err != nil {
		return err
	}
	if b.Messages, err = list[deliveryEntry](ctx, t, t.ShopURL+"/internal/messages", shopPage); err != nil {
		return err
	}
	b.Deliveries, err = list[deliveryEntry](ctx, t, t.ShopURL+"/internal/deliveries", shopPage)
	return err
}

// ReadTraffic asks the shop whether all is quiet.
func ReadTraffic(ctx context.Context, t Target) (Traffic, error) {
	var s Traffic
	return s, get(ctx, t, t.ShopURL+"/internal/stats", &s)
}

// list reads all pages of a list.
func list[T any](ctx context.Context, t Target, base string, size int) ([]T, error) {
	var all []T
	after := ""
	for {
		var p page.Page[T]
		q := url.Values{"after": {after}, "limit": {strconv.Itoa(size)}}
		if err := get(ctx, t, base+"?"+q.Encode(), &p); err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if p.Next == "" {
			return all, nil
		}
		after = p.Next
	}
}

func get(ctx context.Context, t Target, address string, into any) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+t.Token)
	resp, err := t.Client.Do(req)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		if resp.StatusCode/100 == 4 {
			return &refusedError{fmt.Sprintf("replay: GET %s answered %d: %s", address, resp.StatusCode, text)}
		}
		return fmt.Errorf("replay: GET %s answered %d: %s", address, resp.StatusCode, text)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("replay: GET %s: %w", address, err)
	}
	return nil
}
