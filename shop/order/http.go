package order

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/txn"
)

// BodyBytesMax bounds the body of a request.
const BodyBytesMax = 1 << 20

// Handler serves the service's routes. It authenticates nobody: the gateway in front lets only operators
// through to /import and /internal. GET /orders/{id} has no timeline, which is the gateway's to add.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", post(s, s.postOrder))
	mux.HandleFunc("GET /orders/{id}", s.getOrder)
	mux.HandleFunc("POST /orders/{id}/cancel", post(s, s.postCancel))
	mux.HandleFunc("GET /customers/{id}/orders", s.getCustomerOrders)
	mux.HandleFunc("POST /returns", post(s, s.postReturn))
	mux.HandleFunc("POST /import/orders", post(s, s.postImport))
	mux.HandleFunc("POST /import/returns", post(s, s.postImportReturn))
	mux.HandleFunc("GET /internal/orders", list(s, s.List))
	mux.HandleFunc("GET /internal/returns", list(s, s.Returns))
	return mux
}

// money is an amount in a request; the decoder is as strict inside it as outside.
type money struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

type placeItem struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"`
}

type importItem struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"`
	UnitPrice *price `json:"unitPrice"`
}

// price is a unit price in a request, as a string or as a number, in both cases exact.
type price struct{ contract.Price }

// UnmarshalJSON reads a decimal that is short enough to be a price.
func (p *price) UnmarshalJSON(b []byte) (err error) {
	text := string(b)
	if n := len(text); n > 1 && text[0] == '"' {
		text = text[1 : n-1]
	}
	p.Price, err = contract.ParsePrice(text)
	return err
}

type placeRequest struct {
	CustomerID string      `json:"customerId"`
	Items      []placeItem `json:"items"`
	Total      *money      `json:"total"`
}

type returnRequest struct {
	OrderID string      `json:"orderId"`
	Items   []placeItem `json:"items"`
}

type importRequest struct {
	Reference  string       `json:"reference"`
	CustomerID string       `json:"customerId"`
	Currency   string       `json:"currency"`
	Items      []importItem `json:"items"`
	Total      *money       `json:"total"`
}

type importReturnRequest struct {
	Reference  string       `json:"reference"`
	CustomerID string       `json:"customerId"`
	Currency   string       `json:"currency"`
	Items      []importItem `json:"items"`
}

func placeItems(in []placeItem) []Item {
	out := make([]Item, len(in))
	for i, it := range in {
		out[i] = Item{ProductID: it.ProductID, Quantity: it.Quantity}
	}
	return out
}

func importItems(in []importItem) []Item {
	out := make([]Item, len(in))
	for i, it := range in {
		out[i] = Item{ProductID: it.ProductID, Quantity: it.Quantity}
		if it.UnitPrice != nil {
			out[i].UnitPrice = &it.UnitPrice.Price
		}
	}
	return out
}

func (m *money) parse() (*contract.Money, error) {
	if m == nil {
		return nil, nil
	}
	v, err := contract.ParseMoney(m.Amount, m.Currency)
	if err != nil {
		return nil, malformed("total: " + err.Error())
	}
	return &v, nil
}

// hop is the transaction of a command that has passed its checks: it returns the answer's body, and what
// it is about.
type hop func(ctx context.Context, tx *txn.Tx) (body any, location string, err error)

func (s *Service) postOrder(ctx context.Context, _ *http.Request, q placeRequest) (hop, error) {
	total, err := q.Total.parse()
	if err != nil {
		return nil, err
	}
	a, err := s.checkPlace(ctx, Place{CustomerID: q.CustomerID, Items: placeItems(q.Items), Total: total})
	return s.placeHop(a), err
}

func (s *Service) postImport(ctx context.Context, _ *http.Request, q importRequest) (hop, error) {
	total, err := q.Total.parse()
	if err != nil {
		return nil, err
	}
	a, err := s.checkImport(ctx, Import{
		Place:     Place{CustomerID: q.CustomerID, Items: importItems(q.Items), Total: total},
		Reference: q.Reference, Currency: q.Currency,
	})
	return s.placeHop(a), err
}

func (s *Service) placeHop(a accepted) hop {
	return func(ctx context.Context, tx *txn.Tx) (any, string, error) {
		p, err := s.place(ctx, tx, a)
		return p, "/orders/" + p.ID, err
	}
}

func (s *Service) postCancel(_ context.Context, r *http.Request, _ struct{}) (hop, error) {
	id := r.PathValue("id")
	return func(ctx context.Context, tx *txn.Tx) (any, string, error) {
		c, err := s.cancel(ctx, tx, id)
		return c, "/orders/" + id, err
	}, nil
}

func (s *Service) postReturn(_ context.Context, _ *http.Request, q returnRequest) (hop, error) {
	items := placeItems(q.Items)
	if err := checkItems(items); err != nil {
		return nil, err
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, tx *txn.Tx) (any, string, error) {
		r, err := s.returnOf(ctx, tx, id, Return{OrderID: q.OrderID, Items: items})
		return r, "/orders/" + q.OrderID, err
	}, nil
}

func (s *Service) postImportReturn(ctx context.Context, _ *http.Request, q importReturnRequest) (hop, error) {
	a, err := s.checkImportReturn(ctx, ImportReturn{
		Reference: q.Reference, CustomerID: q.CustomerID, Currency: q.Currency, Items: importItems(q.Items),
	})
	return func(ctx context.Context, tx *txn.Tx) (any, string, error) {
		r, err := s.insertReturn(ctx, tx, a)
		return r, "", err
	}, err
}

