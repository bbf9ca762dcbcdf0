package settleredis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle/broker"
)

var _ broker.Standby = (*member)(nil)

// leaveMax bounds how long leaving a group may take; what stays behind ends with its lease.
const leaveMax = 2 * time.Second

// errLeft says that a member has left its group.
var errLeft = errors.New("member has left its group")

// member is a broker.Membership. Its loop gives a sign of life, and takes and gives up leases.
type member struct {
	broker *Broker
	group  string
	topics []string
	id     string

	kick chan struct{} // holds a token when the loop is to look now
	wake chan struct{} // holds a token when there may be something for Next
	stop context.CancelFunc
	done chan struct{} // closed when the loop has ended
	quit chan struct{} // closed when the member leaves

	places map[string]int64 // the loop's own: until when others had their places when they were seen first

	mu      sync.Mutex
	left    bool
	standby bool
	claims  map[string]*claim // held, by log
	ready   []*claim          // of these, what Next has not handed out
}

// claim is a lease of a log. It saves others the work; what refuses a late owner is the fence in the
// consumer's database.
type claim struct {
	log     string
	token   string
	revoked chan struct{}

	mu   sync.Mutex
	over bool
	ends time.Time // by our clock, which does not wait for the server's
}

func newMember(b *Broker, group string, topics []string) *member {
	return &member{
		broker: b, group: group, topics: topics, id: rand.Text(),
		kick: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		done: make(chan struct{}), quit: make(chan struct{}), places: map[string]int64{}, claims: map[string]*claim{},
	}
}

func (m *member) start() {
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	go m.run(ctx)
}

// run looks every third of a lease, when it is called, and more often while the server is away.
func (m *member) run(ctx context.Context) {
	defer close(m.done)
	b := m.broker
	b.bells.listen(ctx, groupBell(m.group), m.kick)
	defer b.bells.ignore(context.WithoutCancel(ctx), groupBell(m.group), m.kick)
	away := false
	for ctx.Err() == nil {
		pause := b.cfg.Lease / 3
		err := m.beat(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			if !away {
				b.cfg.Logger.Warn("broker does not answer a group's member", "group", m.group, "err", err)
			}
			pause = b.cfg.Lease / 20
		case away:
			b.cfg.Logger.Info("broker answers a group's member again", "group", m.group)
		}
		if away = err != nil; away {
			m.stand(false)
		}
		m.expire()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-m.kick:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// beat is one look: renew, learn who is there, give up what is others', take what is ours.
func (m *member) beat(ctx context.Context) error {
	b, c := m.broker, &m.broker.cfg
	ctx, cancel := context.WithTimeout(ctx, c.Lease/3)
	defer cancel()
	began := time.Now()
	for _, t := range m.topics {
		if _, _, err := b.topic(ctx, t); err != nil { // Known, or made again after the data was flushed.
			return err
		}
	}
	held := m.held()
	args := []any{m.id, c.Lease.Milliseconds(), strings.Join(m.topics, ","), c.leaseKey(m.group, ""), c.bellKey(groupBell(m.group))}
	for _, h := range held {
		args = append(args, h.log, h.token)
	}
	answer, err := b.scripts.beat.Run(ctx, b.db, []string{c.membersKey(m.group), c.key("joins"), c.topicsKey()}, args...).Slice()
	if err != nil {
		return err
	}
	seats, logs, lost, err := parseBeat(answer)
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		b.topics.clear() // The data was flushed.
	}
	for _, h := range held {
		if lost[h.log] {
			b.cfg.Logger.Warn("partition was lost to another member, or its lease ran out", "group", m.group, "partition", partitionName(h.log))
			m.drop(h)
		} else {
			h.extend(began.Add(c.Lease))
		}
	}
	targets := share(seats, logs)
	m.stand(m.idle(seats, targets, logs))
	return m.settle(ctx, targets, logs)
}

// idle reports whether others are to have every log, and have it, and whether they are alive: a member that died
// keeps its place until its lease has run out.
func (m *member) idle(seats []seat, targets map[string]string, logs []holding) bool {
	places, alive := map[string]int64{}, map[string]bool{}
	for _, s := range seats {
		first, seen := m.places[s.id]
		if !seen {
			first = s.until
		}
		places[s.id], alive[s.id] = first, s.until > first
	}
	m.places = places
	for _, l := range logs {
		if to := targets[l.log]; to == m.id || to != l.owner || !alive[to] {
			return false
		}
	}
	return len(logs) > 0
}

func (m *member) stand(by bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.standby = by
}

// Standby implements [broker.Standby].
func (m *member) Standby() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.standby && !m.left
}

// parseBeat reads what beat.lua answers.
func parseBeat(answer []any) (seats []seat, logs []holding, lost map[string]bool, err error) {
	if len(answer) != 3 {
		return nil, nil, nil, fmt.Errorf("group of %d parts, 3 expected", len(answer))
	}
	members, owners, gone := texts(answer[0]), texts(answer[1]), texts(answer[2])
	for i := 0; i+3 < len(members); i += 4 {
		join, err := strconv.ParseUint(members[i+1], 10, 64)
		until, bad := strconv.ParseInt(members[i+3], 10, 64)
		if err = errors.Join(err, bad); err != nil {
			return nil, nil, nil, fmt.Errorf("member %s: %w", members[i], err)
		}
		seats = append(seats, seat{id: members[i], join: join, topics: strings.Split(members[i+2], ","), until: until})
	}
	for i := 0; i+1 < len(owners); i += 2 {
		id, _, _ := strings.Cut(owners[i+1], "/")
		logs = append(logs, holding{log: owners[i], owner: id})
	}
	lost = map[string]bool{}
	for _, log := range gone {
		lost[log] = true
	}
	return seats, logs, lost, nil
}

