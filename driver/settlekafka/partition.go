package settlekafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/settledev/settle/broker"
)

const (
	// A partition whose consumer is slow holds this much before it is left out of the fetches, and takes
	// part again at half of it: the next answer comes within Config.Wait, and there is work until then.
	bufferMax      = 5 * broker.FetchMax
	bufferBytesMax = 4 << 20
	// checkEvery is how often a partition that receives nothing asks whether there is something.
	checkEvery = 5 * time.Second

	// What ListOffsets is asked for.
	atStart, atEnd            = -2, -1
	highWatermark, lastStable = 0, 1
)

// partition is a log in the hands of one member, used by one goroutine at a time.
type partition struct {
	m       *membership
	session *session
	at      place
	life    known
	revoked chan struct{}

	// These belong to whoever calls Fetch.
	position broker.Position // of the last message returned, or where Seek was told to go on
	next     int64           // the offset after the last record taken, once opened
	opened   bool
	lost     error // ErrPositionLost until the next Seek
	quiet    time.Time
	behind   bool // the last check found messages that had not come

	arrived chan struct{} // holds a token when buffer or failed changed

	mu     sync.Mutex
	buffer []*kgo.Record
	bytes  int
	paused bool
	failed error // comes after what is in the buffer
}

func newPartition(m *membership, s *session, at place) *partition {
	return &partition{
		m: m, session: s, at: at, life: s.topics[at.topic],
		revoked: make(chan struct{}), arrived: make(chan struct{}, 1),
	}
}

func (p *partition) Name() string { return partitionName(p.life.name, p.at.index) }

func (p *partition) Revoked() <-chan struct{} { return p.revoked }

// Release stops reading and gives the partition back.
func (p *partition) Release() error {
	p.m.release(p)
	return nil
}

// Seek takes the position to go on after; nothing is asked of the cluster before the first Fetch.
func (p *partition) Seek(_ context.Context, to broker.Position) error {
	p.drop()
	p.opened, p.position, p.lost = false, to, nil
	return nil
}

func (p *partition) isRevoked() bool {
	select {
	case <-p.revoked:
		return true
	default:
		return false
	}
}

// Fetch returns what has arrived, or waits up to the config's Wait for the first message.
func (p *partition) Fetch(ctx context.Context, limit int) ([]broker.Message, error) {
	if limit < 1 || limit > broker.FetchMax {
		return nil, fmt.Errorf("settlekafka: fetch of %d messages: 1 to %d allowed", limit, broker.FetchMax)
	}
	timer := time.NewTimer(p.m.broker.cfg.Wait)
	defer timer.Stop()
	for {
		switch {
		case p.isRevoked():
			return nil, broker.ErrRevoked
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case p.lost != nil:
			return nil, p.lost
		}
		if err := p.begin(ctx); err != nil {
			return nil, p.refusal(ctx, err)
		}
		messages, err := p.take(limit)
		if len(messages) > 0 {
			return messages, nil
		}
		if err != nil {
			return nil, p.refusal(ctx, err)
		}
		select {
		case <-p.arrived:
		case <-p.revoked:
		case <-ctx.Done():
		case <-timer.C:
			return nil, p.check(ctx)
		}
	}
}

// refusal ends reading for an error. The next Fetch begins again, but for a position that is lost.
func (p *partition) refusal(ctx context.Context, err error) error {
	p.drop()
	p.opened = false
	if errors.Is(err, broker.ErrPositionLost) {
		if !p.ours() {
			return nil // Retention overtook us on the way to the start of the log, which is elsewhere now.
		}
		p.lost = fmt.Errorf("settlekafka: fetch %s after %s: %w", p.Name(), p.position, err)
		return p.lost
	}
	if p.isRevoked() {
		return broker.ErrRevoked
	}
	return fmt.Errorf("settlekafka: fetch %s: %w", p.Name(), unavailable(ctx, err))
}

// ours reports whether the position counts in this life of the topic.
func (p *partition) ours() bool {
	return p.position.Offset > 0 && p.position.Incarnation == p.life.incarnation
}

// begin starts reading after the position, if it has not.
func (p *partition) begin(ctx context.Context) error {
	if p.opened {
		return nil
	}
	start, err := p.ask(ctx, atStart, highWatermark)
	if err != nil {
		return err
	}
	p.next = start
	if p.ours() {
		end, err := p.ask(ctx, atEnd, highWatermark)
		if err != nil {
			return err
		}
		p.next = int64(p.position.Offset) // Which is one more than the record's.
		if p.next < start || p.next > end {
			return fmt.Errorf("%w: the log holds %d to %d", broker.ErrPositionLost, start+1, end)
		}
	}
	s := p.session
	s.do(func() {
		p.clear()
		if p.isRevoked() {
			return
		}
		s.open[p.at] = p
		s.reader.AddConsumePartitions(map[string]map[int32]kgo.Offset{p.at.topic: {p.at.index: kgo.NewOffset().At(p.next)}})
	})
	p.opened, p.behind, p.quiet = true, false, time.Now()
	return nil
}

// drop stops reading.
func (p *partition) drop() {
	s := p.session
	s.do(func() {
		if s.open[p.at] != p {
			return
		}
		delete(s.open, p.at)
		where := map[string][]int32{p.at.topic: {p.at.index}}
		s.reader.RemoveConsumePartitions(where)
		s.reader.ResumeFetchPartitions(where)
	})
	p.clear()
}

