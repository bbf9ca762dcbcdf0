package brokertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
)

func cancels(t *testing.T, s *suite) {
	parts := s.join(t, "cancelled", nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := parts[0].Fetch(ctx, 10); err != nil {
				done <- err
				return
			}
		}
	}()
	cancel()
	within(t, done, context.Canceled)

	m, err := s.Broker.Subscribe(bounded(t), broker.Subscription{Group: "cancelled", Topics: []string{Topic}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if s.Partitions > 1 {
		return // the second member has partitions of its own to return
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := m.Next(ctx)
		done <- err
	}()
	cancel()
	within(t, done, context.Canceled)
}

// within waits for an error; want nil means any error.
func within(t *testing.T, done <-chan error, want error) {
	t.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case err := <-done:
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	case <-timer.C:
		t.Fatalf("no answer within %s", timeout)
	}
}

func releaseHandsOutAgain(t *testing.T, s *suite) {
	s.declare(t, "releasing")
	want := s.numbered(t, 4, "key-a", "key-b")
	m, err := s.Broker.Subscribe(bounded(t), broker.Subscription{Group: "releasing", Topics: []string{Topic}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	for _, p := range s.take(t, m, s.Partitions, nil) {
		if err := p.Release(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Fetch(bounded(t), 1); !errors.Is(err, broker.ErrRevoked) {
			t.Fatalf("fetch from a released partition: %v, want ErrRevoked", err)
		}
	}
	sameOrder(t, collect(t, s.take(t, m, s.Partitions, nil), count(want), 10), want)
}

// membersShare has a second member join and the first one leave; nothing is ever without an owner.
func membersShare(t *testing.T, s *suite) {
	subscription := broker.Subscription{Group: "sharing", Topics: []string{Topic}}
	first, err := s.Broker.Subscribe(bounded(t), subscription)
	if err != nil {
		t.Fatal(err)
	}
	parts := s.take(t, first, s.Partitions, nil)
	second, err := s.Broker.Subscribe(bounded(t), subscription)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	half := s.Partitions / 2
	s.take(t, second, half, nil)
	taken := 0
	for _, p := range parts {
		select {
		case <-p.Revoked():
			taken++
			if _, err := p.Fetch(bounded(t), 1); !errors.Is(err, broker.ErrRevoked) {
				t.Fatalf("fetch from a revoked partition: %v, want ErrRevoked", err)
			}
		default:
		}
	}
	if taken != half {
		t.Fatalf("%d partitions were revoked when a second member joined, want %d of %d", taken, half, s.Partitions)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		within(t, after(p.Revoked()), broker.ErrRevoked)
	}
	if _, err := first.Next(bounded(t)); err == nil {
		t.Fatal("a member that left was given a partition")
	}
	s.take(t, second, s.Partitions-half, nil)
}

// standby has one member more than there are partitions. It says so, and nobody else does, until a member leaves.
func standby(t *testing.T, s *suite) {
	subscription := broker.Subscription{Group: "standing-by", Topics: []string{Topic}}
	var members []broker.Membership
	var tellers []broker.Standby
	for range s.Partitions + 1 {
		m, err := s.Broker.Subscribe(bounded(t), subscription)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.Close() }()
		teller, ok := m.(broker.Standby)
		if !ok {
			t.Fatalf("%T cannot tell a standby", m)
		}
		members, tellers = append(members, m), append(tellers, teller)
	}
	waiting := func() (all []int) {
		for i, m := range tellers {
			if m.Standby() {
				all = append(all, i)
			}
		}
		return all
	}
	one := -1
	eventually(t, "one of the members is a standby", func() bool {
		all := waiting()
		if len(all) > 1 {
			t.Fatalf("members %v of %d are standbys for %d partitions", all, len(members), s.Partitions)
		}
		if len(all) == 1 {
			one = all[0]
		}
		return len(all) == 1
	})
	for i, m := range members {
		if i != one {
			s.take(t, m, 1, nil)
		}
	}
	leaves := (one + 1) % len(members)
	if err := members[leaves].Close(); err != nil {
		t.Fatal(err)
	}
	if tellers[leaves].Standby() {
		t.Error("a member that has left is a standby")
	}
	s.take(t, members[one], 1, nil)
	if all := waiting(); len(all) > 0 {
		t.Errorf("members %v are standbys, and each of the others has a partition", all)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", timeout, what)
		}
	}
}

func after(revoked <-chan struct{}) <-chan error {
	done := make(chan error, 1)
	go func() {
		<-revoked
		done <- broker.ErrRevoked
	}()
	return done
}

func revokeTakesAway(t *testing.T, s *suite) {
	if s.Revoke == nil {
		t.Skip("the harness cannot revoke")
	}
	m, err := s.Broker.Subscribe(bounded(t), broker.Subscription{Group: "revoked", Topics: []string{Topic}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	parts := s.take(t, m, s.Partitions, nil)
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := parts[0].Fetch(t.Context(), 10); err != nil {
				done <- err
				return
			}
		}
	}()
	s.Revoke(t, "revoked")
	within(t, done, broker.ErrRevoked)
	if err := parts[0].Ack(bounded(t), broker.Position{}); !errors.Is(err, broker.ErrRevoked) {
		t.Fatalf("ack of a revoked partition: %v, want ErrRevoked", err)
	}
	want := s.numbered(t, 2, "key-a")
	sameOrder(t, collect(t, s.take(t, m, s.Partitions, nil), 2, 10), want)
}

func closeEndsNext(t *testing.T, s *suite) {
	m, err := s.Broker.Subscribe(bounded(t), broker.Subscription{Group: "closing", Topics: []string{Topic}})
	if err != nil {
		t.Fatal(err)
	}
	parts := s.take(t, m, s.Partitions, nil)
	done := make(chan error, 1)
	go func() {
		_, err := m.Next(t.Context())
		done <- err
	}()
	if err := s.Broker.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, done, nil)
	for _, p := range parts {
		within(t, after(p.Revoked()), broker.ErrRevoked)
	}
	if _, err := s.Broker.Subscribe(bounded(t), broker.Subscription{Group: "closing", Topics: []string{Topic}}); err == nil {
		t.Fatal("a closed broker took a subscription")
	}
}
