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

const (
	// The ledger's sums are made from the orders' rows, not from the stock's: the two check one another.
	listStock = `SELECT s.product, s.initial, s.free,
			coalesce(m.reserved, 0), coalesce(m.sold, 0), coalesce(r.returned, 0)
		FROM (SELECT * FROM stock WHERE product > ?1 ORDER BY product LIMIT ?2) s
		LEFT JOIN (SELECT l.value->>0 AS product,
				sum(CASE WHEN state = 'RESERVED' THEN l.value->>1 ELSE 0 END) AS reserved,
				sum(CASE WHEN state = 'COMMITTED' THEN l.value->>1 ELSE 0 END) AS sold
			FROM reservation, json_each(lines) AS l WHERE state IN ('RESERVED', 'COMMITTED') GROUP BY 1) m
			ON m.product = s.product
		LEFT JOIN (SELECT l.value->>0 AS product, sum(l.value->>1) AS returned
			FROM stock_return, json_each(lines) AS l GROUP BY 1) r ON r.product = s.product
		ORDER BY s.product`
	listMovements = `SELECT order_id, state, short FROM reservation WHERE order_id > ? ORDER BY order_id LIMIT ?`
	selectFree    = `SELECT product, free FROM stock WHERE product IN (SELECT value FROM json_each(?))`
)

// Handler serves the service's routes. All of them are for operators.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /internal/stock", page.List(s.read, listStock, scanStock, func(v Stock) string { return v.Product }))
	mux.Handle("GET /internal/movements", page.List(s.read, listMovements, scanMovement, func(v Movement) string { return v.OrderID }))
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
	rows, err := page.Select(ctx, s.read, selectFree, []any{string(b)}, func(rows txn.Rows) (u units, err error) {
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
