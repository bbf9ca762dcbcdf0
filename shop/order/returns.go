package order

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/txn"
)

// Return is the wish to give goods of a completed order back.
type Return struct {
	OrderID string
	Items   []Item // without prices: what was paid is given back
}

// ImportReturn is a return that was taken elsewhere and belongs to no order: an unreferenced credit. The
// same reference is the same return.
type ImportReturn struct {
	Reference  string
	CustomerID string
	Items      []Item
	// Currency of the stated unit prices. Default GBP.
	Currency string
}

// ReturnState is where a return stands.
type ReturnState string

// States of a return.
const (
	ReturnRequested ReturnState = "REQUESTED"
	ReturnCompleted ReturnState = "COMPLETED"
)

// Returned is a return as a command answers it.
type Returned struct {
	ID        string         `json:"id"`
	State     ReturnState    `json:"state"`
	OrderID   string         `json:"orderId,omitempty"`
	Reference string         `json:"reference,omitempty"`
	Amount    contract.Money `json:"amount"`
}

// acceptedReturn is a return that has passed every check.
type acceptedReturn struct {
	id, order, customer, ref string
	lines                    []contract.Line
	amount                   contract.Money
}

// Return takes goods of a completed order back, or refuses with a [problem.Problem]: never more than was
// shipped and not yet returned.
func (s *Service) Return(ctx context.Context, c Return) (r Returned, err error) {
	if err := checkItems(c.Items); err != nil {
		return r, err
	}
	id, err := newID()
	if err != nil {
		return r, err
	}
	err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		r, err = s.returnOf(ctx, tx, id, c)
		return err
	})
	return r, err
}

// ImportReturn takes a return that belongs to no order, or returns the one that was imported under its
// reference before, or refuses with a [problem.Problem].
func (s *Service) ImportReturn(ctx context.Context, c ImportReturn) (r Returned, err error) {
	a, err := s.checkImportReturn(ctx, c)
	if err != nil {
		return r, err
	}
	err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		r, err = s.insertReturn(ctx, tx, a)
		return err
	})
	return r, err
}

func (s *Service) checkImportReturn(ctx context.Context, c ImportReturn) (a acceptedReturn, err error) {
	if c.Reference == "" {
		return a, refuse("reference-missing", "An imported return needs a reference", "")
	}
	if a.customer, err = checkNames(c.CustomerID, c.Reference); err != nil {
		return a, err
	}
	a.id, a.ref = ImportedReturnID(c.Reference), c.Reference
	a.lines, a.amount, err = s.price(ctx, c.Items, currencyOr(c.Currency))
	return a, err
}

// returnOf checks a return against what was shipped and not yet returned, and stores it.
func (s *Service) returnOf(ctx context.Context, tx *txn.Tx, id string, c Return) (Returned, error) {
	if !contract.IsName(c.OrderID) {
		return Returned{}, unknownOrder(c.OrderID)
	}
	a := acceptedReturn{id: id, order: c.OrderID}
	var currency, linesJSON string
	var total, returned, version int64
	var state State
	err := tx.QueryRow(ctx, s.q.selectReturnable, []any{c.OrderID}, &a.customer, &currency, &total, &returned, &state, &version, &linesJSON)
	switch {
	case isNone(err):
		return Returned{}, unknownOrder(c.OrderID)
	case err != nil:
		return Returned{}, err
	case state != StateCompleted:
		return Returned{}, problem.New(http.StatusConflict, "order-not-completed", "Only a completed order can be returned", "",
			map[string]any{"id": c.OrderID, "state": state})
	}
	var shipped []contract.Line
	if err := json.Unmarshal([]byte(linesJSON), &shipped); err != nil {
		return Returned{}, fmt.Errorf("order: lines of %s: %w", c.OrderID, err)
	}
	back, err := s.returnedUnits(ctx, tx, c.OrderID)
	if err != nil {
		return Returned{}, err
	}
	if a.lines, err = takeBack(shipped, back, c.Items); err != nil {
		return Returned{}, err
	}
	a.amount = contract.NewMoney(0, currency)
	for _, l := range a.lines {
		a.amount = a.amount.Add(l.Amount)
	}
	if a.amount.Minor() <= 0 {
		return Returned{}, refuse("total-not-positive", "There is nothing to refund", "the lines add up to %s", a.amount)
	}
	// The row's version is the lock of two returns of one order.
	n, err := tx.Exec(ctx, s.q.addReturned, a.amount.Minor(), tx.Now().UnixMilli(), c.OrderID, version)
	switch {
	case err != nil:
		return Returned{}, err
	case n != 1:
		return Returned{}, fmt.Errorf("order: %s is not at version %d any more", c.OrderID, version)
	}
	return s.insertReturn(correlate(ctx, c.OrderID), tx, a)
}

// returnedUnits returns the units of each product that the order's earlier returns took back.
func (s *Service) returnedUnits(ctx context.Context, tx *txn.Tx, orderID string) (back map[string]int64, err error) {
	rows, err := tx.Query(ctx, s.q.selectReturnedLines, orderID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	back = map[string]int64{}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		var lines []contract.Line
		if err := json.Unmarshal([]byte(text), &lines); err != nil {
			return nil, fmt.Errorf("order: lines of a return of %s: %w", orderID, err)
		}
		for _, l := range lines {
			back[l.ProductID] += l.Quantity
		}
	}
	return back, rows.Err()
}