func texts(answer any) []string {
	list, _ := answer.([]any)
	out := make([]string, len(list))
	for i, v := range list {
		out[i], _ = v.(string)
	}
	return out
}

// settle gives up what others are to have, and takes what is this member's and free.
func (m *member) settle(ctx context.Context, targets map[string]string, logs []holding) error {
	var surplus []*claim
	for _, h := range m.held() {
		if to, ok := targets[h.log]; ok && to != m.id {
			m.drop(h)
			surplus = append(surplus, h)
		}
	}
	if len(surplus) > 0 {
		if err := m.release(ctx, "", surplus); err != nil {
			return err
		}
	}
	var take []*claim
	for _, l := range logs {
		if targets[l.log] == m.id && l.owner == "" && !m.holds(l.log) {
			take = append(take, &claim{log: l.log, token: m.id + "/" + rand.Text(), revoked: make(chan struct{})})
		}
	}
	if len(take) == 0 {
		return nil
	}
	began := time.Now()
	lease := m.broker.cfg.Lease
	keys, args := make([]string, len(take)), []any{lease.Milliseconds()}
	for i, c := range take {
		keys[i], args = m.broker.cfg.leaseKey(m.group, c.log), append(args, c.token)
	}
	taken, err := m.broker.scripts.take.Run(ctx, m.broker.db, keys, args...).Int64Slice()
	if err != nil {
		return err // What was taken all the same ends by itself.
	}
	for i, c := range take {
		if i < len(taken) && taken[i] == 1 { // Otherwise another member was faster.
			c.ends = began.Add(lease)
			m.add(c)
		}
	}
	return nil
}

// add offers a lease to Next, or drops it when the member has left meanwhile: it then ends by itself.
func (m *member) add(c *claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		c.revoke()
		return
	}
	m.claims[c.log] = c
	m.ready = append(m.ready, c)
	ring(m.wake)
}

func (m *member) held() []*claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := make([]*claim, 0, len(m.claims))
	for _, c := range m.claims {
		held = append(held, c)
	}
	return held
}

func (m *member) holds(log string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claims[log] != nil
}

// drop revokes a claim on this side.
func (m *member) drop(c *claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.revoke()
	if m.claims[c.log] == c {
		delete(m.claims, c.log)
	}
}

// expire drops what could not be renewed in time.
func (m *member) expire() {
	for _, c := range m.held() {
		if !c.live() {
			m.drop(c)
		}
	}
}

// release ends leases on the server, and the membership when id is not empty.
func (m *member) release(ctx context.Context, id string, claims []*claim) error {
	c := &m.broker.cfg
	args := []any{id, c.leaseKey(m.group, ""), c.bellKey(groupBell(m.group))}
	for _, one := range claims {
		args = append(args, one.log, one.token)
	}
	return m.broker.scripts.release.Run(ctx, m.broker.db, []string{c.membersKey(m.group)}, args...).Err()
}

// Next implements [broker.Membership].
func (m *member) Next(ctx context.Context) (broker.Partition, error) {
	for {
		if c := m.next(); c != nil {
			return newPartition(m, c), nil
		}
		select {
		case <-m.quit:
			return nil, fmt.Errorf("settleredis: group %s: %w", m.group, errLeft)
		default:
		}
		select {
		case <-m.wake:
		case <-m.quit:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *member) next() *claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.ready) > 0 {
		c := m.ready[0]
		m.ready = m.ready[1:]
		if len(m.ready) > 0 {
			ring(m.wake) // For another caller.
		}
		if c.live() {
			return c
		}
	}
	return nil
}

// Close implements [broker.Membership]. Its error says that the others get to know only when the leases
// have run out.
func (m *member) Close() error {
	m.mu.Lock()
	if m.left {
		m.mu.Unlock()
		<-m.done
		return nil
	}
	m.left = true
	var held []*claim
	for _, c := range m.claims {
		c.revoke()
		held = append(held, c)
	}
	m.claims, m.ready = map[string]*claim{}, nil
	close(m.quit)
	m.mu.Unlock()
	m.stop()
	<-m.done
	m.broker.forget(m)
	ctx, cancel := context.WithTimeout(context.Background(), leaveMax)
	defer cancel()
	if err := m.release(ctx, m.id, held); err != nil {
		return fmt.Errorf("settleredis: leave group %s: %w: %w", m.group, broker.ErrUnavailable, err)
	}
	return nil
}

func (c *claim) revoke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		close(c.revoked)
	}
}

func (c *claim) extend(ends time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends = ends
}

// live reports whether the lease is still ours as far as we can know.
func (c *claim) live() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.over && time.Now().Before(c.ends)
}
