// Package lock lets one holder at a time do something. Its names say what each kind is good for:
//
//   - A [Lease] is for safety across processes. It runs out by itself, and its fence lets the database
//     refuse a holder that was paused and woke up late.
//   - [Serialize] is for safety within one database: transactions that name the same thing run one after
//     the other, and the lock ends with the transaction.
//   - A [Hint] saves work and nothing else. It may be given to two at once.
//
// Prefer none of them: "UPDATE stock SET free = free - ? WHERE free >= ?" needs no lock. Use Serialize
// when a transaction must read before it can decide, and a lease for a role that is held for long.
//
//	err := lock.Hold(ctx, store.Leases(), "nightly-report", lock.Config{}, func(ctx context.Context, l lock.Lease) error {
//		return store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
//			if err := lock.Check(ctx, tx, l); err != nil {
//				return err
//			}
//			...the guarded rows...
//		})
//	})
//
// # Guarantee
//
// A lease is one row for each name: owner, fence, expires. No row is ever deleted, so that a fence never
// returns; so name roles, of which there are few, and not orders. The store's clock decides, never a
// holder's:
//
//   - Acquire succeeds when there is no row, when it was released, or when it has run out. It raises the
//     fence by one; the first is 1. Otherwise ErrHeld, also for the owner that holds it: two goroutines of
//     one process exclude one another.
//   - Renew succeeds for the newest fence while the lease runs, and keeps the fence.
//   - Release ends the lease of the newest fence. The row stays, without an owner.
//   - Check succeeds for the newest fence unless it was released, and keeps the row as it is until its
//     transaction ends: Acquire waits for that. So does Renew, so keep the transaction shorter than a third
//     of the time to live. A lease that has run out and that nobody has taken since passes, because nobody
//     was in between.
//
// So a guarded write commits before the next holder begins, or not at all, whatever was paused, delayed
// or killed. A holder that does not check is stopped in time only as far as its process runs, its clock
// does, and it heeds its context.
//
// # What this package does not do
//
// It guards only rows of the database that has the lease. Anything else (a file, another service) must be
// handed the fence and refuse a lower one itself. It is not fair: who waits longest is not served first. A
// database that is restored to an earlier state has earlier fences too.
package lock
