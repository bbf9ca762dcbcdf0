package settletest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/txn"
)

// story is what has been said so far, for the failure's text.
type story struct {
	newest outbox.Position // as far as last has looked
	from   outbox.Position // where Then begins to read
	lines  []string
	err    error // of the command
}

// Given lets events arrive that are history: what the service adds because of them does not count. The
// service is quiet when it returns.
func (r *Rig) Given(drafts ...event.Draft) *Rig {
	r.t.Helper()
	r.arrive("given", drafts)
	r.story.from = r.last()
	return r
}

// When lets events arrive from another service, and waits until all that they cause is done.
func (r *Rig) When(drafts ...event.Draft) *Rig {
	r.t.Helper()
	r.arrive("when", drafts)
	return r
}

func (r *Rig) arrive(word string, drafts []event.Draft) {
	r.t.Helper()
	for _, d := range drafts {
		r.story.lines = append(r.story.lines, fmt.Sprintf("%-5s %s", word, draftText(d)))
	}
	r.Publish(drafts...)
	r.settle()
}

// WhenDo runs a command as the service, in one transaction, and waits until all that it causes is
// done. Its error is for ThenError; any other Then reports it.
func (r *Rig) WhenDo(fn func(ctx context.Context, tx *txn.Tx) error) *Rig {
	r.t.Helper()
	r.Start()
	r.story.err = r.Service.Do(r.t.Context(), fn)
	line := "when  a command"
	if r.story.err != nil {
		line += ", which was refused: " + r.story.err.Error()
	}
	r.story.lines = append(r.story.lines, line)
	r.settle()
	return r
}

// Then waits for quiet and compares the events that the service has added since the last Then, or
// since Given: exactly these, in this order, by type, version, topic, aggregate and data. Without drafts
// it expects none. A refused command or a letter that is not an expected one fails the test too.
func (r *Rig) Then(want ...event.Draft) *Rig {
	r.t.Helper()
	r.Start()
	r.settle()
	got := r.facts()
	letters := r.letters()
	same := slices.EqualFunc(want, got, func(d event.Draft, e event.Envelope) bool {
		return draftText(d) == eventText(&e)
	})
	if !same || r.story.err != nil || len(letters) > 0 {
		r.t.Fatalf("%s", r.differs(want, got, letters))
	}
	r.next()
	return r
}

// ThenError expects that the command was refused with an error that is target, or that the handling of an
// event failed with target's text and left a letter, and that nothing was added. The letters are
// discarded, so that the story can go on.
func (r *Rig) ThenError(target error) *Rig {
	r.t.Helper()
	r.Start()
	r.settle()
	got, letters := r.facts(), r.letters()
	found := errors.Is(r.story.err, target)
	for i := range letters {
		found = found || strings.Contains(letters[i].Cause, target.Error())
	}
	if !found || len(got) > 0 {
		r.t.Fatalf("%s\n  want error: %v", r.differs(nil, got, letters), target)
	}
	err := r.Service.Do(r.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		for i := range letters {
			if _, err := r.Store.Letters().Remove(ctx, tx, letters[i].Group, letters[i].Event.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("settletest: discard letters: %v", err)
	}
	r.next()
	return r
}

// facts returns the events that Then compares. The copy of an event on its dead-letter topic says nothing
// that its letter does not.
func (r *Rig) facts() []event.Envelope {
	r.t.Helper()
	return slices.DeleteFunc(r.since(r.story.from), func(e event.Envelope) bool { return strings.HasSuffix(e.Topic, deadletter.TopicSuffix) })
}

func (r *Rig) next() {
	r.story.from, r.story.lines, r.story.err = r.last(), nil, nil
}

func (r *Rig) letters() []deadletter.Letter {
	r.t.Helper()
	letters, err := r.Store.Letters().Select(r.t.Context(), deadletter.Query{})
	if err != nil {
		r.t.Fatalf("settletest: list letters: %v", err)
	}
	return letters
}

func (r *Rig) differs(want []event.Draft, got []event.Envelope, letters []deadletter.Letter) string {
	var b strings.Builder
	fmt.Fprintf(&b, "settletest: %s:", r.Service.Name())
	for _, l := range r.story.lines {
		fmt.Fprintf(&b, "\n  %s", l)
	}
	write := func(title string, n int, line func(i int) string) {
		fmt.Fprintf(&b, "\n  %s", title)
		if n == 0 {
			b.WriteString(" nothing")
		}
		for i := range n {
			fmt.Fprintf(&b, "\n    %s", line(i))
		}
	}
	write("then  want", len(want), func(i int) string { return draftText(want[i]) })
	write("then  got", len(got), func(i int) string { return eventText(&got[i]) })
	if len(letters) > 0 {
		write("parked", len(letters), func(i int) string { return letterText(&letters[i]) })
	}
	return b.String()
}

func draftText(d event.Draft) string {
	if d.Err != nil {
		return d.Err.Error()
	}
	return fmt.Sprintf("%s v%d on %s, %s %s: %s", d.Type, d.Version, d.Topic, d.AggregateType, d.AggregateID, d.Data)
}

func eventText(e *event.Envelope) string {
	return fmt.Sprintf("%s v%d on %s, %s %s: %s", e.Type, e.Version, e.Topic, e.AggregateType, e.AggregateID, e.Data)
}
