package inventory

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

// Stock is a product's place in the books.
type Stock struct {
	Product  string `json:"product"`
	Initial  int64  `json:"initial"`
	Free     int64  `json:"free"`
	Reserved int64  `json:"reserved"`
	Sold     int64  `json:"sold"`
	Returned int64  `json:"returned"`
}

// Movement is an order's line in the ledger.
type Movement struct {
	OrderID string   `json:"orderId"`
	State   State    `json:"state"`
	Short   []string `json:"short,omitempty"`
}

// Handler serves the service's routes. All of them are for operators.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /internal/stock", page.List(s.read, s.q.listStock, scanStock, func(v Stock) string { return v.Product }))
	mux.Handle("GET /internal/movements", page.List(s.read, s.q.listMovements, scanMovement, func(v Movement) string { return v.OrderID }))
	return mux
}

func scanStock(rows txn.Rows) (v Stock, err error) {
	return v, rows.Scan(&v.Product, &v.Initial, &v.Free, &v.Reserved, &v.Sold, &v.Returned)
}

func scanMovement(rows txn.Rows) (v Movement, err error) {
	var short []byte
	if err := rows.Scan(&v.OrderID, &v.State, &short); err != nil {
		return v, err
	}
	return v, json.Unmarshal(short, &v.Short)
}

// Available returns the free units of products; a product that is not stocked is left out.
func (s *Service) Available(ctx context.Context, products []string) (map[string]int64, error) {
	b, err := json.Marshal(products)
	if err != nil {
		return nil, err
	}
	rows, err := page.Select(ctx, s.read, s.q.selectFree, []any{string(b)}, func(rows txn.Rows) (u units, err error) {
		return u, rows.Scan(&u.product, &u.n)
	})
	if err != nil {
		return nil, err
	}
	free := make(map[string]int64, len(rows))
	for _, u := range rows {
		free[u.product] = u.n
	}
	return free, nil
}
