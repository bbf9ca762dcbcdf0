package settleredis

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"

	"github.com/settledev/settle/broker"
)

// livesMax bounds the ended incarnations that are remembered.
const livesMax = 64

// epoch names a time in which the logs only grew: an incarnation, and within it a run of the server.
type epoch struct {
	incarnation string
	life        string
}

// state is what look.lua found.
type state struct {
	epoch   epoch
	opened  map[string]uint64
	offsets map[string]uint64
	ended   []endedLife
}

// endedLife says where an incarnation ended, by log.
type endedLife struct {
	Incarnation string            `json:"incarnation"`
	Offsets     map[string]uint64 `json:"offsets"`
}

// look reads the state, and begins a new life where one is due.
func (b *Broker) look(ctx context.Context) (state, error) {
	c := &b.cfg
	answer, err := b.scripts.look.Run(ctx, b.db, []string{c.lifeKey(), c.topicsKey(), c.endsKey()},
		rand.Text(), rand.Text(), c.logKey(""), c.tickKey("")).StringSlice()
	if err != nil {
		return state{}, err
	}
	if len(answer) != 5 {
		return state{}, fmt.Errorf("state of %d parts, 5 expected", len(answer))
	}
	s := state{epoch: epoch{incarnation: answer[0], life: answer[1]}}
	var errOpened, errOffsets error
	s.opened, errOpened = parseOffsets(answer[2])
	s.offsets, errOffsets = parseOffsets(answer[4])
	if err := errors.Join(errOpened, errOffsets, json.Unmarshal([]byte(answer[3]), &s.ended)); err != nil {
		return state{}, fmt.Errorf("%s is damaged: %w", c.lifeKey(), err)
	}
	return s, nil
}

// parseOffsets reads "orders/0 17 orders/1 4".
func parseOffsets(text string) (map[string]uint64, error) {
	fields := strings.Fields(text)
	offsets := make(map[string]uint64, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		n, err := strconv.ParseUint(fields[i+1], 10, 64)
		if err != nil {
			return nil, err
		}
		offsets[fields[i]] = n
	}
	return offsets, nil
}

// Tail implements [broker.Tailer]. Offsets are by topic/partition. The life is that of one run of the
// server over one set of data, as what it has acknowledged stays in its memory for as long.
func (b *Broker) Tail(ctx context.Context) (broker.Tail, error) {
	ticket := b.gate.ticket()
	s, err := b.look(ctx)
	if err != nil {
		return broker.Tail{}, fmt.Errorf("settleredis: tail: %w", unavailable(ctx, err))
	}
	b.gate.looked(ticket, s.epoch)
	return broker.Tail{Incarnation: s.epoch.incarnation, Offsets: s.offsets, Life: s.epoch.life, Opened: s.opened}, nil
}

// Incarnate implements [broker.Tailer].
func (b *Broker) Incarnate(ctx context.Context, lost broker.Tail) error {
	s, err := b.look(ctx)
	if err != nil {
		return fmt.Errorf("settleredis: incarnate: %w", unavailable(ctx, err))
	}
	if s.epoch.incarnation != lost.Incarnation {
		return nil
	}
	ended := append(s.ended, endedLife{Incarnation: lost.Incarnation, Offsets: lost.Offsets})
	if extra := len(ended) - livesMax; extra > 0 {
		ended = ended[extra:]
	}
	text, err := json.Marshal(ended)
	if err != nil {
		return fmt.Errorf("settleredis: incarnate: %w", err)
	}
	// Another one may have been first since: then it is the other's.
	err = b.scripts.incarnate.Run(ctx, b.db, []string{b.cfg.lifeKey()}, lost.Incarnation, rand.Text(), text).Err()
	if err != nil {
		return fmt.Errorf("settleredis: incarnate: %w", unavailable(ctx, err))
	}
	return nil
}

// LostAt implements [broker.Tailer]: for each log the lowest end since the incarnation.
func (b *Broker) LostAt(ctx context.Context, incarnation string) (map[string]uint64, bool, error) {
	s, err := b.look(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("settleredis: lost at: %w", unavailable(ctx, err))
	}
	var low map[string]uint64
	for _, ended := range s.ended {
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

// tailLost begins a new incarnation for a loss that a consumer met: its position lies past a log's end.
func (b *Broker) tailLost(ctx context.Context, incarnation, log string, end uint64) error {
	s, err := b.look(ctx)
	if err != nil || s.epoch.incarnation != incarnation {
		return err
	}
	// Nothing is lost within a life: it was lost before this one, and may have been written over since.
	offsets := maps.Clone(s.opened)
	offsets[log] = min(offsets[log], end)
	b.cfg.Logger.Warn("broker lost its tail: a new incarnation begins", "log", log, "end", end)
	return b.Incarnate(ctx, broker.Tail{Incarnation: incarnation, Offsets: offsets})
}

// gate lets producers publish in the epoch that they know. A relay that was away when the epoch changed
// may have acknowledged events that are lost, and must not put later ones of the same keys in front of
// them: so each producer is refused once, and let in after a call of Tail that began later.
type gate struct {
	mu       sync.Mutex
	seen     epoch
	begun    uint64 // calls of Tail
	finished uint64 // the newest of them that has ended
	admitted map[string]epoch
	refused  map[string]uint64 // calls of Tail that had begun by then
}

func (g *gate) open(e epoch) {
	g.seen = e
	g.admitted, g.refused = map[string]epoch{}, map[string]uint64{}
}

func (g *gate) ticket() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.begun++
	return g.begun
}

func (g *gate) looked(ticket uint64, e epoch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ticket > g.finished {
		g.finished, g.seen = ticket, e
	}
}

// admit returns the epoch in which a producer may publish.
func (g *gate) admit(producer string) (epoch, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e, ok := g.admitted[producer]
	if !ok {
		e = g.seen // Its relay has looked before it began.
		g.admitted[producer] = e
	}
	at, told := g.refused[producer]
	switch {
	case e == g.seen && !told:
		return e, true
	case told && g.finished > at:
		delete(g.refused, producer)
		g.admitted[producer] = g.seen
		return g.seen, true
	case !told:
		g.refused[producer] = g.begun
	}
	return epoch{}, false
}

// refuse notes that the server has another epoch than the one the producer was let into.
func (g *gate) refuse(producer string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, told := g.refused[producer]; !told {
		g.refused[producer] = g.begun
	}
}
