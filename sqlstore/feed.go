package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/settledev/settle/push"
	"github.com/settledev/settle/txn"
)

// feedStore is the log of what browsers get to see.
type feedStore struct {
	s *Store
	q struct{ number, append, appendFeed, afterAll, after, bounds, trimFeed, trim string }
}

var _ push.Log = (*feedStore)(nil)

func (s *Store) initFeed(q *statements) {
	f := &s.feed
	f.s = s
	f.q.append, f.q.appendFeed = q.text("push.append"), q.text("push.append_feed")
	f.q.afterAll, f.q.after, f.q.bounds = q.text("push.after_all"), q.text("push.after"), q.text("push.bounds")
	f.q.trimFeed, f.q.trim = q.text("push.trim_feed"), q.text("push.trim")
	if q.dialect != sqliteName {
		f.q.number = q.text("push.number")
	}
}

// Append implements [push.Log].
func (f *feedStore) Append(ctx context.Context, tx *txn.Tx, frames ...push.Frame) error {
	if len(frames) == 0 {
		return nil
	}
	// On a server the transaction keeps the row that counts until it is over: a reader must not pass a frame that
	// becomes visible later. All others wait for that row, so nothing is waited for while it is kept but the server.
	if f.q.number != "" {
		tx.Queue(f.q.number, int64(len(frames)))
	}
	for i := range frames {
		if err := f.append(ctx, tx, &frames[i], int64(len(frames)-1-i)); err != nil {
			return fmt.Errorf("sqlstore: append frame: %w", err)
		}
	}
	tx.AfterCommit(f.s.feedBell.ring)
	return nil
}

// append adds a frame, which stands so many before the last one numbered. A file numbers its rows itself.
func (f *feedStore) append(ctx context.Context, tx *txn.Tx, fr *push.Frame, before int64) error {
	feeds, err := json.Marshal(fr.Feeds)
	if err != nil {
		return err
	}
	place := before
	if f.q.number != "" {
		tx.Queue(f.q.append, fr.Event, fr.Data, string(feeds), before)
	} else if err := tx.QueryRow(ctx, f.q.append, []any{fr.Event, fr.Data, string(feeds)}, &place); err != nil {
		return err
	}
	for _, feed := range fr.Feeds {
		if feed != "" { // Every frame is in that one.
			tx.Queue(f.q.appendFeed, feed, place)
		}
	}
	return nil
}

// After implements [push.Log].
func (f *feedStore) After(ctx context.Context, feed string, position int64, limit int) ([]push.Frame, error) {
	query, args := f.q.after, []any{feed, position, int64(page(limit))}
	if feed == "" {
		query, args = f.q.afterAll, args[1:]
	}
	var out []push.Frame
	err := f.s.each(ctx, query, args, func(rows txn.Rows) error {
		var fr push.Frame
		var feeds []byte
		if err := rows.Scan(&fr.Position, &fr.Event, &fr.Data, &feeds); err != nil {
			return err
		}
		out = append(out, fr)
		return json.Unmarshal(feeds, &out[len(out)-1].Feeds)
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: feed %s after %d: %w", feed, position, err)
	}
	return out, nil
}

// Bounds implements [push.Log].
func (f *feedStore) Bounds(ctx context.Context) (epoch string, first, last int64, err error) {
	if err := f.s.row(ctx, f.q.bounds, nil, &epoch, &first, &last); err != nil {
		return "", 0, 0, fmt.Errorf("sqlstore: bounds of the feed: %w", err)
	}
	return epoch, first, last, nil
}

// Trim implements [push.Log].
func (f *feedStore) Trim(ctx context.Context, keep int64, limit int) (int, error) {
	_, first, last, err := f.Bounds(ctx)
	if err != nil {
		return 0, err
	}
	to := min(last-keep, first+int64(limit)-1)
	if first == 0 || to < first {
		return 0, nil
	}
	var n int64
	err = f.s.Run(ctx, func(ctx context.Context, tx *txn.Tx) (err error) {
		if _, err = tx.Exec(ctx, f.q.trimFeed, to); err != nil {
			return err
		}
		n, err = tx.Exec(ctx, f.q.trim, to)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqlstore: trim the feed: %w", err)
	}
	return int(n), nil
}

// Listen implements [push.Log].
func (f *feedStore) Listen() (<-chan struct{}, func()) { return f.s.feedBell.listen() }
