package idempotency

import (
	"context"
	"errors"
	"time"

	"github.com/settledev/settle/txn"
)

// ErrExists says that an answer is already kept under the scope and key: roll back and replay it.
var ErrExists = errors.New("idempotency key is taken")

// Answer is a command's first answer as it is kept.
type Answer struct {
	// Scope is who asked and which route: keys of two scopes have nothing to do with one another.
	Scope string
	Key   string
	// Fingerprint is a digest of the request that the answer belongs to.
	Fingerprint [32]byte
	Status      int
	// Header has the few header fields that are part of the answer, such as Location.
	Header  map[string]string
	Body    []byte
	SavedAt time.Time
}

// Store keeps answers.
type Store interface {
	// Lookup returns the answer kept under a scope and key.
	Lookup(ctx context.Context, scope, key string) (a Answer, ok bool, err error)
	// Save keeps an answer in the transaction of the command's effects; ErrExists when there is one.
	Save(ctx context.Context, tx *txn.Tx, a Answer) error
	// Forget deletes up to limit answers saved before a time and returns how many.
	Forget(ctx context.Context, before time.Time, limit int) (int, error)
}

// Provider is a store that keeps answers.
type Provider interface {
	Answers() Store
}
