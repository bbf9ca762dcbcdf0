// Package problem writes refusals as RFC 9457 problem documents, whose type ends in a code that
// programs can rely on.
//
//	problem.Write(w, http.StatusUnprocessableEntity, "no-items", "The order has no items", "", nil)
//
// # Guarantee
//
// Codes are stable: a client may branch on the code, never on the title or the detail.
//
// # What this package does not do
//
// It knows no routes and no language; titles are English and for people.
package problem

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/settledev/settle/txn"
)

// Base is what the type of every problem begins with; the code follows. A tag URI (RFC 4151) names a
// problem without promising a page behind it.
const Base = "tag:settledev.github.com,2026:problem:"

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

// Problem is a refusal. As an error it can roll a transaction back and be the answer all the same.
type Problem struct { //nolint:errname // It is an answer first; the name is the RFC's.
	// Status is the HTTP status, Code what the type ends in.
	Status int
	Code   string
	// Title is the same for every problem of the code, Detail is about this one.
	Title  string
	Detail string
	// Extra are further members. They cannot replace type, title, status, detail or code.
	Extra map[string]any
	// RetryAfter is sent as a header, in whole seconds, when it is positive.
	RetryAfter time.Duration
}

// New returns a problem.
func New(status int, code, title, detail string, extra map[string]any) *Problem {
	return &Problem{Status: status, Code: code, Title: title, Detail: detail, Extra: extra}
}

// Error returns code and detail.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Code
	}
	return p.Code + ": " + p.Detail
}

// MarshalJSON returns the document.
func (p *Problem) MarshalJSON() ([]byte, error) {
	doc := make(map[string]any, len(p.Extra)+5)
	maps.Copy(doc, p.Extra)
	delete(doc, "detail")
	doc["type"], doc["title"], doc["status"], doc["code"] = Base+p.Code, p.Title, p.Status, p.Code
	if p.Detail != "" {
		doc["detail"] = p.Detail
	}
	return json.Marshal(doc)
}

// unavailableRetry is when a database that is away may be asked again.
const unavailableRetry = time.Second

// Internal returns the problem of an error that is none: the database is away (503, to be tried again), or
// something that is in no client's hands (500).
func Internal(err error, title string) *Problem {
	if errors.Is(err, txn.ErrUnavailable) {
		p := New(http.StatusServiceUnavailable, "store-unavailable", "The database cannot be reached",
			"Whether the request was done is known when it answers again: repeat it, under the same Idempotency-Key.", nil)
		p.RetryAfter = unavailableRetry
		return p
	}
	return New(http.StatusInternalServerError, "internal", title, "", nil)
}

// Send writes the problem as the answer.
func (p *Problem) Send(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // Only an extra member can do that, which is a mistake in the program.
		http.Error(w, p.Code, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.RetryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// Write writes a problem as the answer: [New] and Send in one.
func Write(w http.ResponseWriter, status int, code, title, detail string, extra map[string]any) {
	New(status, code, title, detail, extra).Send(w)
}

// As returns the problem in err's tree, if there is one.
func As(err error) (*Problem, bool) { return errors.AsType[*Problem](err) }
