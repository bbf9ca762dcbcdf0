package pgsim

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/internal/jsonhttp"
	"github.com/settledev/settle/txn"
)

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	up := func(pattern string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if s.gate.Up(w) {
				h(w, r)
			}
		})
	}
	up("POST /v1/authorizations", s.postAuthorization)
	up("POST /v1/authorizations/{reference}/capture", s.postCapture)
	up("POST /v1/authorizations/{reference}/void", s.postVoid)
	up("POST /v1/refunds", s.postRefund)
	up("GET /v1/authorizations/{reference}", func(w http.ResponseWriter, r *http.Request) { s.get(w, r, kindAuthorization) })
	up("GET /v1/refunds/{reference}", func(w http.ResponseWriter, r *http.Request) { s.get(w, r, kindRefund) })
	up("GET /v1/ledger", s.getLedger)
	up("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		jsonhttp.Answer{Status: http.StatusOK, Body: map[string]string{"status": "ok"}}.Send(w)
	})
	mux.HandleFunc("GET /v1/faults", func(w http.ResponseWriter, _ *http.Request) {
		jsonhttp.Answer{Status: http.StatusOK, Body: s.Faults()}.Send(w)
	})
	mux.HandleFunc("PUT /v1/faults", s.putFaults)
	mux.HandleFunc("GET /v1/webhook", s.getWebhook)
	mux.HandleFunc("PUT /v1/webhook", s.putWebhook)
	return mux
}

// amountJSON is money as a request states it. contract.Money's own form ignores unknown fields and
// takes "0" of no currency, which a request may not.
type amountJSON struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

func (a amountJSON) money() (contract.Money, *jsonhttp.Problem) {
	if len(a.Amount) > ReferenceBytesMax {
		return contract.Money{}, jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeAmountMalformed,
			"an amount of %d bytes, %d allowed", len(a.Amount), ReferenceBytesMax)
	}
	m, err := contract.ParseMoney(a.Amount, a.Currency)
	if err != nil {
		return m, jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeAmountMalformed, "%v", err)
	}
	if m.Minor() <= 0 {
		return m, jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeAmountTooSmall, "amount %s must be positive", m)
	}
	return m, nil
}

// checkName refuses a name that is empty, too long, or not of visible ASCII characters.
func checkName(field, name string) *jsonhttp.Problem {
	if name == "" || len(name) > ReferenceBytesMax {
		return jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeInvalid, "%s has %d bytes, 1 to %d allowed",
			field, len(name), ReferenceBytesMax)
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeInvalid, "%s has the character %q at byte %d",
				field, name[i], i)
		}
	}
	return nil
}

// first returns the first problem that there is.
func first(problems ...*jsonhttp.Problem) *jsonhttp.Problem {
	for _, p := range problems {
		if p != nil {
			return p
		}
	}
	return nil
}

type authorizationJSON struct {
	Reference  string     `json:"reference"`
	Amount     amountJSON `json:"amount"`
	CustomerID string     `json:"customerId"`
}

// check reads the request's values. A guest has no customer id.
func (j authorizationJSON) check(key string) (authorization, *jsonhttp.Problem) {
	amount, bad := j.Amount.money()
	a := authorization{reference: j.Reference, key: key, customer: j.CustomerID, amount: amount}
	if key == "" {
		return a, jsonhttp.NewProblem(http.StatusBadRequest, codeKeyMissing, "the header Idempotency-Key is required")
	}
	var customer *jsonhttp.Problem
	if j.CustomerID != "" {
		customer = checkName("customerId", j.CustomerID)
	}
	return a, first(checkName("Idempotency-Key", key), checkName("reference", j.Reference), customer, bad)
}

