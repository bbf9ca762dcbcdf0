package jsonhttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Codes of the problems that [Decode] answers with.
const (
	CodeBodyTooLarge = "BODY_TOO_LARGE" // 413: more than the handler allows
	CodeMediaType    = "MEDIA_TYPE"     // 415: a Content-Type other than application/json
	CodeMalformed    = "MALFORMED_JSON" // 400: not one JSON value of the right types
	CodeUnknownField = "UNKNOWN_FIELD"  // 400: a field that the request does not have
)

// problemBase is what a problem's type begins with; its code follows. A tag URI (RFC 4151) names the
// problem without promising a page behind it.
const problemBase = "tag:settledev.github.com,2026:problem:"

// Answer is a status with a JSON body.
type Answer struct {
	Status int
	Body   any
	// RetryAfter is sent as a header in whole seconds when it is positive.
	RetryAfter time.Duration
}

// Send writes the answer. A body that cannot be encoded is a mistake in the program and becomes a
// plain 500.
func (a Answer) Send(w http.ResponseWriter) {
	body, err := json.Marshal(a.Body)
	if err != nil {
		http.Error(w, "the answer could not be encoded", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if _, ok := a.Body.(*Problem); ok {
		h.Set("Content-Type", "application/problem+json")
	}
	if a.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((a.RetryAfter+time.Second-1)/time.Second)))
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.Status)
	w.Write(body)
}

// Problem is an RFC 9457 problem whose type ends in its code.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code"`
}

// NewProblem returns a problem; the detail is formatted as by [fmt.Sprintf].
func NewProblem(status int, code, detail string, args ...any) *Problem {
	return &Problem{
		Type: problemBase + code, Title: http.StatusText(status), Status: status, Code: code,
		Detail: fmt.Sprintf(detail, args...),
	}
}

// Answer returns the problem as an answer.
func (p *Problem) Answer() Answer { return Answer{Status: p.Status, Body: p} }

// Decode reads the request's body of at most bytesMax bytes into dst, a pointer to a struct, or says
// why not. It reads the body to its end: only then does the server notice that the client has gone.
func Decode(w http.ResponseWriter, r *http.Request, bytesMax int64, dst any) *Problem {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if mt, _, err := mime.ParseMediaType(ct); err != nil || mt != "application/json" {
			return NewProblem(http.StatusUnsupportedMediaType, CodeMediaType, "%.80q is not application/json", ct)
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bytesMax))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return NewProblem(http.StatusRequestEntityTooLarge, CodeBodyTooLarge, "the body exceeds %d bytes", bytesMax)
		}
		return NewProblem(http.StatusBadRequest, CodeMalformed, "the body could not be read: %v", err)
	}
	return Unmarshal(body, dst)
}

// Unmarshal is [Decode] for a body that has been read.
func Unmarshal(body []byte, dst any) *Problem {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		// encoding/json has no type for this error; a test pins its text.
		if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return NewProblem(http.StatusBadRequest, CodeUnknownField, "the request has no field %.80s", field)
		}
		return NewProblem(http.StatusBadRequest, CodeMalformed, "%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return NewProblem(http.StatusBadRequest, CodeMalformed, "the body goes on after its first value")
	}
	return nil
}

// Limit reads a page size from the query parameter limit: def when it is absent, refused below 1 and
// above most.
func Limit(r *http.Request, def, most int) (int, *Problem) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return def, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, NewProblem(http.StatusUnprocessableEntity, "LIMIT", "limit %.20q must lie between 1 and %d", text, most)
	}
	return n, nil
}
