package settlesqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked says that a file or a directory belongs to another process, or was opened twice by this one.
var ErrLocked = errors.New("in use by another process")

// LockedError is an [ErrLocked] with its facts.
type LockedError struct {
	Path string
	// PID is the process that has it, 0 when it could not be read.
	PID int
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is %v", e.Path, ErrLocked)
	}
	return fmt.Sprintf("%s is %v (pid %d)", e.Path, ErrLocked, e.PID)
}

// Unwrap makes it an ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// Lock is a file or directory that this process owns.
type Lock struct{ file *os.File }

// LockDir takes a data directory, creating it when it is not there: one process has all the files in it.
// The error is a [*LockedError] when another process has the directory.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("settlesqlite: lock %s: %w", dir, err)
	}
	l, err := lockFile(filepath.Join(dir, "settle.lock"))
	if err != nil {
		return nil, fmt.Errorf("settlesqlite: lock %s: %w", dir, err)
	}
	return l, nil
}

// lockFile takes an flock and writes the pid into the file. The file stays when the lock ends: removing
// it would let two processes lock two files of one name.
func lockFile(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		pid := readPID(f)
		return nil, errors.Join(&LockedError{Path: strings.TrimSuffix(path, ".lock"), PID: pid}, f.Close())
	}
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{f}, nil
}

func readPID(f *os.File) int {
	b, err := io.ReadAll(io.LimitReader(f, 20))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Unlock gives it back.
func (l *Lock) Unlock() error { return l.file.Close() }
