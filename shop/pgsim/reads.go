package pgsim

import (
	"context"
	"errors"
	"net/http"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/internal/jsonhttp"
	"github.com/settledev/settle/txn"
)

// reader is what reads need: a transaction has it, and a ledger may have it besides, for queries that
// need no turn of its writer and see all that is committed.
type reader interface {
	Query(ctx context.Context, query string, args ...any) (txn.Rows, error)
}

// read answers with what fn reads, as of one moment for each query.
func (s *Server) read(ctx context.Context, what string, fn func(context.Context, reader) (jsonhttp.Answer, error)) jsonhttp.Answer {
	return s.answer(ctx, what, func(ctx context.Context) (answer jsonhttp.Answer, err error) {
		err = s.view(ctx, func(ctx context.Context, r reader) (err error) {
			answer, err = fn(ctx, r)
			return err
		})
		return answer, err
	})
}

// view runs fn with the ledger's reader, or in a transaction where there is none.
func (s *Server) view(ctx context.Context, fn func(context.Context, reader) error) error {
	if s.reads != nil {
		return fn(ctx, s.reads)
	}
	return s.run.Run(ctx, func(ctx context.Context, tx *txn.Tx) error { return fn(ctx, tx) })
}

// scan calls each for every row of a query and closes the rows.
func scan(ctx context.Context, r reader, each func(txn.Rows) error, query string, args ...any) (err error) {
	rows, err := r.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// get answers what an authorization or a refund is now.
func (s *Server) get(w http.ResponseWriter, r *http.Request, kind string) {
	reference := r.PathValue("reference")
	s.gate.Serve(w, r, "lookup", reference, func(ctx context.Context) jsonhttp.Answer {
		return s.read(ctx, "lookup", func(ctx context.Context, r reader) (jsonhttp.Answer, error) {
			e, found, err := find(ctx, r, reference)
			if err != nil || !found || e.kind != kind {
				return jsonhttp.NewProblem(http.StatusNotFound, codeNotFound, "no %s has this reference", kind).Answer(), err
			}
			return jsonhttp.Answer{Status: http.StatusOK, Body: e.state()}, nil
		})
	})
}

// ledgerItem is an entry as the ledger shows it. What an authorization's refunds gave back is shown
// by it and by each of them: sum the items of kind refund.
type ledgerItem struct {
	Reference  string `json:"reference"`
	Kind       string `json:"kind"`
	Status     string `json:"status"`
	Authorized string `json:"authorized"`
	Captured   string `json:"captured"`
	Voided     string `json:"voided"`
	Refunded   string `json:"refunded"`
	Code       string `json:"code"`
	Calls      int64  `json:"calls"`
}

type ledgerPage struct {
	Items []ledgerItem `json:"items"`
	Next  string       `json:"next,omitempty"`
}

func (e *entry) item() ledgerItem {
	// The tombstone of a void has no currency, and every book has two digits.
	amount := func(minor int64) string { return contract.NewMoney(minor, e.currency).Decimal().StringFixed(2) }
	return ledgerItem{
		Reference: e.reference, Kind: e.kind, Status: e.status, Code: e.code, Calls: e.calls,
		Authorized: amount(e.authorized), Captured: amount(e.captured), Voided: amount(e.voided), Refunded: amount(e.refund),
	}
}

// getLedger answers a page of the ledger. A page is one transaction, two pages are two: a reader that
// compares books does so when all is quiet.
func (s *Server) getLedger(w http.ResponseWriter, r *http.Request) {
	limit, p := jsonhttp.Limit(r, LedgerPageDefault, LedgerPageMax)
	if p != nil {
		p.Answer().Send(w)
		return
	}
	after := r.URL.Query().Get("after")
	s.read(context.WithoutCancel(r.Context()), "ledger", func(ctx context.Context, r reader) (jsonhttp.Answer, error) {
		page, err := readPage(ctx, r, after, limit)
		return jsonhttp.Answer{Status: http.StatusOK, Body: page}, err
	}).Send(w)
}

func readPage(ctx context.Context, r reader, after string, limit int) (ledgerPage, error) {
	page := ledgerPage{Items: make([]ledgerItem, 0, limit)}
	err := scan(ctx, r, func(rows txn.Rows) error {
		var e entry
		if err := rows.Scan(e.fields()...); err != nil {
			return err
		}
		if len(page.Items) == limit {
			page.Next = page.Items[limit-1].Reference
			return nil
		}
		page.Items = append(page.Items, e.item())
		return nil
		// One more than asked for says whether there is another page.
	}, selectEntry+"WHERE reference > ? ORDER BY reference LIMIT ?", after, limit+1)
	return page, err
}

func (s *Server) putFaults(w http.ResponseWriter, r *http.Request) {
	var f Faults
	if p := jsonhttp.Decode(w, r, BodyBytesMax, &f); p != nil {
		p.Answer().Send(w)
		return
	}
	if err := s.SetFaults(f); err != nil {
		jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeInvalid, "%v", err).Answer().Send(w)
		return
	}
	jsonhttp.Answer{Status: http.StatusOK, Body: s.Faults()}.Send(w)
}

type webhookJSON struct {
	URL    string `json:"url"`
	Queued int64  `json:"queued"`
}

func (s *Server) getWebhook(w http.ResponseWriter, r *http.Request) {
	s.read(context.WithoutCancel(r.Context()), "webhook", func(ctx context.Context, r reader) (jsonhttp.Answer, error) {
		j := webhookJSON{URL: s.WebhookURL()}
		err := scan(ctx, r, func(rows txn.Rows) error { return rows.Scan(&j.Queued) },
			"SELECT COALESCE(SUM(copies), 0) FROM pg_webhooks")
		return jsonhttp.Answer{Status: http.StatusOK, Body: j}, err
	}).Send(w)
}

func (s *Server) putWebhook(w http.ResponseWriter, r *http.Request) {
	var j struct {
		URL string `json:"url"`
	}
	if p := jsonhttp.Decode(w, r, BodyBytesMax, &j); p != nil {
		p.Answer().Send(w)
		return
	}
	if err := s.SetWebhookURL(j.URL); err != nil {
		jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeInvalid, "%v", err).Answer().Send(w)
		return
	}
	s.getWebhook(w, r)
}
