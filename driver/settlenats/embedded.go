package settlenats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/settledev/settle/event"
)

const (
	// headerRoom is what headers may need beside the largest data.
	headerRoom = 64 << 10
	// startMax bounds how long an embedded server may need to come up, when ctx does not.
	startMax = time.Minute
	// complaintsMax bounds what is kept of a server's complaints.
	complaintsMax = 20
)

// embedded is a server in this process. Nothing listens on the network.
type embedded struct {
	server *server.Server
	lock   *os.File
	log    *serverLog
	stamp  *stamp // nil until the streams are known
}

// OpenEmbedded starts a server over cfg.Dir in this process, without a port, and connects to it. The
// directory belongs to one process at a time (ErrLocked names the other one); a stream in it that
// cannot be read is ErrCorrupt, never a new and empty stream.
func OpenEmbedded(ctx context.Context, cfg Config) (*Broker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		return nil, errors.New("settlenats: open embedded: no directory")
	}
	e, err := startEmbedded(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("settlenats: open embedded in %s: %w", cfg.Dir, err)
	}
	b, err := open(ctx, "nats://embedded", cfg, e)
	if err == nil {
		if err = e.complete(ctx, b); err == nil {
			return b, nil
		}
		return nil, errors.Join(fmt.Errorf("settlenats: open embedded in %s: %w", cfg.Dir, err), b.Close())
	}
	return nil, errors.Join(err, e.close())
}

func startEmbedded(ctx context.Context, cfg Config) (*embedded, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	e := &embedded{lock: lock, log: &serverLog{logger: cfg.Logger}}
	e.server, err = server.NewServer(&server.Options{
		ServerName: "settle-embedded", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: cfg.Dir, SyncInterval: cfg.SyncInterval,
		MaxPayload: event.DataBytesMax + headerRoom,
	})
	if err != nil {
		return nil, errors.Join(err, unlockDir(lock))
	}
	e.server.SetLoggerV2(e.log, false, false, false)
	wait := startMax
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	e.server.Start()
	if !e.log.gaveUp() && e.server.ReadyForConnections(wait) && e.server.JetStreamEnabled() {
		return e, nil
	}
	return nil, errors.Join(fmt.Errorf("server did not start: %s", e.log.said()), e.close())
}

// complete proves that every stream in the directory was recovered: the server goes on without one
// that it cannot read, and we would create it anew. Then it stamps the directory.
func (e *embedded) complete(ctx context.Context, b *Broker) error {
	entries, err := os.ReadDir(e.streamsDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	there := map[string]bool{}
	names := b.js.StreamNames(ctx)
	for name := range names.Name() {
		there[name] = true
	}
	if err := names.Err(); err != nil {
		return err
	}
	for _, entry := range entries {
		// The server parks what it is deleting under a dot.
		if name := entry.Name(); entry.IsDir() && !there[name] && !strings.HasPrefix(name, ".") {
			return fmt.Errorf("%w: stream %s was not recovered: %s", ErrCorrupt, name, e.log.said())
		}
	}
	offsets, err := b.offsets(ctx)
	if err != nil {
		return err
	}
	e.stamp, err = openStamp(b.cfg.Dir, e.streamsDir(), offsets)
	return err
}

// close stops the server, which writes and syncs what it holds, and gives the directory back.
func (e *embedded) close() error {
	e.server.Shutdown()
	e.server.WaitForShutdown()
	var err error
	if e.stamp != nil {
		err = e.stamp.close()
	}
	return errors.Join(err, unlockDir(e.lock))
}

// serverLog passes the server's complaints on, and keeps the first ones for an error's text.
type serverLog struct {
	logger *slog.Logger

	mu         sync.Mutex
	complaints []string
	fatal      bool
}

// gaveUp reports whether the server said that it cannot go on: it then never becomes ready.
func (l *serverLog) gaveUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

func (l *serverLog) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.complaints) == 0 {
		return "it gave no reason"
	}
	return strings.Join(l.complaints, "; ")
}

func (l *serverLog) complain(level slog.Level, format string, args []any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	l.mu.Lock()
	if len(l.complaints) < complaintsMax {
		l.complaints = append(l.complaints, text)
	}
	l.mu.Unlock()
	l.logger.Log(context.Background(), level, "embedded broker", "err", text)
}

func (l *serverLog) Noticef(string, ...any)            {}
func (l *serverLog) Debugf(string, ...any)             {}
func (l *serverLog) Tracef(string, ...any)             {}
func (l *serverLog) Warnf(format string, args ...any)  { l.complain(slog.LevelWarn, format, args) }
func (l *serverLog) Errorf(format string, args ...any) { l.complain(slog.LevelError, format, args) }

// Fatalf takes the server's last words. It returns, unlike what the server has by default.
func (l *serverLog) Fatalf(format string, args ...any) {
	l.mu.Lock()
	l.fatal = true
	l.mu.Unlock()
	l.complain(slog.LevelError, format, args)
}
