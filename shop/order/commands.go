package order

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// Namespace is the name space of the identities of imported orders and returns (RFC 9562, UUIDv5).
//
//nolint:gochecknoglobals // An array constant, which Go does not have.
var Namespace = uuid.UUID{0x5e, 0x77, 0x1e, 0x00, 0x00, 0x00, 0x50, 0x00, 0x80, 0x00, 0x6f, 0x72, 0x64, 0x65, 0x72, 0x73}

// ImportedID returns the id of the order that is imported under a reference, such as an invoice number:
// the same for ever, so that seeded faults of a replay repeat.
func ImportedID(reference string) string { return uuid.NewSHA1(Namespace, []byte(reference)).String() }

// ImportedReturnID returns the id of the return that is imported under a reference. It never equals that
// of an order.
func ImportedReturnID(reference string) string {
	return uuid.NewSHA1(Namespace, []byte("return/"+reference)).String()
}

// Place is the wish to buy, at the catalogue's prices.
type Place struct {
	CustomerID string // empty for a guest
	Items      []Item
	// Total is what the customer expects to pay. A total that is not the sum of the lines is refused.
	Total *contract.Money
}

// Import is an order that was taken elsewhere. The same reference is the same order, however often it
// comes: the first import stands.
type Import struct {
	Place

	Reference string
	// Currency of the stated unit prices. Default GBP.
	Currency string
}

// Placed is an order as a command answers it.
type Placed struct {
	ID        string         `json:"id"`
	State     State          `json:"state"`
	Reference string         `json:"reference,omitempty"`
	Total     contract.Money `json:"total"`
}

// accepted is an order that has passed every check and is not stored yet.
type accepted struct {
	id, customer, ref string
	lines             []contract.Line
	total             contract.Money
}

// checkPlace makes every check of a new order, outside of any transaction: it asks the catalogue.
func (s *Service) checkPlace(ctx context.Context, c Place) (accepted, error) {
	return s.check(ctx, Import{Place: c, Currency: contract.GBP})
}

// checkImport is checkPlace for an order that was taken elsewhere.
func (s *Service) checkImport(ctx context.Context, c Import) (accepted, error) {
	if c.Reference == "" {
		return accepted{}, refuse("reference-missing", "An imported order needs a reference", "")
	}
	return s.check(ctx, c)
}

func (s *Service) check(ctx context.Context, c Import) (a accepted, err error) {
	if a.customer, err = checkNames(c.CustomerID, c.Reference); err != nil {
		return a, err
	}
	if a.lines, a.total, err = s.price(ctx, c.Items, currencyOr(c.Currency)); err != nil {
		return a, err
	}
	if c.Total != nil && *c.Total != a.total {
		return a, refuse("total-mismatch", "The total is not the sum of the lines", "%s stated, the lines add up to %s", c.Total, a.total)
	}
	if a.ref = c.Reference; a.ref != "" {
		a.id = ImportedID(a.ref)
		return a, nil
	}
	a.id, err = newID()
	return a, err
}

// newID returns an identity that ascends with time, so that new rows are neighbours in their table.
func newID() (string, error) {
	id, err := uuid.NewV7()
	return id.String(), err
}

func currencyOr(c string) string {
	if c == "" {
		return contract.GBP
	}
	return c
}

// Place takes an order, or refuses it with a [problem.Problem].
func (s *Service) Place(ctx context.Context, c Place) (p Placed, err error) {
	a, err := s.checkPlace(ctx, c)
	if err != nil {
		return p, err
	}
	err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		p, err = s.place(ctx, tx, a)
		return err
	})
	return p, err
}

// Import takes an order that was taken elsewhere, or returns the one that was imported under its
// reference before, or refuses with a [problem.Problem].
func (s *Service) Import(ctx context.Context, c Import) (p Placed, err error) {
	a, err := s.checkImport(ctx, c)
	if err != nil {
		return p, err
	}
	err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		p, err = s.place(ctx, tx, a)
		return err
	})
	return p, err
}

