package assign

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/settledev/settle/lock"
)

// ShareConfig says how processes divide the partitions of a group.
type ShareConfig struct {
	// Leases are those of a database that all members of the group have: usually the group's own. Required.
	Leases lock.Leases
	// Group names the leases. Required.
	Group string
	// TTL is how long a partition rests after its holder crashed. Default 15s.
	TTL time.Duration
	// Logger receives failures of leases. Default slog.Default().
	Logger *slog.Logger
}

// Share is a member's part of partitions that members in other processes want too. Each partition that it
// hands out is held by a lease, and each process holds its share of them, as far as it knows how many there
// are. The lease only keeps two processes from reading one partition in vain: what keeps a late reader from
// storing anything is the fence of the consumer's position.
type Share struct {
	member *Member
	cfg    ShareConfig
	ready  chan *Held
	stop   context.CancelFunc
	ended  sync.WaitGroup

	owner string // of its leases: one for all, so that others see how many it has

	mu      sync.Mutex
	wants   int                                // partitions
	members int                                // as last counted, with this one
	held    map[*Claim]context.CancelCauseFunc // ends the holding of each
	others  map[string]holding                 // partitions that other processes have, as last seen
}

// holding is a partition's lease in another process's hands.
type holding struct {
	owner string
	until time.Time
	alive bool // The lease was taken or renewed since it was seen first.
}

// Held is a claim with a lease.
type Held struct {
	*Claim

	lapsed chan struct{}
}

// Revoked is closed when the partition is no longer this process's, or may not be.
func (h *Held) Revoked() <-chan struct{} { return h.lapsed }

// Live reports whether this process may still read.
func (h *Held) Live() bool {
	select {
	case <-h.lapsed:
		return false
	default:
		return h.Claim.Live()
	}
}

// counting is the owner of a seat that somebody only looks at.
const counting = "counting"

var errShare = errors.New("another process takes its share")

// NewShare shares what a member wants with other processes, until Close.
func NewShare(m *Member, cfg ShareConfig) *Share {
	if cfg.TTL == 0 {
		cfg.TTL = 15 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Share{
		member: m, cfg: cfg, ready: make(chan *Held), stop: stop, owner: lock.DefaultOwner(), wants: len(m.wants), members: 1,
		held: map[*Claim]context.CancelCauseFunc{}, others: map[string]holding{},
	}
	s.ended.Go(func() { s.attend(ctx) })
	s.ended.Go(func() {
		for {
			claim, err := m.Next(ctx)
			if err != nil {
				return
			}
			s.ended.Go(func() { s.hold(ctx, claim) })
		}
	})
	return s
}

// Next waits for the next partition of this process.
func (s *Share) Next(ctx context.Context) (*Held, error) {
	select {
	case h := <-s.ready:
		return h, nil
	case <-s.member.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close leaves the group and gives every lease back.
func (s *Share) Close() {
	s.member.Close()
	s.stop()
	s.ended.Wait()
}

// Standby reports whether other processes, all of them alive, have every partition, and none has so many that it
// will give one up.
func (s *Share) Standby() bool {
	names, joined := s.member.part()
	if len(names) == 0 {
		return joined // Another member in this process has them, if it is no standby itself.
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members == 1 {
		return false // They have not been counted yet, or have left.
	}
	load := map[string]int{}
	for _, name := range names {
		h := s.others[name]
		if load[h.owner]++; !h.alive || load[h.owner] > s.part() {
			return false
		}
	}
	return true
}

// seen takes note of a partition that another process has.
func (s *Share) seen(name string, by *lock.HeldError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, known := s.others[name]
	alive := was.alive || known && (by.Owner != was.owner || by.Until.After(was.until))
	s.others[name] = holding{by.Owner, by.Until, alive}
}

// gone takes note of a partition that no other process has.
func (s *Share) gone(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.others, name)
}

func (s *Share) lock() lock.Config {
	return lock.Config{Owner: s.owner, TTL: s.cfg.TTL, Logger: s.cfg.Logger}
}

// part is how many partitions this process may hold.
func (s *Share) part() int { return (s.wants + s.members - 1) / s.members }

// enter reports whether one more partition belongs to this process's share.
func (s *Share) enter(c *Claim, end context.CancelCauseFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) >= s.part() {
		return false
	}
	s.held[c] = end
	return true
}

func (s *Share) leave(c *Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, c)
}

// hold waits for the partition's lease, hands the partition out, and takes it back when the lease is over.
func (s *Share) hold(ctx context.Context, claim *Claim) {
	defer claim.Release()
	for claim.Live() && ctx.Err() == nil {
		s.attempt(ctx, claim)
		// Members that start together each get a part.
		if !pause(ctx, claim.Revoked(), s.cfg.TTL/10+time.Duration(rand.Int64N(int64(s.cfg.TTL/10)))) {
			return
		}
	}
}

func (s *Share) attempt(ctx context.Context, claim *Claim) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if !s.enter(claim, end) {
		return
	}
	defer s.leave(claim)
	err := lock.Hold(ctx, s.cfg.Leases, leaseName("partition", s.cfg.Group, claim.Name), s.lock(), func(ctx context.Context, _ lock.Lease) error {
		s.gone(claim.Name)
		h := &Held{Claim: claim, lapsed: make(chan struct{})}
		defer close(h.lapsed)
		select {
		case s.ready <- h:
		case <-claim.Revoked():
			return nil
		case <-ctx.Done():
			return nil
		}
		select {
		case <-claim.Revoked(): // Also when its reader has released it.
		case <-ctx.Done():
		}
		return nil
	})
	if held, taken := errors.AsType[*lock.HeldError](err); taken {
		s.seen(claim.Name, held)
		return
	}
	if err != nil && ctx.Err() == nil {
		s.cfg.Logger.Warn("partition cannot be leased, trying again", "group", s.cfg.Group, "partition", claim.Name, "err", err)
	}
}

