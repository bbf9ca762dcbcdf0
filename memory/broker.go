package memory

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/assign"
	"github.com/settledev/settle/event"
)

// Compile-time proof of what a Broker is.
var (
	_ broker.Broker    = (*Broker)(nil)
	_ broker.Publisher = (*Broker)(nil)
	_ broker.Tailer    = (*Broker)(nil)
	_ broker.Seeker    = (*partition)(nil)
	_ broker.Laggard   = (*partition)(nil)
	_ broker.Standby   = (*membership)(nil)
)

// BrokerConfig says what a [Broker] is like. The zero BrokerConfig is ready to use.
type BrokerConfig struct {
	// Partitions is the number of partitions of each topic. Default 4.
	Partitions int
	// MessageBytesMax bounds the data of one message; a larger one is rejected. Default event.DataBytesMax.
	MessageBytesMax int
	// Wait is how long a Fetch waits when there is nothing. Default 250ms.
	Wait time.Duration
}

// Broker is a broker in RAM, for tests and examples: partitioned, with groups, positions and
// incarnations as the durable ones have them, and with faults on demand (see broker_faults.go). It
// keeps everything until [Broker.Expire] or the end of the process.
type Broker struct {
	cfg   BrokerConfig
	table assign.Table

	mu          sync.Mutex
	closed      bool
	incarnation string
	lives       []life            // those that have ended, oldest first
	run         string            // broker.Tail's Life: until a test loses the tail
	opened      map[string]uint64 // the ends of the logs when run began
	logs        map[string][]*log
	acked       map[string]broker.Position // by group and partition
	faults      faults
}

// log is one partition. Offset base+1 is that of messages[0].
type log struct {
	base     uint64
	messages []broker.Message
	high     uint64        // the last offset ever acknowledged in this incarnation
	grown    chan struct{} // closed by the next change
}

func (l *log) end() uint64 { return l.base + uint64(len(l.messages)) }

func (l *log) changed() {
	close(l.grown)
	l.grown = make(chan struct{})
}

// life is an incarnation that has ended, and the offsets that were left of it.
type life struct {
	incarnation string
	offsets     map[string]uint64
}

// NewBroker returns an empty broker. It panics when a number is negative, as that is a mistake in the
// program.
func NewBroker(cfg BrokerConfig) *Broker {
	if cfg.Partitions < 0 || cfg.MessageBytesMax < 0 || cfg.Wait < 0 {
		panic(fmt.Sprintf("memory: broker config with a negative number: %+v", cfg))
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = 4
	}
	if cfg.MessageBytesMax == 0 {
		cfg.MessageBytesMax = event.DataBytesMax
	}
	if cfg.Wait == 0 {
		cfg.Wait = 250 * time.Millisecond
	}
	return &Broker{
		cfg: cfg, incarnation: rand.Text(), run: rand.Text(), opened: map[string]uint64{},
		logs: map[string][]*log{}, acked: map[string]broker.Position{},
	}
}

// topic returns the logs of a topic and creates them when they are new. The caller holds mu.
func (b *Broker) topic(name string) []*log {
	logs := b.logs[name]
	if logs == nil {
		for range b.cfg.Partitions {
			logs = append(logs, &log{grown: make(chan struct{})})
		}
		b.logs[name] = logs
	}
	return logs
}

// Publish implements [broker.Publisher]. A log that is found shorter than what it had acknowledged
// (see LoseTail) begins a new incarnation by itself, and the message is ErrUnavailable.
func (b *Broker) Publish(ctx context.Context, messages []broker.Message) []error {
	errs := make([]error, len(messages))
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range messages {
		if err := ctx.Err(); err != nil {
			errs[i] = fmt.Errorf("memory: publish: %w: %w", broker.ErrUnavailable, err)
			continue
		}
		if len(messages) > broker.PublishMax {
			errs[i] = fmt.Errorf("memory: publish %d messages: %d allowed", len(messages), broker.PublishMax)
			continue
		}
		errs[i] = b.publish(m)
	}
	return errs
}

