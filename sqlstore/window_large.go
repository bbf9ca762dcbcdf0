package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

const (
	// largeMax bounds the large windows that are known at the same time, and for each the readers that it reads
	// ahead for.
	largeMax = 4
	// largePages is from how many pages on a window is large.
	largePages = 2
	// largeMin is how many events a large window has at least; ticks count them to listMax.
	largeMin = 1000
	// largeReaders share a page of a large window, each on a connection of its own.
	largeReaders = 2
	// partIDs is how many row numbers in a row are a part.
	partIDs = 256
	// aheadMax bounds the events that are read at once for somebody who asks for fewer, and aheadBytes their data:
	// a page costs two statements however small it is.
	aheadMax   = 2000
	aheadBytes = 8 << 20
)

// largeWindow is a window of many pages: what has gathered while nobody read. A window is sorted by row number
// and indexed by transaction, and to sort it again for each page would cost its square. So one look at the
// index finds which transactions wrote which numbers, and a page reads only theirs. Neighbours mostly wrote
// neighbours; where they did not, a page looks at more of the index.
type largeWindow struct {
	shard int
	tick  int64

	mu    sync.Mutex // held while the index is looked at, once for all readers
	parts []windowPart
	page  int         // how many events are read at once, or as many as asked for
	ahead []readAhead // what they were more than asked for, the oldest first
}

// readAhead are the records behind a position.
type readAhead struct {
	after   outbox.Position
	records []outbox.Record
}

// windowPart are the rows of a few numbers in a row.
type windowPart struct {
	first, last int64 // row numbers
	low, high   int64 // transactions
	events      int
}

// largeFrom is how many events make a window large for pages of a limit.
func largeFrom(limit int) int { return min(max(largePages*limit, largeMin), listMax) }

// knownLarge returns a window that was found to be large, or nil.
func (w *windowLog) knownLarge(shard int, tick int64) *largeWindow {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.large {
		if l.shard == shard && l.tick == tick {
			return l
		}
	}
	return nil
}

// largeWindow returns a large window, which from now on is known.
func (w *windowLog) largeWindow(shard int, tick int64) *largeWindow {
	if l := w.knownLarge(shard, tick); l != nil {
		return l
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := &largeWindow{shard: shard, tick: tick}
	if w.large = append(w.large, l); len(w.large) > largeMax {
		w.large = slices.Delete(w.large, 0, 1)
	}
	return l
}

// fromLarge returns what follows a position in a large window: nothing at its end.
func (w *windowLog) fromLarge(ctx context.Context, l *largeWindow, after outbox.Position, limit int) ([]outbox.Record, error) {
	if err := w.look(ctx, l); err != nil {
		return nil, err
	}
	records, page := l.take(after, limit)
	for len(records) < limit {
		if len(records) > 0 {
			after = records[len(records)-1].Position
		}
		more, err := w.readLarge(ctx, l, after, page)
		if err != nil {
			return nil, err
		}
		if len(more) == 0 {
			break
		}
		l.adapt(more, page)
		records = append(records, more...)
	}
	if n := limit; n < len(records) {
		l.keep(readAhead{records[n-1].Position, records[n:]})
		records = records[:n:n]
	}
	return records, nil
}

// take returns what has been read behind a position, and how much to read behind that.
func (l *largeWindow) take(after outbox.Position, limit int) (records []outbox.Record, page int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range l.ahead {
		if r.after == after {
			l.ahead = slices.Delete(l.ahead, i, i+1)
			records = r.records
			break
		}
	}
	return records, max(limit, l.page)
}

func (l *largeWindow) keep(r readAhead) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ahead = append(l.ahead, r); len(l.ahead) > largeMax {
		l.ahead = slices.Delete(l.ahead, 0, 1)
	}
}

// adapt lets pages grow while they are small, so that large events do not fill the memory.
func (l *largeWindow) adapt(records []outbox.Record, page int) {
	bytes := 0
	for i := range records {
		bytes += len(records[i].Event.Data)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.page = min(2*page, aheadMax); bytes > aheadBytes/2 {
		l.page = 0
	}
}

// readLarge reads a page by several readers.
func (w *windowLog) readLarge(ctx context.Context, l *largeWindow, after outbox.Position, page int) ([]outbox.Record, error) {
	var records [largeReaders][]outbox.Record
	var errs [largeReaders]error
	var wg sync.WaitGroup
	from := after.ID
	for i := range largeReaders {
		part := l.after(from, (page+largeReaders-1)/largeReaders)
		if part.events == 0 {
			break
		}
		behind := from
		wg.Go(func() { records[i], errs[i] = w.readPart(ctx, l, after, behind, part) })
		from = part.last
	}
	wg.Wait()
	all, err := slices.Concat(records[:]...), errors.Join(errs[:]...)
	if err == nil && len(all) == 0 && from > after.ID {
		// They were there. The windows behind this one must not look like what follows.
		err = fmt.Errorf("rows up to %d are purged: %w", from, relay.ErrRetention)
	}
	return all, err
}

// readPart reads what of a part is behind a row number. Nothing may be purged behind the position that the whole page
// follows: a reader before this one may have found nothing.
func (w *windowLog) readPart(ctx context.Context, l *largeWindow, after outbox.Position, behind int64, part windowPart) ([]outbox.Record, error) {
	var floor outbox.Position
	scan := newTickedScan(after.Epoch, &floor.Tick, &floor.ID)
	records := make([]outbox.Record, 0, part.events)
	args := []any{int64(l.shard), l.tick, behind, part.last, part.low, part.high}
	err := w.s.each(ctx, w.q.part, args, func(rows txn.Rows) error {
		r, err := scan.read(rows)
		records = append(records, r)
		return err
	})
	if err != nil || len(records) == 0 {
		return nil, err
	}
	return records, kept(after, floor)
}

// look finds the parts of the window.
func (w *windowLog) look(ctx context.Context, l *largeWindow) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts != nil {
		return nil
	}
	var parts []windowPart
	err := w.s.each(ctx, w.q.parts, []any{int64(l.shard), l.tick, int64(partIDs)}, func(rows txn.Rows) error {
		var p windowPart
		err := rows.Scan(&p.first, &p.last, &p.low, &p.high, &p.events)
		parts = append(parts, p)
		return err
	})
	if err == nil {
		l.parts = parts
	}
	return err
}

// after joins the parts behind a row number until they have enough events; with none events is 0.
func (l *largeWindow) after(id int64, enough int) (all windowPart) {
	i := sort.Search(len(l.parts), func(i int) bool { return l.parts[i].last > id })
	for whole := 0; i < len(l.parts) && whole < enough; i++ {
		p := l.parts[i]
		if all.events == 0 {
			all = p
		}
		all.last, all.low, all.high = p.last, min(all.low, p.low), max(all.high, p.high)
		if all.events += p.events; p.first > id {
			whole += p.events
		}
	}
	return all
}
