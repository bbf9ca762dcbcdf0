// Package doctor looks at databases and brokers beside those who use them, and says what a person has to do.
//
// # What this package does not do
//
// It mends nothing and writes nothing.
package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/sqlstore"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "OK"
	Warn Level = "WARN"
	Fail Level = "FAIL"
)

// Finding is one thing that was looked at.
type Finding struct {
	Level Level  `json:"level"`
	Of    string `json:"of"`
	What  string `json:"what"`
	Do    string `json:"do,omitempty"`
}

// String is a line for people.
func (f Finding) String() string {
	s := fmt.Sprintf("%-4s %s: %s", f.Level, f.Of, f.What)
	if f.Do != "" {
		s += ": " + f.Do
	}
	return s
}

// Failed reports whether a finding is one that has to be mended.
func Failed(all []Finding) bool {
	for _, f := range all {
		if f.Level == Fail {
			return true
		}
	}
	return false
}

// Config says what is too old, and what else is needed. The zero Config is what the defaults of settle need.
type Config struct {
	// Relay says that the database is looked at for a relay: what only services need is left out.
	Relay bool
	// WAL says that the log of Postgres is to be read.
	WAL bool
	// Slot is the slot by which it is read. Default none.
	Slot string
	// Publication is the one of the log. Default settle_outbox.
	Publication string
	// Table is the table of another outbox that is read by the log. Default settle's own.
	Table string
	// TransactionMax is how long a transaction may be open. Default 5m.
	TransactionMax time.Duration
	// PreparedMax is how long a prepared transaction may wait. Default 5m.
	PreparedMax time.Duration
	// OutboxRetention is how long relays keep events. Default 24h.
	OutboxRetention time.Duration
	// InboxRetention is how long consumers remember events. Default 168h.
	InboxRetention time.Duration
	// SkewMax is how far clocks may be apart. Default 1s.
	SkewMax time.Duration
	// SlotBytesMax is how much log a slot may keep. Default 1 GiB.
	SlotBytesMax int64
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.TransactionMax, 5 * time.Minute},
		{&c.PreparedMax, 5 * time.Minute},
		{&c.OutboxRetention, 24 * time.Hour},
		{&c.InboxRetention, 7 * 24 * time.Hour},
		{&c.SkewMax, time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.SlotBytesMax == 0 {
		c.SlotBytesMax = 1 << 30
	}
	return c
}

// lookTimeout bounds the look at one database.
const lookTimeout = 30 * time.Second

// look gathers findings of one database.
type look struct {
	db  *sql.DB
	d   app.Database
	cfg Config
	all []Finding
}

func (l *look) add(level Level, do, format string, args ...any) {
	l.all = append(l.all, Finding{Level: level, Of: l.d.Name, What: fmt.Sprintf(format, args...), Do: do})
}

func (l *look) ok(format string, args ...any) { l.add(OK, "", format, args...) }

// failed says that something could not be looked at.
func (l *look) failed(what string, err error) {
	l.add(Warn, "give the role the right to see it, or look by hand", "%s cannot be looked at: %v", what, err)
}

// Database looks at a database. What is wrong is in the findings, also that nobody answers.
func Database(ctx context.Context, d app.Database, cfg Config) []Finding {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	l := &look{d: d, cfg: cfg.withDefaults()}
	s, err := d.Open(ctx, app.DatabaseConfig{ConnsMax: 2, Quiet: true})
	if err == nil {
		err = s.Close()
	}
	var denied error
	switch {
	case err == nil || errors.Is(err, sqlstore.ErrSchema):
	case l.inside(ctx):
		denied = err // The server knows who we are, and forbids something: what, is worth a line each.
	default:
		do := app.Fault(err)
		if do == "" {
			do = "start the server, or mend the address"
		}
		l.add(Fail, do, "%v", err)
		return l.all
	}
	if l.db, err = d.Raw(); err != nil {
		l.add(Fail, "mend the URL", "%v", err)
		return l.all
	}
	defer l.db.Close()
	l.ok("%s answers", d.Redacted())
	if denied != nil {
		if l.postgresRights(ctx); !Failed(l.all) {
			l.add(Fail, app.Fault(denied), "%v", denied)
		}
		return l.all
	}
	l.schemas(ctx)
	if !Failed(l.all) {
		l.server(ctx)
	}
	return l.all
}

// inside reports whether the server lets us in, although the store could not be opened.
func (l *look) inside(ctx context.Context) bool {
	if l.d.Dialect != "postgres" {
		return false
	}
	db, err := l.d.Raw()
	if err != nil {
		return false
	}
	defer db.Close()
	return db.PingContext(ctx) == nil
}

func (l *look) server(ctx context.Context) {
	switch l.d.Dialect {
	case "postgres":
		l.postgres(ctx)
	case "mysql":
		l.mysql(ctx)
	}
}

// number reads one number.
func (l *look) number(ctx context.Context, query string, args ...any) (n int64, err error) {
	var v sql.NullInt64
	err = l.db.QueryRowContext(ctx, query, args...).Scan(&v)
	return v.Int64, err
}

// clock compares the server's clock, which leases run by, with ours.
func (l *look) clock(ctx context.Context, query string) {
	before := time.Now()
	var micros int64
	err := l.db.QueryRowContext(ctx, query).Scan(&micros)
	took := time.Since(before)
	if err != nil {
		l.failed("clock", err)
		return
	}
	skew := time.UnixMicro(micros).Sub(before.Add(took / 2)).Round(time.Millisecond)
	if skew.Abs() > l.cfg.SkewMax+took/2 {
		l.add(Warn, "let both follow the same time servers: ages and retention are by these clocks", "the server's clock is %s from ours", skew)
		return
	}
	l.ok("clocks are %s apart", skew)
}

// ages compares what lies there with how long it is kept.
func (l *look) ages(ctx context.Context) {
	age := func(what, query string, limit time.Duration, do string) {
		nanos, err := l.number(ctx, query)
		switch old := time.Since(time.Unix(0, nanos)).Round(time.Second); {
		case err != nil:
			l.failed(what, err)
		case nanos == 0:
			l.ok("%s: none", what)
		case old > limit:
			l.add(Warn, do, "oldest %s is of %s ago, more than %s", what, old, limit)
		default:
			l.ok("oldest %s is of %s ago", what, old)
		}
	}
	age("event in the outbox", "SELECT min(created_at) FROM settle_outbox", 3*l.cfg.OutboxRetention,
		"see whether a relay runs (settle outbox status): what it has not carried is never deleted")
	age("event that the broker refused", "SELECT min(parked_at) FROM settle_relay_parked", l.cfg.InboxRetention,
		"settle outbox parked: after "+l.cfg.InboxRetention.String()+" inboxes forget, a replay may be handled twice")
	if l.cfg.Relay {
		return
	}
	age("dead letter", "SELECT min(first_at) FROM settle_letter", l.cfg.InboxRetention,
		"settle dlq list: decide, after "+l.cfg.InboxRetention.String()+" an event may be forgotten and handled twice")
	age("event remembered by the inbox", "SELECT min(at) FROM settle_inbox", 2*l.cfg.InboxRetention,
		"see whether a consumer runs: it is what forgets (or Inbox().Forget, where there is none)")
}
