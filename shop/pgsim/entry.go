package pgsim

import (
	"context"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/txn"
)

// The states of an authorization and of a refund.
const (
	statusPending    = "PENDING"
	statusAuthorized = "AUTHORIZED"
	statusCaptured   = "CAPTURED"
	statusVoided     = "VOIDED"
	statusDeclined   = "DECLINED"
	statusRefunded   = "REFUNDED"
)

// The kinds of an entry.
const (
	kindAuthorization = "authorization"
	kindRefund        = "refund"
)

// Codes of answers and of refusals.
const (
	codeCardDeclined    = "CARD_DECLINED"
	codeVoided          = "VOIDED"
	codeCaptured        = "CAPTURED"
	codePending         = "PENDING"
	codeNotAuthorized   = "NOT_AUTHORIZED"
	codeNotCaptured     = "NOT_CAPTURED"
	codeCaptureRefused  = "CAPTURE_REFUSED"
	codeCaptureExceeds  = "CAPTURE_EXCEEDS"
	codeRefundExceeds   = "REFUND_EXCEEDS"
	codeCurrency        = "CURRENCY_MISMATCH"
	codeMismatch        = "IDEMPOTENCY_MISMATCH"
	codeNotFound        = "NOT_FOUND"
	codeInvalid         = "INVALID"
	codeLedgerFailed    = "LEDGER_FAILED"
	codeKeyMissing      = "IDEMPOTENCY_KEY_MISSING"
	codeAmountMalformed = "AMOUNT_MALFORMED"
	codeAmountTooSmall  = "AMOUNT_NOT_POSITIVE"
)

// entry is a row of the ledger.
type entry struct {
	reference, kind, status, code, currency         string
	requested, authorized, captured, voided, refund int64
	party                                           string
	calls                                           int64
}

const selectEntry = `SELECT reference, kind, status, code, currency, requested, authorized, captured, voided, refunded, party, calls
FROM pg_ledger `

func (e *entry) fields() []any {
	return []any{
		&e.reference, &e.kind, &e.status, &e.code, &e.currency, &e.requested, &e.authorized, &e.captured, &e.voided,
		&e.refund, &e.party, &e.calls,
	}
}

// find returns the entry of a reference, of whatever kind; ok is false when there is none.
func find(ctx context.Context, r reader, reference string) (e entry, ok bool, err error) {
	err = scan(ctx, r, func(rows txn.Rows) error {
		ok = true
		return rows.Scan(e.fields()...)
	}, selectEntry+"WHERE reference = ?", reference)
	return e, ok, err
}

// count adds a call to an entry that it changes nothing else of.
func count(ctx context.Context, tx *txn.Tx, reference string) error {
	_, err := tx.Exec(ctx, "UPDATE pg_ledger SET calls = calls + 1 WHERE reference = ?", reference)
	return err
}

// tombstone reports a void that came before its authorization.
func (e *entry) tombstone() bool { return e.status == statusVoided && e.currency == "" }

// state is what an answer says about an authorization or a refund.
type state struct {
	Reference     string         `json:"reference"`
	Status        string         `json:"status"`
	Code          string         `json:"code,omitempty"`
	Amount        contract.Money `json:"amount"`
	Authorization string         `json:"authorization,omitempty"` // only in the webhook of a refund
}

// state returns what the entry is now.
func (e *entry) state() state {
	amount := e.requested
	switch e.status {
	case statusCaptured:
		amount = e.captured
	case statusVoided:
		amount = e.voided
	}
	return state{Reference: e.reference, Status: e.status, Code: e.code, Amount: contract.NewMoney(amount, e.currency)}
}

// authorizeState returns the entry as the answer to its authorization: what was captured since has
// no part in it, but a void has, because nobody may ship on a voided authorization.
func (e *entry) authorizeState() state {
	st := state{Reference: e.reference, Status: e.status, Amount: contract.NewMoney(e.requested, e.currency)}
	switch e.status {
	case statusCaptured:
		st.Status = statusAuthorized
	case statusVoided:
		st.Status, st.Code = statusDeclined, codeVoided
	case statusDeclined:
		st.Code = e.code
	}
	return st
}
