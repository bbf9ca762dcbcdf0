// Package inventory owns the shop's stock: units per product, reservations per order, and the ledger
// of what moved.
//
// # Guarantee
//
// Stock is never oversold: taking an order's lines is a conditional update of all or none. Every request
// is answered exactly once, in the transaction that does it.
//
// # What this package does not do
//
// It knows no prices and no customers; what it passes on to the payment came with the request.
package inventory

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

//go:embed sqlite/*.sql
var migrations embed.FS

// Migrations returns the service's tables on SQLite, as numbered files.
func Migrations() fs.FS {
	dir, err := fs.Sub(migrations, "sqlite")
	if err != nil {
		panic(err) // The folder is part of the program.
	}
	return dir
}

// Config of the service.
type Config struct {
	// Service is the configuration of its engines.
	Service settle.Config
}

// Service is the inventory.
type Service struct {
	*settle.Service

	read page.Reader
	log  *slog.Logger
}

// New returns the service on its own store.
func New(store settle.Store, b broker.Broker, cfg Config) *Service {
	cfg.Service.Known = contract.EventTypes()
	s := &Service{Service: settle.NewService("inventory", store, b, cfg.Service), read: page.ReaderOf(store), log: cfg.Service.Logger}
	if s.log == nil {
		s.log = slog.Default()
	}
	settle.On(s.Service, contract.StockReserveRequested, s.reserve)
	settle.On(s.Service, contract.StockReleaseRequested, s.release)
	settle.On(s.Service, contract.ShipmentCreated, s.shipped)
	settle.On(s.Service, contract.ReturnRequested, s.returned)
	return s
}

// Statements. The lines of an order travel as one JSON array, so that an order of many lines is one
// statement.
const (
	selectReservation = `SELECT state, lines FROM reservation WHERE order_id = ?`
	insertReservation = `INSERT INTO reservation (order_id, state, lines, short, at) VALUES (?, ?, ?, ?, ?)`
	updateReservation = `UPDATE reservation SET state = ? WHERE order_id = ? AND state = ?`
	takeStock         = `UPDATE stock SET free = free - l.units
		FROM (SELECT value->>0 AS product, value->>1 AS units FROM json_each(?)) AS l
		WHERE stock.product = l.product AND free >= l.units RETURNING stock.product`
	giveStock = `INSERT INTO stock (product, initial, free)
		SELECT value->>0, 0, value->>1 FROM json_each(?) WHERE true
		ON CONFLICT (product) DO UPDATE SET free = free + excluded.free`
	insertReturn = `INSERT INTO stock_return (return_id, lines, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	seedStock    = `INSERT INTO stock (product, initial, free)
		SELECT key, value, value FROM json_each(?) WHERE true
		ON CONFLICT (product) DO NOTHING`
)

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

func load(ctx context.Context, tx *txn.Tx, orderID string) (s State, lines string, err error) {
	err = tx.QueryRow(ctx, selectReservation, []any{orderID}, &s, &lines)
	if errors.Is(err, sql.ErrNoRows) {
		return StateNone, "[]", nil
	}
	return s, lines, err
}

func (s *Service) reserve(ctx context.Context, tx *txn.Tx, e event.Of[contract.StockRequestV1]) error {
	old, _, err := load(ctx, tx, e.Data.OrderID)
	if err != nil || old != StateNone {
		return err // The tombstone, or an earlier answer, stands.
	}
	want := sum(e.Data.Lines)
	lines, err := encode(want)
	if err != nil {
		return err
	}
	short, err := take(ctx, tx, want, lines)
	if err != nil {
		return err
	}
	in := InputReserve
	if len(short) > 0 {
		in = InputShort
	}
	state, effect := Decide(old, in)
	shortJSON, err := json.Marshal(short)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, insertReservation, e.Data.OrderID, string(state), lines, string(shortJSON), tx.Now().UnixMilli()); err != nil {
		return err
	}
	if effect.Failed {
		return outbox.Add(ctx, tx, contract.StockReservationFailed.New(contract.StockFailedV1{OrderID: e.Data.OrderID, Short: short}))
	}
	return outbox.Add(
		ctx, tx,
		contract.StockReserved.New(contract.OrderRefV1{OrderID: e.Data.OrderID}),
		contract.PaymentRequested.New(contract.PaymentRequestV1{OrderID: e.Data.OrderID, CustomerID: e.Data.CustomerID, Amount: e.Data.Total}),
	)
}

// take subtracts all lines from free stock, or none, and then returns the products there is too little of.
func take(ctx context.Context, tx *txn.Tx, want []units, lines string) (short []string, err error) {
	short = []string{}
	if len(want) == 0 {
		return short, nil
	}
	rows, err := tx.Query(ctx, takeStock, lines)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for rows.Next() {
		var product string
		if err := rows.Scan(&product); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		taken[product] = true
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	if len(taken) == len(want) {
		return short, nil
	}
	var back []units
	for _, u := range want {
		if taken[u.product] {
			back = append(back, u)
		} else {
			short = append(short, u.product)
		}
	}
	return short, give(ctx, tx, back)
}

func give(ctx context.Context, tx *txn.Tx, lines []units) error {
	if len(lines) == 0 {
		return nil
	}
	b, err := encode(lines)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, giveStock, b)
	return err
}

func (s *Service) release(ctx context.Context, tx *txn.Tx, e event.Of[contract.OrderRefV1]) error {
	old, lines, err := load(ctx, tx, e.Data.OrderID)
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
		if _, err := tx.Exec(ctx, giveStock, lines); err != nil {
			return err
		}
	}
	return outbox.Add(ctx, tx, contract.StockReleased.New(contract.OrderRefV1{OrderID: e.Data.OrderID}))
}

// store writes a reservation's new state; one that is not there yet becomes a tombstone.
func (s *Service) store(ctx context.Context, tx *txn.Tx, orderID string, old, state State) error {
	if old == state {
		return nil
	}
	if old == StateNone {
		_, err := tx.Exec(ctx, insertReservation, orderID, string(state), "[]", "[]", tx.Now().UnixMilli())
		return err
	}
	n, err := tx.Exec(ctx, updateReservation, string(state), orderID, string(old))
	if err == nil && n != 1 {
		return fmt.Errorf("inventory: reservation of %s is not %s any more", orderID, old)
	}
	return err
}

func (s *Service) shipped(ctx context.Context, tx *txn.Tx, e event.Of[contract.ShipmentV1]) error {
	old, _, err := load(ctx, tx, e.Data.OrderID)
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
	n, err := tx.Exec(ctx, insertReturn, e.Data.ReturnID, lines, tx.Now().UnixMilli())
	if err != nil || n == 0 {
		return err
	}
	if err := give(ctx, tx, back); err != nil {
		return err
	}
	return outbox.Add(ctx, tx, contract.StockReturned.New(contract.ReturnRefV1{
		ReturnID: e.Data.ReturnID, OrderID: e.Data.OrderID, Amount: e.Data.Amount,
	}))
}

// Seed gives products their initial stock. A product that has one keeps it, however often it is seeded.
func (s *Service) Seed(ctx context.Context, initial map[string]int64) error {
	b, err := json.Marshal(initial)
	if err != nil {
		return fmt.Errorf("inventory: seed: %w", err)
	}
	err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		_, err := tx.Exec(ctx, seedStock, string(b))
		return err
	})
	if err != nil {
		return fmt.Errorf("inventory: seed %d products: %w", len(initial), err)
	}
	return nil
}
