package settlekafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/broker"
)

// transactional publishes each call in a transaction of its own, one after the other. Readers here see
// committed messages only, so a call shows as a whole or not at all.
//
// A message that is repeated after ErrUnavailable may stand twice all the same: when the answer to the
// commit was lost, nobody can tell whether it happened. The identity of the event tells its readers.
type transactional struct {
	broker *Broker

	mu sync.Mutex
	cl *kgo.Client // nil until the id is taken, and after it was given up
	// fenced is when another publisher was seen to have the id. Calls that began before that were meant
	// for an ownership that has ended; later ones take the id back.
	fenced time.Time
}

func (p *transactional) publish(ctx context.Context, c *call, began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.attempt(ctx, c, began)
	if err == nil {
		return
	}
	if isFenced(err) {
		p.fenced = time.Now()
		p.broker.cfg.Logger.Warn("another publisher took over the transactional id", "transactional_id", p.broker.cfg.TransactionalID, "err", err)
		err = fmt.Errorf("%w: %w", ErrFenced, err)
	}
	for i, at := range c.indexes {
		if i < len(c.results) && isForbidden(c.results[i]) {
			c.errs[at] = p.broker.result(c.names[i], c.results[i], nil)
			continue
		}
		c.errs[at] = fmt.Errorf("settlekafka: publish in a transaction: %w: %w", broker.ErrUnavailable, err)
	}
}

// attempt returns nil when everything was committed.
func (p *transactional) attempt(ctx context.Context, c *call, began time.Time) error {
	if !began.After(p.fenced) {
		return ErrFenced
	}
	if err := ctx.Err(); err != nil {
		return err // It waited for the calls before it.
	}
	if p.cl == nil {
		cl, err := p.broker.newClient(append(p.broker.producing(),
			kgo.TransactionalID(p.broker.cfg.Prefix+p.broker.cfg.TransactionalID),
			kgo.TransactionTimeout(p.broker.cfg.TransactionTimeout))...)
		if err != nil {
			return err
		}
		p.cl = cl
	}
	if err := p.cl.BeginTransaction(); err != nil {
		p.drop()
		return err
	}
	c.send(ctx, p.cl)
	if err := c.wait(ctx, p.broker.cfg.AckWait); err != nil {
		p.drop()
		<-c.done
		return err
	}
	if err := p.examine(c); err != nil {
		p.abort(ctx)
		return err
	}
	// Cut short, a commit would leave its outcome open.
	commit, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.broker.cfg.AckWait)
	defer cancel()
	if err := p.cl.EndTransaction(commit, kgo.TryCommit); err != nil {
		p.drop()
		return fmt.Errorf("commit, whose outcome is not known: %w", err)
	}
	return nil
}

// examine returns the first error of the records, a fence before others.
func (p *transactional) examine(c *call) error {
	var first error
	for i, err := range c.results {
		switch {
		case err == nil:
			continue
		case isFenced(err):
			return err
		case isGone(err), isCondemned(err):
			p.broker.forget(c.names[i])
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// abort ends the transaction so that it holds up no reader, and gives the client up: the next one begins
// with a higher epoch, which fences off whatever this one still had on its way.
func (p *transactional) abort(ctx context.Context) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.broker.cfg.AckWait)
	defer cancel()
	err := p.cl.AbortBufferedRecords(limited)
	if err == nil {
		err = p.cl.EndTransaction(limited, kgo.TryAbort)
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !isFenced(err) {
		p.broker.cfg.Logger.Warn("aborting a transaction failed; the cluster does it when the id is taken again", "err", err)
	}
	p.drop()
}

func (p *transactional) drop() {
	if p.cl != nil {
		p.cl.Close()
		p.cl = nil
	}
}

func (p *transactional) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}
