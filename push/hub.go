package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Limits of a hub.
const (
	// RingMax bounds Config.Ring.
	RingMax = 1 << 20
	// ReadMax bounds the frames read from the log at a time.
	ReadMax = 500
)

// Config of a hub. Zero means default.
type Config struct {
	// Ring is how many encoded frames are shared in memory. Default 4096.
	Ring int
	// ClientsMax bounds the connections; a further one is refused with 503. Default 20000.
	ClientsMax int
	// ReplayMax bounds the frames that a resuming client is sent from the log; one that missed more
	// gets a reset. Default 5000.
	ReplayMax int
	// Heartbeat is the time between comments on a quiet connection. Default 20s.
	Heartbeat time.Duration
	// WriteTimeout ends a connection that does not take what it is sent. Default 5s.
	WriteTimeout time.Duration
	// Poll is how often the log is read without a ring of its bell. Default 1s.
	Poll time.Duration
	// Keep is how many frames the log keeps. Default 1000000.
	Keep int64
	// Logger receives failures of the log. Default slog.Default().
	Logger *slog.Logger
}

// Trimming is bounded work: a slice, a breath for the writers of the same store, the next slice.
const (
	trimSlice = 10_000
	trimPause = 100 * time.Millisecond
	trimEvery = time.Minute
)

func (c Config) withDefaults() (Config, error) {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Ring, 4096)
	def(&c.ClientsMax, 20_000)
	def(&c.ReplayMax, 5_000)
	dur(&c.Heartbeat, 20*time.Second)
	dur(&c.WriteTimeout, 5*time.Second)
	dur(&c.Poll, time.Second)
	if c.Keep == 0 {
		c.Keep = 1_000_000
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	switch {
	case c.Ring < 1 || c.Ring > RingMax:
		return c, fmt.Errorf("push: ring of %d frames, 1 to %d allowed", c.Ring, RingMax)
	case c.ClientsMax < 1 || c.ReplayMax < 1 || c.Heartbeat < 0 || c.WriteTimeout < 0 || c.Poll < 0:
		return c, errors.New("push: limits and times must be positive")
	case c.Keep < int64(c.ReplayMax):
		return c, fmt.Errorf("push: log keeps %d frames, a replay may need %d", c.Keep, c.ReplayMax)
	}
	return c, nil
}

// encoded is a frame as every connection writes it.
type encoded struct {
	position int64
	feeds    []string
	bytes    []byte
}

// Hub follows a log and serves connections. It is safe for concurrent use.
type Hub struct {
	log Log
	cfg Config

	mu      sync.Mutex
	epoch   string
	ring    []encoded // position p of the log stands at p % len
	first   int64     // oldest position in the ring; head+1 when it is empty
	head    int64     // newest position in the ring
	feeds   map[string]map[*client]struct{}
	clients int
	ready   chan struct{} // closed when the log's bounds are known
	done    chan struct{} // closed when Run ends
}

// client is one connection: what the hub keeps of it is a feed, a place, and a bell.
type client struct {
	feed string
	// dirty is the first position after the client's place that concerns it; 0 when nothing does. Because
	// of it a quiet client needs no place in the ring: everything before dirty is not for it.
	dirty int64
	wake  chan struct{}
}

// NewHub returns a hub over a log.
func NewHub(log Log, cfg Config) (*Hub, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Hub{
		log: log, cfg: cfg, ring: make([]encoded, cfg.Ring),
		feeds: map[string]map[*client]struct{}{}, ready: make(chan struct{}), done: make(chan struct{}),
	}, nil
}

