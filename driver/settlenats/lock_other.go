//go:build !unix

package settlenats

import (
	"os"
	"path/filepath"
)

// lockDir opens the lock file. On this system it does not keep other processes out.
func lockDir(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "settlenats.lock"), os.O_RDWR|os.O_CREATE, 0o600)
}

func unlockDir(f *os.File) error { return f.Close() }
