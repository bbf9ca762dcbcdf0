package pgsim

import (
	"context"
	"net/http"
	"time"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/internal/jsonhttp"
	"github.com/settledev/settle/txn"
)

// capture takes amount of an authorization and releases the rest. It is one statement unless there is
// something to refuse or to repeat.
func (s *Server) capture(ctx context.Context, tx *txn.Tx, reference string, amount contract.Money) (jsonhttp.Answer, error) {
	f := s.faults.Load()
	refused := f.hit(f.CaptureRefusalPercent, "capture refusal", reference)
	if !refused {
		n, err := tx.Exec(ctx, `UPDATE pg_ledger
SET status = 'CAPTURED', captured = ?, voided = authorized - ?, calls = calls + 1
WHERE reference = ? AND kind = 'authorization' AND status = 'AUTHORIZED' AND code = '' AND currency = ? AND authorized >= ?`,
			amount.Minor(), amount.Minor(), reference, amount.Currency(), amount.Minor())
		if err != nil {
			return jsonhttp.Answer{}, err
		}
		if n == 1 {
			st := state{Reference: reference, Status: statusCaptured, Amount: amount}
			s.tell(tx, "capture.completed", st)
			return jsonhttp.Answer{Status: http.StatusOK, Body: st}, nil
		}
	}
	e, found, err := find(ctx, tx, reference)
	if err != nil {
		return jsonhttp.Answer{}, err
	}
	if !found || e.kind != kindAuthorization {
		return conflict(codeNotAuthorized, "no authorization has the reference %q", reference), nil
	}
	if err := count(ctx, tx, reference); err != nil {
		return jsonhttp.Answer{}, err
	}
	return s.captureOther(ctx, tx, &e, amount, refused)
}

// captureOther answers a capture that repeats one, or that cannot be.
func (s *Server) captureOther(ctx context.Context, tx *txn.Tx, e *entry, amount contract.Money, refused bool) (jsonhttp.Answer, error) {
	switch e.status {
	case statusCaptured:
		if e.captured != amount.Minor() || e.currency != amount.Currency() {
			return mismatch("authorization %q was captured with another amount", e.reference), nil
		}
		return jsonhttp.Answer{Status: http.StatusOK, Body: e.state()}, nil
	case statusVoided:
		return conflict(codeVoided, "authorization %q is voided", e.reference), nil
	case statusPending:
		a := jsonhttp.NewProblem(http.StatusServiceUnavailable, codePending, "authorization %q is still to be approved",
			e.reference).Answer()
		a.RetryAfter = time.Second
		return a, nil
	case statusDeclined:
		return conflict(codeNotAuthorized, "authorization %q was declined", e.reference), nil
	}
	switch {
	case e.currency != amount.Currency():
		return conflict(codeCurrency, "authorization %q is in %s, not %s", e.reference, e.currency, amount.Currency()), nil
	case e.authorized < amount.Minor():
		return conflict(codeCaptureExceeds, "authorization %q is of %s, less than %s", e.reference,
			contract.NewMoney(e.authorized, e.currency), amount), nil
	case refused && e.code == "":
		// A refusal for good stays one when the fault is switched off.
		if _, err := tx.Exec(ctx, "UPDATE pg_ledger SET code = ? WHERE reference = ?", codeCaptureRefused, e.reference); err != nil {
			return jsonhttp.Answer{}, err
		}
	}
	return conflict(codeCaptureRefused, "authorization %q is never captured, by a fault", e.reference), nil
}

// void releases an authorization. One that is not known yet is refused when it comes.
func (s *Server) void(ctx context.Context, tx *txn.Tx, reference string) (jsonhttp.Answer, error) {
	e, found, err := find(ctx, tx, reference)
	if err != nil {
		return jsonhttp.Answer{}, err
	}
	if !found {
		_, err := tx.Exec(ctx, `INSERT INTO pg_ledger (reference, kind, status, currency, requested, party, calls)
VALUES (?, 'authorization', 'VOIDED', '', 0, '', 1)`, reference)
		if err != nil {
			return jsonhttp.Answer{}, err
		}
		return s.voided(tx, state{Reference: reference, Status: statusVoided}), nil
	}
	if e.kind != kindAuthorization {
		return mismatch("reference %q is a refund's", reference), nil
	}
	switch e.status {
	case statusPending, statusAuthorized:
		_, err := tx.Exec(ctx, `UPDATE pg_ledger
SET status = 'VOIDED', voided = authorized, due_at = NULL, calls = calls + 1 WHERE reference = ?`, reference)
		if err != nil {
			return jsonhttp.Answer{}, err
		}
		e.status, e.voided = statusVoided, e.authorized
		return s.voided(tx, e.state()), nil
	}
	if err := count(ctx, tx, reference); err != nil {
		return jsonhttp.Answer{}, err
	}
	if e.status == statusCaptured {
		return conflict(codeCaptured, "authorization %q is captured", reference), nil
	}
	return jsonhttp.Answer{Status: http.StatusOK, Body: e.state()}, nil // VOIDED or DECLINED
}

