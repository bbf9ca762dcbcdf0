// Package broker says what every carrier of events must do: publish in per-key order, and hand the
// partitions of topics to the members of a group, from explicit positions.
//
// # Guarantee
//
// Messages of one topic and key stand in one partition, in the order in which they were published and
// acknowledged. A message may stand there more than once; package inbox absorbs that. Positions belong
// to an incarnation of the log: a broker that lost its tail and counts the same offsets again is
// another incarnation, and a consumer reads what it retains again.
//
// # What this package does not do
//
// It neither deduplicates nor retries. It has no transactions with a database: package relay repeats,
// package inbox remembers.
package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/settledev/settle/event"
)

// Limits of every broker.
const (
	// PublishMax bounds the messages of one Publish.
	PublishMax = 1000
	// FetchMax bounds the messages of one Fetch.
	FetchMax = 1000
)

// Errors of a broker.
var (
	// ErrUnavailable says that the broker cannot be reached, or did not answer in time: wait and repeat
	// for as long as it takes. The message may have been stored.
	ErrUnavailable = errors.New("broker is unavailable")
	// ErrRevoked says that a partition now belongs to another member: drop what is in hand.
	ErrRevoked = errors.New("partition was revoked")
	// ErrPositionLost says that the broker no longer keeps a position: events may be missing.
	ErrPositionLost = errors.New("position is no longer kept by the broker")
)

// RejectedError says that the broker refused a message for its own sake (too large, no such topic, not
// allowed): repeating it is of no use, other messages are fine.
type RejectedError struct {
	Reason string
}

func (e *RejectedError) Error() string { return "broker: message rejected: " + e.Reason }

// Position is a place in a partition. The zero Position is before the first message.
type Position struct {
	// Incarnation names the life of the log that Offset counts in.
	Incarnation string
	// Offset is that of the last message handled. Offsets start at 1.
	Offset uint64
}

// String returns incarnation/offset.
func (p Position) String() string { return fmt.Sprintf("%s/%d", p.Incarnation, p.Offset) }

// Message is an event on its way. To publish one, fill Event and Origin.
type Message struct {
	Event event.Envelope
	// Origin is the event's place in its producer's outbox, for people and traces.
	Origin string
	// Position is where the message stands; set by Fetch.
	Position Position
	// Err is set by Fetch when the message on the wire is not an event ([event.ErrMalformed]); Event then
	// holds what could be read, with an identity that is the same at each delivery.
	Err error
}

// Publisher puts messages on their topics.
type Publisher interface {
	// Publish stores messages in the order given and returns one result for each: nil, an error that
	// is ErrUnavailable, or a *RejectedError. It returns when every result is known. After a failed
	// message others of the same call may have been stored, also of the same key; see [Ordered].
	Publish(ctx context.Context, messages []Message) []error
}

// Ordered is a publisher that keeps the order of a key by itself, also when it repeats (Kafka's
// idempotent producer). To any other publisher a relay gives at most one unacknowledged message per
// topic and key.
type Ordered interface {
	Ordered() bool
}

// Subscription says what a member of a group wants.
type Subscription struct {
	Group  string
	Topics []string
}

// Broker hands out partitions. One that also is a [Publisher] is fed by relays; one that is not reads
// the producers' outboxes itself.
type Broker interface {
	// Subscribe joins a group. Missing topics are created where the broker allows it.
	Subscribe(ctx context.Context, s Subscription) (Membership, error)
	// Close ends every membership and connection.
	Close() error
}

// Membership is one member's part of a group.
type Membership interface {
	// Next waits for the next partition that is assigned to this member.
	Next(ctx context.Context) (Partition, error)
	// Close leaves the group.
	Close() error
}

// Standby is a membership that can tell a member whose time has not come from one that is to read soon: both have
// no partition, but what waits for the group is the others' affair only beside the first.
type Standby interface {
	// Standby reports that the member has joined its group and that every partition is with a member that has
	// given a sign of life since, and is to keep it while all stay. It asks nobody, and is false as long as the
	// driver does not know: a member that died holds its partitions until its lease or session has run out.
	Standby() bool
}

// Partition is a log that one member reads until it is revoked.
type Partition interface {
	// Name is the same in every process, and unique within the group's subscription.
	Name() string
	// Fetch returns between 1 and limit messages after the last one returned, in order. It returns none
	// when there are none within a short wait, ErrRevoked, ErrUnavailable or ErrPositionLost.
	Fetch(ctx context.Context, limit int) ([]Message, error)
	// Ack tells the broker that everything up to p is settled in the database.
	Ack(ctx context.Context, p Position) error
	// Revoked is closed when the partition belongs to another member.
	Revoked() <-chan struct{}
	// Release gives the partition back.
	Release() error
}

// Seeker is a partition that starts at a position of the consumer's own: call Seek before the first
// Fetch. A position of another incarnation starts at the first message retained.
type Seeker interface {
	Seek(ctx context.Context, p Position) error
}

// Laggard is a partition that can tell how many messages are left after the last one fetched.
type Laggard interface {
	Lag(ctx context.Context) (int64, error)
}

// Tail tells how far a broker's logs reach.
type Tail struct {
	// Incarnation is the current life of the logs.
	Incarnation string `json:"incarnation"`
	// Offsets has the last offset of each log, by a name of the driver's.
	Offsets map[string]uint64 `json:"offsets"`
	// Life names a time in which nothing that was acknowledged can be lost, when the driver knows: a run
	// of a server, or of its machine. Empty when unknown; after each outage and each restart a relay then
	// assumes the worst, begins a new incarnation and repeats what it published since its last mark. A
	// driver that leaves it empty answers the first call after a restart or a lost connection, whichever
	// that is, with ErrUnavailable: it is all that tells of a loss that others have filled up.
	Life string `json:"life,omitempty"`
	// Opened has the offsets at which this life began, before anything was published in it. Without it a
	// loss can hide behind what another relay has published since. Nil when unknown.
	Opened map[string]uint64 `json:"opened,omitempty"`
}

// Tailer is a publisher that acknowledges before its disk does, and so can lose what it acknowledged.
// A relay compares tails with those it has seen, rewinds its outbox and begins a new incarnation
// before it publishes again.
type Tailer interface {
	// Tail returns how far the logs reach now.
	Tail(ctx context.Context) (Tail, error)
	// Incarnate begins a new incarnation after a loss was seen. lost is the tail that was found. It does
	// nothing when the incarnation is no longer lost.Incarnation: another relay has done it.
	Incarnate(ctx context.Context, lost Tail) error
	// LostAt returns the offsets at which the incarnation that followed the given one began, the lowest of
	// each log when several followed: what a relay that knows only the older one can rely on. ok is false
	// when the broker does not know.
	LostAt(ctx context.Context, incarnation string) (offsets map[string]uint64, ok bool, err error)
}
