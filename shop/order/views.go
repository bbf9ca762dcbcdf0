package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

// ReturnsShownMax bounds the returns that an order shows.
const ReturnsShownMax = 1000

// View is an order as it is shown.
type View struct {
	ID         string          `json:"id"`
	CustomerID string          `json:"customerId"`
	Reference  string          `json:"reference,omitempty"`
	State      State           `json:"state"`
	Reason     contract.Reason `json:"reason,omitempty"`
	// Attention says that a person must act, and why.
	Attention string          `json:"attention,omitempty"`
	Total     contract.Money  `json:"total"`
	Returned  contract.Money  `json:"returned"`
	PlacedAt  time.Time       `json:"placedAt"`
	UpdatedAt time.Time       `json:"updatedAt"`
	Lines     []contract.Line `json:"lines,omitempty"`   // of a single order only
	Returns   []ReturnView    `json:"returns,omitempty"` // of a single order only
	Facts     *FactsView      `json:"facts,omitempty"`   // for operators only
}

// FactsView is what an order knows, for operators.
type FactsView struct {
	Stock      Stock           `json:"stock,omitempty"`
	Payment    Payment         `json:"payment,omitempty"`
	Shipment   Shipment        `json:"shipment,omitempty"`
	Deadline   Deadline        `json:"deadline,omitempty"`
	Cancel     contract.Reason `json:"cancel,omitempty"` // also one that was refused
	CanceledBy string          `json:"canceledBy,omitempty"`
	// Asked are the requests that were sent, Answered those of them that were answered.
	Asked          []string `json:"asked,omitempty"`
	Answered       []string `json:"answered,omitempty"`
	Contradictions int64    `json:"contradictions"`
}

// ReturnView is a return as it is shown.
type ReturnView struct {
	ID         string         `json:"id"`
	OrderID    string         `json:"orderId,omitempty"`
	CustomerID string         `json:"customerId"`
	Reference  string         `json:"reference,omitempty"`
	State      ReturnState    `json:"state"`
	Restocked  bool           `json:"restocked"`
	Refunded   bool           `json:"refunded"`
	Amount     contract.Money `json:"amount"`
	CreatedAt  time.Time      `json:"createdAt"`
}

// names returns the requests in t, for people.
func (t Told) names() (names []string) {
	for _, r := range [...]struct {
		member Told
		name   string
	}{{AskShipmentCancel, "shipment-cancel"}, {AskVoid, "payment-void"}, {AskRelease, "stock-release"}} {
		if t.Has(r.member) {
			names = append(names, r.name)
		}
	}
	return names
}

func millis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// scanView reads a row of view_order and the lists.
func scanView(rows txn.Rows) (v View, err error) {
	var currency, lines string
	var total, returned, placed, updated, contradictions int64
	var f Facts
	err = rows.Scan(&v.ID, &v.CustomerID, &v.Reference, &currency, &total, &returned, &placed, &updated,
		&f.Stock, &f.Payment, &f.Shipment, &f.Deadline, &f.Cancel, &f.Told, &f.Answered, &contradictions, &lines)
	if err != nil {
		return v, err
	}
	v.State, v.Reason, v.Attention = f.State(), f.Reason(), f.Attention()
	v.Total, v.Returned = contract.NewMoney(total, currency), contract.NewMoney(returned, currency)
	v.PlacedAt, v.UpdatedAt = millis(placed), millis(updated)
	v.Facts = &FactsView{
		Stock: f.Stock, Payment: f.Payment, Shipment: f.Shipment, Deadline: f.Deadline,
		Cancel: f.Cancel, CanceledBy: f.CanceledBy(),
		Asked: f.Told.names(), Answered: f.Answered.names(), Contradictions: contradictions,
	}
	if lines == "" {
		return v, nil
	}
	if err := json.Unmarshal([]byte(lines), &v.Lines); err != nil {
		return v, fmt.Errorf("order: lines of %s: %w", v.ID, err)
	}
	return v, nil
}

func scanReturn(rows txn.Rows) (v ReturnView, err error) {
	var currency string
	var amount, created, restocked, refunded int64
	err = rows.Scan(&v.ID, &v.OrderID, &v.CustomerID, &v.Reference, &currency, &amount, &created, &restocked, &refunded)
	v.Restocked, v.Refunded = restocked != 0, refunded != 0
	v.State = returnFacts{v.Restocked, v.Refunded}.state()
	v.Amount, v.CreatedAt = contract.NewMoney(amount, currency), millis(created)
	return v, err
}

// View returns an order with its lines and returns; a [problem.Problem] unknown-order when there is none.
func (s *Service) View(ctx context.Context, id string) (View, error) {
	if !contract.IsName(id) {
		return View{}, unknownOrder(id)
	}
	found, err := page.Select(ctx, s.read, s.q.viewOrder, []any{id}, scanView)
	switch {
	case err != nil:
		return View{}, err
	case len(found) == 0:
		return View{}, unknownOrder(id)
	}
	v := found[0]
	if v.Returned.Minor() > 0 {
		v.Returns, err = page.Select(ctx, s.read, s.q.viewReturns, []any{id, ReturnsShownMax}, scanReturn)
	}
	return v, err
}

// List returns a page of all orders by id, without their lines.
func (s *Service) List(ctx context.Context, ask page.Ask) (page.Page[View], error) {
	items, err := page.Select(ctx, s.read, s.q.listOrders, []any{ask.After, ask.Limit}, scanView)
	return page.New(ask, items, func(v View) string { return v.ID }), err
}

// Returns returns a page of all returns by id.
func (s *Service) Returns(ctx context.Context, ask page.Ask) (page.Page[ReturnView], error) {
	items, err := page.Select(ctx, s.read, s.q.listReturns, []any{ask.After, ask.Limit}, scanReturn)
	return page.New(ask, items, func(v ReturnView) string { return v.ID }), err
}

// errCursor says that a page's after is not one that this service gave.
var errCursor = errors.New("after is not the next of a page")

// CustomerOrders returns a page of a customer's orders, the newest first, without their lines.
func (s *Service) CustomerOrders(ctx context.Context, customer string, ask page.Ask) (page.Page[View], error) {
	if !contract.IsName(customer) {
		return page.New[View](ask, nil, nil), nil
	}
	before, id := int64(math.MaxInt64), ""
	if ask.After != "" {
		at, rest, ok := strings.Cut(ask.After, ".")
		ms, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil {
			return page.Page[View]{}, fmt.Errorf("order: %.80q: %w", ask.After, errCursor)
		}
		before, id = ms, rest
	}
	items, err := page.Select(ctx, s.read, s.q.listCustomerOrders, []any{customer, before, id, ask.Limit}, scanView)
	for i := range items {
		items[i].Facts = nil
	}
	return page.New(ask, items, func(v View) string { return fmt.Sprintf("%d.%s", v.PlacedAt.UnixMilli(), v.ID) }), err
}
