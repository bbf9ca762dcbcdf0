package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

// errTaken says that another member or an operator was first.
var errTaken = errors.New("letter was taken by somebody else")

// dueMax bounds the letters that one look at the store takes up.
const dueMax = 256

// retryLetters tries the heads of lanes when they are due, for as long as the consumer runs. Every member
// of a group does: a letter's row decides who wins, as its removal and the effect are one transaction.
func (c *Consumer) retryLetters(ctx, work context.Context) {
	var swept time.Time
	for ctx.Err() == nil {
		if time.Since(swept) >= sweepEvery {
			if err := c.sweep(ctx); err != nil && ctx.Err() == nil {
				c.cfg.Logger.Warn("looking over parked keys failed, trying again later", "err", err)
			}
			swept = time.Now()
		}
		moved, err := c.retryDue(ctx, work)
		if err != nil && ctx.Err() == nil {
			c.cfg.Logger.Warn("retrying parked events failed, trying again later", "err", err)
		}
		if !moved || err != nil {
			c.alarm.wait(ctx, retryPoll)
		}
	}
}

// retryDue tries what is due now, each lane beside the others, and reports whether anything moved: then
// followers may be due.
func (c *Consumer) retryDue(ctx, work context.Context) (moved bool, err error) {
	due, err := c.letters.Select(ctx, deadletter.Query{
		Group: c.cfg.Group, State: deadletter.StateRetrying, DueBy: time.Now(), Limit: dueMax,
	})
	if err != nil || len(due) == 0 {
		return false, err
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for i := range due {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-c.slots }()
			err := c.retryOne(ctx, work, due[i])
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				moved = true
			case !errors.Is(err, errTaken):
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return moved, errors.Join(errs...)
}

// retryOne handles a letter and deletes its row in one transaction. An error is the engine's, after which
// the letter is as it was.
func (c *Consumer) retryOne(ctx, work context.Context, l deadletter.Letter) error {
	if l.Permanent && l.Attempts == 0 {
		l.Attempts, l.LastAt, l.State = 1, time.Now(), deadletter.StateDead
		return c.keep(work, l, nil)
	}
	h := c.cfg.Handlers[l.Event.Type]
	if h == nil {
		return c.fail(work, l, &failure{err: retry.Permanent(fmt.Errorf("%q: %w", l.Event.Type, ErrUnknownType))})
	}
	if err := l.Event.Check(); err != nil {
		return c.fail(work, l, &failure{err: retry.Permanent(err)})
	}
	var f *failure
	err := c.run.Run(work, func(ctx context.Context, tx *txn.Tx) error {
		f = nil
		return c.handleLetter(ctx, tx, h, &l, &f)
	})
	lane := deadletter.Lane{Topic: l.Event.Topic, Key: l.Event.AggregateID}
	switch {
	case err == nil:
		c.strikes.clear(l.Event.ID)
		c.lanes.removed()
		c.cfg.Logger.Info("parked event handled", append(attributes(&l.Event), "attempt", l.Attempts+1)...)
		if c.cfg.Hooks.Handled != nil {
			c.cfg.Hooks.Handled([]event.Envelope{l.Event}, time.Now())
		}
		return c.dropIfEmpty(ctx, lane)
	case errors.Is(err, deadletter.ErrNotFound) && f == nil:
		c.strikes.clear(l.Event.ID)
		if err := c.dropIfEmpty(ctx, lane); err != nil {
			return err
		}
		return errTaken
	case work.Err() != nil:
		return err
	case f != nil && !c.transient(f.err):
		return c.fail(work, l, f)
	case f == nil && !c.transient(err) && c.touch(work, l) == nil:
		// The store takes other writes: after a few times it is this letter's transaction that is at fault.
		if c.strikes.count(l.Event.ID) >= blameAfter {
			return c.fail(work, l, &failure{err: err})
		}
	}
	return fmt.Errorf("letter %s: %w", l.ID(), err)
}

// handleLetter deletes first: the row's lock decides between members before the handler has any effect.
func (c *Consumer) handleLetter(ctx context.Context, tx *txn.Tx, h Handler, l *deadletter.Letter, f **failure) error {
	ok, err := c.letters.Remove(ctx, tx, l.Group, l.Event.ID)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if !ok {
		return deadletter.ErrNotFound
	}
	if c.inbox != nil {
		// It was remembered when it was parked; a letter that lay longer than the retention is so again.
		if _, err := c.inbox.Remember(ctx, tx, l.Group, []event.ID{l.Event.ID}); err != nil {
			return fmt.Errorf("remember: %w", err)
		}
	}
	if *f = c.invoke(ctx, tx, h, &l.Event); *f != nil {
		return *f
	}
	if err := c.audit(ctx, tx, l, "handled"); err != nil {
		return err
	}
	c.cfg.Failpoint("consumer.before-commit")
	return nil
}

// fail stores what a failed attempt made of a letter.
func (c *Consumer) fail(work context.Context, l deadletter.Letter, f *failure) error {
	c.strikes.clear(l.Event.ID)
	before := l
	c.judge(&l, f, time.Now())
	note := ""
	if deadletter.Replayed(before) {
		note = "failed: " + l.Cause
	}
	err := c.keep(work, l, func(ctx context.Context, tx *txn.Tx) error {
		if note == "" {
			return nil
		}
		return c.audit(ctx, tx, &before, note)
	})
	if err != nil {
		return err
	}
	if l.State == deadletter.StateRetrying {
		c.alarm.at(l.NextAt)
		c.cfg.Logger.Warn("parked event failed again", append(attributes(&l.Event), "attempt", l.Attempts, "next", l.NextAt, "err", l.Cause)...)
		if c.cfg.Hooks.Retried != nil {
			c.cfg.Hooks.Retried(l, f.err)
		}
	}
	return nil
}

// keep updates a letter, with its copy for other teams when it has become DEAD.
func (c *Consumer) keep(work context.Context, l deadletter.Letter, also func(context.Context, *txn.Tx) error) error {
	err := c.run.Run(work, func(ctx context.Context, tx *txn.Tx) error {
		if err := c.letters.Update(ctx, tx, l); err != nil {
			return err
		}
		if also != nil {
			if err := also(ctx, tx); err != nil {
				return err
			}
		}
		if l.State == deadletter.StateDead {
			return c.mirror(ctx, tx, &l)
		}
		return nil
	})
	switch {
	case errors.Is(err, deadletter.ErrNotFound):
		return nil // Handled or discarded by somebody else meanwhile: there is nothing to keep.
	case err != nil:
		return fmt.Errorf("update %s: %w", l.ID(), err)
	}
	if l.State == deadletter.StateDead {
		c.dead(&l)
	}
	return nil
}

// touch reports whether the store takes a write that has nothing to do with the letter's handler.
func (c *Consumer) touch(work context.Context, l deadletter.Letter) error {
	return c.run.Run(work, func(ctx context.Context, tx *txn.Tx) error { return c.letters.Update(ctx, tx, l) })
}

// audit writes down what became of an operator's replay.
func (c *Consumer) audit(ctx context.Context, tx *txn.Tx, l *deadletter.Letter, note string) error {
	a, ok := c.letters.(deadletter.Auditor)
	if !ok || !deadletter.Replayed(*l) {
		return nil
	}
	return a.Audit(ctx, tx, deadletter.Entry{At: tx.Now(), Operator: deadletter.OperatorEngine, Action: deadletter.ActionReplayed, Letter: l.ID(), Note: note})
}

// dropIfEmpty lets events of a lane through again once it has no letters; see [lanes]. A lane that it
// leaves by mistake is seen to by the sweep.
func (c *Consumer) dropIfEmpty(ctx context.Context, lane deadletter.Lane) error {
	gen, ok := c.lanes.question(lane)
	if !ok {
		return nil
	}
	rest, err := c.letters.Select(ctx, deadletter.Query{Group: c.cfg.Group, Topic: lane.Topic, Key: lane.Key, Limit: 1})
	if err != nil {
		return fmt.Errorf("look for more letters of %s %s: %w", lane.Topic, lane.Key, err)
	}
	if len(rest) == 0 {
		c.lanes.drop(lane, gen)
	}
	return nil
}

// sweep drops lanes that others have emptied (an operator, another member), and counts the letters.
func (c *Consumer) sweep(ctx context.Context) error {
	asked := c.lanes.questions()
	all, err := c.letters.Lanes(ctx, c.cfg.Group)
	if err != nil {
		return err
	}
	for _, l := range all {
		delete(asked, l)
	}
	for l, gen := range asked {
		c.lanes.drop(l, gen)
	}
	counts, err := c.countLetters(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, count := range counts {
		n += int(count)
	}
	c.lanes.setLetters(n)
	return nil
}

// strikes counts how often a letter's transaction failed outside of its handler.
type strikes struct {
	mu sync.Mutex
	by map[event.ID]int
}

func (s *strikes) count(id event.ID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[event.ID]int{}
	}
	s.by[id]++
	return s.by[id]
}

func (s *strikes) clear(id event.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, id)
}
