// Package platformsim is a data platform for runs without a real one: an HTTP program that receives
// orders, reservations and customer messages, remembers each event id durably and counts duplicates,
// with faults that repeat.
//
//	err := platformsim.Migrate(ctx, store)
//	p, err := platformsim.New(store, platformsim.Config{})
//	go p.Run(ctx)
//	http.Serve(listener, p)
//
// # HTTP
//
// A refusal is an RFC 9457 problem (application/problem+json) with "code". Bodies are strict: at most
// 1 MiB, no unknown fields.
//
//	POST /v1/deliveries           {"eventId","kind":"order|reservation|message","reference","data":{...}}
//	    header Idempotency-Key = eventId; 202 {"duplicate":bool} | 422 EVENT_ID_REUSED for another kind
//	    or reference
//	GET  /v1/ledger?after=&limit= {"items":[{"eventId","kind","reference","deliveries"}],"next"}; by event id;
//	    next is absent on the last page
//	GET  /v1/stats                {"received","duplicates"}: distinct event ids, and deliveries beyond their first
//	GET, PUT /v1/faults           [faults.Transport]; PUT replaces all of them; answers also while down
//	GET  /healthz                 200 | 503 while down
//
// Whoever reaches it may switch the faults: listen on loopback only.
//
// # Guarantee
//
// A delivery is durable before it is answered. An event id is received once, however often it is
// delivered and however many deliver it at once; each further delivery is counted and answered
// {"duplicate":true}.
//
// # What this package does not do
//
// It does not keep or look into data, has no retention, and asks nobody who they are. The faults of a
// run are not durable: a restart has those of its Config. Its SQL is SQLite's.
package platformsim