func (s *Server) postAuthorization(w http.ResponseWriter, r *http.Request) {
	var j authorizationJSON
	if p := jsonhttp.Decode(w, r, BodyBytesMax, &j); p != nil {
		p.Answer().Send(w)
		return
	}
	a, p := j.check(r.Header.Get("Idempotency-Key"))
	if p != nil {
		p.Answer().Send(w)
		return
	}
	s.effect(w, r, "authorize", a.reference, func(ctx context.Context, tx *txn.Tx) (jsonhttp.Answer, error) {
		return s.authorize(ctx, tx, a)
	})
}

func (s *Server) postCapture(w http.ResponseWriter, r *http.Request) {
	var j struct {
		Amount amountJSON `json:"amount"`
	}
	if p := jsonhttp.Decode(w, r, BodyBytesMax, &j); p != nil {
		p.Answer().Send(w)
		return
	}
	reference := r.PathValue("reference")
	amount, bad := j.Amount.money()
	if p := first(checkName("reference", reference), bad); p != nil {
		p.Answer().Send(w)
		return
	}
	s.effect(w, r, "capture", reference, func(ctx context.Context, tx *txn.Tx) (jsonhttp.Answer, error) {
		return s.capture(ctx, tx, reference, amount)
	})
}

func (s *Server) postVoid(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		if p := jsonhttp.Decode(w, r, BodyBytesMax, &struct{}{}); p != nil {
			p.Answer().Send(w)
			return
		}
	}
	reference := r.PathValue("reference")
	if p := checkName("reference", reference); p != nil {
		p.Answer().Send(w)
		return
	}
	s.effect(w, r, "void", reference, func(ctx context.Context, tx *txn.Tx) (jsonhttp.Answer, error) {
		return s.void(ctx, tx, reference)
	})
}

type refundJSON struct {
	Reference     string     `json:"reference"`
	Authorization string     `json:"authorization"`
	Amount        amountJSON `json:"amount"`
}

// check reads the request's values.
func (j refundJSON) check() (refund, *jsonhttp.Problem) {
	amount, bad := j.Amount.money()
	var authorization *jsonhttp.Problem
	if j.Authorization != "" {
		authorization = checkName("authorization", j.Authorization)
	}
	return refund{j.Reference, j.Authorization, amount}, first(checkName("reference", j.Reference), authorization, bad)
}

func (s *Server) postRefund(w http.ResponseWriter, r *http.Request) {
	var j refundJSON
	if p := jsonhttp.Decode(w, r, BodyBytesMax, &j); p != nil {
		p.Answer().Send(w)
		return
	}
	req, p := j.check()
	if p != nil {
		p.Answer().Send(w)
		return
	}
	s.effect(w, r, "refund", req.reference, func(ctx context.Context, tx *txn.Tx) (jsonhttp.Answer, error) {
		return s.refund(ctx, tx, req)
	})
}

// effect runs fn in one transaction, through the faults.
func (s *Server) effect(w http.ResponseWriter, r *http.Request, operation, reference string,
	fn func(context.Context, *txn.Tx) (jsonhttp.Answer, error),
) {
	s.gate.Serve(w, r, operation, reference, func(ctx context.Context) jsonhttp.Answer {
		return s.answer(ctx, operation, func(ctx context.Context) (answer jsonhttp.Answer, err error) {
			err = s.run.Run(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
				answer, err = fn(ctx, tx)
				return err
			})
			return answer, err
		})
	})
}

// answer bounds the time of fn and makes an answer of its error.
func (s *Server) answer(ctx context.Context, what string, fn func(context.Context) (jsonhttp.Answer, error)) jsonhttp.Answer {
	ctx, cancel := context.WithTimeout(ctx, effectTimeout)
	defer cancel()
	answer, err := fn(ctx)
	if err == nil {
		return answer
	}
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return refused.problem.Answer()
	}
	s.cfg.Logger.Error("gateway ledger failed", "operation", what, "err", err)
	answer = jsonhttp.NewProblem(http.StatusInternalServerError, codeLedgerFailed, "%s: the ledger failed", what).Answer()
	answer.RetryAfter = time.Second
	return answer
}
