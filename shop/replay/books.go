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
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/payment"
)

// listLimit is the page size that the books are read with.
const listLimit = 1000

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
	Stock      []inventory.Stock
	Movements  []inventory.Movement
	Payments   []payment.Payment
	Refunds    []payment.Refund
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
	if b.Ledger, err = list[ledgerEntry](ctx, t, t.GatewayURL+"/v1/ledger"); err != nil {
		return nil, err
	}
	if b.Received, err = list[receivedEntry](ctx, t, t.PlatformURL+"/v1/ledger"); err != nil {
		return nil, err
	}
	b.Traffic, err = ReadTraffic(ctx, t)
	return b, err
}

func (b *Books) readShop(ctx context.Context, t Target) (err error) {
	if b.Orders, err = list[orderEntry](ctx, t, t.ShopURL+"/internal/orders"); err != nil {
		return err
	}
	if b.Returns, err = list[returnEntry](ctx, t, t.ShopURL+"/internal/returns"); err != nil {
		return err
	}
	if b.Stock, err = list[inventory.Stock](ctx, t, t.ShopURL+"/internal/stock"); err != nil {
		return err
	}
	if b.Movements, err = list[inventory.Movement](ctx, t, t.ShopURL+"/internal/movements"); err != nil {
		return err
	}
	if b.Payments, err = list[payment.Payment](ctx, t, t.ShopURL+"/internal/payments"); err != nil {
		return err
	}
	if b.Refunds, err = list[payment.Refund](ctx, t, t.ShopURL+"/internal/refunds"); err != nil {
		return err
	}
	if b.Messages, err = list[deliveryEntry](ctx, t, t.ShopURL+"/internal/messages"); err != nil {
		return err
	}
	b.Deliveries, err = list[deliveryEntry](ctx, t, t.ShopURL+"/internal/deliveries")
	return err
}

// ReadTraffic asks the shop whether all is quiet.
func ReadTraffic(ctx context.Context, t Target) (Traffic, error) {
	var s Traffic
	return s, get(ctx, t, t.ShopURL+"/internal/stats", &s)
}

// list reads all pages of a list.
func list[T any](ctx context.Context, t Target, base string) ([]T, error) {
	var all []T
	after := ""
	for {
		var p page.Page[T]
		q := url.Values{"after": {after}, "limit": {strconv.Itoa(listLimit)}}
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
		return fmt.Errorf("replay: GET %s answered %d: %s", address, resp.StatusCode, text)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("replay: GET %s: %w", address, err)
	}
	return nil
}
