package settlerabbit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/broker"
)

// link is one connection and the socket under it. The client has no timeouts of its own: closing the socket
// ends a call that waits for a server which went silent.
type link struct {
	*amqp.Connection

	socket  net.Conn
	blocked atomic.Pointer[string] // why the server takes nothing from publishers now

	mu     sync.Mutex
	topics map[string]bool // declared on this connection
}

func (l *link) kill() { _ = l.socket.Close() }

// declared reports whether a topic needs no declaration. They are made again on each connection: the server
// may have lost them while it was away.
func (l *link) declared(topic string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.topics[topic]
}

func (l *link) remember(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[topic] = true
}

func (l *link) forget(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.topics, topic)
}

// end closes the connection in order, or its socket if the server does not answer.
func (l *link) end(wait time.Duration) {
	timer := time.AfterFunc(wait, l.kill)
	defer timer.Stop()
	_ = l.Close()
}

// dial connects. name tells people at the server what the connection is for.
func (b *Broker) dial(ctx context.Context, name string) (*link, error) {
	l := &link{topics: map[string]bool{}}
	dialer := net.Dialer{Timeout: b.cfg.AckWait}
	var err error
	l.Connection, err = amqp.DialConfig(b.url, amqp.Config{
		Heartbeat: b.cfg.Heartbeat, Locale: "en_US",
		TLSClientConfig: b.cfg.TLS.Clone(), // The client writes into it.
		Properties:      amqp.Table{"connection_name": name, "product": "settle"},
		Dial: func(network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			l.socket = conn
			// For the handshake; the client takes it away.
			return conn, conn.SetDeadline(time.Now().Add(b.cfg.AckWait))
		},
	})
	if err != nil {
		if l.socket != nil {
			l.kill()
		}
		return nil, dialError(ctx, err)
	}
	blockings := l.NotifyBlocked(make(chan amqp.Blocking, 1))
	b.helpers.Go(func() {
		for now := range blockings { // Closed with the connection.
			if now.Active {
				l.blocked.Store(&now.Reason)
				b.cfg.Logger.Warn("broker takes nothing from publishers", "err", now.Reason)
			} else {
				l.blocked.Store(nil)
				b.cfg.Logger.Info("broker takes messages from publishers again")
			}
		}
	})
	return l, nil
}

func dialError(ctx context.Context, err error) error {
	refused, ok := errors.AsType[*amqp.Error](err)
	switch {
	case errors.Is(err, amqp.ErrVhost), ok && refused.Code == amqp.NotAllowed:
		return fmt.Errorf("%w: %w", ErrVhost, err)
	case errors.Is(err, amqp.ErrCredentials), errors.Is(err, amqp.ErrSASL), ok && refused.Code == amqp.AccessRefused:
		return fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	return unavailable(ctx, err)
}

// unavailable makes an error of the server one that callers wait out. A context that has ended is its own.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}
