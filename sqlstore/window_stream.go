package sqlstore

import (
	"context"
	"slices"
	"time"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/txn"
)

const (
	// streamsMax bounds the large windows that are read at the same time, each on a connection of its own.
	streamsMax = 4
	// streamFor bounds the life of one: while it is open the database keeps what it has deleted since.
	streamFor = 15 * time.Second
	// streamPages is from how many pages on a window is large.
	streamPages = 4
)

// windowStream is the rest of a large window on its way: a window is sorted by id, and to sort it again for
// each page would cost its square. It belongs to nobody: whoever asks for what follows its place gets it.
type windowStream struct {
	shard int
	at    outbox.Position // the last one returned
	rows  txn.Rows        // nil until somebody asks
	scan  *recordScan
	end   context.CancelFunc
	until time.Time
}

// announceStream remembers a page of a window, its last one, that has many more.
func (w *windowLog) announceStream(shard int, records []outbox.Record, limit, events int) {
	if n := len(records); n == limit && events >= min(streamPages*limit, listMax) { // They are counted up to listMax.
		w.keepStream(&windowStream{shard: shard, at: records[n-1].Position})
	}
}

// keepStream puts a stream where the next page is asked for; the one that nobody asked for the longest goes.
func (w *windowLog) keepStream(s *windowStream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || s.rows != nil && time.Now().After(s.until) {
		s.close()
		return
	}
	if len(w.streams) == streamsMax {
		w.streams[0].close()
		w.streams = w.streams[1:]
	}
	w.streams = append(w.streams, s)
}

// takeStream returns the stream that stands at a position.
func (w *windowLog) takeStream(shard int, at outbox.Position) *windowStream {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.streams {
		if s.shard == shard && s.at == at {
			w.streams = slices.Delete(w.streams, i, i+1)
			return s
		}
	}
	return nil
}

// fromStream returns what follows a position, when a stream stands there. Whatever happens to a stream, the
// same can be read without it.
func (w *windowLog) fromStream(ctx context.Context, shard int, after outbox.Position, limit int) []outbox.Record {
	s := w.takeStream(shard, after)
	if s == nil {
		return nil
	}
	if s.rows == nil && !w.openStream(s) {
		return nil
	}
	records := make([]outbox.Record, 0, limit)
	for len(records) < limit && ctx.Err() == nil && s.rows.Next() {
		r, err := s.scan.read(s.rows)
		if err != nil {
			s.close()
			return nil
		}
		s.at.ID = r.Position.ID
		r.Position = s.at
		records = append(records, r)
	}
	if len(records) < limit {
		s.close()
		return records
	}
	w.keepStream(s)
	return records
}

// openStream begins to read the rest of a window. What is not asked for in time is closed.
func (w *windowLog) openStream(s *windowStream) bool {
	ctx, end := context.WithCancel(context.Background())
	rows, err := w.s.engine.query(ctx, w.q.rest, int64(s.shard), s.at.Tick, s.at.ID)
	if err != nil {
		end()
		return false
	}
	s.rows, s.scan, s.end, s.until = rows, newRecordScan(), end, time.Now().Add(streamFor)
	time.AfterFunc(streamFor, func() { w.dropStream(s) })
	return true
}

func (w *windowLog) dropStream(s *windowStream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.streams, s); i >= 0 { // Else it is being read, or gone.
		w.streams = slices.Delete(w.streams, i, i+1)
		s.close()
	}
}

// close cuts the stream off.
func (s *windowStream) close() {
	if s.rows != nil {
		s.end()
		_ = s.rows.Close() // It was cut off.
		s.rows = nil
	}
}

// close ends what the log has open.
func (w *windowLog) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, s := range w.streams {
		s.close()
	}
	w.streams = nil
}
