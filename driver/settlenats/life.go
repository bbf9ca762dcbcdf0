package settlenats

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/settledev/settle/broker"
)

// livesMax bounds the ended incarnations that are remembered.
const livesMax = 64

// codeWrongLastSequence is JetStream's answer to a compare-and-set that lost.
const codeWrongLastSequence jetstream.ErrorCode = 10071

// lifeRecord is the one message that counts in the life stream: the incarnation of all topics of the
// prefix, and how those before it ended, oldest first.
type lifeRecord struct {
	Incarnation string      `json:"incarnation"`
	Ended       []endedLife `json:"ended,omitempty"`

	sequence uint64 // of the message, for compare-and-set
}

type endedLife struct {
	Incarnation string            `json:"incarnation"`
	Offsets     map[string]uint64 `json:"offsets"`
}

// lives is what this process knows of the incarnation.
type lives struct {
	poked chan struct{}

	mu       sync.Mutex
	now      string
	changed  chan struct{} // closed when now changes
	reported map[string]uint64
}

// current returns the incarnation as of the last look, and a channel that is closed when it changes.
func (l *lives) current() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// set takes what was read, and reports whether it is news.
func (l *lives) set(now string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now == l.now {
		return false
	}
	if l.changed != nil {
		close(l.changed)
	}
	l.now, l.changed = now, make(chan struct{})
	clear(l.reported)
	return true
}

// poke asks the watch to look now.
func (l *lives) poke() {
	select {
	case l.poked <- struct{}{}:
	default:
	}
}

// report tells the watch that in an incarnation a stream was seen to end at an offset below what it
// had acknowledged.
func (l *lives) report(life, stream string, end uint64) {
	l.mu.Lock()
	if old, ok := l.reported[stream]; life == l.now && (!ok || end < old) {
		l.reported[stream] = end
	}
	l.mu.Unlock()
	l.poke()
}

// losses returns what was reported of the current incarnation.
func (l *lives) losses() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.reported)
}

// openLife makes the life stream and the first incarnation where there is none.
func (b *Broker) openLife(ctx context.Context) error {
	b.life.poked, b.life.reported = make(chan struct{}, 1), map[string]uint64{}
	record, err := b.makeLife(ctx)
	if err != nil {
		return err
	}
	b.life.set(record.Incarnation)
	return nil
}

func (b *Broker) makeLife(ctx context.Context) (lifeRecord, error) {
	_, err := b.js.Stream(ctx, b.cfg.lifeStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = b.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: b.cfg.lifeStream(), Description: "settle incarnation",
			Subjects: []string{b.cfg.lifeSubject()}, MaxMsgsPerSubject: 4,
			Storage: jetstream.FileStorage, Replicas: b.cfg.Replicas,
		})
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			err = nil // another process was first
		}
	}
	if err != nil {
		return lifeRecord{}, fmt.Errorf("stream %s: %w", b.cfg.lifeStream(), err)
	}
	record, err := b.readLife(ctx)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		if err = b.writeLife(ctx, lifeRecord{Incarnation: rand.Text()}); err == nil {
			record, err = b.readLife(ctx)
		}
	}
	if err != nil {
		return lifeRecord{}, fmt.Errorf("incarnation: %w", err)
	}
	return record, nil
}

func (b *Broker) readLife(ctx context.Context) (lifeRecord, error) {
	stream, err := b.js.Stream(ctx, b.cfg.lifeStream())
	if err != nil {
		return lifeRecord{}, err
	}
	msg, err := stream.GetLastMsgForSubject(ctx, b.cfg.lifeSubject())
	if err != nil {
		return lifeRecord{}, err
	}
	record := lifeRecord{sequence: msg.Sequence}
	if err := json.Unmarshal(msg.Data, &record); err != nil || record.Incarnation == "" {
		return lifeRecord{}, fmt.Errorf("message %d of %s is no incarnation: %.60q", msg.Sequence, b.cfg.lifeStream(), msg.Data)
	}
	return record, nil
}

// writeLife stores a record after the one it was made from. Losing to another writer is no error.
func (b *Broker) writeLife(ctx context.Context, record lifeRecord) error {
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	_, err = b.js.Publish(ctx, b.cfg.lifeSubject(), data, jetstream.WithExpectLastSequencePerSubject(record.sequence))
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == codeWrongLastSequence {
		return nil
	}
	return err
}

// lookLife reads the incarnation again and tells everyone when it is another.
func (b *Broker) lookLife(ctx context.Context) (lifeRecord, error) {
	record, err := b.readLife(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrMsgNotFound) {
		record, err = b.makeLife(ctx) // The server has lost all that it had, and begins anew.
	}
	if err == nil && b.life.set(record.Incarnation) {
		b.pub.renew()
		b.cfg.Logger.Warn("broker began a new incarnation: partitions are read again", "incarnation", record.Incarnation)
	}
	return record, err
}

