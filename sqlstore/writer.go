package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/txn"
)

// probeEvery is how many busy groups pass, after gathering brought nobody together, until the writer
// tries again whether it would.
const probeEvery = 32

// groupTimeMax ends a group: its first members have waited long enough for their answers.
const groupTimeMax = 20 * time.Millisecond

// The states of a member: it is taken by the writer, or given up by its caller, never both.
const (
	memberWaiting = iota
	memberTaken
	memberGone
)

// member is one transaction that waits for its turn.
type member struct {
	ctx   context.Context //nolint:containedctx // It is the caller's, for as long as the caller waits.
	fn    func(context.Context, *txn.Tx) error
	state atomic.Int32
	tx    *txn.Tx
	first int64 // row number of the first of its events, 0 without
	err   error // its answer, once done is closed
	done  chan struct{}
}

// writer owns the only connection that writes. Everything below run belongs to its goroutine.
type writer struct {
	store   *Store
	backend *Backend
	conn    *sql.Conn
	stmts   *stmtCache // of the members
	own     *stmtCache // of the writer: BEGIN and the like
	cfg     Config
	q       writerSQL

	queue   chan *member
	closing chan struct{}
	dead    chan struct{} // closed when nobody serves the queue any more

	batch      []*member // gathered, not yet taken
	group      []*member // of the open transaction, in order
	lost       []*member // of a transaction that SQLite ended; they run again
	durable    bool      // the group is committed, its members are being told
	current    *conn     // of the member that runs
	inTx       bool
	lastCommit time.Time
	pays       bool // gathering brought members together
	skipped    int
	timer      *time.Timer
	args       []any // of the statement that adds an event
}

type writerSQL struct {
	begin, commit, rollback, savepoint, release, rollbackTo string
}

func newWriterSQL(q *statements) writerSQL {
	return writerSQL{
		begin: q.text("store.begin"), commit: q.text("store.commit"), rollback: q.text("store.rollback"),
		savepoint: q.text("store.savepoint"), release: q.text("store.release"), rollbackTo: q.text("store.rollback_to"),
	}
}

func newWriter(ctx context.Context, s *Store, q *statements) (*writer, error) {
	conn, err := s.backend.Writer.Conn(ctx)
	if err != nil {
		return nil, s.backend.classify(err)
	}
	w := &writer{
		store: s, backend: &s.backend, conn: conn, cfg: s.cfg,
		stmts: newStmtCache(conn, s.cfg.StatementsMax, checkControl), own: newStmtCache(conn, 16, nil),
		q:     newWriterSQL(q),
		queue: make(chan *member, s.cfg.QueueMax), closing: make(chan struct{}), dead: make(chan struct{}),
		timer: time.NewTimer(time.Hour),
	}
	w.timer.Stop()
	return w, nil
}

// run hands fn to the writer and waits for its commit.
func (w *writer) run(ctx context.Context, fn func(context.Context, *txn.Tx) error) error {
	m := &member{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case w.queue <- m:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closing:
		return ErrClosed
	}
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
		if m.state.CompareAndSwap(memberWaiting, memberGone) {
			return ctx.Err()
		}
	case <-w.dead:
		if m.state.CompareAndSwap(memberWaiting, memberGone) {
			return ErrClosed
		}
	}
	<-m.done // It has begun: its answer is never in doubt.
	return m.err
}

// serve is the writer's goroutine.
func (w *writer) serve() {
	finished := false
	defer func() {
		if finished {
			close(w.dead)
			return
		}
		// A member ended the goroutine (runtime.Goexit, as a test's FailNow does). Nothing of its group
		// is committed; whoever is left is told, and another goroutine takes over.
		w.cfg.Logger.Error("a transaction's function has ended the writer's goroutine")
		w.abandon()
		go w.serve()
	}()
	for w.next() {
		w.commitGroup()
	}
	w.stmts.close()
	w.own.close()
	finished = true
}