func (p *partition) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buffer, p.bytes, p.paused, p.failed = nil, 0, false, nil
}

// receive takes records from the pump, and has no more fetched when there are many.
func (p *partition) receive(records []*kgo.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buffer = append(p.buffer, records...)
	for _, r := range records {
		p.bytes += size(r)
	}
	if !p.paused && (len(p.buffer) >= bufferMax || p.bytes >= bufferBytesMax) {
		p.paused = true
		p.session.reader.PauseFetchPartitions(map[string][]int32{p.at.topic: {p.at.index}})
	}
	p.signal()
}

func size(r *kgo.Record) int { return len(r.Key) + len(r.Value) }

// fail takes an error from the pump.
func (p *partition) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
	}
	p.signal()
}

func (p *partition) signal() {
	select {
	case p.arrived <- struct{}{}:
	default:
	}
}

// take returns what is in the buffer, up to limit, and an error once it is empty. The last message takes
// the position of the marks behind it: on a quiet topic retention drops them with it, and a position
// before them would look like one that was overtaken.
func (p *partition) take(limit int) ([]broker.Message, error) {
	p.mu.Lock()
	n := 0
	for messages := 0; n < len(p.buffer); n++ {
		if !p.buffer[n].Attrs.IsControl() {
			if messages++; messages > limit {
				break
			}
		}
		p.bytes -= size(p.buffer[n])
	}
	records := p.buffer[:n:n]
	p.buffer = p.buffer[n:]
	err := p.failed
	if len(p.buffer) == 0 {
		p.buffer = nil
	} else {
		err = nil
		p.signal()
	}
	if p.paused && len(p.buffer) <= bufferMax/2 && p.bytes <= bufferBytesMax/2 {
		p.paused = false
		p.session.reader.ResumeFetchPartitions(map[string][]int32{p.at.topic: {p.at.index}})
	}
	p.mu.Unlock()
	if n == 0 {
		return nil, err
	}
	p.next = records[n-1].Offset + 1
	p.quiet, p.behind = time.Now(), false
	messages := make([]broker.Message, 0, n)
	for _, r := range records {
		if !r.Attrs.IsControl() {
			messages = append(messages, decode(p.life.name, p.life.incarnation, r))
		}
	}
	if len(messages) > 0 {
		last := &messages[len(messages)-1]
		last.Position.Offset = uint64(p.next)
		p.position, err = last.Position, nil
	}
	return messages, err
}

// check asks the cluster when nothing has come for long. Without an answer it is unavailable. Messages
// that wait there at two checks, with none received between, mean that the reader is stuck.
func (p *partition) check(ctx context.Context) error {
	if time.Since(p.quiet) < checkEvery {
		return nil
	}
	p.quiet = time.Now()
	end, err := p.ask(ctx, atEnd, lastStable)
	if err != nil {
		return p.silent(ctx, err)
	}
	stuck := p.behind && end > p.next
	p.behind = end > p.next
	if stuck {
		p.m.broker.cfg.Logger.Warn("broker's reader went silent and begins again", "partition", p.Name(), "err", "nothing received")
		p.drop()
		p.opened = false
	}
	return nil
}

// silent keeps on reading, as the client does, but says that nothing can come, and asks again soon.
func (p *partition) silent(ctx context.Context, err error) error {
	p.quiet = time.Now().Add(-checkEvery)
	if p.isRevoked() {
		return broker.ErrRevoked
	}
	return fmt.Errorf("settlekafka: fetch %s: %w", p.Name(), unavailable(ctx, err))
}

// Ack notes the position for the group's offsets, which tools look at.
func (p *partition) Ack(_ context.Context, to broker.Position) error {
	if p.isRevoked() {
		return broker.ErrRevoked
	}
	if to.Incarnation == p.life.incarnation && to.Offset > 0 {
		p.session.acknowledge(p.at, int64(to.Offset))
	}
	return nil
}

// Lag asks the cluster for the messages after the last one fetched. It counts offsets, some of which
// are marks of transactions.
func (p *partition) Lag(ctx context.Context) (int64, error) {
	if err := p.begin(ctx); err != nil {
		return 0, p.refusal(ctx, err)
	}
	end, err := p.ask(ctx, atEnd, lastStable)
	if err != nil {
		return 0, fmt.Errorf("settlekafka: lag of %s: %w", p.Name(), unavailable(ctx, err))
	}
	return max(end-p.next, 0), nil
}

// ask returns an offset of the log as its leader knows it.
func (p *partition) ask(ctx context.Context, what int64, isolation int8) (int64, error) {
	limited, cancel := context.WithTimeout(ctx, p.m.broker.cfg.AckWait)
	defer cancel()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = p.at.topic
	one := kmsg.NewListOffsetsRequestTopicPartition()
	one.Partition, one.Timestamp = p.at.index, what
	t.Partitions = append(t.Partitions, one)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(limited, p.session.reader)
	if err != nil {
		return 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, errors.New("the cluster did not answer for the partition")
	}
	answer := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		if isGone(err) {
			p.session.ask(p.at.topic, err)
		}
		return 0, err
	}
	return answer.Offset, nil
}
