package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// hopDirect is what a hop takes without an outbox and an inbox, on the same broker and stores: the producer
// publishes after its commit, and loses the event when it dies between; the reader handles it again when it
// dies before it has acknowledged.
func (o on) hopDirect(ctx context.Context, name string) (took []time.Duration, err error) {
	p, err := o.pipe(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	publisher, ok := p.b.(broker.Publisher)
	if !ok {
		return nil, fmt.Errorf("broker %s takes no messages", o.scheme())
	}
	st := newStamps()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := direct{to: publisher, added: make(chan broker.Message, hopRate)}
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	wg.Go(func() { failed <- d.publish(ctx) })
	wg.Go(func() { failed <- readDirect(ctx, p.b, p.to, st) })
	_, err = load(ctx, st, func(ctx context.Context, i int) (event.ID, time.Time, error) { return d.add(ctx, p.from, i) })
	cancel()
	wg.Wait()
	if err = errors.Join(err, <-failed, <-failed); err != nil {
		return nil, err
	}
	return st.took(), nil
}

// direct publishes what is added meanwhile at once, one call after the other, as a relay does.
type direct struct {
	to    broker.Publisher
	added chan broker.Message
}

func (d direct) add(ctx context.Context, from *sqlstore.Store, i int) (event.ID, time.Time, error) {
	err := from.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		_, err := tx.Exec(ctx, businessOn, key(i))
		return err
	})
	now := time.Now()
	if err != nil {
		return event.ID{}, now, err
	}
	e, err := happened().New(thing{key(i), i, text}).Seal("bench", now, event.Cause{})
	if err != nil {
		return event.ID{}, now, err
	}
	d.added <- broker.Message{Event: e}
	return e.ID, now, nil
}

func (d direct) publish(ctx context.Context) error {
	for {
		var batch []broker.Message
		select {
		case <-ctx.Done():
			return nil
		case m := <-d.added:
			batch = append(batch, m)
		}
		for more := true; more && len(batch) < broker.PublishMax; {
			select {
			case m := <-d.added:
				batch = append(batch, m)
			default:
				more = false
			}
		}
		if err := errors.Join(d.to.Publish(ctx, batch)...); err != nil {
			return unlessDone(ctx, err)
		}
	}
}

// readDirect handles every message of the topic, those of one fetch in one transaction.
func readDirect(ctx context.Context, b broker.Broker, to *sqlstore.Store, st *stamps) error {
	m, err := b.Subscribe(ctx, broker.Subscription{Group: "direct", Topics: []string{"bench-events"}})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all error
	for {
		p, err := m.Next(ctx)
		if err != nil {
			all = errors.Join(all, unlessDone(ctx, err))
			break
		}
		wg.Go(func() {
			err := readPartition(ctx, p, to, st)
			mu.Lock()
			defer mu.Unlock()
			all = errors.Join(all, err)
		})
	}
	wg.Wait()
	return errors.Join(all, m.Close())
}

func readPartition(ctx context.Context, p broker.Partition, to *sqlstore.Store, st *stamps) error {
	for ctx.Err() == nil {
		messages, err := p.Fetch(ctx, 100)
		if err != nil {
			return errors.Join(unlessDone(ctx, err), p.Release())
		}
		if len(messages) == 0 {
			continue
		}
		if err := to.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
			for _, m := range messages {
				st.handle(m.Event.ID)
				if _, err := tx.Exec(ctx, businessOn, m.Event.AggregateID); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return errors.Join(unlessDone(ctx, err), p.Release())
		}
		if err := p.Ack(ctx, messages[len(messages)-1].Position); err != nil {
			return errors.Join(unlessDone(ctx, err), p.Release())
		}
	}
	return p.Release()
}

// unlessDone is no error when the measurement is over.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
