package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/settledev/settle/shop/gateway"
)

// listing is what every command that lists has.
type listing struct {
	JSON bool `help:"Print JSON, one value a line."`
}

// print writes items as JSON lines, or as a table of the columns that row gives.
func printItems[T any](t *terminal, asJSON bool, items []T, header string, row func(T) string) error {
	if asJSON {
		e := json.NewEncoder(t.out)
		for _, item := range items {
			if err := e.Encode(item); err != nil {
				return err
			}
		}
		return nil
	}
	if len(items) == 0 {
		_, err := fmt.Fprintln(t.err, "nothing to list")
		return err
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, header)
	for _, item := range items {
		_, _ = fmt.Fprintln(w, row(item))
	}
	return w.Flush()
}

// call asks the shop as an operator, and decodes its answer into answer when that is not nil.
func (s *shopAddress) call(ctx context.Context, method, path string, query url.Values, answer any) (err error) {
	token, err := s.token()
	if err != nil {
		return err
	}
	resp, err := s.do(ctx, method, path, query, token)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var p struct{ Title, Detail string }
		if json.Unmarshal(body, &p) != nil || p.Title == "" {
			p.Title = fmt.Sprintf("%s answered %d", s.URL+path, resp.StatusCode)
		}
		if p.Detail != "" {
			p.Title += ": " + p.Detail
		}
		return errors.New(p.Title)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}

func (s *shopAddress) do(ctx context.Context, method, path string, query url.Values, token string) (*http.Response, error) {
	base, err := url.Parse(s.URL)
	if err != nil || base.Host == "" {
		return nil, usage("--url %q is no address such as http://127.0.0.1:8080", s.URL)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, usage("--url: %v", err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return http.DefaultClient.Do(req)
}

// parts is a page of a list whose parts several services have.
type parts[T any] struct {
	Items       []T                   `json:"items"`
	Next        string                `json:"next"`
	Unreachable []gateway.Unreachable `json:"unreachable"`
}

// incomplete is the error of a list that was printed without the parts of services that are away.
func incomplete(away []gateway.Unreachable) error {
	if len(away) == 0 {
		return nil
	}
	texts := map[string]bool{}
	for _, u := range away {
		texts[u.Detail] = true
	}
	return fmt.Errorf("this is not complete: %s", strings.Join(slices.Sorted(maps.Keys(texts)), "; "))
}

// list reads every page of a list, up to limit items, and which services were away.
func list[T any](ctx context.Context, s *shopAddress, path string, query url.Values, limit int) (all []T, away []gateway.Unreachable, err error) {
	for len(all) < limit {
		var page parts[T]
		query.Set("limit", fmt.Sprint(min(limit-len(all), 1000)))
		if err := s.call(ctx, http.MethodGet, path, query, &page); err != nil {
			return nil, nil, err
		}
		all, away = append(all, page.Items...), append(away, page.Unreachable...)
		if page.Next == "" {
			break
		}
		query.Set("after", page.Next)
	}
	return all, away, nil
}
