package app

import (
	"context"
	"slices"
	"strings"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/replay"
)

// holder is a broker that can say which topics have had messages.
type holder interface {
	Held(ctx context.Context, topics ...string) ([]string, error)
}

// RefuseForeign refuses topics with the events of another shop, which a shop whose databases are new would handle as
// its own: nothing would come out right. The file's products tell whether the databases are new. It sees
// nothing on RabbitMQ, whose queues forget what was handled. The error is [ErrUsage].
func (a *App) RefuseForeign(ctx context.Context, file *replay.File) error {
	if !strings.Contains(a.opts.Broker, "://") {
		return nil
	}
	fresh, err := a.isNew(ctx, file)
	if err != nil || !fresh {
		return err
	}
	held, err := a.held(ctx)
	if err != nil || len(held) == 0 {
		return err
	}
	return usage("broker %s has events of another shop in %s, and the databases are new: name another --topic-prefix, or begin with --fresh and without one",
		Redact(a.opts.Broker), strings.Join(held, ", "))
}

// isNew reports whether the shop has neither the file's products nor an event.
func (a *App) isNew(ctx context.Context, file *replay.File) (bool, error) {
	ids := make([]string, 0, len(file.Products))
	for code := range file.Products {
		ids = append(ids, code)
	}
	known, err := a.shop.catalog.Products(ctx, ids)
	if err != nil || len(known) > 0 {
		return false, err
	}
	for _, svc := range a.shop.services {
		stats, err := svc.Stats(ctx)
		if err != nil || stats.Outbox.Sent+stats.Outbox.Pending > 0 {
			return false, err
		}
	}
	return true, nil
}

// held are the shop's topics that have had messages, as far as the broker tells.
func (a *App) held(ctx context.Context) ([]string, error) {
	switch b := a.broker.(type) {
	case holder:
		return b.Held(ctx, contract.Topics()...)
	case broker.Tailer:
		tail, err := b.Tail(ctx)
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(contract.Topics(), func(topic string) bool {
			for log, end := range tail.Offsets { // Logs are named after their topics.
				if end > 0 && strings.Contains(log, topic) {
					return false
				}
			}
			return true
		}), nil
	}
	return nil, nil
}
