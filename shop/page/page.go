// Package page is the form of every list that the shop serves: {"items": [...], "next": "..."}, walked by
// keyset, so that a page costs the same wherever it stands and nothing is skipped while rows arrive.
package page

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/settledev/settle/shop/contract"
)

// Limits of a page.
const (
	LimitDefault = 100
	LimitMax     = 5000
)

// Page is one page of a list. Next is what to pass as after for the next one; empty at the end.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Ask is what a request asks for.
type Ask struct {
	After string
	Limit int
}

// Parse reads the query parameters after and limit.
func Parse(r *http.Request) (Ask, error) {
	a := Ask{After: r.URL.Query().Get("after"), Limit: LimitDefault}
	if !contract.IsName(a.After) {
		return a, errors.New("after is no text")
	}
	if s := r.URL.Query().Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > LimitMax {
			return a, fmt.Errorf("limit %.20q is not a number from 1 to %d", s, LimitMax)
		}
		a.Limit = n
	}
	return a, nil
}

// New makes a page of items that were selected with a.Limit; key names an item's place.
func New[T any](a Ask, items []T, key func(T) string) Page[T] {
	p := Page[T]{Items: items}
	if p.Items == nil {
		p.Items = []T{}
	}
	if len(items) == a.Limit {
		p.Next = key(items[len(items)-1])
	}
	return p
}

// Write sends a value as JSON.
func Write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // Only values of ours come here; a failure is a mistake in the program.
		http.Error(w, "cannot encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
