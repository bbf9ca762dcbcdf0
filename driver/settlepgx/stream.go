package settlepgx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/settledev/settle/outbox"
)

const (
	// aheadMax and aheadBytesMax bound what is read and not yet taken.
	aheadMax      = 10_000
	aheadBytesMax = 16 << 20
	// statusEvery is how often the server is told how far we are. It ends connections that are silent for
	// wal_sender_timeout (60s by default).
	statusEvery = 2 * time.Second
)

// epoch2000 is where the protocol's times begin.
//
//nolint:gochecknoglobals // A constant, which Go does not have for times.
var epoch2000 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// stream reads inserts from a replication slot, in the order of commits. It confirms to the server only what
// was settled: the slot is the memory of what has not been.
type stream struct {
	conn *pgconn.PgConn
	read func(r *row) (outbox.Record, bool, error)
	ring func()

	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	records   []outbox.Record // not taken yet
	bytes     int
	room      chan struct{} // receives when something was taken
	unsettled []commitMark  // of transactions that had records, in order
	end       lsn           // behind the last commit that was read
	server    lsn           // how far the server's log reaches
	confirmed lsn
	err       error

	// Of the goroutine that reads.
	decoder decoder
	at      lsn
	index   int64 // of the last row of the open transaction
	kept    int64 // of the last one that became a record
}

// commitMark is a transaction on its way.
type commitMark struct {
	at, end lsn
	last    int64 // of its records
}

// streamConfig says what to read.
type streamConfig struct {
	slot, publication string
	timeline          string // another one is refused
	epoch             int64  // of the positions
	read              func(r *row) (outbox.Record, bool, error)
	ring              func() // called when there is something
}

// streamName is what a stream calls itself, cut as the server cuts it.
func streamName(slot string) string { return fmt.Sprintf("settle %.56s", slot) }

// openStream begins to read a slot where it was confirmed last.
func openStream(ctx context.Context, cc *pgx.ConnConfig, cfg streamConfig) (*stream, error) {
	config := cc.Config.Copy()
	config.RuntimeParams = map[string]string{"replication": "database", "application_name": streamName(cfg.slot)}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	s := &stream{
		conn: conn, ring: cfg.ring, done: make(chan struct{}), room: make(chan struct{}, 1),
		read: func(r *row) (outbox.Record, bool, error) {
			rec, ok, err := cfg.read(r)
			rec.Position.Epoch = cfg.epoch
			return rec, ok, err
		},
	}
	start := fmt.Sprintf(
		`START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%s', binary 'true')`,
		pgx.Identifier{cfg.slot}.Sanitize(), cfg.publication,
	)
	err = s.identify(ctx, cfg.timeline)
	if err == nil {
		err = s.start(ctx, start)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	run, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.run(run)
	return s, nil
}

// identify refuses a server on another timeline than the one whose positions we have.
func (s *stream) identify(ctx context.Context, timeline string) error {
	results, err := s.conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 2 {
		return fmt.Errorf("answer to IDENTIFY_SYSTEM: %w", errWire)
	}
	n, err := strconv.ParseUint(string(results[0].Rows[0][1]), 10, 32)
	if err != nil {
		return err
	}
	return sameTimeline(fmt.Sprintf("%08X", n), timeline)
}

func (s *stream) start(ctx context.Context, command string) error {
	s.conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := s.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		m, err := s.conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		}
	}
}

func (s *stream) run(ctx context.Context) {
	defer close(s.done)
	err := s.loop(ctx)
	_ = s.conn.Close(context.WithoutCancel(ctx)) // Whatever it says, the slot keeps what we need.
	s.mu.Lock()
	s.err = errors.Join(err, errStreamEnded)
	s.mu.Unlock()
	s.ring()
}

var errStreamEnded = errors.New("replication stream has ended")

func (s *stream) loop(ctx context.Context) error {
	due := time.Now()
	for {
		if !time.Now().Before(due) {
			if err := s.status(); err != nil {
				return err
			}
			due = time.Now().Add(statusEvery)
		}
		if s.full() {
			select {
			case <-s.room:
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		wait, cancel := context.WithDeadline(ctx, due)
		m, err := s.conn.ReceiveMessage(wait)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return s.status() // So that the next owner repeats little.
			}
			if pgconn.Timeout(err) {
				continue
			}
			return err
		}
		hurry, err := s.message(m)
		if err != nil {
			return err
		}
		if hurry {
			due = time.Now()
		}
	}
}

