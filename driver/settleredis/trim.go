package settleredis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

// trimMax bounds what one script drops, so that it does not hold the server up.
const trimMax = 10_000

// tend trims the logs until ctx ends. Of all processes one does it each time.
func (b *Broker) tend(ctx context.Context) {
	ticker := time.NewTicker(b.cfg.TrimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := b.db.SetArgs(ctx, b.cfg.key("tended"), "1", redis.SetArgs{Mode: "NX", TTL: b.cfg.TrimEvery * 9 / 10}).Err()
		if err != nil {
			continue // Another process is on it, or the server is away.
		}
		if err := b.trim(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Logger.Warn("trimming failed, the next round does it", "err", err)
		}
	}
}

// trim drops what is past its retention and settled by every group.
func (b *Broker) trim(ctx context.Context) error {
	counts, err := b.db.HGetAll(ctx, b.cfg.topicsKey()).Result()
	if err != nil {
		return err
	}
	for topic, text := range counts {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
		for i := range min(n, partitionsMax) {
			if err := b.trimLog(ctx, logName(topic, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Broker) trimLog(ctx context.Context, log string) error {
	for dropped := int64(1); dropped > 0; {
		answer, err := b.scripts.trim.Run(ctx, b.db, []string{b.cfg.logKey(log), b.cfg.tickKey(log), b.cfg.endsKey()},
			log, b.cfg.Retention.Milliseconds(), trimMax).Slice()
		if err != nil {
			return err
		}
		if len(answer) != 2 {
			return fmt.Errorf("trimming of %d parts, 2 expected", len(answer))
		}
		dropped, _ = answer[0].(int64)
		if group, _ := answer[1].(string); group != "" && dropped == 0 {
			b.cfg.Logger.Warn("a group holds back trimming: run it, or let the broker forget it",
				"group", group, "partition", partitionName(log), "retention", b.cfg.Retention)
		}
	}
	return nil
}

// Forget drops a group that reads topics no longer, so that it holds back no trimming. Its consumers must
// be stopped: one that runs begins the group anew.
func (b *Broker) Forget(ctx context.Context, group string, topics ...string) error {
	if err := event.CheckName(group); err != nil {
		return fmt.Errorf("settleredis: forget: group: %w", err)
	}
	for _, topic := range topics {
		n, err := b.db.HGet(ctx, b.cfg.topicsKey(), topic).Int()
		if err != nil {
			return fmt.Errorf("settleredis: forget %s of %s: %w: %w", group, topic, broker.ErrUnavailable, err)
		}
		for i := range min(n, partitionsMax) {
			err := b.db.XGroupDestroy(ctx, b.cfg.logKey(logName(topic, i)), group).Err()
			if err != nil && !isMissing(err) {
				return fmt.Errorf("settleredis: forget %s of %s: %w: %w", group, topic, broker.ErrUnavailable, err)
			}
		}
	}
	return nil
}

// isMissing reports whether a command met a log that has never been made.
func isMissing(err error) bool { return strings.Contains(err.Error(), "requires the key to exist") }
