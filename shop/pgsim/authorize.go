package pgsim

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"time"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/internal/jsonhttp"
	"github.com/settledev/settle/txn"
)

// authorization is a request for one that has been checked.
type authorization struct {
	reference, key, customer string
	amount                   contract.Money
}

// authorize is one statement when the reference is new: it decides first and lets the row's
// uniqueness find out whether there was something to decide.
func (s *Server) authorize(ctx context.Context, tx *txn.Tx, a authorization) (jsonhttp.Answer, error) {
	f := s.faults.Load()
	e := entry{
		reference: a.reference, kind: kindAuthorization, status: statusAuthorized, party: a.customer,
		currency: a.amount.Currency(), requested: a.amount.Minor(), authorized: a.amount.Minor(),
	}
	var due sql.NullInt64
	switch {
	case f.hit(f.DeclinePercent, "decline", a.reference):
		e.status, e.code, e.authorized = statusDeclined, codeCardDeclined, 0
	case f.hit(f.LateApprovalPercent, "late approval", a.reference):
		e.status, e.authorized = statusPending, 0
		due = sql.NullInt64{Int64: tx.Now().Add(time.Duration(f.LateApprovalDelay)).UnixMilli(), Valid: true}
	}
	n, err := tx.Exec(ctx, `INSERT INTO pg_ledger
(reference, kind, idempotency_key, status, code, currency, requested, authorized, party, calls, due_at)
VALUES (?, 'authorization', ?, ?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT DO NOTHING`,
		a.reference, a.key, e.status, e.code, e.currency, e.requested, e.authorized, e.party, due)
	if err != nil {
		return jsonhttp.Answer{}, err
	}
	if n == 0 {
		return s.authorizeAgain(ctx, tx, a)
	}
	switch e.status {
	case statusPending:
		return jsonhttp.Answer{Status: http.StatusAccepted, Body: e.authorizeState()}, nil
	case statusDeclined:
		s.tell(tx, "authorization.declined", e.authorizeState())
	default:
		s.tell(tx, "authorization.approved", e.authorizeState())
	}
	return jsonhttp.Answer{Status: http.StatusCreated, Body: e.authorizeState()}, nil
}

// authorizeAgain answers for a reference or a key that the ledger has already.
func (s *Server) authorizeAgain(ctx context.Context, tx *txn.Tx, a authorization) (jsonhttp.Answer, error) {
	e, found, err := find(ctx, tx, a.reference)
	if err != nil {
		return jsonhttp.Answer{}, err
	}
	switch {
	case !found || e.kind != kindAuthorization:
		return mismatch("the key or the reference of authorization %q belongs to another request", a.reference), nil
	case e.tombstone():
		return s.authorizeVoided(ctx, tx, a)
	case e.requested != a.amount.Minor() || e.currency != a.amount.Currency() || e.party != a.customer:
		return mismatch("authorization %q was asked for with another body", a.reference), nil
	}
	// The key may be new: the reference alone says what is meant. It must not be another's, though.
	if ok, err := keyFits(ctx, tx, a); err != nil || !ok {
		return mismatch("the key of authorization %q belongs to another request", a.reference), err
	}
	if err := count(ctx, tx, a.reference); err != nil {
		return jsonhttp.Answer{}, err
	}
	status := http.StatusOK
	if e.status == statusPending {
		status = http.StatusAccepted
	}
	return jsonhttp.Answer{Status: status, Body: e.authorizeState()}, nil
}

// authorizeVoided declines an authorization whose void came first, and remembers what was asked for.
func (s *Server) authorizeVoided(ctx context.Context, tx *txn.Tx, a authorization) (jsonhttp.Answer, error) {
	if ok, err := keyFits(ctx, tx, a); err != nil || !ok {
		return mismatch("the key of authorization %q belongs to another request", a.reference), err
	}
	// authorized and voided stay 0: nothing was ever held. The CHECK of authorized allows that.
	_, err := tx.Exec(ctx, `UPDATE pg_ledger
SET idempotency_key = ?, currency = ?, requested = ?, party = ?, code = ?, calls = calls + 1 WHERE reference = ?`,
		a.key, a.amount.Currency(), a.amount.Minor(), a.customer, codeVoided, a.reference)
	if err != nil {
		return jsonhttp.Answer{}, err
	}
	st := state{Reference: a.reference, Status: statusDeclined, Code: codeVoided, Amount: a.amount}
	s.tell(tx, "authorization.declined", st)
	return jsonhttp.Answer{Status: http.StatusCreated, Body: st}, nil
}

// keyFits reports whether the request's key is new or its own.
func keyFits(ctx context.Context, tx *txn.Tx, a authorization) (bool, error) {
	var owner string
	err := tx.QueryRow(ctx, "SELECT reference FROM pg_ledger WHERE idempotency_key = ?", []any{a.key}, &owner)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return owner == a.reference, err
}

// approve makes a pending authorization an approved one, unless it has been voided meanwhile.
func (s *Server) approve(ctx context.Context, tx *txn.Tx, reference string) error {
	n, err := tx.Exec(ctx, `UPDATE pg_ledger SET status = 'AUTHORIZED', authorized = requested, due_at = NULL
WHERE reference = ? AND status = 'PENDING'`, reference)
	if err != nil || n == 0 {
		return err
	}
	e, _, err := find(ctx, tx, reference)
	if err != nil {
		return err
	}
	s.tell(tx, "authorization.approved", e.authorizeState())
	return nil
}

func mismatch(detail string, args ...any) jsonhttp.Answer {
	return jsonhttp.NewProblem(http.StatusUnprocessableEntity, codeMismatch, detail, args...).Answer()
}

func conflict(code, detail string, args ...any) jsonhttp.Answer {
	return jsonhttp.NewProblem(http.StatusConflict, code, detail, args...).Answer()
}
