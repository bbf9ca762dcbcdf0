package deadletter_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

const group = "billing"

type rig struct {
	t     *testing.T
	store *memory.Store
	queue *deadletter.Queue
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s := memory.New()
	return &rig{t, s, deadletter.NewQueue(s, s.Letters(), group)}
}

// park parks n letters of a key: a DEAD one and its followers.
func (r *rig) park(topic, key, cause string, n int) []deadletter.Letter {
	r.t.Helper()
	now := time.Now()
	var parked []deadletter.Letter
	err := r.store.Run(r.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		for i := range n {
			l := deadletter.Letter{
				Group: group, Partition: topic + "/0", Position: fmt.Sprintf("x/%d", i), State: deadletter.StateWaiting,
				FirstAt: now, LastAt: now, NextAt: now,
				Event: event.Envelope{
					ID: event.NewID(now), Type: "T", Version: 1, Topic: topic, AggregateType: "order", AggregateID: key,
					OccurredAt: now.UTC(), Producer: "order", Data: fmt.Appendf(nil, "%d", i),
				},
			}
			if i == 0 {
				l.State, l.Attempts, l.Cause, l.Permanent = deadletter.StateDead, 10, cause, true
			}
			if err := r.store.Letters().Park(ctx, tx, l); err != nil {
				return err
			}
			parked = append(parked, l)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return parked
}

func (r *rig) get(l deadletter.Letter) deadletter.Letter {
	r.t.Helper()
	got, err := r.queue.Get(r.t.Context(), l.ID())
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) audit() string {
	r.t.Helper()
	entries, err := r.queue.Audit(r.t.Context(), 100)
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range slices.Backward(entries) {
		fmt.Fprintf(&b, "%s %s; ", e.Operator, e.Action)
	}
	return b.String()
}

func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		letters := r.park("orders", "a", "broken", 3)
		<-time.After(time.Minute)
		for range 2 { // Twice is as good as once.
			if err := r.queue.Replay(t.Context(), "ann", letters[0].ID()); err != nil {
				t.Fatal(err)
			}
		}
		l := r.get(letters[0])
		if l.State != deadletter.StateRetrying || l.Attempts != 0 || l.Permanent || l.NextAt.After(time.Now()) || !deadletter.Replayed(l) || l.Cause != "broken" {
			t.Errorf("letter: %+v", l)
		}
		err := r.queue.Replay(t.Context(), "ann", letters[2].ID())
		if !errors.Is(err, deadletter.ErrNotHead) || !strings.Contains(err.Error(), letters[0].ID()) {
			t.Errorf("replay of a follower: %v", err)
		}
		if got := r.audit(); got != "ann replay; ann replay; " {
			t.Errorf("audit: %s", got)
		}
		// Handled by the consumer: replaying it is still fine, it just has nothing to do.
		err = r.store.Run(t.Context(), func(ctx context.Context, tx *txn.Tx) error {
			_, err := r.store.Letters().Remove(ctx, tx, group, letters[0].Event.ID)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.queue.Replay(t.Context(), "ann", letters[0].ID()); err != nil {
			t.Errorf("replay of a handled one: %v", err)
		}
		never := deadletter.Letter{Group: group, Event: event.Envelope{ID: event.NewID(time.Now())}}
		if err := r.queue.Replay(t.Context(), "ann", never.ID()); !errors.Is(err, deadletter.ErrNotFound) {
			t.Errorf("replay of an unknown one: %v", err)
		}
	})
}

func TestDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		letters := r.park("orders", "a", "broken", 2)
		if err := r.queue.Discard(t.Context(), "ann", letters[1].ID()); !errors.Is(err, deadletter.ErrNotHead) {
			t.Errorf("discard of a follower: %v", err)
		}
		if err := r.queue.Discard(t.Context(), "ann", letters[0].ID()); err != nil {
			t.Fatal(err)
		}
		if l := r.get(letters[1]); l.State != deadletter.StateRetrying || l.NextAt.After(time.Now()) {
			t.Errorf("follower: %+v", l)
		}
		if err := r.queue.Discard(t.Context(), "ann", letters[0].ID()); !errors.Is(err, deadletter.ErrNotFound) {
			t.Errorf("discard again: %v", err)
		}
		// What was discarded is not brought back by a replay that comes late.
		if err := r.queue.Replay(t.Context(), "bob", letters[0].ID()); !errors.Is(err, deadletter.ErrNotFound) {
			t.Errorf("replay of a discarded one: %v", err)
		}
		if got := r.audit(); got != "ann discard; " {
			t.Errorf("audit: %s", got)
		}
	})
}

func TestReplayMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all []deadletter.Letter
		for i := range 10 {
			topic, cause := "orders", "broken"
			if i%2 == 1 {
				topic, cause = "payments", "declined"
			}
			all = append(all, r.park(topic, fmt.Sprint(i), cause, 2)...)
		}
		if n, err := r.queue.ReplayBatch(t.Context(), "ann", "orders", 3); n != 3 || err != nil {
			t.Errorf("batch: %d, %v", n, err)
		}
		if n, err := r.queue.ReplayBatch(t.Context(), "ann", "orders", 3); n != 2 || err != nil {
			t.Errorf("batch: %d, %v", n, err)
		}
		if n, err := r.queue.ReplayCause(t.Context(), "ann", "", "declined"); n != 5 || err != nil {
			t.Errorf("cause: %d, %v", n, err)
		}
		for i, l := range all {
			want := deadletter.StateRetrying
			if i%2 == 1 {
				want = deadletter.StateWaiting
			}
			if got := r.get(l).State; got != want {
				t.Errorf("letter %d is %s, want %s", i, got, want)
			}
		}
		if got := strings.Count(r.audit(), "ann replay"); got != 10 {
			t.Errorf("%d audit entries, want 10", got)
		}
		groups, err := r.queue.Groups(t.Context())
		var sum int64
		for _, g := range groups {
			sum += g.Count
		}
		if err != nil || sum != 20 {
			t.Errorf("groups: %+v, %v", groups, err)
		}
		page, err := r.queue.List(t.Context(), deadletter.Query{Topic: "orders", Limit: 3})
		if err != nil || len(page) != 3 {
			t.Errorf("list: %d, %v", len(page), err)
		}
	})
}

func TestEdit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		letters := r.park("orders", "a", "broken", 2)
		if err := r.queue.Edit(t.Context(), "ann", letters[0].ID(), []byte("{")); err == nil {
			t.Error("accepted what is not JSON")
		}
		if err := r.queue.Edit(t.Context(), "ann", letters[0].ID(), make([]byte, event.DataBytesMax+1)); err == nil {
			t.Error("accepted what is too large")
		}
		if err := r.queue.Edit(t.Context(), "ann", letters[1].ID(), []byte("{}")); !errors.Is(err, deadletter.ErrNotHead) {
			t.Errorf("edit of a follower: %v", err)
		}
		if err := r.queue.Edit(t.Context(), "ann", letters[0].ID(), []byte(`{"mended":true}`)); err != nil {
			t.Fatal(err)
		}
		l := r.get(letters[0])
		if string(l.Event.Data) != `{"mended":true}` || l.State != deadletter.StateRetrying || l.Event.ID != letters[0].Event.ID {
			t.Errorf("letter: %+v", l)
		}
		if err := r.queue.Edit(t.Context(), "ann", letters[0].ID(), []byte("{}")); err == nil {
			t.Error("edited what is being retried")
		}
		entries, err := r.queue.Audit(t.Context(), 10)
		if err != nil || len(entries) != 1 || entries[0].Action != deadletter.ActionEdit || strings.Count(entries[0].Note, "sha256:") != 2 {
			t.Errorf("audit: %+v, %v", entries, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	l := r.park("orders", "a", "broken", 1)[0]
	if err := r.queue.Replay(t.Context(), " ", l.ID()); !errors.Is(err, deadletter.ErrNoOperator) {
		t.Errorf("no operator: %v", err)
	}
	for _, id := range []string{"", "x", "billing:zzz", "other:" + l.Event.ID.String()} {
		if err := r.queue.Discard(t.Context(), "ann", id); err == nil {
			t.Errorf("accepted ID %q", id)
		}
	}
	if _, err := r.queue.ReplayBatch(t.Context(), "ann", "", 0); err == nil {
		t.Error("accepted a batch of 0")
	}
	if got := r.audit(); got != "" {
		t.Errorf("audit of refusals: %s", got)
	}
	all := deadletter.NewQueue(r.store, r.store.Letters(), "") // Every group of the store.
	if err := all.Replay(t.Context(), "ann", l.ID()); err != nil {
		t.Error(err)
	}
}
