package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
)

// outboxCmd is settle outbox. It reads services' databases beside the running shop; replay asks the shop,
// which writes, and only rebase writes itself.
type outboxCmd struct {
	Status outboxStatusCmd `cmd:"" help:"Show how far each service's outbox has been carried."`
	List   outboxListCmd   `cmd:"" help:"List a service's events with their status."`
	Parked outboxParkedCmd `cmd:"" help:"List events that the broker refused, and their followers."`
	Replay outboxReplayCmd `cmd:"" help:"Have a refused key published again."`
	Rebase outboxRebaseCmd `cmd:"" help:"Make an outbox usable again that was restored into another cluster."`
}

// outboxFile names services' databases.
type outboxFile struct {
	Dir     string `help:"Data directory." default:"settle-data" placeholder:"DIR"`
	Store   string `help:"Where the shop's stores are, as for serve. Default: SQLite files in --dir." placeholder:"URL"`
	Service string `help:"The service. Default: every one, where that makes sense."`
}

func (f *outboxFile) services() ([]string, error) {
	if f.Service == "" {
		return app.Services(), nil
	}
	if !slices.Contains(app.Services(), f.Service) {
		return nil, usage("--service %q is none of %v", f.Service, app.Services())
	}
	return []string{f.Service}, nil
}

