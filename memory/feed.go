package memory

import (
	"context"
	"crypto/rand"
	"slices"

	"github.com/settledev/settle/push"
	"github.com/settledev/settle/txn"
)

var _ push.Log = frames{}

// feed is the feed log: frames in order, an index by feed, and the frames of the open transaction.
type feed struct {
	epoch   string
	frames  []push.Frame // that of position trimmed+1 comes first
	trimmed int64
	index   map[string][]int64
	pending []push.Frame // the writer's
}

func (f *feed) init() { f.epoch, f.index = rand.Text(), map[string][]int64{} }

func (f *feed) last() int64 { return f.trimmed + int64(len(f.frames)) }

func (f *feed) commit() {
	for _, frame := range f.pending {
		frame.Position = f.last() + 1
		f.frames = append(f.frames, frame)
		for _, name := range frame.Feeds {
			if at := f.index[name]; len(at) == 0 || at[len(at)-1] != frame.Position {
				f.index[name] = append(at, frame.Position)
			}
		}
	}
	f.discard()
}

func (f *feed) discard() { f.pending = nil }

// trim deletes the first n frames.
func (f *feed) trim(n int) {
	for _, frame := range f.frames[:n] {
		for _, name := range frame.Feeds {
			at := f.index[name]
			for len(at) > 0 && at[0] <= frame.Position {
				at = at[1:]
			}
			if f.index[name] = at; len(at) == 0 {
				delete(f.index, name)
			}
		}
	}
	clear(f.frames[:n]) // Readers have copies.
	f.frames = f.frames[n:]
	f.trimmed += int64(n)
}

type frames struct{ s *Store }

// Feed returns the feed log.
func (s *Store) Feed() push.Log { return frames{s} }

func (f frames) Append(_ context.Context, tx *txn.Tx, added ...push.Frame) error {
	if err := f.s.within(tx); err != nil {
		return err
	}
	if len(added) == 0 {
		return nil
	}
	if log := &f.s.feed; len(log.pending) == 0 {
		f.s.dirty = append(f.s.dirty, log)
		f.s.rings = append(f.s.rings, &f.s.feeding)
	}
	f.s.feed.pending = append(f.s.feed.pending, added...)
	return nil
}

func (f frames) After(ctx context.Context, name string, position int64, limit int) ([]push.Frame, error) {
	var page []push.Frame
	err := f.s.read(ctx, func() {
		log := &f.s.feed
		if name == "" {
			from := min(max(position-log.trimmed, 0), int64(len(log.frames)))
			rest := log.frames[from:]
			page = slices.Clone(rest[:min(limit, len(rest))])
			return
		}
		at := log.index[name]
		i, _ := slices.BinarySearch(at, position+1)
		for _, p := range at[i:min(i+limit, len(at))] {
			page = append(page, log.frames[p-log.trimmed-1])
		}
	})
	return page, err
}

func (f frames) Bounds(ctx context.Context) (epoch string, first, last int64, err error) {
	err = f.s.read(ctx, func() {
		log := &f.s.feed
		epoch, last = log.epoch, log.last()
		if len(log.frames) > 0 {
			first = log.trimmed + 1
		}
	})
	return epoch, first, last, err
}

func (f frames) Trim(ctx context.Context, keep int64, limit int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	log := &f.s.feed
	n := max(0, min(int64(limit), int64(len(log.frames))-max(keep, 0)))
	log.trim(int(n))
	return int(n), nil
}

func (f frames) Listen() (ring <-chan struct{}, stop func()) { return f.s.feeding.Listen() }
