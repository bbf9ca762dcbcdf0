package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
)

// Execer is a transaction of database/sql, or of whatever stands on it: *sql.Tx, an object mapper's.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Writer adds events to transactions that no store runs: those of a service that has its own way to its
// database and wants nothing but the outbox. Make one with [NewWriter] and keep it.
type Writer struct {
	producer string
	shards   int
	query    string
	dialect  string
}

// NewWriter returns a writer for a producer's outbox on a server; on SQLite it is errors.ErrUnsupported. shards is the stores' Config.Shards; 0 means 1.
func NewWriter(d Dialect, producer string, shards int) (*Writer, error) {
	texts, err := d.load()
	if err != nil {
		return nil, fmt.Errorf("sqlstore: writer: %w", err)
	}
	if err := event.CheckName(producer); err != nil {
		return nil, fmt.Errorf("sqlstore: writer: producer: %w", err)
	}
	if d.name == sqliteName { // Its readers at the head trust that the store writes every event.
		return nil, fmt.Errorf("sqlstore: writer: a file has one writer, its store: %w", errors.ErrUnsupported)
	}
	if shards == 0 {
		shards = 1
	}
	if shards < 0 || shards > shardsMax {
		return nil, fmt.Errorf("sqlstore: writer: %d shards, 1 to %d allowed", shards, shardsMax)
	}
	name := "outbox.add"
	if d.name == postgresName {
		name = "outbox.add_one"
	}
	return &Writer{producer: producer, shards: shards, query: texts[name], dialect: d.name}, nil
}

// Write adds drafts as the transaction's last statements: the rows of their aggregates are locked by then,
// which is what the order of an aggregate's events rests upon. Any error must roll the transaction back.
// Events inherit the cause in ctx (see [event.WithCause]).
func (w *Writer) Write(ctx context.Context, tx Execer, drafts ...event.Draft) error {
	cause, now := event.CauseFrom(ctx), time.Now()
	for _, d := range drafts {
		e, err := d.Seal(w.producer, now, cause)
		if err == nil {
			err = w.add(ctx, tx, &e, now)
		}
		if err != nil {
			return fmt.Errorf("sqlstore: write %s: %w", d.Type, err)
		}
	}
	return nil
}

func (w *Writer) add(ctx context.Context, tx Execer, e *event.Envelope, now time.Time) error {
	const id, cause = 1, 10 // places among the arguments
	args := append(make([]any, 0, 2+eventColumns), shardOf(e, w.shards))
	args = append(eventArgs(args, e), nanos(now))
	if w.dialect == postgresName { // Its drivers agree on texts of identities, not on bytes.
		args[id] = e.ID.String()
		if args[cause] != nil {
			args[cause] = e.CausationID.String()
		}
	}
	res, err := tx.ExecContext(ctx, w.query, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("%d rows written, not 1", n), err)
	}
	return nil
}