// next waits for a first member, and for others while that pays; false when the store is closing and
// the queue is empty.
func (w *writer) next() bool {
	if len(w.batch) > 0 {
		return true
	}
	select {
	case m := <-w.queue:
		w.batch = append(w.batch, m)
	default:
		select {
		case m := <-w.queue:
			w.batch = append(w.batch, m)
		case <-w.closing:
			select {
			case m := <-w.queue:
				w.batch = append(w.batch, m)
				return true
			default:
				return false
			}
		}
	}
	w.gather()
	return true
}

// gather lets the rest of the gap pass when the writer is busy. An idle writer never waits; a busy one
// waits only while its groups have more than one member, or to find out whether they would.
func (w *writer) gather() {
	if w.cfg.NoGap {
		return
	}
	rest := w.cfg.Gap - time.Since(w.lastCommit)
	if rest <= 0 {
		return
	}
	if !w.pays {
		if w.skipped++; w.skipped < probeEvery {
			return
		}
		w.skipped = 0
	}
	w.timer.Reset(rest)
	defer w.timer.Stop()
	for len(w.batch) < w.cfg.GatherMax {
		select {
		case m := <-w.queue:
			w.batch = append(w.batch, m)
		case <-w.timer.C:
			return
		case <-w.closing:
			return
		}
	}
}

// pop returns the next member that still waits, nil when the group is complete.
func (w *writer) pop() *member {
	for {
		var m *member
		if len(w.batch) > 0 {
			m, w.batch = w.batch[0], w.batch[1:]
		} else {
			w.batch = nil
			select {
			case m = <-w.queue:
			default:
				return nil
			}
		}
		if m.ctx.Err() == nil && m.state.CompareAndSwap(memberWaiting, memberTaken) {
			return m
		}
		if m.state.CompareAndSwap(memberWaiting, memberGone) {
			m.err = m.ctx.Err()
			close(m.done)
		}
	}
}

// commitGroup runs members until none waits, and commits them together.
func (w *writer) commitGroup() {
	started := time.Now()
	w.group = w.group[:0]
	for len(w.group) < w.cfg.GroupMax {
		m := w.pop()
		if m == nil {
			break
		}
		nested := w.inTx
		w.group = append(w.group, m)
		if !w.member(m, nested) {
			w.again()
			return
		}
		if m.err != nil && !nested {
			// It has seen nothing but what is committed, so its answer stands.
			w.group = w.group[:len(w.group)-1]
			close(m.done)
		}
		if time.Since(started) > groupTimeMax {
			break
		}
	}
	if len(w.group) == 0 {
		return // A failed first member has taken the transaction with it.
	}
	if err := w.commit(); err != nil {
		if len(w.group) == 1 {
			w.group[0].err = err
			close(w.group[0].done)
			return
		}
		w.again()
		return
	}
	w.committed()
}

// commit makes the group durable, or rolls all of it back.
func (w *writer) commit() error {
	if err := w.exec(w.q.commit); err != nil {
		w.rollback()
		return fmt.Errorf("sqlstore: commit: %w", w.backend.classify(err))
	}
	w.inTx = false
	return nil
}

// again runs the members of a group that is lost one by one, so that each gets its own answer. Those that
// had failed run too: what they saw of their neighbours may be gone.
func (w *writer) again() {
	w.cfg.Logger.Warn("transaction of a group lost, its members run one by one", "members", len(w.group))
	w.lost = append(w.lost[:0], w.group...)
	for len(w.lost) > 0 {
		m := w.lost[0]
		w.lost = w.lost[1:]
		w.group = append(w.group[:0], m)
		w.member(m, false)
		if m.err == nil {
			m.err = w.commit()
		}
		if m.err != nil {
			w.group = w.group[:0]
			close(m.done)
			continue
		}
		w.committed()
	}
	w.lost = nil
}

