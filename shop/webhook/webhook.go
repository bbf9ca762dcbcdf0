package webhook

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Tolerance is how far a webhook's timestamp may lie from now, in both directions.
const Tolerance = 5 * time.Minute

// Bounds of a secret, in bytes, as the specification has them.
const (
	SecretBytesMin = 24
	SecretBytesMax = 64
)

const secretPrefix = "whsec_"

// Errors of a webhook. All mean the same to a receiver: don't believe it, answer 401.
var (
	// ErrSecret says that a secret is not whsec_ and the base64 of 24 to 64 bytes. It is a fault of
	// this side's configuration, not of the webhook.
	ErrSecret = errors.New("not a webhook secret")
	// ErrSignature says that a header is missing or malformed, or that no signature fits.
	ErrSignature = errors.New("webhook signature does not fit")
	// ErrTimestamp says that the webhook was signed too long ago, or in the future.
	ErrTimestamp = errors.New("webhook timestamp is too far from now")
)

// NewSecret returns a random secret in the form that Sign and Verify take.
func NewSecret() string {
	key := make([]byte, 32)
	rand.Read(key) // It never fails, by its documentation.
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// CheckSecret returns [ErrSecret] unless secret has the form that Sign and Verify take. An empty key
// in particular would let anybody sign.
func CheckSecret(secret string) error {
	_, err := signer(secret)
	return err
}

// Sign returns the headers of a webhook. The id names the webhook, the same each time that it is
// sent; at is the time of this attempt.
func Sign(secret, id string, at time.Time, body []byte) (http.Header, error) {
	s, err := signer(secret)
	if err != nil {
		return nil, err
	}
	if id == "" || strings.Contains(id, ".") {
		return nil, fmt.Errorf("webhook: id %.80q must be there and have no dot, which ends it in what is signed", id)
	}
	signature, err := s.Sign(id, at, body)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	h := http.Header{}
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return h, nil
}

// Verify returns nil when body was signed with secret, within [Tolerance] of now.
func Verify(secret string, header http.Header, body []byte, now time.Time) error {
	s, err := signer(secret)
	if err != nil {
		return err
	}
	// The library reads the clock itself, which a receiver with its own time cannot use: it checks the
	// signature, and the timestamp, which is part of what is signed, is checked here.
	if err := s.VerifyIgnoringTimestamp(body, header); err != nil {
		return fmt.Errorf("webhook: %w: %w", ErrSignature, err)
	}
	seconds, err := strconv.ParseInt(header.Get(standardwebhooks.HeaderWebhookTimestamp), 10, 64)
	if err != nil {
		return fmt.Errorf("webhook: %w: timestamp: %w", ErrSignature, err)
	}
	at := time.Unix(seconds, 0)
	if at.Before(now.Add(-Tolerance)) || at.After(now.Add(Tolerance)) {
		return fmt.Errorf("webhook: %w: signed at %s, now %s, %s allowed", ErrTimestamp,
			at.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), Tolerance)
	}
	return nil
}

// ID returns the id that a receiver remembers. Verify first.
func ID(header http.Header) string { return header.Get(standardwebhooks.HeaderWebhookID) }

func signer(secret string) (*standardwebhooks.Webhook, error) {
	text, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		return nil, fmt.Errorf("webhook: %w: it must begin with %s", ErrSecret, secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w: not base64", ErrSecret)
	}
	if len(key) < SecretBytesMin || len(key) > SecretBytesMax {
		return nil, fmt.Errorf("webhook: %w: %d bytes, %d to %d allowed", ErrSecret, len(key), SecretBytesMin, SecretBytesMax)
	}
	s, err := standardwebhooks.NewWebhookRaw(key)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w: %w", ErrSecret, err)
	}
	return s, nil
}