func (b *Broker) publish(m broker.Message) error {
	e := m.Event
	switch {
	case b.closed:
		return fmt.Errorf("memory: publish: %w: broker is closed", broker.ErrUnavailable)
	case b.faults.down:
		return fmt.Errorf("memory: publish: %w", broker.ErrUnavailable)
	case b.faults.refuse != nil && b.faults.refuse(e):
		return &broker.RejectedError{Reason: "refused by the test"}
	case len(e.Data) > b.cfg.MessageBytesMax:
		return &broker.RejectedError{Reason: fmt.Sprintf("data of %d bytes exceeds %d", len(e.Data), b.cfg.MessageBytesMax)}
	}
	if err := event.CheckName(e.Topic); err != nil {
		return &broker.RejectedError{Reason: "topic: " + err.Error()}
	}
	l := b.topic(e.Topic)[assign.Partition(e.AggregateID, b.cfg.Partitions)]
	if end, high := l.end(), l.high; end < high {
		b.incarnate(b.opened)
		return fmt.Errorf("memory: publish to %s: %w: log ends at %d, %d was acknowledged", e.Topic, broker.ErrUnavailable, end, high)
	}
	b.append(l, m)
	if b.faults.loseAcks > 0 {
		b.faults.loseAcks--
		return fmt.Errorf("memory: publish: %w: acknowledgement lost", broker.ErrUnavailable)
	}
	return nil
}

func (b *Broker) append(l *log, m broker.Message) {
	m.Position = broker.Position{Incarnation: b.incarnation, Offset: l.end() + 1}
	l.messages = append(l.messages, m)
	l.high = l.end()
	l.changed()
}

// Tail implements [broker.Tailer].
func (b *Broker) Tail(context.Context) (broker.Tail, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.faults.down || b.closed {
		return broker.Tail{}, fmt.Errorf("memory: tail: %w", broker.ErrUnavailable)
	}
	return broker.Tail{Incarnation: b.incarnation, Offsets: b.ends(), Life: b.run, Opened: maps.Clone(b.opened)}, nil
}

// ends returns the last offset of each log. The caller holds mu.
func (b *Broker) ends() map[string]uint64 {
	ends := map[string]uint64{}
	for topic, logs := range b.logs {
		for i, l := range logs {
			ends[partitionName(topic, i)] = l.end()
		}
	}
	return ends
}

// Incarnate implements [broker.Tailer].
func (b *Broker) Incarnate(_ context.Context, lost broker.Tail) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.faults.down || b.closed {
		return fmt.Errorf("memory: incarnate: %w", broker.ErrUnavailable)
	}
	if lost.Incarnation != b.incarnation {
		return nil
	}
	b.incarnate(lost.Offsets)
	return nil
}

// incarnate begins a new incarnation of which the one before had left these offsets.
func (b *Broker) incarnate(offsets map[string]uint64) {
	b.lives = append(b.lives, life{incarnation: b.incarnation, offsets: maps.Clone(offsets)})
	b.incarnation = rand.Text()
	for _, logs := range b.logs {
		for _, l := range logs {
			l.high = l.end()
			l.changed()
		}
	}
}

// LostAt implements [broker.Tailer]: for each log the lowest end since the incarnation.
func (b *Broker) LostAt(_ context.Context, incarnation string) (map[string]uint64, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.faults.down || b.closed {
		return nil, false, fmt.Errorf("memory: lost at: %w", broker.ErrUnavailable)
	}
	var low map[string]uint64
	for _, l := range b.lives {
		switch {
		case low == nil && l.incarnation == incarnation:
			low = maps.Clone(l.offsets)
		case low != nil:
			for name := range low {
				low[name] = min(low[name], l.offsets[name])
			}
		}
	}
	return low, low != nil, nil
}

// Subscribe implements [broker.Broker]. Topics that are new are created.
func (b *Broker) Subscribe(_ context.Context, s broker.Subscription) (broker.Membership, error) {
	if err := event.CheckName(s.Group); err != nil {
		return nil, fmt.Errorf("memory: subscribe: group: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.faults.down || b.closed {
		return nil, fmt.Errorf("memory: subscribe %s: %w", s.Group, broker.ErrUnavailable)
	}
	var names []string
	for _, topic := range s.Topics {
		if err := event.CheckName(topic); err != nil {
			return nil, fmt.Errorf("memory: subscribe %s: topic: %w", s.Group, err)
		}
		for i := range b.topic(topic) {
			names = append(names, partitionName(topic, i))
		}
	}
	return &membership{broker: b, group: s.Group, member: b.table.Join(s.Group, names)}, nil
}

// Close ends every membership; what was published is gone with the last reference to the broker.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.table.Close()
	return nil
}

// partitionName is topic/number, and partitionLog its inverse. A topic has no slash.
func partitionName(topic string, i int) string { return topic + "/" + strconv.Itoa(i) }

func (b *Broker) partitionLog(name string) *log {
	topic, number, _ := strings.Cut(name, "/")
	i, _ := strconv.Atoi(number)
	return b.topic(topic)[i]
}
