// Package inventory owns the shop's stock: units per product, reservations per order, and the ledger
// of what moved.
//
// # Guarantee
//
// Stock is never oversold: taking an order's lines is a conditional update of all or none, of rows that are
// locked in one order by everybody. Every request is answered exactly once, in the transaction that does it.
//
// # What this package does not do
//
// It knows no prices and no customers; what it passes on to the payment came with the request.
package inventory

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

// Config of the service.
type Config struct {
	// Service is the configuration of its engines.
	Service settle.Config
}

// Service is the inventory.
type Service struct {
	*settle.Service

	q    *queries
	read page.Reader
	log  *slog.Logger
}

// New returns the service on its own store.
func New(store settle.Store, b broker.Broker, cfg Config) (*Service, error) {
	q, err := loadQueries(store)
	if err != nil {
		return nil, err
	}
	cfg.Service.Known = contract.EventTypes()
	s := &Service{q: q, read: page.ReaderOf(store), log: cfg.Service.Logger}
	cfg.Service.Consumer.Prepare = s.prepare
	s.Service = settle.NewService("inventory", store, b, cfg.Service)
	if s.log == nil {
		s.log = slog.Default()
	}
	settle.On(s.Service, contract.StockReserveRequested, s.reserve)
	settle.On(s.Service, contract.StockReleaseRequested, s.release)
	settle.On(s.Service, contract.ShipmentCreated, s.shipped)
	settle.On(s.Service, contract.ReturnRequested, s.returned)
	return s, nil
}

type units struct {
	product string
	n       int64
}

// sum returns the stocked lines by product, sorted, so that two orders lock rows in one order.
func sum(lines []contract.Line) []units {
	var all []units
	for _, l := range lines {
		if contract.Stocked(l.ProductID) {
			all = append(all, units{l.ProductID, l.Quantity})
		}
	}
	slices.SortFunc(all, func(a, b units) int { return strings.Compare(a.product, b.product) })
	merged := all[:0]
	for _, u := range all {
		if n := len(merged); n > 0 && merged[n-1].product == u.product {
			merged[n-1].n += u.n
		} else {
			merged = append(merged, u)
		}
	}
	return merged
}

// encode returns lines as the tables have them: [["product", units], ...].
func encode(lines []units) (string, error) {
	pairs := make([][2]any, len(lines))
	for i, l := range lines {
		pairs[i] = [2]any{l.product, l.n}
	}
	b, err := json.Marshal(pairs)
	return string(b), err
}

// load returns what an order's reservation came to and its lines, and locks its row until the transaction
// ends.
func (s *Service) load(ctx context.Context, tx *txn.Tx, orderID string) (state State, lines string, err error) {
	err = tx.QueryRow(ctx, s.q.selectReservation, []any{orderID}, &state, &lines)
	if errors.Is(err, sql.ErrNoRows) {
		return StateNone, "[]", nil
	}
	return state, lines, err
}

// insert stores the row of an order that inventory has not heard of, and reports whether it was the first to
// do so. One that meets another waits for its end.
func (s *Service) insert(ctx context.Context, tx *txn.Tx, orderID string, state State, lines string) (first bool, err error) {
	n, err := tx.Exec(ctx, s.q.insertReservation, orderID, string(state), lines, tx.Now().UnixMilli())
	return n == 1, err
}

// prepare locks the stock that a batch of orders and returns wants, in one order. Popular products are in many
// orders: two batches that lock order by order would wait for one another.
func (s *Service) prepare(ctx context.Context, tx *txn.Tx, events []event.Envelope) error {
	var lines []contract.Line
	for _, e := range events {
		switch e.Type {
		case contract.StockReserveRequested.Name():
			if of, err := contract.StockReserveRequested.Decode(e); err == nil { // Else its handler says so.
				lines = append(lines, of.Data.Lines...)
			}
		case contract.ReturnRequested.Name():
			if of, err := contract.ReturnRequested.Decode(e); err == nil {
				lines = append(lines, of.Data.Lines...)
			}
		}
	}
	if len(lines) == 0 {
		return nil
	}
	want, err := encode(sum(lines))
	if err == nil {
		_, err = s.lockStock(ctx, tx, want)
	}
	return err
}

func (s *Service) reserve(ctx context.Context, tx *txn.Tx, e event.Of[contract.StockRequestV1]) error {
	want := sum(e.Data.Lines)
	lines, err := encode(want)
	if err != nil {
		return err
	}
	// The row comes before the stock: it decides between this request and one that cancels it meanwhile.
	state, _ := Decide(StateNone, InputReserve)
	first, err := s.insert(ctx, tx, e.Data.OrderID, state, lines)
	if err != nil || !first {
		return err // The tombstone, or an earlier answer, stands.
	}
	short, err := s.take(ctx, tx, want, lines)
	if err != nil {
		return err
	}
	if len(short) > 0 {
		return s.refuse(ctx, tx, e.Data.OrderID, short)
	}
	return outbox.Add(
		ctx, tx,
		contract.StockReserved.New(contract.OrderRefV1{OrderID: e.Data.OrderID}),
		contract.PaymentRequested.New(contract.PaymentRequestV1{OrderID: e.Data.OrderID, CustomerID: e.Data.CustomerID, Amount: e.Data.Total}),
	)
}

// refuse turns the reservation that reserve has just stored into a shortage.
func (s *Service) refuse(ctx context.Context, tx *txn.Tx, orderID string, short []string) error {
	b, err := json.Marshal(short)
	if err != nil {
		return err
	}
	state, _ := Decide(StateNone, InputShort)
	n, err := tx.Exec(ctx, s.q.shortReservation, string(state), string(b), orderID, string(StateReserved))
	switch {
	case err != nil:
		return err
	case n != 1:
		return changed(orderID, StateReserved)
	}
	return outbox.Add(ctx, tx, contract.StockReservationFailed.New(contract.StockFailedV1{OrderID: orderID, Short: short}))
}

