package catalog

import (
	"context"
	"fmt"
	"net/http"

	"github.com/settledev/settle/shop/internal/lookup"
)

const lookupPath = "/internal/products/lookup"

// LookupRoute is the route at which a process with the catalogue serves [Service.Lookup]. Unlike those of
// Handler it is for other services, not for the gateway to pass on.
const LookupRoute = "POST " + lookupPath

// Lookup answers [Client.Products].
func (s *Service) Lookup() http.Handler { return lookup.Handler(s.Products) }

// Client asks the catalogue in another process.
type Client struct {
	http        *http.Client
	base, token string
}

// NewClient returns a client for the catalogue at a base URL, which is let in by the operator's token.
func NewClient(client *http.Client, base, token string) *Client {
	return &Client{http: client, base: base, token: token}
}

// Products returns those of ids that the catalogue has.
func (c *Client) Products(ctx context.Context, ids []string) (map[string]Product, error) {
	found, err := lookup.Ask[Product](ctx, c.http, c.base+lookupPath, c.token, ids)
	if err != nil {
		return nil, fmt.Errorf("catalog: ask for %d products: %w", len(ids), err)
	}
	return found, nil
}
