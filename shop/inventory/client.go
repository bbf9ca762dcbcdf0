package inventory

import (
	"context"
	"fmt"
	"net/http"

	"github.com/settledev/settle/shop/internal/lookup"
)

const lookupPath = "/internal/stock/lookup"

// LookupRoute is the route at which a process with the inventory serves [Service.Lookup]. Unlike those of
// Handler it is for other services, not for the gateway to pass on.
const LookupRoute = "POST " + lookupPath

// Lookup answers [Client.Available].
func (s *Service) Lookup() http.Handler { return lookup.Handler(s.Available) }

// Client asks the inventory in another process.
type Client struct {
	http        *http.Client
	base, token string
}

// NewClient returns a client for the inventory at a base URL, which is let in by the operator's token.
func NewClient(client *http.Client, base, token string) *Client {
	return &Client{http: client, base: base, token: token}
}

// Available returns the free units of products; a product that is not stocked is left out.
func (c *Client) Available(ctx context.Context, products []string) (map[string]int64, error) {
	found, err := lookup.Ask[int64](ctx, c.http, c.base+lookupPath, c.token, products)
	if err != nil {
		return nil, fmt.Errorf("inventory: ask for %d products: %w", len(products), err)
	}
	return found, nil
}
