package settleredis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/settledev/settle/broker"
)

// fetchBytesMax is what one read shall bring, as far as the messages before tell.
const fetchBytesMax = 16 << 20

// partition is a log in the hands of one member, used by one goroutine at a time.
type partition struct {
	member *member
	claim  *claim
	rung   chan struct{}

	// at is the last message returned, or where Seek was told to go on.
	at    broker.Position
	acked uint64
	lost  error // ErrPositionLost until the next Seek

	opened  bool // the group on the server is where at is
	pending bool // what this group's owners had in hand is read first
	force   bool // the next open goes by at, whatever is pending
	largest int  // bytes of the largest message of the last read
	closed  bool
}

func newPartition(m *member, c *claim) *partition {
	p := &partition{member: m, claim: c, rung: make(chan struct{}, 1)}
	m.broker.bells.listen(context.Background(), c.log, p.rung)
	return p
}

// Name implements [broker.Partition].
func (p *partition) Name() string { return partitionName(p.claim.log) }

// Revoked implements [broker.Partition].
func (p *partition) Revoked() <-chan struct{} { return p.claim.revoked }

// Seek takes the position to go on after; nothing is asked of the server before the first Fetch.
func (p *partition) Seek(_ context.Context, at broker.Position) error {
	p.at, p.acked, p.lost, p.opened, p.force = at, 0, nil, false, false
	return nil
}

// Fetch returns what is there, or waits up to the config's Wait for the first message.
func (p *partition) Fetch(ctx context.Context, limit int) ([]broker.Message, error) {
	if limit < 1 || limit > broker.FetchMax {
		return nil, fmt.Errorf("settleredis: fetch of %d messages: 1 to %d allowed", limit, broker.FetchMax)
	}
	timer := time.NewTimer(p.member.broker.cfg.Wait)
	defer timer.Stop()
	for {
		if !p.claim.live() {
			return nil, broker.ErrRevoked
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if p.lost != nil {
			return nil, p.lost
		}
		select {
		case <-p.rung: // What is rung from here on is not in what is read now.
		default:
		}
		messages, again, err := p.read(ctx, limit)
		if err != nil {
			return nil, p.refusal(ctx, err)
		}
		if len(messages) > 0 {
			return messages, nil
		}
		if again {
			select {
			case <-timer.C:
				return nil, nil
			default:
				continue
			}
		}
		select {
		case <-p.rung:
		case <-p.claim.revoked:
		case <-ctx.Done():
		case <-timer.C:
			return nil, nil
		}
	}
}

func (p *partition) refusal(ctx context.Context, err error) error {
	p.opened = false
	switch {
	case errors.Is(err, broker.ErrRevoked):
		return err
	case errors.Is(err, broker.ErrPositionLost):
		p.lost = err
		return err
	}
	return fmt.Errorf("settleredis: fetch %s: %w", p.Name(), unavailable(ctx, err))
}

// open prepares the server for reading after at.
func (p *partition) open(ctx context.Context) error {
	b, c := p.member.broker, &p.member.broker.cfg
	log, group := p.claim.log, p.member.group
	force := ""
	if p.force {
		force = "1"
	}
	answer, err := b.scripts.own.Run(ctx, b.db,
		[]string{c.lifeKey(), c.endsKey(), c.logKey(log), c.leaseKey(group, log), c.tickKey(log)},
		log, group, p.member.id, p.claim.token, p.at.Incarnation, strconv.FormatUint(p.at.Offset, 10), force,
		c.Retention.Milliseconds()).Slice()
	if err != nil {
		return err
	}
	verdict := ""
	if len(answer) > 0 {
		verdict, _ = answer[0].(string)
	}
	switch verdict {
	case "revoked":
		return broker.ErrRevoked
	case "gone":
		_, err := b.look(ctx) // It begins another life, or another incarnation.
		return err
	}
	if len(answer) < 3 {
		return fmt.Errorf("%s cannot be opened: %v", log, answer)
	}
	incarnation, _ := answer[1].(string)
	text, _ := answer[2].(string)
	offset, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return err
	}
	switch verdict {
	case "past":
		return b.tailLost(ctx, incarnation, log, offset)
	case "lost":
		return fmt.Errorf("settleredis: fetch %s after %s, the first is %d: %w", p.Name(), p.at, offset, broker.ErrPositionLost)
	}
	left, _ := answer[3].(int64)
	p.at = broker.Position{Incarnation: incarnation, Offset: offset}
	p.acked, p.opened, p.pending, p.force = offset, true, left > 0, false
	return nil
}

