package platformsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/settledev/settle/shop/internal/jsonhttp"
	"github.com/settledev/settle/txn"
)

// Codes of refusals.
const (
	codeInvalid    = "INVALID"
	codeKey        = "IDEMPOTENCY_KEY_MISMATCH"
	codeReused     = "EVENT_ID_REUSED"
	codeLedgerFail = "LEDGER_FAILED"
)

// delivery is the body of a request.
type delivery struct {
	EventID   string          `json:"eventId"`
	Kind      string          `json:"kind"`
	Reference string          `json:"reference"`
	Data      json.RawMessage `json:"data"`
}

func (d *delivery) check(key string) *jsonhttp.Problem {
	invalid := func(detail string, args ...any) *jsonhttp.Problem {
		return jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeInvalid, detail, args...)
	}
	if p := checkName("eventId", d.EventID); p != nil {
		return p
	}
	if p := checkName("reference", d.Reference); p != nil {
		return p
	}
	switch d.Kind {
	case "order", "reservation", "message":
	default:
		return invalid("kind %.40q is not order, reservation or message", d.Kind)
	}
	if !bytes.HasPrefix(d.Data, []byte("{")) {
		return invalid("data must be an object")
	}
	if key != d.EventID {
		return jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeKey,
			"the header Idempotency-Key %.130q must be the event id %q", key, d.EventID)
	}
	return nil
}

// checkName refuses a name that is empty, too long, or not of visible ASCII characters.
func checkName(field, name string) *jsonhttp.Problem {
	if name == "" || len(name) > NameBytesMax {
		return jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeInvalid, "%s has %d bytes, 1 to %d allowed",
			field, len(name), NameBytesMax)
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeInvalid, "%s has the character %q at byte %d",
				field, name[i], i)
		}
	}
	return nil
}

func (s *Server) postDelivery(w http.ResponseWriter, r *http.Request) {
	var d delivery
	p := jsonhttp.Decode(w, r, BodyBytesMax, &d)
	if p == nil {
		p = d.check(r.Header.Get("Idempotency-Key"))
	}
	if p != nil {
		p.Answer().Send(w)
		return
	}
	s.gate.Serve(w, r, "deliver", d.EventID, func(ctx context.Context) jsonhttp.Answer {
		return s.answer(ctx, "deliver", func(ctx context.Context) (answer jsonhttp.Answer, err error) {
			err = s.run.Run(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
				answer, err = receive(ctx, tx, &d)
				return err
			})
			return answer, err
		})
	})
}

// receive is one statement when the event id is new.
func receive(ctx context.Context, tx *txn.Tx, d *delivery) (jsonhttp.Answer, error) {
	answer := func(duplicate bool) jsonhttp.Answer {
		return jsonhttp.Answer{Status: http.StatusAccepted, Body: struct {
			Duplicate bool `json:"duplicate"`
		}{duplicate}}
	}
	n, err := tx.Exec(ctx, `INSERT INTO platform_deliveries (event_id, kind, reference, deliveries)
VALUES (?, ?, ?, 1) ON CONFLICT DO NOTHING`, d.EventID, d.Kind, d.Reference)
	if err != nil || n == 1 {
		return answer(false), err
	}
	n, err = tx.Exec(ctx, `UPDATE platform_deliveries SET deliveries = deliveries + 1
WHERE event_id = ? AND kind = ? AND reference = ?`, d.EventID, d.Kind, d.Reference)
	if err != nil || n == 1 {
		return answer(true), err
	}
	return jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeReused,
		"event id %q was delivered with another kind or reference", d.EventID).Answer(), nil
}

type ledgerItem struct {
	EventID    string `json:"eventId"`
	Kind       string `json:"kind"`
	Reference  string `json:"reference"`
	Deliveries int64  `json:"deliveries"`
}

type ledgerPage struct {
	Items []ledgerItem `json:"items"`
	Next  string       `json:"next,omitempty"`
}

func (s *Server) getLedger(w http.ResponseWriter, r *http.Request) {
	limit, p := jsonhttp.Limit(r, LedgerPageDefault, LedgerPageMax)
	if p != nil {
		p.Answer().Send(w)
		return
	}
	after := r.URL.Query().Get("after")
	s.answer(context.WithoutCancel(r.Context()), "ledger", func(ctx context.Context) (jsonhttp.Answer, error) {
		page, err := s.page(ctx, after, limit)
		return jsonhttp.Answer{Status: http.StatusOK, Body: page}, err
	}).Send(w)
}

func (s *Server) page(ctx context.Context, after string, limit int) (page ledgerPage, err error) {
	err = s.view(ctx, func() { page = ledgerPage{Items: make([]ledgerItem, 0, limit)} }, func(rows txn.Rows) error {
		var i ledgerItem
		if err := rows.Scan(&i.EventID, &i.Kind, &i.Reference, &i.Deliveries); err != nil {
			return err
		}
		if len(page.Items) == limit {
			page.Next = page.Items[limit-1].EventID
			return nil
		}
		page.Items = append(page.Items, i)
		return nil
		// One more than asked for says whether there is another page.
	}, `SELECT event_id, kind, reference, deliveries FROM platform_deliveries
WHERE event_id > ? ORDER BY event_id LIMIT ?`, after, limit+1)
	return page, err
}

// getStats counts the whole ledger each time: about 10 ms for 100,000 rows.
func (s *Server) getStats(w http.ResponseWriter, r *http.Request) {
	s.answer(context.WithoutCancel(r.Context()), "stats", func(ctx context.Context) (jsonhttp.Answer, error) {
		var stats struct {
			Received   int64 `json:"received"`
			Duplicates int64 `json:"duplicates"`
		}
		err := s.view(ctx, func() {}, func(rows txn.Rows) error { return rows.Scan(&stats.Received, &stats.Duplicates) },
			"SELECT COUNT(*), COALESCE(SUM(deliveries - 1), 0) FROM platform_deliveries")
		return jsonhttp.Answer{Status: http.StatusOK, Body: stats}, err
	}).Send(w)
}

// view runs a query and calls each for its rows, after begin, which may be called again with all that
// follows it when a transaction is.
func (s *Server) view(ctx context.Context, begin func(), each func(txn.Rows) error, query string, args ...any) error {
	read := func(ctx context.Context, r reader) (err error) {
		begin()
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
	if s.reads != nil {
		return read(ctx, s.reads)
	}
	return s.run.Run(ctx, func(ctx context.Context, tx *txn.Tx) error { return read(ctx, tx) })
}

// answer bounds the time of fn and makes an answer of its error.
func (s *Server) answer(ctx context.Context, what string, fn func(context.Context) (jsonhttp.Answer, error)) jsonhttp.Answer {
	ctx, cancel := context.WithTimeout(ctx, effectTimeout)
	defer cancel()
	answer, err := fn(ctx)
	if err == nil {
		return answer
	}
	s.logger.Error("platform ledger failed", "operation", what, "err", err)
	return jsonhttp.NewProblem(http.StatusInternalServerError, codeLedgerFail, "%s: the ledger failed", what).Answer()
}
