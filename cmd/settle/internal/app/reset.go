package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/settledev/settle/driver/settlesqlite"
)

// ErrNotOurs says that a directory or a database holds something else than a shop's data: nothing of it
// was deleted.
var ErrNotOurs = errors.New("it has what is no shop's data")

// prefixFile has the prefix of the topics of a shop whose data was deleted.
const prefixFile = "topic-prefix"

// Reset deletes a shop's data: the files in its directory, and its databases where they are on a server.
// It refuses what another process has, and what was never a shop's.
func Reset(ctx context.Context, opts Options) error {
	opts, where, err := opts.checked()
	if err != nil {
		return err
	}
	// The databases first: while one of them is refused, nothing at all is deleted.
	if err := where.drop(ctx, opts.Services); err != nil {
		return err
	}
	if err := resetDir(opts.Dir); err != nil {
		return err
	}
	if where.dialect == "sqlite" && where.text != opts.Dir {
		return resetDir(where.text)
	}
	return nil
}

func resetDir(dir string) (err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if !ours(dir) {
		return fmt.Errorf("reset %s: %w", dir, ErrNotOurs)
	}
	lock, err := settlesqlite.LockDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	var patterns []string
	for _, name := range append(Services(), "pgsim", "platformsim") {
		patterns = append(patterns, name+".db*")
	}
	for _, pattern := range append(patterns, "jetstream", "replay.journal", "operator-token", "webhook-secret") {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// ours reports whether a directory has a shop's data.
func ours(dir string) bool {
	for _, name := range []string{"operator-token", "order.db.lock"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// FreshPrefix returns the prefix of the topics of a shop that has its broker's server to itself: the one that
// was asked for, or the one that the directory remembers. With fresh, topics of a deleted shop may be on
// the server, whose events must not be handled as the new one's: they get a new prefix, which the
// directory remembers.
func FreshPrefix(opts Options, fresh bool) (string, error) {
	if opts.TopicPrefix != "" || !strings.Contains(opts.Broker, "://") {
		return opts.TopicPrefix, nil
	}
	path := filepath.Join(opts.Dir, prefixFile)
	if !fresh {
		b, err := os.ReadFile(path)
		return strings.TrimSpace(string(b)), ifNot(err, os.ErrNotExist)
	}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return "", err
	}
	prefix := "settle-" + strings.ToLower(rand.Text()[:8])
	return prefix, os.WriteFile(path, []byte(prefix+"\n"), 0o644)
}