// read asks the server once. again says that it is worth asking at once again.
func (p *partition) read(ctx context.Context, limit int) (messages []broker.Message, again bool, err error) {
	if !p.opened {
		if err := p.open(ctx); err != nil || !p.opened {
			return nil, true, err
		}
	}
	entries, same, err := p.ask(ctx, limit)
	if err != nil {
		if strings.HasPrefix(err.Error(), "NOGROUP") { // The data was flushed.
			p.opened = false
			return nil, true, nil
		}
		return nil, false, err
	}
	if !same {
		p.opened = false
		return nil, true, nil
	}
	if len(entries) == 0 {
		again, p.pending = p.pending, false
		return nil, again, nil
	}
	p.largest = 0
	for _, e := range entries {
		p.largest = max(p.largest, e.bytes)
		if e.offset != p.at.Offset+1 || e.fields == nil {
			if len(messages) > 0 || !p.gap(ctx, e) {
				p.opened, p.force = false, true
				break
			}
		}
		m := decode(p.claim.log, e.offset, e.fields)
		p.at.Offset = e.offset
		m.Position = p.at
		messages = append(messages, m)
	}
	return messages, true, nil
}

// ask reads entries, and whether the logs are still in the incarnation that they were opened in.
func (p *partition) ask(ctx context.Context, limit int) (entries []entry, same bool, err error) {
	c := &p.member.broker.cfg
	after := ">"
	if p.pending {
		after = entryID(p.at.Offset)
	}
	count := limit
	if p.largest > 0 {
		count = min(limit, max(1, fetchBytesMax/p.largest))
	}
	var life *redis.StringCmd
	var read *redis.Cmd
	_, _ = p.member.broker.db.Pipelined(ctx, func(pipe redis.Pipeliner) error { // The errors are the commands' own.
		life = pipe.HGet(ctx, c.lifeKey(), "incarnation")
		read = pipe.Do(ctx, "XREADGROUP", "GROUP", p.member.group, p.member.id, "COUNT", count,
			"STREAMS", c.logKey(p.claim.log), after)
		return nil
	})
	incarnation, err := life.Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, false, err
	}
	if incarnation != p.at.Incarnation {
		return nil, false, nil
	}
	answer, err := read.Result()
	if errors.Is(err, redis.Nil) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	entries, err = parseEntries(answer)
	return entries, true, err
}

// gap looks at an entry that is not the next one, and reports whether it may be taken as such: somebody has
// deleted single messages before it. Anything else is for open: retention or a late owner was there.
func (p *partition) gap(ctx context.Context, e entry) bool {
	if e.offset <= p.at.Offset+1 || e.fields == nil {
		return false
	}
	b := p.member.broker
	log := b.cfg.logKey(p.claim.log)
	first, err := b.db.XRangeN(ctx, log, "-", "+", 1).Result()
	if err != nil || len(first) == 0 {
		return false
	}
	if offset, ok := parseID(first[0].ID); !ok || offset > p.at.Offset {
		return false
	}
	between, err := b.db.XRangeN(ctx, log, entryID(p.at.Offset+1), entryID(e.offset-1), 1).Result()
	if err != nil || len(between) > 0 {
		return false
	}
	b.cfg.Logger.Error("messages were deleted from the middle of a log, and are missing",
		"partition", p.Name(), "from", p.at.Offset+1, "to", e.offset-1)
	return true
}

// Ack acknowledges up to a position: the group's own books, which hold back trimming.
func (p *partition) Ack(ctx context.Context, at broker.Position) error {
	if !p.claim.live() {
		return broker.ErrRevoked
	}
	from, to := p.acked+1, at.Offset
	if !p.opened || at.Incarnation != p.at.Incarnation {
		from, to = 1, 0 // Nothing of what is pending; but is the lease still ours?
	}
	b := p.member.broker
	ok, err := b.scripts.ack.Run(ctx, b.db,
		[]string{b.cfg.logKey(p.claim.log), b.cfg.leaseKey(p.member.group, p.claim.log)},
		p.member.group, p.claim.token, strconv.FormatUint(from, 10), strconv.FormatUint(min(to, p.at.Offset), 10)).Int()
	if err != nil {
		return fmt.Errorf("settleredis: ack %s: %w", p.Name(), unavailable(ctx, err))
	}
	if ok != 1 {
		p.member.drop(p.claim)
		return broker.ErrRevoked
	}
	if to >= from {
		p.acked = min(to, p.at.Offset)
	}
	return nil
}

// Lag asks the server how far the log reaches.
func (p *partition) Lag(ctx context.Context) (int64, error) {
	if !p.opened {
		if err := p.open(ctx); err != nil {
			return 0, fmt.Errorf("settleredis: lag of %s: %w", p.Name(), unavailable(ctx, err))
		}
	}
	b := p.member.broker
	last, err := b.db.HGet(ctx, b.cfg.endsKey(), p.claim.log).Uint64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("settleredis: lag of %s: %w", p.Name(), unavailable(ctx, err))
	}
	return int64(last - min(last, p.at.Offset)), nil
}

// Release gives the partition back; it is handed out again, perhaps to the same member.
func (p *partition) Release() error {
	if p.closed {
		return nil
	}
	p.closed = true
	m := p.member
	ctx, cancel := context.WithTimeout(context.Background(), leaveMax)
	defer cancel()
	m.broker.bells.ignore(ctx, p.claim.log, p.rung)
	m.drop(p.claim)
	err := m.release(ctx, "", []*claim{p.claim})
	ring(m.kick)
	if err != nil {
		return fmt.Errorf("settleredis: release %s: %w: %w", p.Name(), broker.ErrUnavailable, err)
	}
	return nil
}