// Run follows the log until ctx is done, and trims it. Its end ends every connection. Call it once.
func (h *Hub) Run(ctx context.Context) error {
	defer close(h.done)
	ring, stop := h.log.Listen()
	defer stop()
	poll := time.NewTicker(h.cfg.Poll)
	defer poll.Stop()
	trim := time.NewTimer(trimEvery)
	defer trim.Stop()
	for {
		if err := h.follow(ctx); err != nil && ctx.Err() == nil {
			h.cfg.Logger.Warn("feed log cannot be read", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ring:
		case <-poll.C:
		case <-trim.C:
			n, err := h.log.Trim(ctx, h.cfg.Keep, trimSlice)
			if err != nil && ctx.Err() == nil {
				h.cfg.Logger.Warn("feed log cannot be trimmed", "err", err)
			}
			pause := trimEvery
			if n >= trimSlice {
				pause = trimPause
			}
			trim.Reset(pause)
		}
	}
}

// follow brings the ring up to the log's end.
func (h *Hub) follow(ctx context.Context) error {
	select {
	case <-h.ready:
	default:
		epoch, _, last, err := h.log.Bounds(ctx)
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.epoch, h.head, h.first = epoch, last, last+1
		h.mu.Unlock()
		close(h.ready)
	}
	for {
		h.mu.Lock()
		head := h.head
		h.mu.Unlock()
		frames, err := h.log.After(ctx, "", head, ReadMax)
		if err != nil {
			return err
		}
		h.add(frames)
		if len(frames) < ReadMax {
			return nil
		}
	}
}

func (h *Hub) add(frames []Frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range frames {
		h.ring[f.Position%int64(len(h.ring))] = encoded{f.Position, f.Feeds, encode(h.epoch, f)}
		h.head = f.Position
		h.first = max(h.first, h.head-int64(len(h.ring))+1)
		h.notify("", f.Position)
		for _, feed := range f.Feeds {
			h.notify(feed, f.Position)
		}
	}
}

// notify marks the clients of a feed; the caller holds the lock.
func (h *Hub) notify(feed string, position int64) {
	for c := range h.feeds[feed] {
		if c.dirty == 0 {
			c.dirty = position
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
	}
}

// join registers a client at the head and returns the head; ok is false when the hub is full.
func (h *Hub) join(feed string) (c *client, epoch string, head int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.clients >= h.cfg.ClientsMax {
		return nil, "", 0, false
	}
	h.clients++
	c = &client{feed: feed, wake: make(chan struct{}, 1)}
	if h.feeds[feed] == nil {
		h.feeds[feed] = map[*client]struct{}{}
	}
	h.feeds[feed][c] = struct{}{}
	return c, h.epoch, h.head, true
}

func (h *Hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients--
	delete(h.feeds[c.feed], c)
	if len(h.feeds[c.feed]) == 0 {
		delete(h.feeds, c.feed)
	}
}

// Clients returns how many connections are served.
func (h *Hub) Clients() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clients
}

// take returns the frames that wait for a client and clears its mark; lost is true when the ring no
// longer has the first of them. buf is reused.
func (h *Hub) take(c *client, buf [][]byte) (frames [][]byte, last int64, lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	from := c.dirty
	if from == 0 {
		return buf[:0], 0, false
	}
	c.dirty = 0
	if from < h.first {
		return buf[:0], h.head, true
	}
	frames = buf[:0]
	for p := from; p <= h.head; p++ {
		e := &h.ring[p%int64(len(h.ring))]
		if e.position != p || !shows(e.feeds, c.feed) {
			continue // A gap in the log: a rolled-back append.
		}
		if len(frames) == framesPerWrite {
			c.dirty = p // The rest comes with the next write.
			return frames, p - 1, false
		}
		frames = append(frames, e.bytes)
	}
	return frames, h.head, false
}

func shows(feeds []string, feed string) bool {
	return feed == "" || slices.Contains(feeds, feed)
}

// encode returns the frame in the format of server-sent events.
func encode(epoch string, f Frame) []byte {
	b := make([]byte, 0, len(f.Data)+len(f.Event)+len(epoch)+48)
	b = append(b, "id: "...)
	b = append(b, epoch...)
	b = append(b, '-')
	b = strconv.AppendInt(b, f.Position, 10)
	if f.Event != "" {
		b = append(b, "\nevent: "...)
		b = append(b, f.Event...)
	}
	b = append(b, "\ndata: "...)
	b = append(b, f.Data...)
	return append(b, "\n\n"...)
}