func (f *outboxFile) each(ctx context.Context, fn func(name string, src relay.Source) error) error {
	names, err := f.services()
	if err != nil {
		return err
	}
	for _, name := range names {
		s, err := f.open(ctx, name)
		if err != nil {
			return err
		}
		err = fn(name, s.Outbox())
		if err = errors.Join(err, s.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (f *outboxFile) open(ctx context.Context, name string) (*sqlstore.Store, error) {
	s, err := app.OpenReader(ctx, f.Store, f.Dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage("--dir %s has no data of a shop: %v", f.Dir, err)
	}
	return s, err
}

type outboxStatusCmd struct {
	outboxFile
	listing
}

// outboxStatus is one service's outbox.
type outboxStatus struct {
	Service    string  `json:"service"`
	Pending    int64   `json:"pending"`
	AgeSeconds float64 `json:"ageSeconds"`
	Sent       int64   `json:"sent"`
	Parked     int64   `json:"parked"`
}

// Run shows the state of outboxes.
func (c *outboxStatusCmd) Run(ctx context.Context, t *terminal) error {
	var all []outboxStatus
	err := c.each(ctx, func(name string, src relay.Source) error {
		o, ok := src.(relay.Observer)
		if !ok {
			return errors.ErrUnsupported
		}
		s, err := o.Stats(ctx)
		all = append(all, outboxStatus{name, s.Pending, s.Age.Seconds(), s.Sent, s.Parked})
		return err
	})
	if err != nil {
		return err
	}
	return printItems(t, c.JSON, all, "SERVICE\tPENDING\tAGE\tSENT\tPARKED", func(s outboxStatus) string {
		return fmt.Sprintf("%s\t%d\t%.1fs\t%d\t%d", s.Service, s.Pending, s.AgeSeconds, s.Sent, s.Parked)
	})
}

// outboxEvent is an event in an outbox.
type outboxEvent struct {
	Service  string    `json:"service"`
	Position string    `json:"position"`
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Topic    string    `json:"topic"`
	Key      string    `json:"key"`
	At       time.Time `json:"at"`
	Status   string    `json:"status"`
	Attempts int       `json:"attempts,omitempty"`
	Cause    string    `json:"cause,omitempty"`
}

func (e outboxEvent) row() string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.60s", e.Service, e.Position, e.Status, e.Topic, e.Type, e.Key, e.At.Local().Format(time.DateTime), e.Cause)
}

const outboxHeader = "SERVICE\tPOSITION\tSTATUS\tTOPIC\tTYPE\tKEY\tAT\tCAUSE"

type outboxListCmd struct {
	outboxFile
	listing

	Status string `help:"Only this status." enum:",PENDING,SENT,FAILED" default:""`
	After  string `help:"Only what follows this position." default:"0.0.0" placeholder:"POSITION"`
	Limit  int    `help:"At most this many of each service." default:"50"`
}

// Run lists events.
func (c *outboxListCmd) Run(ctx context.Context, t *terminal) error {
	after, err := outbox.ParsePosition(c.After)
	if err != nil {
		return usage("--after: %v", err)
	}
	var all []outboxEvent
	err = c.each(ctx, func(name string, src relay.Source) error {
		l, ok := src.(relay.Lister)
		if !ok {
			return errors.ErrUnsupported
		}
		entries, err := l.List(ctx, relay.Status(c.Status), after, c.Limit)
		for _, e := range entries {
			v := eventOf(name, e.Record)
			v.At, v.Status, v.Attempts, v.Cause = e.Record.CreatedAt, string(e.Status), e.Attempts, e.LastError
			all = append(all, v)
		}
		return err
	})
	if err != nil {
		return err
	}
	return printItems(t, c.JSON, all, outboxHeader, outboxEvent.row)
}

func eventOf(service string, r outbox.Record) outboxEvent {
	return outboxEvent{
		Service: service, Position: r.Position.String(), ID: r.Event.ID.String(),
		Type: r.Event.Type, Topic: r.Event.Topic, Key: r.Event.AggregateID,
	}
}

type outboxParkedCmd struct {
	outboxFile
	listing

	Limit int `help:"At most this many of each service." default:"100"`
}

// Run lists parked events.
func (c *outboxParkedCmd) Run(ctx context.Context, t *terminal) error {
	var all []outboxEvent
	err := c.each(ctx, func(name string, src relay.Source) error {
		p, ok := src.(relay.Parking)
		if !ok {
			return errors.ErrUnsupported
		}
		parked, err := p.Parked(ctx, relay.ParkedQuery{Limit: c.Limit})
		for _, e := range parked {
			v := eventOf(name, e.Record)
			v.At, v.Status, v.Cause = e.ParkedAt, string(relay.StatusFailed), e.Cause
			all = append(all, v)
		}
		return err
	})
	if err != nil {
		return err
	}
	return printItems(t, c.JSON, all, outboxHeader, outboxEvent.row)
}

type outboxReplayCmd struct {
	shopAddress

	Service string `arg:"" help:"The service whose outbox it is."`
	Topic   string `arg:"" help:"The topic of the refused events."`
	Key     string `arg:"" optional:"" help:"The key; without one, every key of the topic."`
}

// Run has the running shop publish them again.
func (c *outboxReplayCmd) Run(ctx context.Context, t *terminal) error {
	var answer struct{ Replayed int }
	q := url.Values{"service": {c.Service}, "topic": {c.Topic}, "key": {c.Key}}
	if err := c.call(ctx, http.MethodPost, "/api/outbox/replay", q, &answer); err != nil {
		return err
	}
	_, err := fmt.Fprintf(t.out, "%d events will be published again\n", answer.Replayed)
	return err
}

type outboxRebaseCmd struct {
	databases

	Yes bool `help:"Do it. Without it, only what would be done is said."`
}

// Run publishes again what a dump has that was not settled; see [sqlstore.Store.Rebase].
func (c *outboxRebaseCmd) Run(ctx context.Context, t *terminal) error {
	return c.eachDatabase(func(d app.Database) error {
		s, err := d.Open(ctx, app.DatabaseConfig{ConnsMax: rebaseConnsMax, Quiet: true})
		if err != nil {
			return explained(d, err)
		}
		defer s.Close()
		o, ok := s.Outbox().(relay.Observer)
		if !ok {
			return errors.ErrUnsupported
		}
		stats, err := o.Stats(ctx)
		if err != nil {
			return err
		}
		if !c.Yes {
			return usage("%s: rebase publishes again what was not settled, %d of %d events, and fences whoever owns a shard: repeat with --yes",
				d.Name, stats.Pending, stats.Pending+stats.Sent)
		}
		n, err := s.Rebase(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			return usage("%s: only an outbox on PostgreSQL has transaction numbers, there is nothing to rebase on %s", d.Name, d.Dialect)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(t.out, "%s: %d events will be published again\n", d.Name, n)
		return err
	})
}

// rebaseConnsMax is enough for one statement after the other.
const rebaseConnsMax = 2