// message takes one message; hurry says that the server wants an answer.
func (s *stream) message(m pgproto3.BackendMessage) (hurry bool, err error) {
	switch m := m.(type) {
	case *pgproto3.ErrorResponse:
		return false, pgconn.ErrorResponseToPgError(m)
	case *pgproto3.CopyData:
		w := wire{b: m.Data}
		switch w.uint8() {
		case 'k': // keepalive
			server := lsn(w.uint64())
			w.uint64() // its clock
			hurry = w.uint8() == 1
			s.mu.Lock()
			s.server = max(s.server, server)
			s.mu.Unlock()
		case 'w': // a piece of the log
			w.uint64() // where it begins
			w.uint64() // how far the server's log reaches: not yet sent, so no place to confirm
			w.uint64() // its clock
			err = s.change(w.b)
		}
		if w.bad {
			err = fmt.Errorf("copy data of %d bytes: %w", len(m.Data), errWire)
		}
	case *pgproto3.CopyDone:
		return false, errors.New("the server ended the stream")
	}
	return hurry, err
}

func (s *stream) change(b []byte) error {
	m, err := s.decoder.decode(b)
	if err != nil {
		return err
	}
	switch m.kind {
	case 'B':
		s.at, s.index, s.kept = m.at, 0, 0
	case 'I':
		s.index++
		r, ok, err := s.read(&m.insert)
		if err != nil {
			return fmt.Errorf("row %d of the commit at %s: %w", s.index, s.at, err)
		}
		if !ok {
			return nil
		}
		s.kept = s.index
		r.Position.Tick, r.Position.ID = int64(s.at), s.index
		s.mu.Lock()
		s.records = append(s.records, r)
		s.bytes += len(r.Event.Data)
		s.mu.Unlock()
		s.ring()
	case 'C':
		s.mu.Lock()
		if s.kept > 0 {
			s.unsettled = append(s.unsettled, commitMark{m.at, m.end, s.kept})
		}
		s.end = m.end
		s.mu.Unlock()
	}
	return nil
}

func (s *stream) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records) >= aheadMax || s.bytes >= aheadBytesMax
}

// take returns up to limit records after a position.
func (s *stream) take(after outbox.Position, limit int) ([]outbox.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []outbox.Record
	n := 0
	for _, r := range s.records {
		if len(out) == limit {
			break
		}
		n++
		s.bytes -= len(r.Event.Data)
		if r.Position.Compare(after) > 0 {
			out = append(out, r)
		}
	}
	if s.records = s.records[n:]; len(s.records) == 0 {
		s.records = nil // The array goes with what it holds.
	}
	select {
	case s.room <- struct{}{}:
	default:
	}
	if len(out) == 0 && s.err != nil {
		return nil, s.err
	}
	return out, nil
}

// settle confirms, with the next status, every commit of which nothing lies behind a position.
func (s *stream) settle(to outbox.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.unsettled) > 0 {
		c := s.unsettled[0]
		if int64(c.at) > to.Tick || int64(c.at) == to.Tick && c.last > to.ID {
			return
		}
		s.confirmed, s.unsettled = c.end, s.unsettled[1:]
	}
}

// settled returns the place up to which everything was settled. When nothing is on its way that is all that the
// server has: else an idle outbox in a busy cluster would keep the log for ever.
func (s *stream) settled() lsn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unsettled) == 0 && len(s.records) == 0 {
		s.confirmed = max(s.confirmed, s.end)
		if s.at <= s.end { // In no transaction.
			s.confirmed = max(s.confirmed, s.server)
		}
	}
	return s.confirmed
}

// status tells the server what it need not keep for us, and asks how far its log reaches.
func (s *stream) status() error {
	at := uint64(s.settled())
	b := make([]byte, 0, 34)
	b = append(b, 'r')
	for range 3 { // received, flushed, applied
		b = binary.BigEndian.AppendUint64(b, at)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(time.Since(epoch2000).Microseconds()))
	b = append(b, 1) // Please answer.
	s.conn.Frontend().Send(&pgproto3.CopyData{Data: b})
	return s.conn.Frontend().Flush()
}

// close ends the stream and waits for its end.
func (s *stream) close() {
	s.cancel()
	<-s.done
}
