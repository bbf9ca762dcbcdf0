package consumer

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

const (
	// filterWait bounds one question to a filter, and filterRest is how long one that failed is left alone:
	// it is there to save time.
	filterWait = 100 * time.Millisecond
	filterRest = time.Second
)

// Filter remembers, outside of the database, which events are settled, so that one which comes again costs
// the database nothing. It is never the truth: an event that it does not know goes to the inbox, and its
// errors are ignored. So losing, flushing or stopping it costs work, and no effect.
//
// An event that it does know is passed over, so it must know it from Remember only, which is called after
// the commit. What could make that wrong is a database that goes back to an earlier state while the
// filter does not. So ids are remembered under a scope, which names one reader's time with one
// partition: a new one begins when a reader takes the partition and whenever the store has failed, as it
// does before it is restored or another server takes its place. What remains is a store that loses commits
// without failing once.
type Filter interface {
	// Seen tells which of ids were remembered under the scope.
	Seen(ctx context.Context, scope string, ids []event.ID) ([]bool, error)
	// Remember notes that ids are settled, under the scope.
	Remember(ctx context.Context, scope string, ids []event.ID) error
}

// sieve is a filter as the readers use it.
type sieve struct {
	filter Filter
	c      *Consumer

	mu   sync.Mutex
	down bool
	rest time.Time // left alone until then
}

// ready reports whether the filter is worth asking.
func (s *sieve) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.down || time.Now().After(s.rest)
}

// answered takes the outcome of a call, and logs the first of an outage.
func (s *sieve) answered(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if !s.down {
			s.c.cfg.Logger.Warn("filter failed, the inbox does without it", "err", err)
		}
		s.rest = time.Now().Add(filterRest)
	}
	s.down = err != nil
}

// sift asks which messages are settled already, and keeps the answer in the batch.
func (r *reader) sift(work context.Context, messages []broker.Message) {
	b, s := &r.batch, r.c.sieve
	if s == nil || !s.ready() {
		return
	}
	b.ids = b.ids[:0]
	for i := range messages {
		if h, refused := r.c.handler(&messages[i]); h != nil || refused != nil {
			b.ids = append(b.ids, messages[i].Event.ID)
		}
	}
	if len(b.ids) == 0 {
		return
	}
	if r.scope == "" {
		r.scope = r.c.cfg.Group + "/" + rand.Text()
	}
	ctx, cancel := context.WithTimeout(work, filterWait)
	defer cancel()
	seen, err := s.filter.Seen(ctx, r.scope, b.ids)
	s.answered(err)
	if err != nil || len(seen) != len(b.ids) {
		return
	}
	next := 0
	for i := range messages {
		known := false
		if h, refused := r.c.handler(&messages[i]); h != nil || refused != nil {
			known = seen[next]
			next++
		}
		b.seen = append(b.seen, known)
	}
}

// known reports whether the filter knows the message.
func (b *batch) known(i int) bool { return i < len(b.seen) && b.seen[i] }

// teach tells the filter what has been committed.
func (r *reader) teach(work context.Context) {
	s := r.c.sieve
	if s == nil || r.scope == "" || len(r.batch.ids) == 0 || !s.ready() {
		return
	}
	ctx, cancel := context.WithTimeout(work, filterWait)
	defer cancel()
	s.answered(s.filter.Remember(ctx, r.scope, r.batch.ids))
}

// distrust begins a new scope, after the store has failed: it may come back as it was earlier.
func (r *reader) distrust() { r.scope = "" }
