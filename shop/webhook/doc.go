// Package webhook signs and verifies webhooks by the Standard Webhooks specification
// (https://www.standardwebhooks.com): header webhook-id, webhook-timestamp and webhook-signature, the
// latter "v1," and the base64 of HMAC-SHA256 over "id.timestamp.body".
//
//	if err := webhook.Verify(secret, r.Header, body, time.Now()); err != nil {
//		http.Error(w, "signature", http.StatusUnauthorized)
//		return
//	}
//
// # Guarantee
//
// Verify compares in constant time, accepts any of several signatures (a sender that rotates its
// secret sends two), and refuses a timestamp more than [Tolerance] from now, so that a recorded
// webhook cannot be sent again later.
//
// # What this package does not do
//
// It remembers no ids: a sender may deliver the same webhook twice, and whoever receives it
// remembers webhook-id as it does the id of an event. It does not bound the body: the receiver reads
// no more than it can hold.
package webhook
