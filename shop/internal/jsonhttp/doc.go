// Package jsonhttp is strict JSON in, and JSON or an RFC 9457 problem out, for the HTTP programs of
// this module.
//
//	var req struct{ Reference string `json:"reference"` }
//	if p := jsonhttp.Decode(w, r, 64<<10, &req); p != nil {
//		p.Answer().Send(w)
//		return
//	}
//	jsonhttp.Answer{Status: http.StatusCreated, Body: req}.Send(w)
//
// # Guarantee
//
// A body is read to its end or refused: too many bytes, malformed JSON, an unknown
// field, a value of the wrong type and anything after the first value each have their own code, and
// nothing of a refused body is used.
//
// # What this package does not do
//
// It knows no routes, no authentication and no rules about what a value means.
package jsonhttp
