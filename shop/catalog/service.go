// Package catalog owns products and their prices, and what people think of them: views and likes.
//
// # Guarantee
//
// A like is one however often it is given, and its event is emitted once. Prices are decimals.
//
// # What this package does not do
//
// It does not know stock: how much is available comes from inventory, by [Config].Available.
package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

// ErrUnknownProduct says that the catalogue has no such product.
var ErrUnknownProduct = errors.New("unknown product")

// Config of the service.
type Config struct {
	// Service is the configuration of its engines.
	Service settle.Config
	// Available returns the free units of products; those it leaves out are not stocked. Default: nobody
	// knows, and products are shown without it.
	Available func(ctx context.Context, products []string) (map[string]int64, error)
}

// Service is the catalogue.
type Service struct {
	*settle.Service

	cfg  Config
	q    *queries
	read page.Reader
	log  *slog.Logger

	// known caches products for the validation of orders, which asks for the same ones over and over. This
	// process's own changes of a product keep it true; it is forgotten when it may lag behind another's.
	mu      sync.RWMutex
	known   map[string]Product
	knownAt time.Time
}

// knownFor bounds how long a price that another process has changed is an old one here.
const knownFor = 2 * time.Second

// Product is an article of the shop.
type Product struct {
	ID       string         `json:"id"`
	Name     string         `json:"name"`
	Price    contract.Price `json:"price"`
	Currency string         `json:"currency"`
}

// New returns the service on its own store.
func New(store settle.Store, b broker.Broker, cfg Config) (*Service, error) {
	q, err := loadQueries(store)
	if err != nil {
		return nil, err
	}
	cfg.Service.Known = contract.EventTypes()
	if cfg.Service.Logger == nil {
		cfg.Service.Logger = slog.Default()
	}
	return &Service{
		Service: settle.NewService("catalog", store, b, cfg.Service), cfg: cfg,
		q: q, read: page.ReaderOf(store), log: cfg.Service.Logger, known: map[string]Product{},
	}, nil
}

// productsPerInsert bounds the products of one statement.
const productsPerInsert = 500

// seeded is a product with the text that searches look at.
type seeded struct {
	Product

	Search string `json:"search"`
}

// Seed adds products that the catalogue does not have yet. It may be called again with the same ones.
func (s *Service) Seed(ctx context.Context, products []Product) error {
	for len(products) > 0 {
		n := min(len(products), productsPerInsert)
		rows := make([]seeded, n)
		for i, p := range products[:n] {
			// Lowered here, because SQLite's lower knows ASCII only and a query is lowered by Go.
			rows[i] = seeded{p, strings.ToLower(p.ID + " " + p.Name)}
		}
		b, err := json.Marshal(rows)
		if err != nil {
			return fmt.Errorf("catalog: seed: %w", err)
		}
		err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
			_, err := tx.Exec(ctx, s.q.insertProducts, string(b))
			return err
		})
		if err != nil {
			return fmt.Errorf("catalog: seed %d products: %w", n, err)
		}
		products = products[n:]
	}
	return nil
}

// Products returns those of ids that the catalogue has.
func (s *Service) Products(ctx context.Context, ids []string) (map[string]Product, error) {
	found := make(map[string]Product, len(ids))
	var missing []string
	s.mu.RLock()
	fresh := time.Since(s.knownAt) < knownFor
	for _, id := range ids {
		if p, ok := s.known[id]; ok && fresh {
			found[id] = p
		} else if contract.IsName(id) {
			missing = append(missing, id)
		}
	}
	s.mu.RUnlock()
	if len(missing) == 0 {
		return found, nil
	}
	b, err := json.Marshal(missing)
	if err != nil {
		return nil, err
	}
	s.mu.Lock() // Held across the read, so that a price that changes meanwhile is not overwritten by an old one.
	defer s.mu.Unlock()
	if time.Since(s.knownAt) >= knownFor {
		clear(s.known)
		s.knownAt = time.Now()
	}
	rows, err := page.Select(ctx, s.read, s.q.selectProducts, []any{string(b)}, scanProduct)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	for _, p := range rows {
		found[p.ID], s.known[p.ID] = p, p
	}
	return found, nil
}

func scanProduct(rows txn.Rows) (p Product, err error) {
	return p, rows.Scan(&p.ID, &p.Name, &p.Price, &p.Currency)
}

// SetPrice changes a product's price.
func (s *Service) SetPrice(ctx context.Context, id string, price contract.Money) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		currency, err := s.lock(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case currency != price.Currency():
			return fmt.Errorf("catalog: price of %.40q in %s: %w", id, price.Currency(), ErrUnknownProduct)
		}
		if _, err := tx.Exec(ctx, s.q.updatePrice, price.Decimal().String(), id); err != nil {
			return err
		}
		return outbox.Add(ctx, tx, contract.PriceChanged.New(contract.PriceV1{ProductID: id, Price: price}))
	})
	delete(s.known, id)
	return err
}

// View counts a view of a product.
func (s *Service) View(ctx context.Context, id, user string) error {
	return s.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		n, err := tx.Exec(ctx, s.q.addView, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("catalog: view of %.40q: %w", id, ErrUnknownProduct)
		}
		return outbox.Add(ctx, tx, contract.ProductViewed.New(contract.ProductV1{ProductID: id, UserID: user}))
	})
}

// Like stores that a user likes a product. Liking it again changes nothing.
func (s *Service) Like(ctx context.Context, id, user string) error {
	return s.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		if _, err := s.lock(ctx, tx, id); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, s.q.insertLike, id, user)
		if err != nil || n != 1 {
			return err
		}
		tx.Queue(s.q.addLikes, 1, id)
		return outbox.Add(ctx, tx, contract.ProductLiked.New(contract.ProductV1{ProductID: id, UserID: user}))
	})
}

// Unlike takes a like back. Without one it changes nothing.
func (s *Service) Unlike(ctx context.Context, id, user string) error {
	return s.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		if _, err := s.lock(ctx, tx, id); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, s.q.deleteLike, id, user)
		if err != nil || n == 0 {
			return err
		}
		tx.Queue(s.q.addLikes, -1, id)
		return outbox.Add(ctx, tx, contract.ProductUnliked.New(contract.ProductV1{ProductID: id, UserID: user}))
	})
}

// lock locks a product's row until the transaction ends, and returns the currency of its price. It comes
// first: likes refer to the row, and two that took a share of it could not both go on to count.
func (s *Service) lock(ctx context.Context, tx *txn.Tx, id string) (currency string, err error) {
	err = tx.QueryRow(ctx, s.q.lockProduct, []any{id}, &currency)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("catalog: %.40q: %w", id, ErrUnknownProduct)
	}
	return currency, err
}

// pattern returns the LIKE pattern that finds every word of a query, in order. Its escape character is one
// that no database treats specially in a literal.
func pattern(query string) string {
	escape := strings.NewReplacer(`!`, `!!`, `%`, `!%`, `_`, `!_`)
	words := strings.Fields(strings.ToLower(query))
	for i, w := range words {
		words[i] = escape.Replace(w)
	}
	return "%" + strings.Join(words, "%") + "%"
}
