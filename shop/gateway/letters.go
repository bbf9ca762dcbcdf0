package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/problem"
)

// batchMax bounds the letters of one replay.
const batchMax = 1000

// Letter is a dead letter as the API shows it.
type Letter struct {
	MessageID string           `json:"messageId"`
	Service   string           `json:"service"`
	State     deadletter.State `json:"state"`
	Type      string           `json:"type"`
	Topic     string           `json:"originalTopic"`
	Partition string           `json:"originalPartition"`
	Position  string           `json:"originalPosition"`
	Key       string           `json:"key"`
	Cause     string           `json:"cause"`
	Stack     string           `json:"stack,omitempty"`
	Attempts  int              `json:"attempts"`
	FirstAt   time.Time        `json:"firstAt"`
	LastAt    time.Time        `json:"lastAt"`
	NextAt    *time.Time       `json:"nextAt,omitempty"`
}

// CauseCount is how many letters of a topic have one cause.
type CauseCount struct {
	Service string           `json:"service"`
	Topic   string           `json:"originalTopic"`
	Cause   string           `json:"cause"`
	State   deadletter.State `json:"state"`
	Count   int64            `json:"count"`
	First   time.Time        `json:"first"`
	Last    time.Time        `json:"last"`
}

// AuditEntry is one line of the audit of dead letters: what an operator did, or what became of it.
type AuditEntry struct {
	At       time.Time `json:"at"`
	Operator string    `json:"operator"`
	Action   string    `json:"action"`
	Letter   string    `json:"letter"`
	Note     string    `json:"note,omitempty"`
}

// Unreachable is a service whose part is missing from an answer, because nobody could ask it.
type Unreachable struct {
	Service string `json:"service"`
	Detail  string `json:"detail"`
}

// listed is a page of parts of several services.
type listed[T any] struct {
	page.Page[T]

	// Unreachable are the services whose items are missing.
	Unreachable []Unreachable `json:"unreachable,omitempty"`
}

// missing collects the services that are away; any other error is returned.
func missing(all *[]Unreachable, err error) error {
	e, ok := errors.AsType[*UnreachableError](err)
	if !ok {
		return err
	}
	*all = append(*all, Unreachable{Service: e.Service, Detail: e.Error()})
	return nil
}

// operatorName is who the audit names: the header X-Operator, or "operator".
func operatorName(r *http.Request) string {
	if name := r.Header.Get("X-Operator"); name != "" && len(name) <= 64 {
		return name
	}
	return "operator"
}

// find returns the office that holds a letter. While a service that may hold it is away, a letter that
// nobody else has is not said to be missing.
func (d *desk) find(ctx context.Context, id string) (office, Letter, error) {
	group, identity, _ := strings.Cut(id, ":")
	if _, err := event.ParseID(identity); err != nil {
		return office{}, Letter{}, deadletter.ErrNotFound // No letter has such an id.
	}
	all := d.offices("")
	// A service's first group has its name: it is asked first.
	slices.SortStableFunc(all, func(a, b office) int {
		switch {
		case a.service == b.service || a.service != group && b.service != group:
			return 0
		case a.service == group:
			return -1
		}
		return 1
	})
	var away error
	for _, o := range all {
		l, err := o.get(ctx, id)
		switch {
		case err == nil:
			return o, l, nil
		case errors.Is(err, ErrUnreachable):
			away = err
		case !errors.Is(err, deadletter.ErrNotFound):
			return office{}, Letter{}, err
		}
	}
	if away != nil {
		return office{}, Letter{}, away
	}
	return office{}, Letter{}, deadletter.ErrNotFound
}

func (d *desk) listLetters(w http.ResponseWriter, r *http.Request) {
	ask, err := page.Parse(r)
	if err != nil {
		problem.Write(w, http.StatusBadRequest, "bad-page", "The page cannot be read", err.Error(), nil)
		return
	}
	q := r.URL.Query()
	query := deadletter.Query{
		Topic: q.Get("originalTopic"), Key: q.Get("key"), Cause: q.Get("cause"),
		State: deadletter.State(q.Get("state")), Limit: min(ask.Limit, deadletter.PageMax),
	}
	ask.Limit = query.Limit
	// A page's end is "service/letter": the services follow one another.
	from, after, _ := strings.Cut(ask.After, "/")
	answer := listed[Letter]{}
	items := []Letter{}
	for _, o := range d.offices(q.Get("service")) {
		if o.service < from {
			continue
		}
		query.After = ""
		if o.service == from {
			query.After = after
		}
		if query.Limit = ask.Limit - len(items); query.Limit == 0 {
			break
		}
		letters, err := o.list(r.Context(), query)
		if err = missing(&answer.Unreachable, err); err != nil {
			d.fail(w, err)
			return
		}
		items = append(items, letters...)
	}
	answer.Page = page.New(ask, items, func(l Letter) string { return l.Service + "/" + l.MessageID })
	page.Write(w, http.StatusOK, answer)
}

func shown(service string, l deadletter.Letter) Letter {
	v := Letter{
		MessageID: l.ID(), Service: service, State: l.State, Type: l.Event.Type, Topic: l.Event.Topic,
		Partition: l.Partition, Position: l.Position, Key: l.Event.AggregateID, Cause: l.Cause, Stack: l.Stack,
		Attempts: l.Attempts, FirstAt: l.FirstAt, LastAt: l.LastAt,
	}
	if l.State == deadletter.StateRetrying {
		v.NextAt = &l.NextAt
	}
	return v
}

