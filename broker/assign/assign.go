// Package assign divides partitions among the members of a group within one process: for drivers
// whose carrier does not do it (memory, storebroker, settlenats).
//
// # Guarantee
//
// Within one [Table] a partition of a group belongs to at most one member at a time, members that want
// the same partitions get equal shares, give or take one, and a partition moves only for that.
//
// # What this package does not do
//
// It does not wait for the old owner when a partition moves, and it knows nothing of other processes:
// the fence in the consumer's database is what keeps a late owner from storing anything.
package assign

import (
	"context"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
)

// ErrClosed says that a member has left its group.
var ErrClosed = errors.New("assign: member has left its group")

// Partition returns the partition of a key among n: FNV-1a of the key modulo n, the same in every
// process and release. n must be at least 1.
func Partition(key string, n int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum32() % uint32(n))
}

// Table holds the groups of one broker. The zero Table is ready to use. It is safe for concurrent use.
type Table struct {
	mu     sync.Mutex
	groups map[string]*group
}

type group struct {
	members []*Member
	slots   map[string]*slot
}

type slot struct {
	owner *Member
	claim *Claim // nil until the owner's Next has handed it out
}

// Member is one member of a group; see [Table.Join].
type Member struct {
	table *Table
	group string
	wants []string
	wake  chan struct{} // holds a token when there may be something for Next
	done  chan struct{}
}

// Claim is a partition in the hands of a member.
type Claim struct {
	// Name is the partition's.
	Name    string
	member  *Member
	revoked chan struct{}
}

// Join adds a member that wants partitions, and moves partitions so that shares are equal.
func (t *Table) Join(name string, partitions []string) *Member {
	m := &Member{
		table: t, group: name, wants: slices.Sorted(slices.Values(partitions)),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.groups[name]
	if g == nil {
		g = &group{slots: map[string]*slot{}}
		if t.groups == nil {
			t.groups = map[string]*group{}
		}
		t.groups[name] = g
	}
	g.members = append(g.members, m)
	g.balance()
	return m
}

// Revoke takes every partition of a group away and hands it out again, as a rebalance does.
func (t *Table) Revoke(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.groups[name]; g != nil {
		for _, s := range g.slots {
			s.give(s.owner)
		}
	}
}

// Close makes every member leave.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.groups {
		for _, s := range g.slots {
			s.give(nil)
		}
		for _, m := range g.members {
			close(m.done)
		}
	}
	t.groups = nil
}

// balance gives each partition that a member wants an owner: the one it has, unless that has left or
// has more than its share.
func (g *group) balance() {
	wanted := map[string]bool{}
	for _, m := range g.members {
		for _, name := range m.wants {
			if wanted[name] = true; g.slots[name] == nil {
				g.slots[name] = &slot{}
			}
		}
	}
	owners, load := map[string]*Member{}, map[*Member]int{}
	for name, s := range g.slots {
		switch {
		case !wanted[name]:
			s.give(nil)
			delete(g.slots, name)
		case s.owner != nil:
			owners[name] = s.owner
			load[s.owner]++
		}
	}
	names := slices.Sorted(maps.Keys(wanted))
	for _, name := range names {
		if owners[name] == nil {
			owners[name] = g.idlest(name, load)
			load[owners[name]]++
		}
	}
	for moved := true; moved; { // each move makes two loads more equal, so it ends
		moved = false
		for _, name := range names {
			from, to := owners[name], g.idlest(name, load)
			if load[to]+1 < load[from] {
				owners[name], moved = to, true
				load[from]--
				load[to]++
			}
		}
	}
	for _, name := range names {
		if s := g.slots[name]; s.owner != owners[name] {
			s.give(owners[name])
		}
	}
}

// idlest returns the member with the fewest partitions among those that want this one.
func (g *group) idlest(name string, load map[*Member]int) *Member {
	var best *Member
	for _, m := range g.members {
		if slices.Contains(m.wants, name) && (best == nil || load[m] < load[best]) {
			best = m
		}
	}
	return best
}

// give revokes the slot's claim and offers it to m, which may be nil.
func (s *slot) give(m *Member) {
	if s.claim != nil {
		close(s.claim.revoked)
		s.claim = nil
	}
	if s.owner = m; m != nil {
		m.ring()
	}
}

func (m *Member) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Next waits for the next partition of this member.
func (m *Member) Next(ctx context.Context) (*Claim, error) {
	for {
		if c := m.take(); c != nil {
			return c, nil
		}
		select {
		case <-m.done:
			return nil, ErrClosed
		default:
		}
		select {
		case <-m.wake:
		case <-m.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take hands out the first partition that is the member's and in nobody's hands.
func (m *Member) take() *Claim {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	g := m.table.groups[m.group]
	if g == nil {
		return nil
	}
	for _, name := range m.wants {
		if s := g.slots[name]; s != nil && s.owner == m && s.claim == nil {
			s.claim = &Claim{Name: name, member: m, revoked: make(chan struct{})}
			m.ring() // there may be more, for another caller of Next
			return s.claim
		}
	}
	return nil
}

// Standby reports whether other members have all that this one wants.
func (m *Member) Standby() bool {
	names, joined := m.part()
	return joined && len(names) == 0
}

// part returns the partitions that are the member's, handed out or not; joined is false when it has left.
func (m *Member) part() (names []string, joined bool) {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	g := m.table.groups[m.group]
	if g == nil || !slices.Contains(g.members, m) {
		return nil, false
	}
	for name, s := range g.slots {
		if s.owner == m {
			names = append(names, name)
		}
	}
	return names, true
}

// Left is closed when the member has left its group.
func (m *Member) Left() <-chan struct{} { return m.done }

// Close leaves the group: what the member held is revoked and goes to the others. It may be called
// more than once.
func (m *Member) Close() {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	g := m.table.groups[m.group]
	if g == nil || !slices.Contains(g.members, m) {
		return
	}
	close(m.done)
	g.members = slices.DeleteFunc(g.members, func(o *Member) bool { return o == m })
	for _, s := range g.slots {
		if s.owner == m {
			s.give(nil)
		}
	}
	g.balance()
}

// Revoked is closed when the partition is no longer the member's.
func (c *Claim) Revoked() <-chan struct{} { return c.revoked }

// Live reports whether the partition is still the member's.
func (c *Claim) Live() bool {
	select {
	case <-c.revoked:
		return false
	default:
		return true
	}
}

// Release gives the partition back; it is handed out again, perhaps to the same member. It may be
// called more than once, and after a revocation.
func (c *Claim) Release() {
	t := c.member.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.groups[c.member.group]; g != nil {
		if s := g.slots[c.Name]; s != nil && s.claim == c {
			s.give(s.owner)
		}
	}
}