func changed(orderID string, old State) error {
	return fmt.Errorf("inventory: reservation of %s is not %s any more", orderID, old)
}

// take subtracts all lines from free stock, or none, and then returns the products there is too little of.
// It locks their rows first, in the order of the lines.
func (s *Service) take(ctx context.Context, tx *txn.Tx, want []units, lines string) (short []string, err error) {
	if len(want) == 0 {
		return nil, nil
	}
	free, err := s.lockStock(ctx, tx, lines)
	if err != nil {
		return nil, err
	}
	for _, u := range want {
		if n, stocked := free[u.product]; !stocked || n < u.n {
			short = append(short, u.product)
		}
	}
	if len(short) > 0 {
		return short, nil
	}
	n, err := tx.Exec(ctx, s.q.takeStock, lines)
	if err == nil && n != int64(len(want)) {
		err = fmt.Errorf("inventory: %d of %d products were taken", n, len(want))
	}
	return nil, err
}

// lockStock returns the free units of the lines' products.
func (s *Service) lockStock(ctx context.Context, tx *txn.Tx, lines string) (free map[string]int64, err error) {
	rows, err := tx.Query(ctx, s.q.lockStock, lines)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	free = map[string]int64{}
	for rows.Next() {
		var u units
		if err := rows.Scan(&u.product, &u.n); err != nil {
			return nil, err
		}
		free[u.product] = u.n
	}
	return free, rows.Err()
}

func (s *Service) release(ctx context.Context, tx *txn.Tx, e event.Of[contract.OrderRefV1]) error {
	old, lines, err := s.claim(ctx, tx, e.Data.OrderID)
	if err != nil {
		return err
	}
	state, effect := Decide(old, InputRelease)
	if !effect.Released {
		s.log.Warn("release after the sale is ignored", "aggregate_id", e.Data.OrderID, "event_id", e.ID)
		return nil
	}
	if err := s.store(ctx, tx, e.Data.OrderID, old, state); err != nil {
		return err
	}
	if effect.GiveBack {
		if _, err := tx.Exec(ctx, s.q.giveStock, lines); err != nil {
			return err
		}
	}
	return outbox.Add(ctx, tx, contract.StockReleased.New(contract.OrderRefV1{OrderID: e.Data.OrderID}))
}

// claim is load for a release, which stores a tombstone where there is no row. Of two requests that meet,
// the second waits for the first and gets the row that it left.
func (s *Service) claim(ctx context.Context, tx *txn.Tx, orderID string) (old State, lines string, err error) {
	if old, lines, err = s.load(ctx, tx, orderID); err != nil || old != StateNone {
		return old, lines, err
	}
	tombstone, _ := Decide(StateNone, InputRelease)
	first, err := s.insert(ctx, tx, orderID, tombstone, lines)
	if err != nil || first {
		return StateNone, lines, err
	}
	if old, lines, err = s.load(ctx, tx, orderID); err == nil && old == StateNone {
		err = fmt.Errorf("inventory: reservation of %s cannot be stored and is not there", orderID)
	}
	return old, lines, err
}

// store writes a reservation's new state.
func (s *Service) store(ctx context.Context, tx *txn.Tx, orderID string, old, state State) error {
	if old == StateNone || old == state {
		return nil // Stored by claim, or as it was.
	}
	n, err := tx.Exec(ctx, s.q.updateReservation, string(state), orderID, string(old))
	if err == nil && n != 1 {
		return changed(orderID, old)
	}
	return err
}

func (s *Service) shipped(ctx context.Context, tx *txn.Tx, e event.Of[contract.ShipmentV1]) error {
	old, _, err := s.load(ctx, tx, e.Data.OrderID)
	if err != nil {
		return err
	}
	state, effect := Decide(old, InputShipped)
	if !effect.Committed {
		return nil
	}
	if err := s.store(ctx, tx, e.Data.OrderID, old, state); err != nil {
		return err
	}
	return outbox.Add(ctx, tx, contract.StockCommitted.New(contract.OrderRefV1{OrderID: e.Data.OrderID}))
}

func (s *Service) returned(ctx context.Context, tx *txn.Tx, e event.Of[contract.ReturnV1]) error {
	back := sum(e.Data.Lines)
	lines, err := encode(back)
	if err != nil {
		return err
	}
	n, err := tx.Exec(ctx, s.q.insertReturn, e.Data.ReturnID, lines, tx.Now().UnixMilli())
	if err != nil || n != 1 {
		return err // The return's goods are back already.
	}
	if _, err := tx.Exec(ctx, s.q.giveStock, lines); err != nil {
		return err
	}
	return outbox.Add(ctx, tx, contract.StockReturned.New(contract.ReturnRefV1{
		ReturnID: e.Data.ReturnID, OrderID: e.Data.OrderID, Amount: e.Data.Amount,
	}))
}

// Seed gives products their initial stock. A product that has one keeps it, however often it is seeded.
func (s *Service) Seed(ctx context.Context, initial map[string]int64) error {
	rows := make([]units, 0, len(initial))
	for _, product := range slices.Sorted(maps.Keys(initial)) {
		rows = append(rows, units{product, initial[product]})
	}
	lines, err := encode(rows)
	if err != nil {
		return fmt.Errorf("inventory: seed: %w", err)
	}
	err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		_, err := tx.Exec(ctx, s.q.seedStock, lines)
		return err
	})
	if err != nil {
		return fmt.Errorf("inventory: seed %d products: %w", len(initial), err)
	}
	return nil
}
