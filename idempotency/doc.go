// Package idempotency answers a repeated command with its first answer: the answer is kept in the
// transaction of the command's effects, so that there is never one without the other.
//
//	answer, replayed, err := keeper.Do(ctx, request, func(ctx context.Context, tx *txn.Tx) (idempotency.Answer, error) {
//		...rows and events...
//		return idempotency.Answer{Status: http.StatusAccepted, Body: body}, nil
//	})
//
// The behaviour is that of the IETF draft "The Idempotency-Key HTTP Header Field" (draft-07) and of
// Stripe's first API: the same key with another request is refused (422), while the first one runs a
// second one is told to wait (409), and afterwards every repetition gets the first answer.
//
// # Guarantee
//
// For one scope and key, within retention, the effects happen at most once, and once if the client
// repeats until it has an answer. A command that failed left nothing: repeating it runs it again.
//
// # What this package does not do
//
// It does not cover effects outside the database (prepare a call instead), and it keeps no answer of a
// command that returned an error: validations, conflicts and failures are decided anew each time.
package idempotency
