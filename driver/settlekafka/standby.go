package settlekafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/settledev/settle/broker"
)

var _ broker.Standby = (*membership)(nil)

// stable is the state of a group in which every member knows its partitions.
const stable = "Stable"

// Standby implements [broker.Standby].
func (m *membership) Standby() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.standby && !m.closed && len(m.parts) == 0
}

func (m *membership) stand(by bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.standby = by
}

func (m *membership) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.parts) == 0
}

// idling finds out whether a member without partitions is a standby. Its first assignment does not tell: it is
// empty too while others are to give up what will be this member's.
func (s *session) idling(ctx context.Context) {
	defer s.m.stand(false)
	for pause(ctx, idleEvery) == nil {
		idle := s.m.empty()
		if idle {
			var err error
			if idle, err = s.allAssigned(ctx); err != nil {
				s.m.broker.cfg.Logger.Debug("group cannot be described", "group", s.m.group, "err", err)
			}
		}
		s.m.stand(idle)
	}
}

// allAssigned reports whether the group, with this member, has divided every partition of the member's topics. All
// who have one were there when this member joined: the group does not divide before those who died are out.
func (s *session) allAssigned(ctx context.Context) (bool, error) {
	b := s.m.broker
	ctx, cancel := context.WithTimeout(ctx, b.cfg.AckWait)
	defer cancel()
	name := b.cfg.groupName(s.m.group)
	groups, err := b.admin.DescribeGroups(ctx, name)
	if err != nil {
		return false, err
	}
	group := groups[name]
	if group.Err != nil || group.State != stable || !s.isIn(group) {
		return false, group.Err
	}
	names := make([]string, 0, len(s.topics))
	for name := range s.topics {
		names = append(names, name)
	}
	topics, err := b.admin.ListTopics(ctx, names...)
	if err != nil {
		return false, err
	}
	assigned := group.AssignedPartitions()
	for _, name := range names {
		t := topics[name]
		if t.Err != nil || len(t.Partitions) == 0 {
			return false, t.Err
		}
		for index := range t.Partitions {
			if !assigned.Lookup(name, index) {
				return false, nil
			}
		}
	}
	return true, nil
}

// isIn reports whether the group knows this member.
func (s *session) isIn(group kadm.DescribedGroup) bool {
	id, _ := s.group.GroupMetadata()
	for i := range group.Members {
		if group.Members[i].MemberID == id {
			return true
		}
	}
	return false
}
