package webhook_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/shop/webhook"
)

// The vector of the Standard Webhooks specification's libraries.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorBody      = `{"test": 2432232314}`
	vectorSeconds   = 1614265330
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestSignVector(t *testing.T) {
	h, err := webhook.Sign(vectorSecret, vectorID, time.Unix(vectorSeconds, 0), []byte(vectorBody))
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Get("webhook-signature"); got != vectorSignature {
		t.Errorf("signature %s, want %s", got, vectorSignature)
	}
	if got := h.Get("webhook-timestamp"); got != "1614265330" {
		t.Errorf("timestamp %s", got)
	}
	if got := webhook.ID(h); got != vectorID {
		t.Errorf("id %s", got)
	}
}

func TestVerify(t *testing.T) {
	at := time.Unix(vectorSeconds, 0)
	other := "v1,bm8gc2lnbmF0dXJlIG9mIG91cnMgLCAzMiBieXRlcyE="
	for _, tt := range []struct {
		name string
		set  map[string]string // header to value; "" removes it
		body string
		now  time.Time
		want error
	}{
		{name: "signed"},
		{name: "at the tolerance, later", now: at.Add(webhook.Tolerance)},
		{name: "at the tolerance, earlier", now: at.Add(-webhook.Tolerance)},
		{name: "too old", now: at.Add(webhook.Tolerance + time.Second), want: webhook.ErrTimestamp},
		{name: "in the future", now: at.Add(-webhook.Tolerance - time.Second), want: webhook.ErrTimestamp},
		{name: "another body", body: `{"test": 2432232315}`, want: webhook.ErrSignature},
		{name: "another id", set: map[string]string{"webhook-id": "msg_other"}, want: webhook.ErrSignature},
		{name: "another time", set: map[string]string{"webhook-timestamp": "1614265331"}, want: webhook.ErrSignature},
		{name: "no id", set: map[string]string{"webhook-id": ""}, want: webhook.ErrSignature},
		{name: "no time", set: map[string]string{"webhook-timestamp": ""}, want: webhook.ErrSignature},
		{name: "no signature", set: map[string]string{"webhook-signature": ""}, want: webhook.ErrSignature},
		{name: "time is no number", set: map[string]string{"webhook-timestamp": "now"}, want: webhook.ErrSignature},
		{name: "one of several", set: map[string]string{"webhook-signature": other + " " + vectorSignature}},
		{name: "another signature", set: map[string]string{"webhook-signature": other}, want: webhook.ErrSignature},
		{name: "another version", set: map[string]string{"webhook-signature": "v2" + vectorSignature[2:]}, want: webhook.ErrSignature},
		{name: "no version", set: map[string]string{"webhook-signature": vectorSignature[3:]}, want: webhook.ErrSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			for k, v := range map[string]string{
				"webhook-id": vectorID, "webhook-timestamp": fmt.Sprint(vectorSeconds), "webhook-signature": vectorSignature,
			} {
				h.Set(k, v)
			}
			for k, v := range tt.set {
				if h.Set(k, v); v == "" {
					h.Del(k)
				}
			}
			if tt.body == "" {
				tt.body = vectorBody
			}
			if tt.now.IsZero() {
				tt.now = at
			}
			if err := webhook.Verify(vectorSecret, h, []byte(tt.body), tt.now); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestSecrets(t *testing.T) {
	for _, bad := range []string{
		"", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%", "whsec_c2hvcnQ=",
		"whsec_" + strings.Repeat("AAAA", 22), // 66 bytes
	} {
		if err := webhook.CheckSecret(bad); !errors.Is(err, webhook.ErrSecret) {
			t.Errorf("secret %q: got %v", bad, err)
		}
		if _, err := webhook.Sign(bad, "msg_1", time.Now(), nil); !errors.Is(err, webhook.ErrSecret) {
			t.Errorf("signed with %q: %v", bad, err)
		}
		if err := webhook.Verify(bad, http.Header{}, nil, time.Now()); !errors.Is(err, webhook.ErrSecret) {
			t.Errorf("verified with %q: %v", bad, err)
		}
	}
	a, b := webhook.NewSecret(), webhook.NewSecret()
	if a == b {
		t.Error("two new secrets are the same")
	}
	h, err := webhook.Sign(a, "msg_1", time.Now(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := webhook.Verify(a, h, []byte("x"), time.Now()); err != nil {
		t.Error(err)
	}
	if err := webhook.Verify(b, h, []byte("x"), time.Now()); !errors.Is(err, webhook.ErrSignature) {
		t.Errorf("the other secret verified it: %v", err)
	}
	for _, id := range []string{"", "msg.1"} {
		if _, err := webhook.Sign(a, id, time.Now(), nil); err == nil {
			t.Errorf("id %q was signed", id)
		}
	}
}

// FuzzVerify: nothing but what was signed is believed, whatever the headers hold.
func FuzzVerify(f *testing.F) {
	f.Add(vectorID, "1614265330", vectorSignature, vectorBody)
	f.Add("", "-1", "v1,", "")
	f.Fuzz(func(t *testing.T, id, at, signature, body string) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {at}, "Webhook-Signature": {signature}}
		err := webhook.Verify(vectorSecret, h, []byte(body), time.Unix(vectorSeconds, 0))
		if err == nil && (id != vectorID || body != vectorBody || !strings.Contains(signature, vectorSignature)) {
			t.Errorf("believed id %q at %q signature %q body %q", id, at, signature, body)
		}
	})
}
