package order

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/problem"
)

// Limits of a command.
const (
	// LinesMax bounds the lines of an order or a return.
	LinesMax = 2000
	// QuantityMax bounds the quantity of one line.
	QuantityMax = 1_000_000_000
	// CustomerBytesMax and ReferenceBytesMax bound names that come from outside.
	CustomerBytesMax  = 128
	ReferenceBytesMax = 128
)

// Guest is the customer of an order that names none.
const Guest = "guest"

// Item is one line of a command.
type Item struct {
	ProductID string
	Quantity  int64
	// UnitPrice is stated by imports; nil means the catalogue's.
	UnitPrice *contract.Price
}

func refuse(code, title, detail string, args ...any) *problem.Problem {
	return problem.New(http.StatusUnprocessableEntity, code, title, fmt.Sprintf(detail, args...), nil)
}

// checkItems makes the checks that need no knowledge, in the order that shop.md gives.
func checkItems(items []Item) error {
	switch {
	case len(items) > LinesMax:
		return refuse("too-many-lines", "There are too many lines", "%d lines, %d allowed", len(items), LinesMax)
	case len(items) == 0:
		return refuse("no-items", "There are no items", "")
	}
	for i, it := range items {
		if it.Quantity <= 0 {
			return refuse("quantity-not-positive", "A quantity is not positive", "items[%d]: quantity %d", i, it.Quantity)
		}
	}
	for i, it := range items {
		if it.UnitPrice != nil && it.UnitPrice.IsNegative() {
			return refuse("price-negative", "A price is negative", "items[%d]", i)
		}
	}
	return nil
}

// price makes lines of items: names, and prices that are not stated, come from the catalogue. It returns
// the sum of the lines' amounts.
func (s *Service) price(ctx context.Context, items []Item, currency string) ([]contract.Line, contract.Money, error) {
	var none contract.Money
	if err := checkItems(items); err != nil {
		return nil, none, err
	}
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.ProductID
	}
	products, err := s.cfg.Catalog.Products(ctx, ids)
	if err != nil {
		return nil, none, fmt.Errorf("order: ask the catalogue for %d products: %w", len(ids), err)
	}
	for i, it := range items {
		if _, ok := products[it.ProductID]; !ok {
			return nil, none, refuse("unknown-product", "A product is not known", "items[%d]: %.80q", i, it.ProductID)
		}
	}
	lines := make([]contract.Line, len(items))
	total := none
	for i, it := range items {
		p := products[it.ProductID]
		unit, in := p.Price, p.Currency
		if it.UnitPrice != nil {
			unit, in = *it.UnitPrice, currency
		}
		if lines[i], err = line(it, p.Name, unit, in); err != nil {
			return nil, none, outOfRange(i, err)
		}
		if total, err = sum(total, lines[i].Amount); err != nil {
			return nil, none, outOfRange(i, err)
		}
	}
	if total.Minor() <= 0 {
		return nil, none, refuse("total-not-positive", "The total is not positive", "the lines add up to %s", total)
	}
	return lines, total, nil
}

func line(it Item, name string, unit contract.Price, currency string) (contract.Line, error) {
	if it.Quantity > QuantityMax {
		return contract.Line{}, fmt.Errorf("quantity %d, %d allowed", it.Quantity, QuantityMax)
	}
	amount, err := contract.LineAmount(it.Quantity, unit, currency)
	if err != nil {
		return contract.Line{}, err
	}
	return contract.Line{ProductID: it.ProductID, Name: name, Quantity: it.Quantity, UnitPrice: unit, Amount: amount}, nil
}

// sum adds amounts that come from outside, where [contract.Money.Add] would panic or overflow.
func sum(a, b contract.Money) (contract.Money, error) {
	switch {
	case a.Currency() != "" && a.Currency() != b.Currency():
		return a, fmt.Errorf("currency %s beside %s", b.Currency(), a.Currency())
	case a.Minor() > math.MaxInt64/4-b.Minor():
		return a, errors.New("the total is too large")
	}
	return a.Add(b), nil
}

func outOfRange(i int, err error) error {
	return refuse("amount-out-of-range", "An amount cannot be handled", "items[%d]: %v", i, err)
}

// checkNames returns the customer, who may be left out, or why the names cannot be used.
func checkNames(customer, reference string) (string, error) {
	switch {
	case len(customer) > CustomerBytesMax:
		return "", refuse("customer-too-long", "The customer's id is too long", "%d bytes, %d allowed", len(customer), CustomerBytesMax)
	case len(reference) > ReferenceBytesMax:
		return "", refuse("reference-too-long", "The reference is too long", "%d bytes, %d allowed", len(reference), ReferenceBytesMax)
	case !contract.IsName(customer) || !contract.IsName(reference):
		return "", malformed("the customer's id and the reference are text without zero bytes")
	case customer == "":
		return Guest, nil
	}
	return customer, nil
}
