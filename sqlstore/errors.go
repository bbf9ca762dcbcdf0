package sqlstore

import (
	"errors"

	"github.com/settledev/settle/txn"
)

// Errors of a store.
var (
	// ErrDiskFull says that the disk, or the database's own limit, is full. Nothing of the transaction
	// was written. Make space: the store works again without being opened anew.
	ErrDiskFull = errors.New("disk is full")
	// ErrIO says that the disk failed to read or write. The transaction was not confirmed; whether it
	// is there is known when the store is opened again. Look at the disk.
	ErrIO = errors.New("disk failed")
	// ErrUnavailable is [txn.ErrUnavailable].
	ErrUnavailable = txn.ErrUnavailable
	// ErrConflict says that a transaction met another one (deadlock, serialisation failure, lock timeout) and
	// was rolled back. The store has repeated it several times already.
	ErrConflict = errors.New("transaction met a conflicting one")
	// ErrRebase says that the outbox was copied from another database cluster (a dump that was restored): its
	// windows mean nothing here. `settle outbox rebase` begins anew with everything that is kept.
	ErrRebase = errors.New("outbox belongs to another database cluster")
	// ErrDuplicate says that a row with the same key is there already. The transaction is over.
	ErrDuplicate = errors.New("row with this key exists")
	// ErrCorrupt says that the file is no database, or a damaged one. Restore it.
	ErrCorrupt = errors.New("database is damaged")
	// ErrSchema says that the tables are not those that this program knows. Migrate, or run the
	// program that did.
	ErrSchema = errors.New("schema does not fit this program")
	// ErrNested says that a transaction was begun inside a transaction of the same store.
	ErrNested = errors.New("transaction inside a transaction")
	// ErrClosed says that the store has been closed.
	ErrClosed = errors.New("store is closed")
	// ErrReadOnly says that the store was opened for reading.
	ErrReadOnly = errors.New("store is open for reading only")
	// ErrRowsOpen says that a statement was run before the rows of the query before were closed.
	ErrRowsOpen = errors.New("rows of the previous query are still open")
)