// takeBack makes the lines of a return of items from the lines that were shipped, of which back units per
// product have been returned already. A product's units are taken in the order of its lines. A line's
// refund is the difference of two rounded amounts, so that many small returns never add up to more than
// was paid, and a whole one to exactly that.
func takeBack(shipped []contract.Line, back map[string]int64, items []Item) ([]contract.Line, error) {
	want := map[string]int64{}
	known := map[string]int64{}
	for _, l := range shipped {
		known[l.ProductID] += l.Quantity
	}
	for i, it := range items {
		if _, ok := known[it.ProductID]; !ok {
			return nil, refuse("unknown-product", "The order has no such product", "items[%d]: %.80q", i, it.ProductID)
		}
		left := known[it.ProductID] - back[it.ProductID] - want[it.ProductID]
		if it.Quantity > left {
			return nil, problem.New(http.StatusConflict, "return-exceeds-shipped", "More is returned than was shipped and not yet returned",
				fmt.Sprintf("items[%d]: %d of %.80q, %d left", i, it.Quantity, it.ProductID, left), nil)
		}
		want[it.ProductID] += it.Quantity
	}
	gone := maps.Clone(back)
	var lines []contract.Line
	for _, l := range shipped {
		before := min(gone[l.ProductID], l.Quantity)
		gone[l.ProductID] -= before
		n := min(want[l.ProductID], l.Quantity-before)
		if n == 0 {
			continue
		}
		want[l.ProductID] -= n
		was, err := contract.LineAmount(before, l.UnitPrice, l.Amount.Currency())
		if err != nil {
			return nil, err
		}
		is, err := contract.LineAmount(before+n, l.UnitPrice, l.Amount.Currency())
		if err != nil {
			return nil, err
		}
		l.Quantity, l.Amount = n, is.Add(was.Neg())
		lines = append(lines, l)
	}
	return lines, nil
}

// insertReturn stores an accepted return and asks for its goods and its money: one hop.
func (s *Service) insertReturn(ctx context.Context, tx *txn.Tx, a acceptedReturn) (Returned, error) {
	lines, err := json.Marshal(a.lines)
	if err != nil {
		return Returned{}, err
	}
	now := tx.Now().UnixMilli()
	n, err := tx.Exec(ctx, s.q.insertReturn, a.id, a.order, a.customer, a.ref, a.amount.Currency(), a.amount.Minor(), now, now, string(lines))
	if err != nil {
		return Returned{}, err
	}
	if n != 1 {
		return s.importedReturn(ctx, tx, a.ref)
	}
	err = outbox.Add(correlate(ctx, a.id), tx, contract.ReturnRequested.New(contract.ReturnV1{
		ReturnID: a.id, OrderID: a.order, CustomerID: a.customer, Reference: a.ref, Lines: a.lines, Amount: a.amount,
	}))
	return Returned{ID: a.id, State: ReturnRequested, OrderID: a.order, Reference: a.ref, Amount: a.amount}, err
}

func (s *Service) importedReturn(ctx context.Context, tx *txn.Tx, ref string) (r Returned, err error) {
	var currency string
	var amount int64
	var restocked, refunded int64
	err = tx.QueryRow(ctx, s.q.selectReturnByReference, []any{ref}, &r.ID, &currency, &amount, &restocked, &refunded)
	if err != nil {
		return r, fmt.Errorf("order: import return %q: %w", ref, err)
	}
	f := returnFacts{restocked != 0, refunded != 0}
	r.State, r.Reference, r.Amount = f.state(), ref, contract.NewMoney(amount, currency)
	return r, nil
}

// returnFacts are what a return knows: each is set once.
type returnFacts struct {
	restocked, refunded bool
}

// bit is a fact as it is stored: not every database takes a bool for a number.
func bit(fact bool) int64 {
	if fact {
		return 1
	}
	return 0
}

// state returns where the return stands: it is complete when goods and money are back.
func (f returnFacts) state() ReturnState {
	if f.restocked && f.refunded {
		return ReturnCompleted
	}
	return ReturnRequested
}

func (s *Service) stockReturned(ctx context.Context, tx *txn.Tx, e event.Of[contract.ReturnRefV1]) error {
	return s.tellReturn(ctx, tx, e.Data.ReturnID, returnFacts{restocked: true})
}

func (s *Service) paymentRefunded(ctx context.Context, tx *txn.Tx, e event.Of[contract.ReturnRefV1]) error {
	return s.tellReturn(ctx, tx, e.Data.ReturnID, returnFacts{refunded: true})
}

// tellReturn adds facts to a return, and says so when it is complete.
func (s *Service) tellReturn(ctx context.Context, tx *txn.Tx, id string, add returnFacts) error {
	d := contract.ReturnV1{ReturnID: id}
	var currency, lines string
	var amount, restocked, refunded int64
	err := tx.QueryRow(ctx, s.q.selectReturn, []any{id}, &d.OrderID, &d.CustomerID, &d.Reference, &currency, &amount, &restocked, &refunded, &lines)
	switch {
	case isNone(err): // As with an order: evidence of a loss.
		return retry.Permanent(fmt.Errorf("order: there is no return %s", id))
	case err != nil:
		return err
	}
	f := returnFacts{restocked != 0, refunded != 0}
	next := returnFacts{f.restocked || add.restocked, f.refunded || add.refunded}
	if next == f {
		return nil
	}
	n, err := tx.Exec(ctx, s.q.updateReturn, bit(next.restocked), bit(next.refunded), tx.Now().UnixMilli(), id, bit(f.restocked), bit(f.refunded))
	switch {
	case err != nil:
		return err
	case n != 1:
		return fmt.Errorf("order: return %s was changed meanwhile", id)
	case next.state() != ReturnCompleted:
		return nil
	}
	d.Amount = contract.NewMoney(amount, currency)
	if err := json.Unmarshal([]byte(lines), &d.Lines); err != nil {
		return fmt.Errorf("order: lines of return %s: %w", id, err)
	}
	return outbox.Add(ctx, tx, contract.ReturnCompleted.New(d))
}
