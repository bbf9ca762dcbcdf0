package settlepgx

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/settledev/settle/sqlstore"
)

// channel is where processes on one database tell one another of commits.
const channel = "settle_outbox"

const (
	// ringEvery bounds the notifications of a process: each takes a lock that commits wait for.
	ringEvery      = 5 * time.Millisecond
	reconnectPause = time.Second
)

// doorbell rings and listens, each on a connection of its own. A ring that is lost is found by polling.
type doorbell struct {
	cc  *pgx.ConnConfig
	log *slog.Logger
	own string // what our own rings say, which we need not hear

	rung   chan struct{}
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu        sync.Mutex
	listeners map[chan struct{}]struct{}
}

var _ sqlstore.Doorbell = (*doorbell)(nil)

func newDoorbell(cc *pgx.ConnConfig, log *slog.Logger) *doorbell {
	ctx, cancel := context.WithCancel(context.Background())
	d := &doorbell{
		cc: cc.Copy(), log: log, own: fmt.Sprintf("%d.%d", os.Getpid(), time.Now().UnixNano()),
		rung: make(chan struct{}, 1), cancel: cancel, listeners: map[chan struct{}]struct{}{},
	}
	d.done.Go(func() { d.again(ctx, d.ringing) })
	d.done.Go(func() { d.again(ctx, d.listening) })
	return d
}

func (d *doorbell) close() {
	d.cancel()
	d.done.Wait()
}

// Ring implements [sqlstore.Doorbell].
func (d *doorbell) Ring() {
	select {
	case d.rung <- struct{}{}:
	default:
	}
}

// Listen implements [sqlstore.Doorbell].
func (d *doorbell) Listen() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners[c] = struct{}{}
	return c, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.listeners, c)
	}
}

func (d *doorbell) heard() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.listeners {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// again connects and calls fn until ctx is done, with a pause after each failure.
func (d *doorbell) again(ctx context.Context, fn func(context.Context, *pgx.Conn) error) {
	for ctx.Err() == nil {
		conn, err := pgx.ConnectConfig(ctx, d.cc)
		if err == nil {
			err = fn(ctx, conn)
			_ = conn.Close(context.WithoutCancel(ctx)) // It has failed, or nobody needs it.
		}
		if err != nil && ctx.Err() == nil {
			d.log.Debug("doorbell lost its connection, others are found by polling", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectPause):
		}
	}
}

func (d *doorbell) ringing(ctx context.Context, conn *pgx.Conn) error {
	for {
		select {
		case <-d.rung:
		case <-ctx.Done():
			return nil
		}
		if _, err := conn.Exec(ctx, "SELECT pg_notify($1, $2)", channel, d.own); err != nil {
			return err
		}
		select {
		case <-time.After(ringEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *doorbell) listening(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	d.heard() // What was missed meanwhile.
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if n.Payload != d.own {
			d.heard()
		}
	}
}
