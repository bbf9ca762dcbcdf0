package catalog

import (
	"context"
	"errors"
	"net/http"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/txn"
)

// queryBytesMax bounds a search; userBytesMax a user's name.
const (
	queryBytesMax = 100
	userBytesMax  = 64
)

// Item is a product as the shop shows it.
type Item struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Price     contract.Money `json:"price"`
	Available *int64         `json:"available,omitempty"` // left out where nobody counts it
	Likes     int64          `json:"likes"`
	Views     int64          `json:"views"`
}

// Handler serves the catalogue's routes.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products", s.list)
	mux.HandleFunc("GET /products/{id}", s.show)
	mux.HandleFunc("POST /products/{id}/views", func(w http.ResponseWriter, r *http.Request) {
		s.act(w, r, "", s.View, http.StatusAccepted)
	})
	mux.HandleFunc("PUT /products/{id}/likes/{user}", func(w http.ResponseWriter, r *http.Request) {
		s.act(w, r, r.PathValue("user"), s.Like, http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /products/{id}/likes/{user}", func(w http.ResponseWriter, r *http.Request) {
		s.act(w, r, r.PathValue("user"), s.Unlike, http.StatusNoContent)
	})
	return mux
}

func (s *Service) list(w http.ResponseWriter, r *http.Request) {
	ask, err := page.Parse(r)
	query := r.URL.Query().Get("query")
	if err == nil && (len(query) > queryBytesMax || !contract.IsName(query)) {
		err = errors.New("query is longer than 100 bytes, or no text")
	}
	if err != nil {
		problem.Write(w, http.StatusBadRequest, "bad-page", "The page cannot be read", err.Error(), nil)
		return
	}
	items, err := s.found(r.Context(), ask, query, r.URL.Query().Get("inStock") == "true")
	if err != nil {
		s.fail(w, err)
		return
	}
	page.Write(w, http.StatusOK, page.New(ask, items, func(i Item) string { return i.ID }))
}

// found returns the page of products that match a query, on request only those that can be sold now. As
// stock is another service's, those are looked for page by page, up to scanMax products.
func (s *Service) found(ctx context.Context, ask page.Ask, query string, inStock bool) ([]Item, error) {
	const batch, scanMax = 500, 50_000
	after := ask.After
	if !inStock {
		return s.items(ctx, s.q.listProducts, after, pattern(query), ask.Limit)
	}
	var found []Item
	for range scanMax / batch {
		items, err := s.items(ctx, s.q.listProducts, after, pattern(query), batch)
		if err != nil {
			return nil, err
		}
		for _, it := range items {
			if it.Available == nil || *it.Available > 0 {
				if found = append(found, it); len(found) == ask.Limit {
					return found, nil
				}
			}
		}
		if len(items) < batch {
			break
		}
		after = items[len(items)-1].ID
	}
	return found, nil
}

func (s *Service) show(w http.ResponseWriter, r *http.Request) {
	var items []Item
	var err error
	if id := r.PathValue("id"); contract.IsName(id) {
		items, err = s.items(r.Context(), s.q.selectProduct, id)
	}
	if err == nil && len(items) == 0 {
		err = ErrUnknownProduct
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	page.Write(w, http.StatusOK, items[0])
}

func (s *Service) items(ctx context.Context, query string, args ...any) ([]Item, error) {
	items, err := page.Select(ctx, s.read, query, args, scanItem)
	if err != nil || len(items) == 0 || s.cfg.Available == nil {
		return items, err
	}
	ids := make([]string, len(items))
	for i := range items {
		ids[i] = items[i].ID
	}
	free, err := s.cfg.Available(ctx, ids)
	if err != nil { // Stock is another service: a product is shown without it rather than not at all.
		return items, nil //nolint:nilerr // See above.
	}
	for i := range items {
		if n, ok := free[items[i].ID]; ok {
			items[i].Available = &n
		}
	}
	return items, nil
}

func scanItem(rows txn.Rows) (i Item, err error) {
	var price contract.Price
	var currency string
	if err := rows.Scan(&i.ID, &i.Name, &price, &currency, &i.Likes, &i.Views); err != nil {
		return i, err
	}
	i.Price, err = contract.LineAmount(1, price, currency)
	return i, err
}

// act serves what a person does with a product.
func (s *Service) act(w http.ResponseWriter, r *http.Request, user string, do func(ctx context.Context, id, user string) error, status int) {
	if len(user) > userBytesMax || !contract.IsName(user) {
		problem.Write(w, http.StatusBadRequest, "bad-user", "The user's name is longer than 64 bytes, or no text", "", nil)
		return
	}
	id := r.PathValue("id")
	err := ErrUnknownProduct
	if contract.IsName(id) {
		err = do(r.Context(), id, user)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	w.WriteHeader(status)
}

func (s *Service) fail(w http.ResponseWriter, err error) {
	if errors.Is(err, ErrUnknownProduct) {
		problem.Write(w, http.StatusNotFound, "unknown-product", "There is no such product", "", nil)
		return
	}
	s.log.Error("the catalogue cannot answer", "err", err)
	problem.Internal(err, "The catalogue cannot answer").Send(w)
}