// member runs one member and keeps its error. It reports false when the transaction of the group is
// lost, with every member that has run in it.
func (w *writer) member(m *member, nested bool) (whole bool) {
	m.tx, m.first = nil, 0
	begin := w.q.begin
	if nested {
		begin = w.q.savepoint
	}
	if err := w.exec(begin); err != nil {
		m.err = fmt.Errorf("sqlstore: begin: %w", w.backend.classify(err))
		return w.undo(nested)
	}
	w.inTx = true
	if m.err = w.attempt(m); m.err != nil {
		return w.undo(nested)
	}
	if !nested {
		return true
	}
	if err := w.exec(w.q.release); err != nil {
		m.err = fmt.Errorf("sqlstore: release: %w", w.backend.classify(err))
		w.rollback()
		return false
	}
	return true
}

// attempt runs the member's function and writes its events.
func (w *writer) attempt(m *member) error {
	c := &conn{w: w}
	w.current = c
	m.tx = txn.NewTx(c, w.store, time.Now())
	err := w.call(m)
	m.tx.Close()
	w.closeRows()
	if err == nil {
		err = c.err
	}
	if err == nil && c.raw && !w.alive() {
		err = errors.New("sqlstore: transaction was ended behind the store's back")
	}
	if err == nil {
		err = w.addEvents(m, c)
	}
	return err
}

// closeRows closes what the member's function has forgotten: the next statement must not meet it.
func (w *writer) closeRows() {
	if w.current != nil && w.current.open != nil {
		_ = w.current.open.Close()
	}
	w.current = nil
}

// undo rolls one member back; false when that took the whole group.
func (w *writer) undo(nested bool) bool {
	if !nested {
		w.rollback() // It was the only one so far.
		return true
	}
	if w.exec(w.q.rollbackTo) != nil || w.exec(w.q.release) != nil {
		w.rollback()
		return false
	}
	return true
}

// rollback ends the transaction. It fails only when SQLite has done so already.
func (w *writer) rollback() {
	_ = w.exec(w.q.rollback)
	w.inTx = false
}

// alive probes whether the transaction is still open: BEGIN is refused inside one. There is no other way
// to ask over database/sql.
func (w *writer) alive() bool {
	if w.exec(w.q.begin) != nil {
		return true
	}
	_ = w.exec(w.q.rollback)
	return false
}

func (w *writer) exec(query string) error {
	s, err := w.own.get(context.Background(), query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(context.Background())
	return err
}

// call runs the member's function and turns a panic into an error.
func (w *writer) call(m *member) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &txn.PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return m.fn(memberContext{m.ctx, w.store}, m.tx)
}

// committed tells everybody: first the outbox's readers, then the members.
func (w *writer) committed() {
	w.durable = true
	w.store.tail.append(w.group)
	w.lastCommit = time.Now()
	w.pays = len(w.group) > 1
	rung := false
	for _, m := range w.group {
		if m.err == nil {
			m.tx.Committed()
			rung = rung || m.first > 0
		}
	}
	if rung {
		w.store.outboxBell.ring()
	}
	for i, m := range w.group {
		close(m.done)
		w.group[i] = nil
	}
	w.group, w.durable = w.group[:0], false
}

// abandon ends what a vanished goroutine has left: a committed group is told so, an open one fails.
func (w *writer) abandon() {
	w.closeRows()
	if !w.durable {
		w.rollback()
	}
	for _, m := range w.group {
		if !w.durable {
			m.err = errors.New("sqlstore: a transaction of the group has ended the writer's goroutine")
		}
		close(m.done)
	}
	// Those of a transaction that was lost before have not run again: they go first.
	w.batch = append(w.lost, w.batch...)
	for _, m := range w.lost {
		m.state.Store(memberWaiting)
	}
	w.group, w.lost, w.durable = w.group[:0], nil, false
}

// close lets the queue run empty and waits for the writer's end.
func (w *writer) close() error {
	close(w.closing)
	<-w.dead
	return w.conn.Close()
}
