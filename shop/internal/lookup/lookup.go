// Package lookup lets one service ask another one, in another process, what it knows of many things:
//
//	mux.Handle("POST /internal/products/lookup", lookup.Handler(catalog.Products))
//	found, err := lookup.Ask[catalog.Product](ctx, client, base+"/internal/products/lookup", token, ids)
//
// # Guarantee
//
// A question only reads: whoever carries it may send it again, to another instance too. What nobody knows
// is left out of the answer, and an answer that did not arrive whole is an error.
//
// # What this package does not do
//
// It caches nothing and tries nothing again: that is its client's business.
package lookup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"

	"github.com/settledev/settle/shop/internal/jsonhttp"
)

// Bounds of a question and of its answer.
const (
	IDsMax           = 5000
	bodyBytesMax     = 1 << 20
	answerBytesMax   = 16 << 20
	codeTooMany      = "TOO_MANY_IDS"
	codeUnavailable  = "LOOKUP_FAILED"
	refusalBytesKept = 300
)

type question struct {
	IDs []string `json:"ids"`
}

type answer[T any] struct {
	Items map[string]T `json:"items"`
}

// Handler answers questions by find.
func Handler[T any](find func(ctx context.Context, ids []string) (map[string]T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q question
		if p := jsonhttp.Decode(w, r, bodyBytesMax, &q); p != nil {
			p.Answer().Send(w)
			return
		}
		if len(q.IDs) > IDsMax {
			jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeTooMany, "%d ids, %d allowed", len(q.IDs), IDsMax).Answer().Send(w)
			return
		}
		items, err := find(r.Context(), q.IDs)
		if err != nil {
			jsonhttp.NewProblem(http.StatusServiceUnavailable, codeUnavailable, "the store cannot be read").Answer().Send(w)
			return
		}
		jsonhttp.Answer{Status: http.StatusOK, Body: answer[T]{items}}.Send(w)
	})
}

// Ask sends a question, in parts when it has more than IDsMax ids.
func Ask[T any](ctx context.Context, client *http.Client, url, token string, ids []string) (map[string]T, error) {
	all := make(map[string]T, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), IDsMax)
		if err := ask(ctx, client, url, token, ids[:n], all); err != nil {
			return nil, err
		}
		ids = ids[n:]
	}
	return all, nil
}

func ask[T any](ctx context.Context, client *http.Client, url, token string, ids []string, into map[string]T) (err error) {
	body, err := json.Marshal(question{ids})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header["Idempotency-Key"] = []string{} // Sends none, and says that the request may be repeated; see net/http.
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, refusalBytesKept)) // Without it the status says enough.
		return fmt.Errorf("it answered %d: %s", resp.StatusCode, text)
	}
	a := answer[T]{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(&a); err != nil {
		return err
	}
	maps.Copy(into, a.Items)
	return nil
}
