package settleredis

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// bells wakes who waits for a log or for a change of a group. A bell that is lost costs a wait, as all who
// listen also look by themselves.
type bells struct {
	pubsub *redis.PubSub
	prefix string

	mu        sync.Mutex
	listeners map[string]map[chan struct{}]bool // by name
}

func (l *bells) start(ctx context.Context, b *Broker) {
	l.prefix, l.listeners = b.cfg.bellKey(""), map[string]map[chan struct{}]bool{}
	l.pubsub = b.db.Subscribe(ctx, b.cfg.bellKey("")) // One that nobody rings keeps the connection up.
}

// run hands on what is rung until the subscription is closed.
func (l *bells) run(context.Context) {
	for message := range l.pubsub.Channel() {
		name := message.Channel[len(l.prefix):]
		l.mu.Lock()
		for c := range l.listeners[name] {
			ring(c)
		}
		l.mu.Unlock()
	}
}

func (l *bells) close() { _ = l.pubsub.Close() }

// listen has c hold a token after each time that the name is rung.
func (l *bells) listen(ctx context.Context, name string, c chan struct{}) {
	l.mu.Lock()
	first := len(l.listeners[name]) == 0
	if first {
		l.listeners[name] = map[chan struct{}]bool{}
	}
	l.listeners[name][c] = true
	l.mu.Unlock()
	if first {
		_ = l.pubsub.Subscribe(ctx, l.prefix+name) // The client repeats it on its next connection.
	}
}

func (l *bells) ignore(ctx context.Context, name string, c chan struct{}) {
	l.mu.Lock()
	delete(l.listeners[name], c)
	last := len(l.listeners[name]) == 0
	if last {
		delete(l.listeners, name)
	}
	l.mu.Unlock()
	if last {
		_ = l.pubsub.Unsubscribe(ctx, l.prefix+name)
	}
}

// ring puts a token into a channel of one.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