// Tail implements [broker.Tailer]. Offsets are the streams' last sequences by stream name. The life is
// that of the embedded server's data, or the run of a remote server that stands alone; a cluster has
// none, as its servers may die one after the other.
func (b *Broker) Tail(ctx context.Context) (broker.Tail, error) {
	for {
		before, err := b.lookLife(ctx)
		if err != nil {
			return broker.Tail{}, fmt.Errorf("settlenats: tail: %w", unavailable(ctx, err))
		}
		tail := broker.Tail{Incarnation: before.Incarnation}
		tail.Life, tail.Opened = b.run()
		if tail.Offsets, err = b.offsets(ctx); err != nil {
			return broker.Tail{}, fmt.Errorf("settlenats: tail: %w", unavailable(ctx, err))
		}
		after, err := b.lookLife(ctx)
		if err != nil {
			return broker.Tail{}, fmt.Errorf("settlenats: tail: %w", unavailable(ctx, err))
		}
		if run, _ := b.run(); after.Incarnation == before.Incarnation && run == tail.Life {
			return tail, nil
		}
	}
}

// offsets returns the last sequence of each topic's stream.
func (b *Broker) offsets(ctx context.Context) (map[string]uint64, error) {
	offsets := map[string]uint64{}
	list := b.js.ListStreams(ctx)
	for info := range list.Info() {
		if strings.HasPrefix(info.Config.Name, b.cfg.Prefix+"_") {
			offsets[info.Config.Name] = info.State.LastSeq
		}
	}
	return offsets, list.Err()
}

// run names the time in which the server can lose nothing, and where it began if that is known.
func (b *Broker) run() (string, map[string]uint64) {
	switch {
	case b.embedded != nil && b.embedded.stamp != nil:
		return b.embedded.stamp.life()
	case b.embedded == nil && b.nc.ConnectedClusterName() == "":
		return b.nc.ConnectedServerId(), nil
	}
	return "", nil
}

// Incarnate implements [broker.Tailer].
func (b *Broker) Incarnate(ctx context.Context, lost broker.Tail) error {
	for {
		record, err := b.lookLife(ctx)
		if err != nil {
			return fmt.Errorf("settlenats: incarnate: %w", unavailable(ctx, err))
		}
		if record.Incarnation != lost.Incarnation {
			return nil
		}
		record.Ended = append(record.Ended, endedLife{Incarnation: record.Incarnation, Offsets: lost.Offsets})
		if extra := len(record.Ended) - livesMax; extra > 0 {
			record.Ended = record.Ended[extra:]
		}
		record.Incarnation = rand.Text()
		if err := b.writeLife(ctx, record); err != nil {
			return fmt.Errorf("settlenats: incarnate: %w", unavailable(ctx, err))
		}
	}
}

// LostAt implements [broker.Tailer]: for each stream the lowest end since the incarnation.
func (b *Broker) LostAt(ctx context.Context, incarnation string) (map[string]uint64, bool, error) {
	record, err := b.lookLife(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("settlenats: lost at: %w", unavailable(ctx, err))
	}
	var low map[string]uint64
	for _, ended := range record.Ended {
		switch {
		case low == nil && ended.Incarnation == incarnation:
			if low = maps.Clone(ended.Offsets); low == nil {
				low = map[string]uint64{}
			}
		case low != nil:
			for name := range low {
				low[name] = min(low[name], ended.Offsets[name])
			}
		}
	}
	return low, low != nil, nil
}

// watch keeps what this process knows up to date until ctx ends.
func (b *Broker) watch(ctx context.Context) {
	// A new incarnation rings at once; where the account may not listen, the ticker is enough.
	if sub, err := b.nc.Subscribe(b.cfg.lifeSubject(), func(*nats.Msg) { b.life.poke() }); err == nil {
		defer func() { _ = sub.Unsubscribe() }()
	}
	ticker := time.NewTicker(b.cfg.CheckEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-b.life.poked:
		}
		if b.nc.IsConnected() {
			b.look(ctx)
		}
	}
}

// look is one round of the watch. Its errors are those of a server that is away; the next round asks
// again, and nothing depends on this one.
func (b *Broker) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.AckWait)
	defer cancel()
	if losses := b.life.losses(); len(losses) > 0 {
		if err := b.tailLost(ctx, losses); err != nil {
			b.cfg.Logger.Warn("broker lost its tail, and the new incarnation is not written yet", "err", err)
			return
		}
	}
	if _, err := b.lookLife(ctx); err != nil {
		return
	}
	topics := b.known()
	list := b.js.ListStreams(ctx)
	for info := range list.Info() {
		if t := topics[info.Config.Name]; t != nil {
			t.first.Store(info.State.FirstSeq)
			t.last.Store(info.State.LastSeq)
		}
	}
}

// tailLost begins a new incarnation for a loss that this process saw itself.
func (b *Broker) tailLost(ctx context.Context, ends map[string]uint64) error {
	lost, err := b.Tail(ctx)
	if err != nil {
		return err
	}
	if now := b.life.losses(); len(now) == 0 {
		return nil // another process was first, and Tail has seen it
	}
	if lost.Opened != nil {
		// Nothing is lost within a life: it was lost before this one, and has been written over since.
		lost.Offsets = lost.Opened
	}
	for stream, end := range ends {
		lost.Offsets[stream] = min(end, lost.Offsets[stream])
	}
	b.cfg.Logger.Warn("broker lost its tail", "ends", ends)
	return b.Incarnate(ctx, lost)
}
