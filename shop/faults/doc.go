// Package faults makes an HTTP program misbehave on purpose, the same way each time it is run.
//
//	gate := faults.NewGate(faults.Transport{Seed: 7, SilencePercent: 2})
//	defer gate.Close()
//	gate.Serve(w, r, "capture", reference, func(ctx context.Context) jsonhttp.Answer {
//		return capture(ctx, reference) // the effect: durable when it returns
//	})
//
// # Guarantee
//
// What happens to a call is a function of the seed, the operation, the reference and the number of
// the attempt, so neither the order of calls nor their concurrency changes it. The attempts of an
// operation on a reference are counted from 1 in memory: a restart counts anew, and so does a
// reference that [AttemptsMax] others have followed. Whether a fault happens before or after the
// effect is part of the plan; an effect that has begun runs to its end even when the client is gone.
//
// # What this package does not do
//
// It does not break connections half-way through an answer, and it does not lose what is durable.
package faults
