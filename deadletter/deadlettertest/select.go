package deadlettertest

import (
	"errors"
	"testing"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/storetest"
)

func wantErr(t *testing.T, guarantee string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got error %v, want %v", guarantee, got, want)
	}
}

func selectFilters(t *testing.T, h Harness) {
	s := h.Open(t)
	a, b, c, d := letter(t, "a", 1, deadletter.StateDead), letter(t, "b", 2, deadletter.StateRetrying),
		letter(t, "c", 3, deadletter.StateRetrying), letter(t, "a", 4, deadletter.StateWaiting)
	b.Cause = "declined"
	e := letter(t, "e", 5, deadletter.StateRetrying)
	e.Group = "shipping"
	f := letter(t, "a", 6, deadletter.StateDead)
	f.Event.Topic = "another-topic"
	park(t, s, a, b, c, d, e, f)
	for _, q := range []struct {
		what string
		q    deadletter.Query
		want []string
	}{
		{"nothing", deadletter.Query{}, []string{"i1/1", "i1/2", "i1/3", "i1/4", "i1/5", "i1/6"}},
		{"group", deadletter.Query{Group: "shipping"}, []string{"i1/5"}},
		{"topic", deadletter.Query{Topic: "another-topic"}, []string{"i1/6"}},
		{"key", deadletter.Query{Key: "a"}, []string{"i1/1", "i1/4", "i1/6"}},
		{"lane", deadletter.Query{Group: group, Topic: storetest.Topic, Key: "a"}, []string{"i1/1", "i1/4"}},
		{"lane and state", deadletter.Query{Group: group, Topic: storetest.Topic, Key: "a", State: deadletter.StateWaiting}, []string{"i1/4"}},
		{"lane and limit", deadletter.Query{Group: group, Topic: storetest.Topic, Key: "a", Limit: 1}, []string{"i1/1"}},
		{"cause", deadletter.Query{Cause: "declined"}, []string{"i1/2"}},
		{"part of a cause", deadletter.Query{Cause: "decline"}, []string{}},
		{"state", deadletter.Query{State: deadletter.StateDead}, []string{"i1/1", "i1/6"}},
		{"identity", deadletter.Query{ID: c.Event.ID}, []string{"i1/3"}},
		{"identity of another group", deadletter.Query{Group: "shipping", ID: c.Event.ID}, []string{}},
		{"unknown identity", deadletter.Query{Group: group, ID: event.NewID(at(0))}, []string{}},
		{"time before the first", deadletter.Query{Group: group, State: deadletter.StateRetrying, DueBy: at(1)}, []string{}},
		{"time of the first", deadletter.Query{Group: group, State: deadletter.StateRetrying, DueBy: at(2)}, []string{"i1/2"}},
		{"time after all", deadletter.Query{Group: group, State: deadletter.StateRetrying, DueBy: at(60)}, []string{"i1/2", "i1/3"}},
		{"time, of all groups and states", deadletter.Query{DueBy: at(60)}, []string{"i1/2", "i1/3", "i1/5"}},
	} {
		storetest.Equal(t, "letters must be selected by "+q.what+", in the order of parking", positions(find(t, s, q.q)), q.want)
	}
}

func selectPages(t *testing.T, h Harness) {
	s := h.Open(t)
	for n := 1; n <= 7; n++ {
		park(t, s, letter(t, string(rune('a'+n%3)), n, deadletter.StateDead))
	}
	for _, q := range []deadletter.Query{{}, {Group: group}, {Topic: storetest.Topic}} {
		q.Limit = 3
		var all []string
		for {
			page := find(t, s, q)
			all = append(all, positions(page)...)
			if len(page) < q.Limit {
				break
			}
			q.After = page[len(page)-1].ID()
		}
		storetest.Equal(t, "pages must have every letter once, in order", all,
			[]string{"i1/1", "i1/2", "i1/3", "i1/4", "i1/5", "i1/6", "i1/7"})
	}
}
