package replay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Answer is what the shop said of an invoice.
type Answer struct {
	Invoice string
	Status  int    // of HTTP: 202 or a refusal
	ID      string // of the order or return, when accepted
	Code    string // of the problem, when refused
}

// Accepted reports whether the shop took the invoice.
func (a Answer) Accepted() bool { return a.Status == 202 }

// Journal keeps the answers that a replay got, synced, so that a replay that was killed goes on where it
// was. It is safe for concurrent use.
type Journal struct {
	file  *os.File
	lines chan line
	done  chan struct{}

	mu      sync.Mutex
	answers map[string]Answer
}

// line is an answer on its way to the disk.
type line struct {
	text   string
	synced chan error
}

// OpenJournal opens or makes a journal. A last line that was torn by a crash is dropped: its answer was
// not counted on, and is asked for again.
func OpenJournal(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("replay: journal: %w", err)
	}
	j := &Journal{file: file, lines: make(chan line, 256), done: make(chan struct{}), answers: map[string]Answer{}}
	whole := int64(0)
	r := bufio.NewReader(file)
	for {
		text, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // The end, or a torn line.
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("replay: journal %s: %w", path, err), file.Close())
		}
		a, err := parseAnswer(strings.TrimSuffix(text, "\n"))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("replay: journal %s: %w", path, err), file.Close())
		}
		j.answers[a.Invoice] = a
		whole += int64(len(text))
	}
	if err := file.Truncate(whole); err != nil {
		return nil, errors.Join(fmt.Errorf("replay: journal: %w", err), file.Close())
	}
	if _, err := file.Seek(whole, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("replay: journal: %w", err), file.Close())
	}
	go j.write()
	return j, nil
}

func parseAnswer(line string) (Answer, error) {
	parts := strings.Split(line, "\t")
	if len(parts) != 4 {
		return Answer{}, fmt.Errorf("line %.60q has %d fields, 4 expected", line, len(parts))
	}
	status, err := strconv.Atoi(parts[1])
	if err != nil {
		return Answer{}, fmt.Errorf("line %.60q: %w", line, err)
	}
	return Answer{Invoice: parts[0], Status: status, ID: parts[2], Code: parts[3]}, nil
}

// Get returns the answer that an invoice got.
func (j *Journal) Get(invoice string) (Answer, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a, ok := j.answers[invoice]
	return a, ok
}

// Answers returns every answer by invoice.
func (j *Journal) Answers() map[string]Answer {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.answers)
}

// Add stores an answer and returns when it is on disk. After an error nothing more is stored: the last line
// may be torn.
func (j *Journal) Add(a Answer) error {
	if strings.ContainsAny(a.Invoice+a.ID+a.Code, "\t\r\n") {
		return fmt.Errorf("replay: journal: the answer of invoice %.40q has a tab or a line break", a.Invoice)
	}
	l := line{fmt.Sprintf("%s\t%d\t%s\t%s\n", a.Invoice, a.Status, a.ID, a.Code), make(chan error, 1)}
	j.lines <- l
	if err := <-l.synced; err != nil {
		return fmt.Errorf("replay: journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.answers[a.Invoice] = a
	return nil
}

// write serves Add: one sync for all who wait.
func (j *Journal) write() {
	defer close(j.done)
	var failed error
	for first := range j.lines {
		group := []line{first}
		text := []byte(first.text)
		for len(j.lines) > 0 {
			l := <-j.lines
			group = append(group, l)
			text = append(text, l.text...)
		}
		if failed == nil {
			_, failed = j.file.Write(text)
		}
		if failed == nil {
			failed = j.file.Sync()
		}
		for _, l := range group {
			l.synced <- failed
		}
	}
}

// Close ends the journal. Nobody may add to it any more.
func (j *Journal) Close() error {
	close(j.lines)
	<-j.done
	return j.file.Close()
}
