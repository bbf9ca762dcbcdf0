package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/settledev/settle/driver/settlesqlite"
)

// ErrNotOurs says that a directory holds something else than a shop's data: nothing of it was deleted.
var ErrNotOurs = errors.New("directory has files that are no shop's data")

// Reset deletes a shop's data. It refuses a directory that another process has, and one that was never a
// shop's.
func Reset(dir string) (err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "operator-token")); err != nil {
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
