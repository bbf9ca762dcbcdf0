package relay

import (
	"context"
	"errors"
	"time"

	"github.com/settledev/settle/outbox"
)

// Errors of a source.
var (
	// ErrHeld says that another owner holds the shard: try again later.
	ErrHeld = errors.New("shard is held by another owner")
	// ErrFenced says that a newer owner has taken the shard: stop at once, nothing of it is yours.
	ErrFenced = errors.New("shard was taken by a newer owner")
	// ErrRetention says that what follows a position is not all there: it lies before the oldest event kept, or behind
	// the last one, as of an outbox that was put back to an earlier state.
	ErrRetention = errors.New("position is older than the outbox's retention")
)

// Lease is one owner's right to carry a shard, for a time.
type Lease struct {
	Shard int
	Owner string
	// Fence rises with each new owner. Every write of a source carries it.
	Fence int64
	// Expires is when the right ends unless Claim renews it.
	Expires time.Time
	// Position is how far the shard had been carried when the lease was claimed.
	Position outbox.Position
}

// Source is a store's outbox as a relay reads it.
type Source interface {
	// Claim takes the shard for owner, or renews the lease that owner has (same fence). It returns
	// ErrHeld while another owner's lease runs.
	Claim(ctx context.Context, shard int, owner string, ttl time.Duration) (Lease, error)
	// Next returns up to limit records after a position, in order; none when there are none yet. It
	// returns the same records for the same position, whoever asks and whenever; or ErrRetention.
	Next(ctx context.Context, lease Lease, after outbox.Position, limit int) ([]outbox.Record, error)
	// Advance persists that everything up to and including to is settled. ErrFenced stops the owner.
	Advance(ctx context.Context, lease Lease, to outbox.Position) error
	// Rewind persists that everything after to is to be published again; ErrRetention when it is gone.
	Rewind(ctx context.Context, lease Lease, to outbox.Position) error
	// Release ends the lease early.
	Release(ctx context.Context, lease Lease) error
}

// Provider is a store that has an outbox.
type Provider interface {
	Outbox() Source
}

// Parked is an event that a broker refused, or one that waits behind such an event of its key.
type Parked struct {
	Record   outbox.Record
	Cause    string
	ParkedAt time.Time
	// Replay is set by an operator: the relay publishes the key's events again, in order.
	Replay bool
}

// Parking is what a source needs to park keys. Order and followers are the relay's concern: it parks
// each later event of a parked key, and replays a key from its first event on.
type Parking interface {
	// Park stores records, each once however often it is parked. A record that is parked already gets the
	// new cause, and its key is no longer marked for replay: the broker refused it again.
	Park(ctx context.Context, lease Lease, cause string, records ...outbox.Record) error
	// Parked returns up to limit parked events in order of position, those of keys marked for replay
	// only when replay is set. A non-empty (topic, key) narrows it.
	Parked(ctx context.Context, q ParkedQuery) ([]Parked, error)
	// Unpark removes events that have been published.
	Unpark(ctx context.Context, lease Lease, records ...outbox.Record) error
	// Replay marks the keys of parked events for replay, by an operator: one (topic, key), or every key
	// of a topic when key is empty. It returns how many events are marked.
	Replay(ctx context.Context, topic, key string) (int, error)
}

// ParkedQuery selects parked events.
type ParkedQuery struct {
	Topic, Key string // empty means any
	ReplayOnly bool
	// Shard narrows it to those of one shard when OfShard is set: a relay has no say in another's.
	Shard   int
	OfShard bool
	After   outbox.Position
	Limit   int
}

// Bell is a source that says when there may be something new. Wait for it beside a poll: a ring can
// be missed across processes, never within one.
type Bell interface {
	// Listen returns a channel that receives after commits that added events, and a function that
	// ends it. Rings are coalesced.
	Listen() (ring <-chan struct{}, stop func())
}

// Sequencer is a source whose events get their positions from the shard's owner: where transactions commit
// in another order than they write, somebody has to say which came first. Next does it by the way when the
// owner asks; followers without a relay (package storebroker) need an owner who does only that.
type Sequencer interface {
	// Sequence gives a position to every event that is committed, and returns the last one given. ErrFenced
	// stops the owner.
	Sequence(ctx context.Context, lease Lease) (outbox.Position, error)
}

// Mark remembers how far a broker's log reached when the outbox had been carried to a position.
type Mark struct {
	Position outbox.Position
	At       time.Time
	// Tail is the broker's own account, see broker.Tail, encoded by the relay.
	Tail []byte
}

// Marks is what a source needs so that a relay can rewind after a broker lost its unsynced tail.
type Marks interface {
	// AddMark keeps a mark, and drops marks older than the retention of the outbox.
	AddMark(ctx context.Context, lease Lease, m Mark) error
	// Marks returns the kept marks, newest first.
	Marks(ctx context.Context, shard int) ([]Mark, error)
}

// Stats is a source's state, read from the store; see [Observer].
type Stats struct {
	Pending int64         // events not yet settled
	Age     time.Duration // since the oldest pending event was committed, 0 when none is
	Parked  int64         // events parked because a broker refused them
	Sent    int64         // events settled and still kept
}

// Observer is a source that can tell its state.
type Observer interface {
	Stats(ctx context.Context) (Stats, error)
}

// Status is an outbox event as an operator sees it: a view over positions, parked rows and attempts.
type Status string

// The states of an outbox event.
const (
	StatusPending Status = "PENDING"
	StatusSent    Status = "SENT"
	StatusFailed  Status = "FAILED"
)

// Entry is one row of the outbox's view.
type Entry struct {
	Record        outbox.Record
	Status        Status
	Attempts      int
	LastAttemptAt time.Time
	LastError     string
}

// Lister is a source that can list its outbox as a person reads it, newest last.
type Lister interface {
	List(ctx context.Context, status Status, after outbox.Position, limit int) ([]Entry, error)
}

// Purger is a source with retention: it deletes settled events older than before, and never an
// unsettled one. It returns how many are gone.
type Purger interface {
	Purge(ctx context.Context, before time.Time, limit int) (int, error)
}
