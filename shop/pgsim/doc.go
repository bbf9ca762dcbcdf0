// Package pgsim is a payment gateway for runs without a real one: an HTTP program with a durable
// ledger of its own, faults that repeat, and signed webhooks.
//
//	err := pgsim.Migrate(ctx, store)
//	gw, err := pgsim.New(store, pgsim.Config{Faults: pgsim.Faults{DeclinePercent: 7}})
//	go gw.Run(ctx) // webhooks and late approvals
//	http.Serve(listener, gw)
//
// # HTTP
//
// Money is {"amount":"12.50","currency":"GBP"}; an answer about one authorization or refund is
// {"reference","status","code"?,"amount"}; a refusal is an RFC 9457 problem (application/problem+json)
// with "code". Bodies are strict: at most 64 KB, no unknown fields, amounts as text.
//
//	POST /v1/authorizations                      {"reference","amount","customerId"}, header Idempotency-Key
//	    201 AUTHORIZED | 201 DECLINED with code CARD_DECLINED or VOIDED | 202 PENDING (approved later)
//	POST /v1/authorizations/{reference}/capture  {"amount"}
//	    200 CAPTURED | 409 NOT_AUTHORIZED, VOIDED, CAPTURE_REFUSED, CAPTURE_EXCEEDS, CURRENCY_MISMATCH
//	    503 PENDING with Retry-After: the authorization is still to be approved
//	POST /v1/authorizations/{reference}/void     {} or nothing
//	    200 VOIDED | 200 DECLINED | 409 CAPTURED
//	POST /v1/refunds                             {"reference","authorization"?,"amount"}
//	    201 REFUNDED | 409 REFUND_EXCEEDS, NOT_CAPTURED, CURRENCY_MISMATCH
//	GET  /v1/authorizations/{reference}          200 | 404 NOT_FOUND
//	GET  /v1/refunds/{reference}                 200 | 404 NOT_FOUND
//	GET  /v1/ledger?after=&limit=                {"items":[{"reference","kind","status","authorized","captured",
//	    "voided","refunded","code","calls"}],"next"}; by reference; next is absent on the last page
//	GET, PUT /v1/faults                          [Faults]; PUT replaces all of them
//	GET, PUT /v1/webhook                         {"url"}; GET adds "queued"; an empty url turns webhooks off
//	GET  /healthz                                200 | 503 while down
//
// Everything that a fixed form refuses is 400, 413, 415 or 422. The switches (faults, webhook) answer
// also while the program is down. They are for whoever runs the simulation: listen on loopback only.
//
// # Guarantee
//
// An answer is durable before it is sent. A request that is repeated, with the same key or the same
// reference, is performed once and gets the same answer again (200 in place of 201); with another
// body it gets 422 IDEMPOTENCY_MISMATCH. The one answer that changes is that of an authorization that
// has been voided since: it is DECLINED with code VOIDED, because nobody may ship on it. A void
// that overtakes its authorization is remembered and declines it. For every authorization that is
// captured or voided, authorized = captured + voided (a partial capture releases the rest), and never
// more is refunded than was captured. References of authorizations and refunds are one name space.
//
// Webhooks are written in the transaction of what they tell and sent at least once, in any order,
// until [Config].WebhookRetry is exhausted; see package webhook for their signature:
//
//	{"type":"authorization.approved|authorization.declined|capture.completed|void.completed|refund.completed",
//	 "timestamp","data":{"reference","status","code"?,"amount","authorization"?}}
//
// # What this package does not do
//
// It moves no money, knows no cards, converts no currencies, lets no authorization expire and asks
// nobody who they are. The faults of a run are not durable: a restart has those of its Config. Its
// SQL is SQLite's.
package pgsim