func (s *Server) voided(tx *txn.Tx, st state) jsonhttp.Answer {
	s.tell(tx, "void.completed", st)
	return jsonhttp.Answer{Status: http.StatusOK, Body: st}
}

// refund is a request for one that has been checked.
type refund struct {
	reference, authorization string
	amount                   contract.Money
}

// refusedError is a refusal that rolls the transaction back and is the answer all the same.
type refusedError struct{ problem *jsonhttp.Problem }

func (e *refusedError) Error() string { return e.problem.Code + ": " + e.problem.Detail }

func refuse(code, detail string, args ...any) error {
	return &refusedError{jsonhttp.NewProblem(http.StatusConflict, code, detail, args...)}
}

// refund pays back what was captured, or any amount when it names no authorization. A refusal is
// returned as an error, because the row that has been written by then must not stay.
func (s *Server) refund(ctx context.Context, tx *txn.Tx, r refund) (jsonhttp.Answer, error) {
	n, err := tx.Exec(ctx, `INSERT INTO pg_ledger (reference, kind, status, currency, requested, refunded, party, calls)
VALUES (?, 'refund', 'REFUNDED', ?, ?, ?, ?, 1) ON CONFLICT DO NOTHING`,
		r.reference, r.amount.Currency(), r.amount.Minor(), r.amount.Minor(), r.authorization)
	if err != nil {
		return jsonhttp.Answer{}, err
	}
	if n == 0 {
		return s.refundAgain(ctx, tx, r)
	}
	if r.authorization != "" {
		if err := s.refundFrom(ctx, tx, r); err != nil {
			return jsonhttp.Answer{}, err
		}
	}
	st := state{Reference: r.reference, Status: statusRefunded, Amount: r.amount}
	told := st
	told.Authorization = r.authorization
	s.tell(tx, "refund.completed", told)
	return jsonhttp.Answer{Status: http.StatusCreated, Body: st}, nil
}

// refundFrom takes the amount from what its authorization still has, or says why it cannot.
func (s *Server) refundFrom(ctx context.Context, tx *txn.Tx, r refund) error {
	n, err := tx.Exec(ctx, `UPDATE pg_ledger SET refunded = refunded + ?, calls = calls + 1
WHERE reference = ? AND kind = 'authorization' AND status = 'CAPTURED' AND currency = ? AND captured - refunded >= ?`,
		r.amount.Minor(), r.authorization, r.amount.Currency(), r.amount.Minor())
	if err != nil || n == 1 {
		return err
	}
	e, _, err := find(ctx, tx, r.authorization)
	switch {
	case err != nil:
		return err
	case e.kind != kindAuthorization || e.status != statusCaptured:
		return refuse(codeNotCaptured, "authorization %q has captured nothing", r.authorization)
	case e.currency != r.amount.Currency():
		return refuse(codeCurrency, "authorization %q is in %s, not %s", r.authorization, e.currency, r.amount.Currency())
	}
	return refuse(codeRefundExceeds, "authorization %q has %s left, less than %s", r.authorization,
		contract.NewMoney(e.captured-e.refund, e.currency), r.amount)
}

// refundAgain answers for a reference that the ledger has already.
func (s *Server) refundAgain(ctx context.Context, tx *txn.Tx, r refund) (jsonhttp.Answer, error) {
	e, _, err := find(ctx, tx, r.reference)
	if err != nil {
		return jsonhttp.Answer{}, err
	}
	if e.kind != kindRefund || e.requested != r.amount.Minor() || e.currency != r.amount.Currency() || e.party != r.authorization {
		return mismatch("the reference %q belongs to another request", r.reference), nil
	}
	return jsonhttp.Answer{Status: http.StatusOK, Body: e.state()}, count(ctx, tx, r.reference)
}
