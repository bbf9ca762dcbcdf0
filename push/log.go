package push

import (
	"context"

	"github.com/settledev/settle/txn"
)

// Frame is one entry of a feed log: what a browser gets to see of an event.
type Frame struct {
	// Position is the frame's place in the log, from 1; set by the log.
	Position int64
	// Feeds are the names of the feeds that show the frame, such as "order/42"; the feed "" shows all.
	Feeds []string
	// Event is the name of the server-sent event.
	Event string
	// Data is JSON without line breaks.
	Data []byte
}

// Log keeps frames in order, durably, so that a browser can resume anywhere.
type Log interface {
	// Append stores frames in the transaction, in order.
	Append(ctx context.Context, tx *txn.Tx, frames ...Frame) error
	// After returns up to limit frames of a feed after a position, in order.
	After(ctx context.Context, feed string, position int64, limit int) ([]Frame, error)
	// Bounds returns the log's epoch, the first position kept and the last. A log that was lost and
	// begun anew has another epoch.
	Bounds(ctx context.Context) (epoch string, first, last int64, err error)
	// Trim deletes up to limit frames older than the newest keep ones and returns how many.
	Trim(ctx context.Context, keep int64, limit int) (int, error)
	// Listen returns a channel that receives after commits that appended frames, and its end.
	Listen() (ring <-chan struct{}, stop func())
}

// Provider is a store that has a feed log.
type Provider interface {
	Feed() Log
}
