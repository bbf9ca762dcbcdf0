// Package settlesqlite opens a [sqlstore.Store] on SQLite (modernc.org/sqlite, no cgo):
//
//	store, err := settlesqlite.Open(ctx, "data/order.db", settlesqlite.Config{Migrate: true})
//	if err != nil {
//		return err
//	}
//	defer store.Close()
//
// # Guarantee
//
// A file opened for writing belongs to this process: a second one is refused with a [*LockedError] that
// names the holder. The lock ends with the process, however it ends. What Run has confirmed is flushed to
// the disk (journal in WAL mode, synchronous=FULL). A full disk is sqlstore.ErrDiskFull; the store works
// again when there is space.
//
// # What this package does not do
//
// The lock is the operating system's (flock): on a network file system it protects as much as that
// does, so keep data on a local disk. Tables are migrated only when asked for.
package settlesqlite
