package settlenats

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/lock"
)

// Config says how events are carried. The zero Config is ready to use with Open; OpenEmbedded needs Dir.
type Config struct {
	// Dir holds the embedded server's data and a lock file. Embedded only.
	Dir string
	// SyncInterval is how often the embedded server syncs its files: what it acknowledged since may be
	// lost when the machine (not the process) dies, and relays publish it again. Default 2m.
	SyncInterval time.Duration

	// Prefix begins the name of every stream and subject: [A-Za-z0-9-]. Default "settle".
	Prefix string
	// Partitions of a topic that is new; one that exists keeps the number it was created with.
	// Default 1.
	Partitions int
	// MaxAge is how long messages are retained in streams that are new. Default 72h.
	MaxAge time.Duration
	// Replicas of streams that are new. Default 3 in a cluster, 1 otherwise.
	Replicas int
	// Dedup is how long the server of a new stream recognises an event that is published again. It is a
	// filter that spares traffic; the guarantee is the inbox's. Each event costs the server some 150
	// bytes for as long. Default 10s.
	Dedup time.Duration

	// AckWait is how long Publish waits for acknowledgements. Default 5s.
	AckWait time.Duration
	// Wait is how long a pull, and so a Fetch, waits for the first message: at most 5s. Default 250ms.
	Wait time.Duration
	// CheckEvery is how often an idle partition asks the server whether it missed something, and the
	// incarnation is read again. Default 2s.
	CheckEvery time.Duration

	// Leases return those by which the processes of a group divide its partitions, see [assign.Share]: of a
	// database that all of them have, usually the group's own; nil for a group of one process. Default: every
	// group has one process; several would each read everything, and the fences let one of them store it.
	Leases func(group string) lock.Leases
	// LeaseTTL is how long a partition rests after its holder crashed. Default 15s.
	LeaseTTL time.Duration

	// CAFile is a PEM file of the authorities to trust. Default the system's.
	CAFile string
	// CertFile and KeyFile are the client's own certificate. Default none.
	CertFile, KeyFile string
	// CredsFile is a .creds file: a user's JWT and seed. Default none.
	CredsFile string
	// NKeyFile is a file with the seed of a user's nkey. Default none.
	NKeyFile string

	// Options are given to the NATS client after this package's own. Default none.
	Options []nats.Option
	// Logger takes what the connection and the embedded server have to say. Default slog.Default().
	Logger *slog.Logger
}

// pullWaitMax bounds Config.Wait: a pull that waits for long hides a server that went silent.
const pullWaitMax = 5 * time.Second

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field *time.Duration
		name  string
		value time.Duration
	}{
		{&c.SyncInterval, "sync interval", 2 * time.Minute},
		{&c.MaxAge, "max age", 72 * time.Hour},
		{&c.Dedup, "dedup", 10 * time.Second},
		{&c.AckWait, "ack wait", 5 * time.Second},
		{&c.Wait, "wait", 250 * time.Millisecond},
		{&c.CheckEvery, "check every", 2 * time.Second},
		{&c.LeaseTTL, "lease", 15 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return c, fmt.Errorf("settlenats: %s %s is negative", d.name, *d.field)
		}
	}
	if c.Prefix == "" {
		c.Prefix = "settle"
	}
	if c.Partitions == 0 {
		c.Partitions = 1
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, c.check()
}

func (c Config) check() error {
	if err := event.CheckName(c.Prefix); err != nil {
		return fmt.Errorf("settlenats: prefix: %w", err)
	}
	switch {
	case strings.ContainsAny(c.Prefix, "._"):
		return fmt.Errorf("settlenats: prefix %q has a dot or underscore, which part it from the topic", c.Prefix)
	case c.Partitions < 1 || c.Partitions > partitionsMax:
		return fmt.Errorf("settlenats: %d partitions: 1 to %d allowed", c.Partitions, partitionsMax)
	case c.Replicas < 0 || c.Replicas > 5:
		return fmt.Errorf("settlenats: %d replicas: 1 to 5 allowed", c.Replicas)
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("settlenats: a certificate needs its key, and a key its certificate")
	case c.CredsFile != "" && c.NKeyFile != "":
		return errors.New("settlenats: credentials and an nkey are two ways to be somebody: give one")
	case c.Wait > pullWaitMax:
		return fmt.Errorf("settlenats: wait %s exceeds %s", c.Wait, pullWaitMax)
	case c.Dedup > c.MaxAge:
		return fmt.Errorf("settlenats: dedup %s exceeds max age %s", c.Dedup, c.MaxAge)
	case c.Dedup < 100*time.Millisecond:
		return errors.New("settlenats: dedup is below the server's minimum of 100ms")
	}
	return nil
}
