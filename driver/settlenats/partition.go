package settlenats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/settledev/settle/broker"
)

// claim is the right to read a partition: an [assign.Claim], or an [assign.Held] one.
type claim interface {
	Live() bool
	Revoked() <-chan struct{}
	Release()
}

// partition is one subject of a stream in the hands of one member, used by one goroutine at a time.
type partition struct {
	broker  *Broker
	group   string
	name    string
	claim   claim
	topic   string
	stream  string
	subject string

	reader *reader // nil until opened, and after it was given up

	// at is the last message returned, or where Seek was told to go on.
	at   broker.Position
	seen uint64 // the stream had nothing more for us up to here
	lost error  // ErrPositionLost until the next Seek
}

func (p *partition) Name() string { return p.name }

// Seek takes the position to go on after; nothing is asked of the server before the first Fetch.
func (p *partition) Seek(_ context.Context, at broker.Position) error {
	p.drop()
	p.at, p.seen, p.lost = at, 0, nil
	return nil
}

// Fetch returns what has arrived, or waits up to the config's Wait for the first message.
func (p *partition) Fetch(ctx context.Context, limit int) ([]broker.Message, error) {
	if limit < 1 || limit > broker.FetchMax {
		return nil, fmt.Errorf("settlenats: fetch of %d messages: 1 to %d allowed", limit, broker.FetchMax)
	}
	deadline := time.Now().Add(p.broker.cfg.Wait)
	for {
		if !p.claim.Live() {
			p.drop()
			return nil, broker.ErrRevoked
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if p.lost != nil {
			return nil, p.lost
		}
		r, err := p.current(ctx)
		if err != nil {
			return nil, p.refusal(ctx, err)
		}
		if err := r.ask(limit); err != nil {
			p.drop()
			return nil, p.refusal(ctx, err)
		}
		messages, again, err := p.receive(ctx, r, limit, deadline)
		if err != nil || len(messages) > 0 || !again {
			return messages, err
		}
	}
}

func (p *partition) refusal(ctx context.Context, err error) error {
	if errors.Is(err, broker.ErrPositionLost) {
		p.lost = err
		return err
	}
	return fmt.Errorf("settlenats: fetch %s: %w", p.Name(), unavailable(ctx, err))
}

// current returns the reader, opened anew when there is none, the connection was, or the incarnation is.
func (p *partition) current(ctx context.Context) (*reader, error) {
	life, _ := p.broker.life.current()
	r := p.reader
	if r != nil && (r.life != life || r.reconnects != p.broker.reconnects.Load()) {
		p.drop()
		r = nil
	}
	if r != nil && r.suspicious() {
		fine, err := r.check(ctx)
		if err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !fine {
			p.broker.cfg.Logger.Warn("broker's consumer went silent and is replaced", "topic", p.topic, "group", p.group, "err", err)
			p.drop()
			r = nil
		}
	}
	if r != nil {
		return r, nil
	}
	return p.open(ctx)
}

// receive waits for the first message and takes those that have arrived with it. again asks to be
// called once more: nothing came yet, and the deadline has not passed.
func (p *partition) receive(ctx context.Context, r *reader, limit int, deadline time.Time) (messages []broker.Message, again bool, err error) {
	_, reborn := p.broker.life.current()
	var msg *nats.Msg
	select {
	case msg = <-r.arrived:
	default:
		timer := time.NewTimer(min(time.Until(deadline), r.patience()))
		defer timer.Stop()
		select {
		case msg = <-r.arrived:
		case <-p.claim.Revoked():
			return nil, true, nil
		case <-reborn:
			return nil, true, nil
		case <-ctx.Done():
			return nil, true, nil
		case <-timer.C:
			r.expire(time.Now())
			return nil, time.Now().Before(deadline), nil
		}
	}
	for msg != nil {
		m, verdict := p.accept(ctx, r, msg)
		switch verdict {
		case isMessage:
			messages = append(messages, m)
		case isBroken:
			p.drop()
			return messages, true, nil
		case isExpired:
			if len(messages) == 0 {
				p.lost = fmt.Errorf("settlenats: fetch %s after %s: %w", p.Name(), p.at, broker.ErrPositionLost)
				p.drop()
			}
			return messages, true, p.lost
		case isStatus:
		}
		msg = nil
		if len(messages) < limit {
			select {
			case msg = <-r.arrived:
			default:
			}
		}
	}
	return messages, time.Now().Before(deadline), nil
}

// verdict is what a received message turned out to be.
type verdict int

const (
	isStatus verdict = iota
	isMessage
	isBroken  // the reader missed something or is gone
	isExpired // retention has overtaken the partition
)

func (p *partition) accept(ctx context.Context, r *reader, msg *nats.Msg) (broker.Message, verdict) {
	at, ok := parsePlace(msg.Reply)
	if !ok {
		return broker.Message{}, r.status(p, msg)
	}
	if at.delivery != r.delivery+1 || at.sequence <= p.at.Offset && p.at.Incarnation == r.life {
		return broker.Message{}, isBroken
	}
	if r.exact && at.sequence > r.last+1 && p.overtaken(ctx, r) {
		return broker.Message{}, isExpired
	}
	r.delivery = at.delivery
	r.took(at.sequence)
	m := decode(p.topic, at, msg)
	m.Position = broker.Position{Incarnation: r.life, Offset: at.sequence}
	p.at = m.Position
	return m, isMessage
}

// overtaken reports whether retention dropped messages after the last one returned. Gaps are normal
// where a stream has several partitions: then the watch's last look is good enough. Where it has one,
// a gap is rare and worth a question.
func (p *partition) overtaken(ctx context.Context, r *reader) bool {
	first := r.known.first.Load()
	if r.known.partitions == 1 {
		if stream, err := p.broker.js.Stream(ctx, p.stream); err == nil {
			first = stream.CachedInfo().State.FirstSeq
		}
	}
	return first > max(r.last, p.seen)+1
}

// Ack does nothing at the broker: positions are the consumer's own.
func (p *partition) Ack(context.Context, broker.Position) error {
	if !p.claim.Live() {
		return broker.ErrRevoked
	}
	return nil
}

// Lag asks the server for the messages after the last one fetched.
func (p *partition) Lag(ctx context.Context) (int64, error) {
	r := p.reader
	if r == nil {
		var err error
		if r, err = p.open(ctx); err != nil {
			return 0, fmt.Errorf("settlenats: lag of %s: %w", p.Name(), unavailable(ctx, err))
		}
	}
	info, err := r.info(ctx)
	if err != nil {
		return 0, fmt.Errorf("settlenats: lag of %s: %w", p.Name(), unavailable(ctx, err))
	}
	return int64(info.NumPending) + int64(info.Delivered.Consumer-min(info.Delivered.Consumer, r.delivery)), nil
}

func (p *partition) Revoked() <-chan struct{} { return p.claim.Revoked() }

// Release stops reading and gives the partition back.
func (p *partition) Release() error {
	p.drop()
	p.claim.Release()
	return nil
}

// drop gives up the reader; the next Fetch opens another after the last message returned.
func (p *partition) drop() {
	if p.reader != nil {
		p.reader.close()
		p.reader = nil
	}
}
