package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/gateway"
)

// orderCmd is settle order.
type orderCmd struct {
	shopAddress
	listing

	ID string `arg:"" help:"The order's id."`
}

// Run shows an order and what happened to it across services.
func (c *orderCmd) Run(ctx context.Context, t *terminal) error {
	var raw json.RawMessage
	if err := c.call(ctx, http.MethodGet, "/orders/"+url.PathEscape(c.ID), nil, &raw); err != nil {
		return err
	}
	if c.JSON {
		_, err := fmt.Fprintf(t.out, "%s\n", raw)
		return err
	}
	var o struct {
		ID, State, Reason, CustomerID string
		Total                         contract.Money
		Lines                         []contract.Line
		Timeline                      []gateway.Entry
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "order\t%s\nstate\t%s %s\ncustomer\t%s\ntotal\t%s\nlines\t%d\n\nAT\tSERVICE\tEVENT\n", o.ID, o.State, o.Reason, o.CustomerID, o.Total, len(o.Lines))
	for _, e := range o.Timeline {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", e.At.Local().Format("15:04:05.000"), e.Producer, e.Type)
	}
	return w.Flush()
}

// versionCmd is settle version.
type versionCmd struct{}

// Run prints the version that the binary was built from.
func (versionCmd) Run(t *terminal) error {
	_, err := fmt.Fprintln(t.out, "settle", version())
	return err
}
