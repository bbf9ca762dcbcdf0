package settlenats

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// stamp names the life of an embedded server's data: a time in which nothing that was acknowledged
// can be lost, see broker.Tail. A process that dies loses nothing, as the system has what it wrote; a
// system that dies may, and so does who puts an older copy in the directory's place. So a life goes on
// for as long as the system has not been started again and the directories are the very same ones. It
// cannot see a volume that is rolled back below the file system without a new start of the system.
type stamp struct {
	dir  string
	path string

	mu   sync.Mutex
	file *os.File
	now  stampRecord
}

// stampRecord is the content of the stamp file.
type stampRecord struct {
	Life string `json:"life"`
	// Boot is the run of the system.
	Boot string `json:"boot"`
	// Opened has the offsets at which the life began.
	Opened map[string]uint64 `json:"opened"`
	// Places are the identities (not the names) of files and directories, by name.
	Places map[string]string `json:"places"`
}

// openStamp goes on with the life that the file names, or begins another one at the present offsets.
func openStamp(dir, streams string, offsets map[string]uint64) (*stamp, error) {
	s := &stamp{dir: streams, path: filepath.Join(dir, "settlenats.life")}
	var err error
	if s.file, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if content, err := io.ReadAll(s.file); err == nil && json.Unmarshal(content, &s.now) == nil && s.same() {
		return s, s.refresh()
	}
	s.now = stampRecord{Life: rand.Text(), Boot: bootID(), Opened: maps.Clone(offsets)}
	return s, s.refresh()
}

// same reports whether everything is where it was when the stamp was written.
func (s *stamp) same() bool {
	if s.now.Life == "" || s.now.Boot == "" || s.now.Boot != bootID() || len(s.now.Places) == 0 {
		return false
	}
	for name, identity := range s.now.Places {
		if got := identify(name); got == "" || got != identity {
			return false
		}
	}
	return true
}

// refresh writes the stamp with the places as they are now: at the start, and when a stream is new.
// It is written into the same file, whose identity is one of the places. A torn write is a new life.
func (s *stamp) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	s.now.Places = map[string]string{s.path: identify(s.path), s.dir: identify(s.dir)}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue // being deleted
		}
		for _, name := range []string{filepath.Join(s.dir, entry.Name()), filepath.Join(s.dir, entry.Name(), "msgs")} {
			s.now.Places[name] = identify(name)
		}
	}
	content, err := json.Marshal(s.now)
	if err != nil {
		return err
	}
	if err := s.file.Truncate(0); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	if _, err := s.file.WriteAt(content, 0); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	return nil
}

func (s *stamp) life() (string, map[string]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Life, maps.Clone(s.now.Opened)
}

func (s *stamp) close() error { return s.file.Close() }

func (e *embedded) streamsDir() string {
	return filepath.Join(e.server.StoreDir(), server.DEFAULT_GLOBAL_ACCOUNT, "streams")
}
