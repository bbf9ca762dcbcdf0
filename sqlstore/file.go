package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/txn"
)

// fileEngine is a file with one writer, which commits in groups, and connections that only read.
type fileEngine struct {
	s      *Store
	writer *writer // nil when open for reading
	read   *reader
	q      *statements
}

func newFileEngine(s *Store, q *statements) *fileEngine {
	newWriterSQL(q) // What is missing is refused now.
	return &fileEngine{s: s, read: newReader(s.backend.Reader, &s.backend, s.cfg.StatementsMax), q: q}
}

// start opens the writer. The schema has been checked.
func (f *fileEngine) start(ctx context.Context) error {
	w, err := newWriter(ctx, f.s, f.q)
	if err != nil {
		return err
	}
	_, last, err := f.s.rowid.bounds(ctx)
	if err != nil {
		return errors.Join(err, w.conn.Close())
	}
	f.s.tail.bytesMax = f.s.cfg.TailBytesMax
	f.s.tail.start(last)
	f.writer = w
	go w.serve()
	// The owner of the file is new: whoever held a lease on a call is gone, so nothing waits for its end.
	if err := f.s.calls.reclaim(ctx, time.Now()); err != nil {
		f.writer = nil
		return errors.Join(err, w.close())
	}
	return nil
}

func (f *fileEngine) run(ctx context.Context, fn func(context.Context, *txn.Tx) error) error {
	if f.writer == nil {
		return fmt.Errorf("sqlstore: run: %w", ErrReadOnly)
	}
	return f.writer.run(ctx, fn)
}

func (f *fileEngine) query(ctx context.Context, query string, args ...any) (txn.Rows, error) {
	return f.read.query(ctx, query, args...)
}

func (f *fileEngine) close() error {
	var err error
	if f.writer != nil {
		err = f.writer.close()
	}
	f.read.close()
	return err
}
