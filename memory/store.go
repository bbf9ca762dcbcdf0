package memory

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/idempotency"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/push"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/timer"
	"github.com/settledev/settle/txn"
)

// Compile-time proof of what a Store is.
var (
	_ txn.Runner           = (*Store)(nil)
	_ relay.Provider       = (*Store)(nil)
	_ inbox.Provider       = (*Store)(nil)
	_ consumer.Provider    = (*Store)(nil)
	_ deadletter.Provider  = (*Store)(nil)
	_ timer.Provider       = (*Store)(nil)
	_ call.Provider        = (*Store)(nil)
	_ idempotency.Provider = (*Store)(nil)
	_ push.Provider        = (*Store)(nil)
)

// pageMax bounds what a listing returns when it is not told.
const pageMax = 1000

// Store is every store contract in RAM. Transactions run one at a time; readers beside them see what is
// committed and nothing else. It starts no goroutine, waits only on channels and takes its time from
// package time, so it works inside a testing/synctest bubble that it was made in. Make one with [New].
type Store struct {
	turn chan struct{}          // has one token: the right to write
	open atomic.Pointer[txn.Tx] // the open transaction, nil between two

	// dirty are the tables that the writer has changed and rings the bells it will ring; both belong to
	// whoever has the turn.
	dirty []layered
	rings []*bell

	// mu guards what is committed. It is never held across anything that waits.
	mu sync.RWMutex

	outbox    outboxLog
	outboxing bell
	inbox     *table[memoryKey, time.Time]
	positions *table[positionKey, held]
	letters   *table[letterKey, deadletter.Letter]
	lanes     *table[laneKey, []letterKey]
	audit     *table[int64, deadletter.Entry]
	audited   int64
	timers    *table[string, timer.Timer]
	timing    bell
	calls     *table[callKey, prepared]
	calling   bell
	answers   *table[answerKey, idempotency.Answer]
	leases    *table[string, lock.Lease]
	feed      feed
	feeding   bell
}

// layered is a table with changes that are not committed.
type layered interface {
	commit()
	discard()
}

// New returns an empty store.
func New() *Store {
	s := &Store{
		turn:      make(chan struct{}, 1),
		inbox:     newTable[memoryKey](time.Time.Compare),
		positions: newTable[positionKey, held](nil),
		letters:   newTable[letterKey, deadletter.Letter](nil),
		lanes:     newTable[laneKey, []letterKey](nil),
		audit:     newTable[int64, deadletter.Entry](nil),
		timers:    newTable[string](byTime),
		calls:     newTable[callKey](byDue),
		answers:   newTable[answerKey](bySaved),
		leases:    newTable[string](byName),
	}
	s.outbox.parked = map[int64]*parked{}
	s.feed.init()
	s.turn <- struct{}{}
	return s
}

// Run runs fn in one transaction, after those that came before it; see [txn.Runner]. fn must not start
// another transaction of the same store: it would wait for itself.
func (s *Store) Run(ctx context.Context, fn func(ctx context.Context, tx *txn.Tx) error) error {
	if err := s.begin(ctx); err != nil {
		return fmt.Errorf("memory: wait for a turn: %w", err)
	}
	defer s.end()
	c := &conn{}
	tx := txn.NewTx(c, s, now())
	s.open.Store(tx)
	err := attempt(context.WithoutCancel(ctx), tx, fn)
	tx.Close()
	s.open.Store(nil)
	if err != nil {
		return err
	}
	if c.err != nil {
		return c.err
	}
	s.commit(tx)
	tx.Committed() // Still in turn, so that after-commit handlers see transactions in their order.
	return nil
}

// attempt calls fn and makes its panic an error.
func attempt(ctx context.Context, tx *txn.Tx, fn func(context.Context, *txn.Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &txn.PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return fn(ctx, tx)
}

// write runs a store's own change, outside of a business transaction, as a transaction.
func (s *Store) write(ctx context.Context, fn func() error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if err := fn(); err != nil {
		return err
	}
	s.commit(nil)
	return nil
}

func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err // Select would choose at random.
	}
	select {
	case <-s.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end gives the turn back, and forgets whatever was not committed.
func (s *Store) end() {
	s.open.Store(nil)
	for _, t := range s.dirty {
		t.discard()
	}
	s.dirty, s.rings = s.dirty[:0], s.rings[:0]
	s.turn <- struct{}{}
}

func (s *Store) commit(tx *txn.Tx) {
	s.mu.Lock()
	for _, t := range s.dirty {
		t.commit()
	}
	if tx != nil && len(tx.Events()) > 0 {
		s.outbox.append(now(), tx.Events())
		s.rings = append(s.rings, &s.outboxing)
	}
	s.mu.Unlock()
	s.dirty = s.dirty[:0]
	for _, b := range s.rings {
		b.ring()
	}
}

// within refuses a transaction that is over, or another store's.
func (s *Store) within(tx *txn.Tx) error {
	switch {
	case tx.Port() != any(s):
		return errors.New("memory: transaction belongs to another store")
	case s.open.Load() != tx:
		return txn.ErrClosed
	}
	return nil
}

// read runs fn over what is committed.
func (s *Store) read(ctx context.Context, fn func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	fn()
	return nil
}

// now is the present as a database would store it.
func now() time.Time { return time.Now().Round(0).UTC() }

// conn refuses statements: there is no SQL in RAM.
type conn struct{ err error }

var errSQL = fmt.Errorf("memory: store has no SQL, use a memory.Table: %w", errors.ErrUnsupported)

func (*conn) Exec(context.Context, string, ...any) (int64, error)     { return 0, errSQL }
func (*conn) Query(context.Context, string, ...any) (txn.Rows, error) { return nil, errSQL }
func (c *conn) Queue(string, ...any)                                  { c.err = errSQL }
func (*conn) Raw() any                                                { return nil }

// bell rings listeners after commits.
type bell struct {
	mu        sync.Mutex
	listeners map[chan struct{}]bool
}

func (b *bell) Listen() (ring <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = map[chan struct{}]bool{}
	}
	b.listeners[ch] = true
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, ch)
	}
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.listeners {
		select {
		case ch <- struct{}{}:
		default: // It has not heard the last ring yet.
		}
	}
}
