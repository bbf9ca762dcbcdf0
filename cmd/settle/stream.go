package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/settledev/settle/shop/gateway"
)

// streamCmd is settle stream.
type streamCmd struct {
	shopAddress
	listing

	Order    string `help:"Only this order's events." xor:"feed" placeholder:"ID"`
	Customer string `help:"Only the events of this customer's orders." xor:"feed" placeholder:"ID"`
	Last     string `help:"Go on after this event id." placeholder:"ID"`
}

// frameBytesMax bounds one line of the stream.
const frameBytesMax = 1 << 20

// Run follows a feed until Ctrl-C. When the connection is lost it goes on where it was.
func (c *streamCmd) Run(ctx context.Context, t *terminal) error {
	path := "/stream"
	switch {
	case c.Order != "":
		path = "/orders/" + url.PathEscape(c.Order) + "/events"
	case c.Customer != "":
		path = "/customers/" + url.PathEscape(c.Customer) + "/stream"
	}
	last := c.Last
	wait := time.Second
	for first := true; ; first = false {
		err := c.follow(ctx, t, path, &last)
		var wrong *usageError
		switch {
		case ctx.Err() != nil:
			return nil
		case first && last == c.Last, errors.As(err, &wrong):
			return err // It never worked: say so instead of trying for ever.
		}
		_, _ = fmt.Fprintf(t.err, "connection lost, trying again: %v\n", err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func (c *streamCmd) follow(ctx context.Context, t *terminal, path string, last *string) (err error) {
	query := url.Values{}
	if *last != "" {
		query.Set("lastEventId", *last)
	}
	resp, err := c.do(ctx, http.MethodGet, path, query, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s answered %d", c.URL, path, resp.StatusCode)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, frameBytesMax)
	event := ""
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			*last = value
		case "event":
			event = value
		case "data":
			if err := c.show(t, event, value); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the shop ended the stream")
}

func (c *streamCmd) show(t *terminal, event, data string) error {
	if event == "reset" {
		_, err := fmt.Fprintln(t.err, "events are missing here: the feed no longer has them")
		return err
	}
	if c.JSON {
		_, err := fmt.Fprintln(t.out, data)
		return err
	}
	var e gateway.Entry
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return err
	}
	_, err := fmt.Fprintf(t.out, "%s  %-10s %-24s %s\n", e.At.Local().Format("15:04:05.000"), e.Producer, e.Type, e.Key)
	return err
}