// attend lets the others count this process, and counts them.
func (s *Share) attend(ctx context.Context) {
	for ctx.Err() == nil {
		for seat := range s.seats() {
			err := lock.Hold(ctx, s.cfg.Leases, s.seat(seat), s.lock(), func(ctx context.Context, _ lock.Lease) error {
				for s.count(ctx, seat); pause(ctx, nil, s.cfg.TTL/3); {
					s.count(ctx, seat)
				}
				return nil
			})
			if ctx.Err() != nil {
				return
			}
			if !errors.Is(err, lock.ErrHeld) {
				break // It was lost: begin anew.
			}
			if seat == s.seats()-1 {
				s.counted(s.seats() + 1) // There are more than partitions, if not for a moment: all the same here.
			}
		}
		if !pause(ctx, nil, s.cfg.TTL/3) {
			return
		}
	}
}

// seats is how many members are told apart: more than there are partitions have nothing to do.
func (s *Share) seats() int { return s.wants + 1 }

func (s *Share) seat(n int) string { return leaseName("member", s.cfg.Group, strconv.Itoa(n)) }

// leaseName names a lease; one that would be too long by its digest.
func leaseName(kind, group, what string) string {
	name := kind + "/" + group + "/" + what
	if len(name) > lock.NameBytesMax {
		return fmt.Sprintf("%s/%x", kind, sha256.Sum256([]byte(name)))
	}
	return name
}

// count looks at every seat.
func (s *Share) count(ctx context.Context, own int) {
	n := 1
	for seat := range s.seats() {
		if seat == own {
			continue
		}
		l, err := s.cfg.Leases.Acquire(ctx, s.seat(seat), counting, lock.TTLShortest)
		held, taken := errors.AsType[*lock.HeldError](err)
		switch {
		case taken && held.Owner == counting: // By another one who counts.
		case taken:
			n++
		case err != nil:
			return // The database is away: as it was.
		default:
			_ = s.cfg.Leases.Release(ctx, l) // It runs out at once.
		}
	}
	s.counted(n)
}

// counted takes the number of members, and gives back what is more than this process's share.
func (s *Share) counted(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = n
	for claim, end := range s.held {
		if len(s.held) <= s.part() {
			return
		}
		end(errShare)
		delete(s.held, claim)
	}
}

// pause reports false when ctx or other ended it.
func pause(ctx context.Context, other <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-other:
		return false
	case <-ctx.Done():
		return false
	}
}
