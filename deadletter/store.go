package deadletter

import (
	"context"
	"errors"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/txn"
)

// State is a letter's place in its life: RETRYING -> handled (gone), or -> DEAD -> replayed (RETRYING)
// or discarded. A WAITING letter stands behind another one of its key.
type State string

// The states of a letter.
const (
	StateRetrying State = "RETRYING" // head of its key, tried again at NextAt
	StateWaiting  State = "WAITING"  // behind the head of its key
	StateDead     State = "DEAD"     // head of its key, given up: a person decides
)

// Errors of dead letters.
var (
	// ErrNotFound says that no such letter is parked: it was handled or discarded.
	ErrNotFound = errors.New("no such dead letter")
	// ErrNotHead says that a letter waits behind another of its key, which must be dealt with first.
	ErrNotHead = errors.New("letter waits behind another one of its key")
)

// Letter is an event that a group could not handle yet.
type Letter struct {
	Group string
	Event event.Envelope
	// Partition and Position are where the broker had it; Position is printed by broker.Position.
	Partition string
	Position  string
	State     State
	// Attempts counts from 1.
	Attempts  int
	FirstAt   time.Time // of the first failure
	LastAt    time.Time // of the last failure
	NextAt    time.Time // when a RETRYING letter is tried again
	Cause     string    // text of the last error, at most CauseBytesMax
	Stack     string    // of a panic, at most CauseBytesMax
	Permanent bool      // whether the handler said that no retry helps
}

// CauseBytesMax bounds the text kept of an error or a stack.
const CauseBytesMax = 4096

// ID names a letter everywhere an operator does: the group and the event's identity.
func (l *Letter) ID() string { return l.Group + ":" + l.Event.ID.String() }

// Lane is what parks together: the events of one topic and key, in one group.
type Lane struct {
	Topic string
	Key   string
}

// Store keeps letters. Every change happens in the transaction of what caused it.
type Store interface {
	// Park stores a letter behind those of its lane; a letter that is already parked stays as it is. The
	// lane as it is now decides: a letter behind others becomes WAITING whatever its state was, and a
	// WAITING letter that is the first of its lane becomes the head, RETRYING from now on.
	Park(ctx context.Context, tx *txn.Tx, l Letter) error
	// Update stores a letter's state, attempts, times and cause, and its event's data, which an operator may
	// have edited. ErrNotFound when it is not parked (any more).
	Update(ctx context.Context, tx *txn.Tx, l Letter) error
	// Remove deletes a letter and makes the next one of its lane the head, RETRYING from now on. It
	// reports whether the letter was there.
	Remove(ctx context.Context, tx *txn.Tx, group string, id event.ID) (bool, error)
	// Lanes returns every lane of the group that has letters: at start, before anything is handled.
	Lanes(ctx context.Context, group string) ([]Lane, error)
	// Select returns letters in the order in which they were parked.
	Select(ctx context.Context, q Query) ([]Letter, error)
}

// Query selects letters. Zero fields mean any.
type Query struct {
	Group string
	Topic string
	Key   string
	Cause string // exact text
	State State
	ID    event.ID
	DueBy time.Time // RETRYING and NextAt not after
	After string    // the ID() of the last letter of the page before
	Limit int       // 0 means PageMax
}

// PageMax bounds the letters of one Select.
const PageMax = 1000

// Group is how many dead letters of a topic have one cause.
type Group struct {
	Group string
	Topic string
	Cause string
	State State
	Count int64
	First time.Time
	Last  time.Time
}

// Grouper is a store that counts letters by cause.
type Grouper interface {
	Groups(ctx context.Context) ([]Group, error)
}

// Entry is one line of the audit: what an operator did, or what became of it.
type Entry struct {
	At       time.Time
	Operator string
	Action   string // replay, discard, edit, replayed
	Letter   string // Letter.ID
	Note     string
}

// Auditor is a store that keeps an audit of operators' actions, in the same transaction.
type Auditor interface {
	Audit(ctx context.Context, tx *txn.Tx, e Entry) error
	// Entries returns the newest first.
	Entries(ctx context.Context, limit int) ([]Entry, error)
}

// Provider is a store that has dead letters.
type Provider interface {
	Letters() Store
}
