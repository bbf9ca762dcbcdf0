package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// letters are the operator's routes of dead letters and of events that a broker refused.
func (s *Service) letters() map[string]http.Handler {
	all := map[string]http.Handler{}
	for route, h := range map[string]http.HandlerFunc{
		"GET /api/dlq":                   s.listLetters,
		"GET /api/dlq/causes":            s.listCauses,
		"GET /api/dlq/audit":             s.listAudit,
		"GET /api/dlq/{id}":              s.showLetter,
		"POST /api/dlq/reprocess/single": s.replayOne,
		"POST /api/dlq/reprocess/batch":  s.replayBatch,
		"POST /api/dlq/{id}/discard":     s.discard,
		"POST /api/outbox/replay":        s.replayOutbox,
	} {
		all[route] = s.operator(h)
	}
	return all
}

// services returns the names of the services whose letters are shown, in order.
func (s *Service) services(r *http.Request) []string {
	if name := r.URL.Query().Get("service"); name != "" {
		return []string{name}
	}
	return slices.Sorted(maps.Keys(s.cfg.Letters))
}

// operatorName is who the audit names: the header X-Operator, or "operator".
func operatorName(r *http.Request) string {
	if name := r.Header.Get("X-Operator"); name != "" && len(name) <= 64 {
		return name
	}
	return "operator"
}

// find returns the queue that holds a letter.
func (s *Service) find(ctx context.Context, id string) (string, *deadletter.Queue, deadletter.Letter, error) {
	_, identity, _ := strings.Cut(id, ":")
	if _, err := event.ParseID(identity); err != nil {
		return "", nil, deadletter.Letter{}, deadletter.ErrNotFound // No letter has such an id.
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Letters)) {
		l, err := s.cfg.Letters[name].Get(ctx, id)
		if errors.Is(err, deadletter.ErrNotFound) {
			continue
		}
		return name, s.cfg.Letters[name], l, err
	}
	return "", nil, deadletter.Letter{}, deadletter.ErrNotFound
}

func (s *Service) listLetters(w http.ResponseWriter, r *http.Request) {
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
	items := []Letter{}
	for _, name := range s.services(r) {
		queue := s.cfg.Letters[name]
		if queue == nil || name < from {
			continue
		}
		query.After = ""
		if name == from {
			query.After = after
		}
		query.Limit = ask.Limit - len(items)
		if query.Limit == 0 {
			break
		}
		letters, err := queue.List(r.Context(), query)
		if err != nil {
			s.fail(w, err)
			return
		}
		for _, l := range letters {
			items = append(items, shown(name, l))
		}
	}
	page.Write(w, http.StatusOK, page.New(ask, items, func(l Letter) string { return l.Service + "/" + l.MessageID }))
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

func (s *Service) listCauses(w http.ResponseWriter, r *http.Request) {
	items := []CauseCount{}
	for _, name := range s.services(r) {
		queue := s.cfg.Letters[name]
		if queue == nil {
			continue
		}
		groups, err := queue.Groups(r.Context())
		if err != nil {
			s.fail(w, err)
			return
		}
		for _, g := range groups {
			items = append(items, CauseCount{name, g.Topic, g.Cause, g.State, g.Count, g.First, g.Last})
		}
	}
	page.Write(w, http.StatusOK, page.Page[CauseCount]{Items: items})
}

func (s *Service) listAudit(w http.ResponseWriter, r *http.Request) {
	ask, err := page.Parse(r)
	if err != nil {
		problem.Write(w, http.StatusBadRequest, "bad-page", "The page cannot be read", err.Error(), nil)
		return
	}
	all := []AuditEntry{}
	for _, name := range s.services(r) {
		if queue := s.cfg.Letters[name]; queue != nil {
			entries, err := queue.Audit(r.Context(), ask.Limit)
			if err != nil {
				s.fail(w, err)
				return
			}
			for _, e := range entries {
				all = append(all, AuditEntry(e))
			}
		}
	}
	slices.SortStableFunc(all, func(a, b AuditEntry) int { return b.At.Compare(a.At) })
	page.Write(w, http.StatusOK, map[string]any{"items": all[:min(len(all), ask.Limit)]})
}

func (s *Service) showLetter(w http.ResponseWriter, r *http.Request) {
	name, _, l, err := s.find(r.Context(), r.PathValue("id"))
	if err != nil {
		s.fail(w, err)
		return
	}
	page.Write(w, http.StatusOK, shown(name, l))
}

func (s *Service) replayOne(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("messageId")
	var err error
	if _, queue, _, ferr := s.find(r.Context(), id); ferr == nil {
		err = queue.Replay(r.Context(), operatorName(r), id)
	} else {
		// A letter that was replayed and handled meanwhile is fine: its own service knows.
		err = ferr
		for _, queue := range s.cfg.Letters {
			if queue.Replay(r.Context(), operatorName(r), id) == nil {
				err = nil
				break
			}
		}
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	page.Write(w, http.StatusAccepted, map[string]any{"replayed": 1})
}

func (s *Service) replayBatch(w http.ResponseWriter, r *http.Request) {
	size := 100
	if text := r.URL.Query().Get("batchSize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > batchMax {
			problem.Write(w, http.StatusBadRequest, "bad-batch-size", "The batch size is not usable", fmt.Sprintf("batchSize %.20q is not a number from 1 to %d", text, batchMax), nil)
			return
		}
		size = n
	}
	replayed := 0
	for _, name := range s.services(r) {
		queue := s.cfg.Letters[name]
		if queue == nil || replayed >= size {
			continue
		}
		n, err := queue.ReplayBatch(r.Context(), operatorName(r), r.URL.Query().Get("originalTopic"), size-replayed)
		replayed += n
		if err != nil {
			s.fail(w, err)
			return
		}
	}
	page.Write(w, http.StatusAccepted, map[string]any{"replayed": replayed})
}

func (s *Service) discard(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	_, queue, _, err := s.find(r.Context(), id)
	if err == nil {
		err = queue.Discard(r.Context(), operatorName(r), id)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	page.Write(w, http.StatusOK, map[string]any{"discarded": 1})
}

// replayOutbox has events published again that a broker refused: one key's, or a whole topic's.
func (s *Service) replayOutbox(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	parking := s.cfg.Outboxes[q.Get("service")]
	if parking == nil || q.Get("topic") == "" {
		problem.Write(w, http.StatusBadRequest, "bad-outbox", "The service or the topic is missing or unknown", "", nil)
		return
	}
	n, err := parking.Replay(r.Context(), q.Get("topic"), q.Get("key"))
	if err != nil {
		s.fail(w, err)
		return
	}
	s.log.Info("outbox replay", "service", q.Get("service"), "topic", q.Get("topic"), "aggregate_id", q.Get("key"), "operator", operatorName(r), "events", n)
	page.Write(w, http.StatusAccepted, map[string]any{"replayed": n})
}

func (s *Service) fail(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, deadletter.ErrNotFound):
		problem.Write(w, http.StatusNotFound, "no-such-letter", "There is no such dead letter", "It was handled or discarded, or never was.", nil)
	case errors.Is(err, deadletter.ErrNotHead):
		problem.Write(w, http.StatusConflict, "letter-waits", "The letter waits behind another one of its key", err.Error(), nil)
	default:
		s.log.Error("operator request failed", "err", err)
		problem.Write(w, http.StatusInternalServerError, "internal", "The request failed", "", nil)
	}
}
