package settlenats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/settledev/settle/broker"
)

const (
	// pullBytesMax bounds what one pull may bring, so that large events do not fill the memory.
	pullBytesMax = 8 << 20
	// pullGrace is how long after its end a pull may still be answered.
	pullGrace = 500 * time.Millisecond
	// consumerIdleMax is when the server removes a consumer that nobody pulls from.
	consumerIdleMax = time.Minute
	// lossLooks is how often a position past the end is looked at before it is believed: a new leader
	// may be a moment behind.
	lossLooks = 3
)

// reader is an ephemeral consumer on the server, without acknowledgements, and the pulls that are
// under way.
type reader struct {
	broker     *Broker
	stream     string
	name       string
	life       string
	reconnects uint64
	inbox      string // with a dot at its end; a pull's number follows
	sub        *nats.Subscription
	arrived    chan *nats.Msg
	known      *topic

	delivery uint64 // the consumer's count of deliveries, as received
	last     uint64 // the last sequence received, or where reading began
	exact    bool   // reading goes on after a message, so that a gap means something

	pulls   []pull // oldest first
	number  uint64
	huge    bool      // the next message is larger than pullBytesMax
	quiet   time.Time // since when nothing has arrived
	checked time.Time
	waiting bool // the last check found messages that had not come
}

// pull is one request for messages.
type pull struct {
	number uint64
	left   int
	got    int
	ends   time.Time
	last   uint64 // the stream's end as known when it was sent
}

// open makes a reader after the partition's position.
func (p *partition) open(ctx context.Context) (*reader, error) {
	b := p.broker
	ctx, cancel := context.WithTimeout(ctx, b.cfg.AckWait)
	defer cancel()
	r := &reader{broker: b, stream: p.stream, reconnects: b.reconnects.Load(), arrived: make(chan *nats.Msg, 3*broker.FetchMax)}
	r.life, _ = b.life.current()
	t, err := b.topic(ctx, p.topic)
	if err != nil {
		return nil, err
	}
	r.known = t
	start, err := p.start(ctx, r)
	if err != nil {
		return nil, err
	}
	r.inbox = b.nc.NewInbox() + "."
	if r.sub, err = b.nc.ChanSubscribe(r.inbox+"*", r.arrived); err != nil {
		return nil, err
	}
	r.name = token(p.group) + "_" + rand.Text()
	config := jetstream.ConsumerConfig{
		Name: r.name, FilterSubject: p.subject, AckPolicy: jetstream.AckNonePolicy,
		InactiveThreshold: consumerIdleMax, MemoryStorage: true, Replicas: 1,
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	if start > 1 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, start
	}
	if _, err := b.js.CreateConsumer(ctx, p.stream, config); err != nil {
		_ = r.sub.Unsubscribe()
		return nil, err
	}
	r.quiet = time.Now()
	r.checked = r.quiet
	p.reader = r
	return r, nil
}

// start returns the first sequence to read, and sets where the reader counts from.
func (p *partition) start(ctx context.Context, r *reader) (uint64, error) {
	var info *jetstream.StreamInfo
	for look := 0; ; look++ {
		stream, err := p.broker.js.Stream(ctx, p.stream)
		if err != nil {
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				p.broker.forget(p.topic)
			}
			return 0, err
		}
		info = stream.CachedInfo()
		if p.at.Incarnation != r.life || p.at.Offset <= info.State.LastSeq {
			break
		}
		if look == lossLooks {
			// What we have handled is not there: the tail was lost, and nobody has noticed yet.
			p.broker.life.report(r.life, p.stream, info.State.LastSeq)
			p.at = broker.Position{}
			break
		}
		if err := pause(ctx, p.broker.cfg.Wait); err != nil {
			return 0, err
		}
	}
	first := max(info.State.FirstSeq, 1)
	if p.at.Offset == 0 || p.at.Incarnation != r.life {
		p.seen = 0
		r.last = first - 1
		return first, nil
	}
	r.exact, r.last = true, p.at.Offset
	if first > max(p.at.Offset, p.seen)+1 {
		return 0, fmt.Errorf("settlenats: fetch %s after %s, first kept is %d: %w", p.Name(), p.at, first, broker.ErrPositionLost)
	}
	return p.at.Offset + 1, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask sends a pull when less than half of the limit is under way or has arrived.