// post serves a command: it reads the request strictly, lets check refuse it, and runs its hop with the
// answer under the request's idempotency key.
func post[Q any](s *Service, check func(context.Context, *http.Request, Q) (hop, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !contract.IsName(r.URL.Path) { // It is part of what an answer is kept under.
			s.refuse(w, r, unknownOrder(r.URL.Path))
			return
		}
		body, err := readBody(w, r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		key, err := idempotency.NewRequest(r, r.URL.Path, s.cfg.Principal(r), body)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		var q Q
		var run hop
		if err = decode(body, &q); err == nil {
			run, err = check(r.Context(), r, q)
		}
		if err != nil {
			if key.Key == "" {
				s.refuse(w, r, err)
				return
			}
			// The key's first answer stands, whatever the catalogue says today; the keeper looks for it first.
			refused := err
			run = func(context.Context, *txn.Tx) (any, string, error) { return nil, "", refused }
		}
		answer, replayed, err := s.answer(r.Context(), key, run)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		answer.Write(w, replayed)
	}
}

// answer runs a hop and makes its answer, in one transaction.
func (s *Service) answer(ctx context.Context, key idempotency.Request, run hop) (a idempotency.Answer, replayed bool, err error) {
	make202 := func(ctx context.Context, tx *txn.Tx) (idempotency.Answer, error) {
		v, location, err := run(ctx, tx)
		if err != nil {
			return idempotency.Answer{}, err
		}
		body, err := json.Marshal(v)
		if err != nil {
			return idempotency.Answer{}, err
		}
		header := map[string]string{"Content-Type": "application/json"}
		if location != "" {
			header["Location"] = location
		}
		return idempotency.Answer{Status: http.StatusAccepted, Header: header, Body: append(body, '\n')}, nil
	}
	switch {
	case s.keeper != nil:
		return s.keeper.Do(ctx, key, make202)
	case key.Key != "":
		return a, false, problem.New(http.StatusNotImplemented, "idempotency-key-unsupported", "Idempotency-Key is not supported here",
			"the store keeps no answers", nil)
	}
	err = s.Do(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		a, err = make202(ctx, tx)
		return err
	})
	return a, false, err
}

// readBody reads the whole body, so that the connection can be used again.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, BodyBytesMax))
	if err == nil {
		return body, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, problem.New(http.StatusRequestEntityTooLarge, "body-too-large", "The request is too large",
			fmt.Sprintf("%d bytes are allowed", BodyBytesMax), nil)
	}
	return nil, malformed("the body could not be read to its end")
}

// decode reads one JSON value of the request's form and nothing else. An empty body is an empty object.
func decode(body []byte, dst any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		// encoding/json has no type for this error; a test pins its text.
		if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return problem.New(http.StatusBadRequest, "unknown-field", "The request has a field that is not known", fmt.Sprintf("%.80s", field), nil)
		}
		return malformed(fmt.Sprintf("%.200s", err.Error()))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return malformed("the body goes on after its first value")
	}
	return nil
}

func malformed(detail string) *problem.Problem {
	return problem.New(http.StatusBadRequest, "malformed-json", "The request is not the JSON that is expected", detail, nil)
}

func (s *Service) getOrder(w http.ResponseWriter, r *http.Request) {
	v, err := s.View(r.Context(), r.PathValue("id"))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	v.Facts = nil
	w.Header().Set("Cache-Control", "no-store")
	page.Write(w, http.StatusOK, v)
}

func (s *Service) getCustomerOrders(w http.ResponseWriter, r *http.Request) {
	list(s, func(ctx context.Context, ask page.Ask) (page.Page[View], error) {
		return s.CustomerOrders(ctx, r.PathValue("id"), ask)
	})(w, r)
}

// list serves a list as pages.
func list[T any](s *Service, get func(context.Context, page.Ask) (page.Page[T], error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ask, err := page.Parse(r)
		if err != nil {
			s.refuse(w, r, badPage(err))
			return
		}
		p, err := get(r.Context(), ask)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		page.Write(w, http.StatusOK, p)
	}
}

func badPage(err error) *problem.Problem {
	return problem.New(http.StatusBadRequest, "bad-page", "The page cannot be read", err.Error(), nil)
}

// refuse answers with the problem that err is.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if p, ok := problem.As(err); ok {
		p.Send(w)
		return
	}
	p := problem.Internal(err, "The request could not be handled")
	switch limit, tooLarge := errors.AsType[*event.LimitError](err); {
	case errors.Is(err, errCursor):
		p = badPage(err)
	case tooLarge:
		p = refuse("order-too-large", "The order is too large", "%d bytes, %d allowed", limit.Got, limit.Max)
	case errors.Is(err, idempotency.ErrKey):
		p = problem.New(http.StatusBadRequest, "idempotency-key-invalid", "The Idempotency-Key is not usable", err.Error(), nil)
	case errors.Is(err, idempotency.ErrMismatch):
		p = refuse("idempotency-key-mismatch", "The Idempotency-Key was used for another request", "")
	case errors.Is(err, idempotency.ErrInFlight):
		p = problem.New(http.StatusConflict, "idempotency-key-in-progress", "The first request with this Idempotency-Key is still running", "", nil)
		p.RetryAfter = idempotency.RetryAfter
	case r.Context().Err() != nil: // The client has gone: nobody reads the answer.
		p = problem.New(http.StatusServiceUnavailable, "canceled", "The request was canceled", "", nil)
	default:
		s.log.Error("request could not be handled", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	p.Send(w)
}
