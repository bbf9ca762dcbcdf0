package settlesqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	"modernc.org/sqlite"

	"github.com/settledev/settle/sqlstore"
)

// Config is what may be decided about a file. The zero Config is ready for production.
type Config struct {
	// Store configures the store.
	Store sqlstore.Config
	// Migrate applies missing migrations before the store is opened: for a demo, for tests. In
	// production, call Migrate by command.
	Migrate bool
	// Readers bounds the connections that only read. Default 4, or the number of processors if greater.
	Readers int
	// CacheKiB bounds the page cache of the writer; a reader has a quarter of it. Default 4 MiB.
	CacheKiB int
	// CheckpointPages is after how many pages (of 4 KiB) the journal is carried into the file. Default 2000.
	CheckpointPages int
	// PagesMax bounds the file: beyond it a write is sqlstore.ErrDiskFull. Default: the disk's end.
	PagesMax int
}

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field *int
		value int
		name  string
	}{
		{&c.Readers, max(4, runtime.NumCPU()), "Readers"},
		{&c.CacheKiB, 4 << 10, "CacheKiB"},
		{&c.CheckpointPages, 2000, "CheckpointPages"},
		{&c.PagesMax, 0, "PagesMax"},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return c, fmt.Errorf("%s %d is negative", d.name, *d.field)
		}
	}
	return c, nil
}

// Open takes the file for this process and opens its store, creating the file (not its directory) when
// it is not there. The error is a [*LockedError] when another process has it, sqlstore.ErrSchema when it
// has to be migrated first. Close the store to give the file back.
func Open(ctx context.Context, path string, cfg Config) (*sqlstore.Store, error) {
	s, err := open(ctx, path, cfg)
	if err != nil {
		return nil, fmt.Errorf("settlesqlite: open %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string, cfg Config) (_ *sqlstore.Store, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	f := files{lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.writer, err = connect(path, cfg.CacheKiB, 1, "rwc", cfg.writerPragmas()...); err != nil {
		return nil, err
	}
	if err := f.writer.PingContext(ctx); err != nil {
		return nil, classified(err)
	}
	if cfg.Migrate {
		if _, err := sqlstore.Migrate(ctx, f.writer, sqlstore.SQLite(), cfg.Store.Schemas...); err != nil {
			return nil, classified(err)
		}
	}
	if f.reader, err = connect(path, cfg.CacheKiB/4, cfg.Readers, "rw", "query_only(1)"); err != nil {
		return nil, err
	}
	return sqlstore.Open(ctx, sqlstore.Backend{
		Dialect: sqlstore.SQLite(), Writer: f.writer, Reader: f.reader, Classify: classify, Close: f.close,
	}, cfg.Store)
}

func (c Config) writerPragmas() []string {
	p := []string{
		"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
		fmt.Sprintf("wal_autocheckpoint(%d)", c.CheckpointPages),
		fmt.Sprintf("journal_size_limit(%d)", 64<<20),
	}
	if c.PagesMax > 0 {
		p = append(p, fmt.Sprintf("max_page_count(%d)", c.PagesMax))
	}
	return p
}

// OpenReader opens the store of a file that another process may have: for followers of its outbox and for
// the command. It writes nothing, Run returns sqlstore.ErrReadOnly, and no lock is needed.
func OpenReader(ctx context.Context, path string, cfg Config) (*sqlstore.Store, error) {
	s, err := openReader(ctx, path, cfg)
	if err != nil {
		return nil, fmt.Errorf("settlesqlite: open %s for reading: %w", path, err)
	}
	return s, nil
}

func openReader(ctx context.Context, path string, cfg Config) (*sqlstore.Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	db, err := connect(path, cfg.CacheKiB/4, cfg.Readers, "rw", "query_only(1)")
	if err != nil {
		return nil, err
	}
	s, err := sqlstore.Open(ctx, sqlstore.Backend{
		Dialect: sqlstore.SQLite(), Reader: db, Classify: classify, Close: db.Close,
	}, cfg.Store)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Migrate creates the file when it is not there, applies missing migrations and returns how many. The file
// must not be open elsewhere.
func Migrate(ctx context.Context, path string, schemas ...sqlstore.Schema) (n int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("settlesqlite: migrate %s: %w", path, err)
		}
	}()
	cfg, err := Config{}.withDefaults()
	if err != nil {
		return 0, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return 0, err
	}
	f := files{lock: lock}
	defer func() { err = errors.Join(err, f.close()) }()
	if f.writer, err = connect(path, cfg.CacheKiB, 1, "rwc", cfg.writerPragmas()...); err != nil {
		return 0, err
	}
	n, err = sqlstore.Migrate(ctx, f.writer, sqlstore.SQLite(), schemas...)
	return n, classified(err)
}

// connect returns a database that opens its connections when they are needed. Times in statements of
// users are written in UTC in a form that sorts.
func connect(path string, cacheKiB, connections int, mode string, pragmas ...string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"mode": {mode}, "_time_format": {"sqlite"}, "_timezone": {"UTC"}}
	for _, p := range append([]string{
		"busy_timeout(5000)", "temp_store(MEMORY)", fmt.Sprintf("cache_size(-%d)", cacheKiB),
	}, pragmas...) {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(abs), RawQuery: q.Encode()}
	c, err := sqlite.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// files is what an open store holds.
type files struct {
	writer, reader *sql.DB
	lock           *Lock
}

// close closes the readers first: the last connection to go carries the journal into the file.
func (f *files) close() error {
	var errs []error
	for _, db := range []*sql.DB{f.reader, f.writer} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Unlock())
	}
	return errors.Join(errs...)
}