func (r *reader) ask(limit int) error {
	due := len(r.arrived)
	for i := range r.pulls {
		due += r.pulls[i].left
	}
	// due counts what has arrived twice, as left is counted down when a message is taken: so there is
	// never more in the channel than it holds.
	if due > limit/2 {
		return nil
	}
	r.number++
	now := time.Now()
	wait := r.broker.cfg.Wait
	bytesMax := pullBytesMax
	if r.huge {
		limit, bytesMax = 1, 0
	}
	request := make([]byte, 0, 64)
	request = append(request, `{"batch":`...)
	request = strconv.AppendInt(request, int64(limit), 10)
	request = append(request, `,"expires":`...)
	request = strconv.AppendInt(request, int64(wait), 10)
	if bytesMax > 0 {
		request = append(request, `,"max_bytes":`...)
		request = strconv.AppendInt(request, int64(bytesMax), 10)
	}
	request = append(request, '}')
	reply := r.inbox + strconv.FormatUint(r.number, 10)
	r.pulls = append(r.pulls, pull{number: r.number, left: limit, ends: now.Add(wait), last: r.known.last.Load()})
	return r.broker.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+r.stream+"."+r.name, reply, request)
}

// took counts a message against the oldest pull.
func (r *reader) took(sequence uint64) {
	r.last, r.exact, r.waiting, r.huge = sequence, true, false, false
	r.quiet = time.Now()
	for i := range r.pulls {
		if r.pulls[i].left > 0 {
			r.pulls[i].left--
			r.pulls[i].got++
			break
		}
	}
	for len(r.pulls) > 0 && r.pulls[0].left == 0 {
		r.pulls = r.pulls[1:]
	}
}

// status takes the server's word about a pull.
func (r *reader) status(p *partition, msg *nats.Msg) verdict {
	number, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, r.inbox), 10, 64)
	if err != nil {
		return isBroken
	}
	code := msg.Header.Get("Status")
	if code == "100" {
		return isStatus
	}
	var ended pull
	for i := range r.pulls {
		if r.pulls[i].number == number {
			ended = r.pulls[i]
			r.pulls = append(r.pulls[:i], r.pulls[i+1:]...)
			break
		}
	}
	switch description := msg.Header.Get("Description"); {
	case code == "404" || code == "408":
		if ended.got == 0 {
			p.seen = max(p.seen, ended.last)
		}
		return isStatus
	case code == "409" && strings.HasPrefix(description, "Message Size Exceeds MaxBytes"):
		r.huge = ended.got == 0 && ended.number != 0
		return isStatus
	case code == "409" && (strings.HasPrefix(description, "Batch Completed") || strings.HasPrefix(description, "Exceeded MaxWaiting")):
		return isStatus
	default:
		return isBroken // deleted, a new leader, a server that shuts down, nobody there
	}
}

// patience is how long a wait may last before the pulls under way are looked at.
func (r *reader) patience() time.Duration {
	if len(r.pulls) == 0 {
		return 0
	}
	return max(time.Until(r.pulls[0].ends)+pullGrace, time.Millisecond)
}

// expire forgets pulls that the server never ended.
func (r *reader) expire(now time.Time) {
	for len(r.pulls) > 0 && now.After(r.pulls[0].ends.Add(pullGrace)) {
		r.pulls = r.pulls[1:]
	}
}

// suspicious reports whether it is time to ask the server about a reader that receives nothing.
func (r *reader) suspicious() bool {
	every := r.broker.cfg.CheckEvery
	return len(r.arrived) == 0 && time.Since(r.quiet) > every && time.Since(r.checked) > every
}

// check asks the server. Messages that wait there at two checks, with none received between, mean
// that pulls go unanswered; so does a consumer that is gone.
func (r *reader) check(ctx context.Context) (fine bool, err error) {
	r.checked = time.Now()
	info, err := r.info(ctx)
	if err != nil {
		return false, err
	}
	behind := info.NumPending > 0 || info.Delivered.Consumer > r.delivery
	if behind && r.waiting && len(r.arrived) == 0 {
		return false, nil
	}
	r.waiting = behind
	return true, nil
}

func (r *reader) info(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, r.broker.cfg.AckWait)
	defer cancel()
	consumer, err := r.broker.js.Consumer(ctx, r.stream, r.name)
	if err != nil {
		return nil, err
	}
	return consumer.CachedInfo(), nil
}

// close ends the subscription and tells the server; it removes the consumer by itself if that is lost.
func (r *reader) close() {
	_ = r.sub.Unsubscribe()
	_ = r.broker.nc.Publish("$JS.API.CONSUMER.DELETE."+r.stream+"."+r.name, nil)
}
