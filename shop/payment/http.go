package payment

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/problem"
	"github.com/settledev/settle/shop/webhook"
	"github.com/settledev/settle/txn"
)

// webhookBytesMax bounds a webhook's body.
const webhookBytesMax = 64 << 10

// Payment is an order's payment as it stands.
type Payment struct {
	OrderID string         `json:"orderId"`
	State   State          `json:"state"`
	Amount  contract.Money `json:"amount"`
	Code    string         `json:"code,omitempty"`
}

// Refund is a return's refund as it stands.
type Refund struct {
	ReturnID string         `json:"returnId"`
	OrderID  string         `json:"orderId,omitempty"`
	State    string         `json:"state"`
	Amount   contract.Money `json:"amount"`
	Code     string         `json:"code,omitempty"`
}

// Handler serves the service's routes: the gateway's webhooks, and lists for operators.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /webhooks/payments", s.webhook)
	mux.Handle("GET /internal/payments", page.List(s.read, s.q.listPayments, scanPayment, func(v Payment) string { return v.OrderID }))
	mux.Handle("GET /internal/refunds", page.List(s.read, s.q.listRefunds, scanRefund, func(v Refund) string { return v.ReturnID }))
	return mux
}

func scanPayment(rows txn.Rows) (v Payment, err error) {
	var minor int64
	var currency string
	err = rows.Scan(&v.OrderID, &v.State, &minor, &currency, &v.Code)
	v.Amount = contract.NewMoney(minor, currency)
	return v, err
}

func scanRefund(rows txn.Rows) (v Refund, err error) {
	var minor int64
	var currency string
	err = rows.Scan(&v.ReturnID, &v.OrderID, &v.State, &minor, &currency, &v.Code)
	v.Amount = contract.NewMoney(minor, currency)
	return v, err
}

// webhook takes a hint of the gateway. It is never believed: what it says is looked up under its
// reference, once for each webhook id.
func (s *Service) webhook(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, webhookBytesMax))
	if err != nil {
		problem.Write(w, http.StatusRequestEntityTooLarge, "body-too-large", "The webhook is too large", "", nil)
		return
	}
	if err := webhook.Verify(s.cfg.WebhookSecret, r.Header, body, time.Now()); err != nil {
		problem.Write(w, http.StatusUnauthorized, "bad-signature", "The webhook's signature is not valid", "", nil)
		return
	}
	var hint struct {
		Type string `json:"type"`
		Data struct {
			Reference string `json:"reference"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &hint); err != nil || hint.Data.Reference == "" || !contract.IsName(hint.Data.Reference) {
		problem.Write(w, http.StatusBadRequest, "malformed-json", "The webhook names no reference", "", nil)
		return
	}
	// Only an open question is worth asking about, and one that was closed stays so: most webhooks tell of
	// what is recorded already and cost one read.
	open, err := page.Select(r.Context(), s.read, s.q.selectOpen, []any{hint.Data.Reference}, func(rows txn.Rows) (n int, err error) {
		return n, rows.Scan(&n)
	})
	if err == nil && len(open) > 0 {
		err = s.ask(r.Context(), webhook.ID(r.Header), hint.Data.Reference)
	}
	if err != nil {
		s.log.Error("webhook cannot be stored", "aggregate_id", hint.Data.Reference, "err", err)
		problem.Internal(err, "The webhook cannot be stored").Send(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// ask prepares the lookup of a reference, once for each webhook id.
func (s *Service) ask(ctx context.Context, id, reference string) error {
	return s.Do(ctx, func(ctx context.Context, tx *txn.Tx) error {
		n, err := tx.Exec(ctx, s.q.insertWebhook, id, tx.Now().UnixMilli())
		if err != nil || n != 1 {
			return err // Seen before: there is nothing to do.
		}
		return call.Prepare(ctx, tx, s.lookup, "hint:"+id, contract.OrderRefV1{OrderID: reference})
	})
}