// place stores an accepted order, sets its first deadline, and asks for its stock: one hop.
func (s *Service) place(ctx context.Context, tx *txn.Tx, a accepted) (Placed, error) {
	now := tx.Now().Truncate(time.Millisecond).UTC()
	n, err := tx.Exec(ctx, s.q.insertOrder, a.id, a.customer, a.ref, a.total.Currency(), a.total.Minor(),
		now.UnixMilli(), now.UnixMilli(), string(StatePending))
	if err != nil {
		return Placed{}, err
	}
	if n != 1 {
		return s.imported(ctx, tx, a.ref)
	}
	lines, err := json.Marshal(a.lines)
	if err != nil {
		return Placed{}, err
	}
	if _, err := tx.Exec(ctx, s.q.insertLines, a.id, string(lines)); err != nil {
		return Placed{}, err
	}
	ctx = correlate(ctx, a.id)
	if err := timer.Set(ctx, tx, timerKey(a.id), now.Add(s.cfg.DelayedAfter), deadline(a.id, contract.DeadlineDelayed)); err != nil {
		return Placed{}, err
	}
	if err := outbox.Add(ctx, tx, contract.OrderCreated.New(contract.OrderCreatedV1{
		OrderID: a.id, CustomerID: a.customer, Reference: a.ref, Lines: a.lines, Total: a.total, PlacedAt: now,
	}), contract.StockReserveRequested.New(contract.StockRequestV1{
		OrderID: a.id, CustomerID: a.customer, Lines: a.lines, Total: a.total,
	})); err != nil {
		return Placed{}, err
	}
	if s.cfg.Hooks.Placed != nil {
		tx.AfterCommit(func() { s.cfg.Hooks.Placed(a.id, len(a.lines)) })
	}
	return Placed{ID: a.id, State: StatePending, Reference: a.ref, Total: a.total}, nil
}

// imported returns the order that a reference already has.
func (s *Service) imported(ctx context.Context, tx *txn.Tx, ref string) (p Placed, err error) {
	var currency string
	var total int64
	err = tx.QueryRow(ctx, s.q.selectByReference, []any{ref}, &p.ID, &currency, &total, &p.State)
	if err != nil { // An id that is taken, and not by the reference: never for ids of ours.
		return p, fmt.Errorf("order: import %q: %w", ref, err)
	}
	p.Reference, p.Total = ref, contract.NewMoney(total, currency)
	return p, nil
}

// correlate makes all that follows from a command correlate with its order, unless the caller has
// another idea.
func correlate(ctx context.Context, id string) context.Context {
	c := event.CauseFrom(ctx)
	if c.CorrelationID != "" {
		return ctx
	}
	c.CorrelationID = id
	return event.WithCause(ctx, c)
}

// CancelAsked is the answer to a wish to cancel: the same each time. The outcome is visible on the order.
type CancelAsked struct {
	ID     string `json:"id"`
	Cancel string `json:"cancel"` // always "REQUESTED"
}

// Cancel asks for an order's cancellation. It is refused with order-already-shipped when the shipment
// is known to exist; otherwise the outcome shows on the order.
func (s *Service) Cancel(ctx context.Context, id string) (c CancelAsked, err error) {
	err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		c, err = s.cancel(ctx, tx, id)
		return err
	})
	return c, err
}

func (s *Service) cancel(ctx context.Context, tx *txn.Tx, id string) (CancelAsked, error) {
	if !contract.IsName(id) {
		return CancelAsked{}, unknownOrder(id)
	}
	r, err := s.load(ctx, tx, id)
	if err != nil {
		if errors.Is(err, errUnknownOrder) {
			return CancelAsked{}, unknownOrder(id)
		}
		return CancelAsked{}, err
	}
	d := Decide(r.facts, Input{Kind: InputCancel})
	switch d.Verdict {
	case Contradicts:
		return CancelAsked{}, problem.New(http.StatusConflict, "order-already-shipped", "The order has been shipped", "",
			map[string]any{"id": id, "state": r.facts.State()})
	case Changed:
		if err := s.store(correlate(ctx, id), tx, r, d); err != nil {
			return CancelAsked{}, err
		}
	case Repeated:
	}
	return CancelAsked{ID: id, Cancel: "REQUESTED"}, nil
}

func unknownOrder(id string) error {
	return problem.New(http.StatusNotFound, "unknown-order", "There is no such order", fmt.Sprintf("%.80q", id), nil)
}

func isNone(err error) bool { return errors.Is(err, sql.ErrNoRows) }
