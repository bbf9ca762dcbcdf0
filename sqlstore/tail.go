package sqlstore

import (
	"sync"

	"github.com/settledev/settle/outbox"
)

// recordBytes is what a record costs beside its data.
const recordBytes = 384

// tail keeps the newest committed records in memory, so that a reader at the head of the outbox needs no
// SQL. Row numbers have no gaps, so a record is found by subtraction.
type tail struct {
	mu       sync.Mutex
	bytesMax int
	bytes    int
	records  []outbox.Record // in order, without a gap; records[0].ID is last-len+1
	last     int64           // of the newest committed event, 0 when there never was one
	known    bool            // last is right: this process is the only writer
}

// start sets the newest row number found when the store was opened.
func (t *tail) start(last int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.known = last, true
}

func (t *tail) knows() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known
}

func (t *tail) newest() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// append adds the events of a committed group. Only the writer calls it, after COMMIT.
func (t *tail) append(group []*member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range group {
		if m.first == 0 || m.err != nil {
			continue
		}
		if m.first != t.last+1 {
			t.records, t.bytes = nil, 0
		}
		for i, e := range m.tx.Events() {
			id := m.first + int64(i)
			t.records = append(t.records, outbox.Record{Position: outbox.Position{ID: id}, CreatedAt: m.tx.Now().UTC(), Event: e})
			t.bytes += recordBytes + len(e.Data)
			t.last = id
		}
	}
	for t.bytes > t.bytesMax && len(t.records) > 0 {
		t.drop(1)
	}
}

// forget drops records below a row number, all of them when it is 0: they have been purged, and every
// reader gets the same answer.
func (t *tail) forget(below int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if below == 0 {
		below = t.last + 1
	}
	first := t.last - int64(len(t.records)) + 1
	t.drop(int(max(0, below-first)))
}

func (t *tail) drop(n int) {
	n = min(n, len(t.records))
	for i := range t.records[:n] {
		t.bytes -= recordBytes + len(t.records[i].Event.Data)
		t.records[i] = outbox.Record{}
	}
	t.records = t.records[n:]
}

// next returns records after a row number; ok is false when the database has to be asked.
func (t *tail) next(after int64, limit int) (records []outbox.Record, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known {
		return nil, false
	}
	if after >= t.last {
		return nil, true
	}
	behind := t.last - after // how many records follow
	if behind > int64(len(t.records)) {
		return nil, false
	}
	from := len(t.records) - int(behind)
	to := min(from+limit, len(t.records))
	return append([]outbox.Record(nil), t.records[from:to]...), true
}