func (d *desk) listCauses(w http.ResponseWriter, r *http.Request) {
	answer := listed[CauseCount]{Page: page.Page[CauseCount]{Items: []CauseCount{}}}
	for _, o := range d.offices(r.URL.Query().Get("service")) {
		causes, err := o.causes(r.Context())
		if err = missing(&answer.Unreachable, err); err != nil {
			d.fail(w, err)
			return
		}
		answer.Items = append(answer.Items, causes...)
	}
	page.Write(w, http.StatusOK, answer)
}

func (d *desk) listAudit(w http.ResponseWriter, r *http.Request) {
	ask, err := page.Parse(r)
	if err != nil {
		problem.Write(w, http.StatusBadRequest, "bad-page", "The page cannot be read", err.Error(), nil)
		return
	}
	answer := listed[AuditEntry]{}
	all := []AuditEntry{}
	for _, o := range d.offices(r.URL.Query().Get("service")) {
		entries, err := o.audit(r.Context(), ask.Limit)
		if err = missing(&answer.Unreachable, err); err != nil {
			d.fail(w, err)
			return
		}
		all = append(all, entries...)
	}
	slices.SortStableFunc(all, func(a, b AuditEntry) int { return b.At.Compare(a.At) })
	answer.Items = all[:min(len(all), ask.Limit)]
	page.Write(w, http.StatusOK, answer)
}

func (d *desk) showLetter(w http.ResponseWriter, r *http.Request) {
	_, l, err := d.find(r.Context(), r.PathValue("id"))
	if err != nil {
		d.fail(w, err)
		return
	}
	page.Write(w, http.StatusOK, l)
}

func (d *desk) replayOne(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("messageId")
	o, _, err := d.find(r.Context(), id)
	if err == nil {
		err = o.replay(r.Context(), operatorName(r), id)
	} else if errors.Is(err, deadletter.ErrNotFound) {
		// A letter that was replayed and handled meanwhile is fine: its own service knows.
		for _, o := range d.offices("") {
			if o.replay(r.Context(), operatorName(r), id) == nil {
				err = nil
				break
			}
		}
	}
	if err != nil {
		d.fail(w, err)
		return
	}
	page.Write(w, http.StatusAccepted, map[string]any{"replayed": 1})
}

// replayedAnswer is the answer to a replay of a batch.
type replayedAnswer struct {
	Replayed    int           `json:"replayed"`
	Unreachable []Unreachable `json:"unreachable,omitempty"`
}

func (d *desk) replayBatch(w http.ResponseWriter, r *http.Request) {
	size := 100
	if text := r.URL.Query().Get("batchSize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > batchMax {
			problem.Write(w, http.StatusBadRequest, "bad-batch-size", "The batch size is not usable", fmt.Sprintf("batchSize %.20q is not a number from 1 to %d", text, batchMax), nil)
			return
		}
		size = n
	}
	var answer replayedAnswer
	for _, o := range d.offices(r.URL.Query().Get("service")) {
		if answer.Replayed >= size {
			break
		}
		n, err := o.replayBatch(r.Context(), operatorName(r), r.URL.Query().Get("originalTopic"), size-answer.Replayed)
		answer.Replayed += n
		if err = missing(&answer.Unreachable, err); err != nil {
			d.fail(w, err)
			return
		}
	}
	page.Write(w, http.StatusAccepted, answer)
}

func (d *desk) discard(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	o, _, err := d.find(r.Context(), id)
	if err == nil {
		err = o.discard(r.Context(), operatorName(r), id)
	}
	if err != nil {
		d.fail(w, err)
		return
	}
	page.Write(w, http.StatusOK, map[string]any{"discarded": 1})
}

// replayOutbox has events published again that a broker refused: one key's, or a whole topic's.
func (d *desk) replayOutbox(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	service, topic, key := q.Get("service"), q.Get("topic"), q.Get("key")
	parking, peer := d.outboxes[service], d.peers[service]
	if parking == nil && peer == nil || topic == "" {
		problem.Write(w, http.StatusBadRequest, "bad-outbox", "The service or the topic is missing or unknown", "", nil)
		return
	}
	var n int
	var err error
	if parking != nil {
		n, err = parking.Replay(r.Context(), topic, key)
	} else {
		o := office{service: service, peer: peer, token: d.token}
		n, err = o.replayOutbox(r.Context(), operatorName(r), topic, key)
	}
	if err != nil {
		d.fail(w, err)
		return
	}
	d.log.Info("outbox replay", "service", service, "topic", topic, "aggregate_id", key, "operator", operatorName(r), "events", n)
	page.Write(w, http.StatusAccepted, map[string]any{"replayed": n})
}

func (d *desk) fail(w http.ResponseWriter, err error) {
	p, said := problem.As(err)
	switch {
	case said:
		p.Send(w)
	case errors.Is(err, ErrUnreachable):
		d.log.Warn("operator request cannot be answered", "err", err)
		unreachable(err).Send(w)
	case errors.Is(err, deadletter.ErrNotFound):
		problem.Write(w, http.StatusNotFound, "no-such-letter", "There is no such dead letter", "It was handled or discarded, or never was.", nil)
	case errors.Is(err, deadletter.ErrNotHead):
		problem.Write(w, http.StatusConflict, "letter-waits", "The letter waits behind another one of its key", err.Error(), nil)
	default:
		d.log.Error("operator request failed", "err", err)
		problem.Internal(err, "The request failed").Send(w)
	}
}
