package jsonhttp_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/shop/internal/jsonhttp"
)

func TestDecode(t *testing.T) {
	const bytesMax = 64
	for _, tt := range []struct {
		name, contentType, body string
		status                  int
		code                    string
	}{
		{name: "whole", contentType: "application/json; charset=utf-8", body: `{"a":"x"}`},
		{name: "no content type", body: ` {"a":"x"} `},
		{name: "at the limit", body: `{"a":"` + strings.Repeat("x", bytesMax-8) + `"}`},
		{"over the limit", "", `{"a":"` + strings.Repeat("x", bytesMax-7) + `"}`, 413, jsonhttp.CodeBodyTooLarge},
		{"over the limit after the value", "", `{"a":"x"}` + strings.Repeat(" ", bytesMax), 413, jsonhttp.CodeBodyTooLarge},
		{"form", "application/x-www-form-urlencoded", `a=x`, 415, jsonhttp.CodeMediaType},
		{"broken content type", "application/", `{}`, 415, jsonhttp.CodeMediaType},
		{"empty", "", ``, 400, jsonhttp.CodeMalformed},
		{"cut off", "", `{"a":"x"`, 400, jsonhttp.CodeMalformed},
		{"wrong type", "", `{"a":1}`, 400, jsonhttp.CodeMalformed},
		{"array", "", `[]`, 400, jsonhttp.CodeMalformed},
		{"two values", "", `{"a":"x"}{}`, 400, jsonhttp.CodeMalformed},
		{"unknown field", "", `{"a":"x","b":1}`, 400, jsonhttp.CodeUnknownField},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body))
			if tt.contentType != "" {
				r.Header.Set("Content-Type", tt.contentType)
			}
			var dst struct {
				A string `json:"a"`
			}
			p := jsonhttp.Decode(httptest.NewRecorder(), r, bytesMax, &dst)
			if (p == nil) != (tt.code == "") || p != nil && (p.Code != tt.code || p.Status != tt.status) {
				t.Errorf("got %+v, want %d %s", p, tt.status, tt.code)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	w := httptest.NewRecorder()
	a := jsonhttp.NewProblem(http.StatusConflict, "CAPTURED", "authorization %q is captured", "o1").Answer()
	a.RetryAfter = 1200 * time.Millisecond
	a.Send(w)
	if w.Code != http.StatusConflict || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Retry-After") != "2" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got["code"] != "CAPTURED" || !strings.HasSuffix(fmt.Sprint(got["type"]), ":CAPTURED") || got["status"] != 409.0 || got["title"] != "Conflict" {
		t.Errorf("problem %v", got)
	}
}

func TestLimit(t *testing.T) {
	for query, want := range map[string]int{"": 5, "?limit=1": 1, "?limit=10": 10, "?limit=11": 0, "?limit=0": 0, "?limit=x": 0} {
		n, p := jsonhttp.Limit(httptest.NewRequest(http.MethodGet, "/"+query, nil), 5, 10)
		if n != want || (p == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", query, n, p)
		}
	}
}
