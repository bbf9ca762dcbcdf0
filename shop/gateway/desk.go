package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/shop/problem"
)

// desk answers operators about services: those of this process, and those of its peers.
type desk struct {
	process  string // tells this process from its peers, which may be named in their own list
	letters  map[string]*deadletter.Queue
	outboxes map[string]relay.Parking
	peers    map[string]*Peer
	traffic  func(ctx context.Context) (map[string]Traffic, error)
	token    string
	log      *slog.Logger
}

// newDesk returns a desk. Its letters, outboxes and peers may be filled later, before it is asked.
func newDesk(d desk) *desk {
	d.process = rand.Text()
	return &d
}

// routes are the operator's routes of dead letters, of events that a broker refused, and of traffic. Another
// desk that asks is answered for this process alone: it asks everybody itself.
func (d *desk) routes() map[string]http.Handler {
	all := map[string]http.Handler{}
	alone := *d
	alone.peers = nil
	own := alone.handlers()
	for route, h := range d.handlers() {
		all[route] = d.operator(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(deskHeader) != "" {
				own[route](w, r)
				return
			}
			h(w, r)
		}))
	}
	return all
}

func (d *desk) handlers() map[string]http.HandlerFunc {
	all := map[string]http.HandlerFunc{
		"GET /api/dlq":                   d.listLetters,
		"GET /api/dlq/causes":            d.listCauses,
		"GET /api/dlq/audit":             d.listAudit,
		"GET /api/dlq/{id}":              d.showLetter,
		"POST /api/dlq/reprocess/single": d.replayOne,
		"POST /api/dlq/reprocess/batch":  d.replayBatch,
		"POST /api/dlq/{id}/discard":     d.discard,
		"POST /api/outbox/replay":        d.replayOutbox,
	}
	if d.traffic != nil {
		all["GET /internal/stats"] = d.serveTraffic
	}
	return all
}

// operator lets only bearers of the operator's token through.
func (d *desk) operator(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(d.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(token))
		switch {
		case d.token == "":
			problem.Write(w, http.StatusForbidden, "operator-routes-off", "No operator token is configured", "", nil)
		case !ok:
			w.Header().Set("WWW-Authenticate", "Bearer")
			problem.Write(w, http.StatusUnauthorized, "operator-only", "This route is for operators", "Send the operator's token as a bearer token.", nil)
		case subtle.ConstantTimeCompare(got[:], want[:]) != 1:
			problem.Write(w, http.StatusForbidden, "operator-only", "The token is not the operator's", "", nil)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// offices returns how operators reach the services that have letters, by name; with a name, only that one.
func (d *desk) offices(service string) []office {
	names := map[string]bool{}
	for name := range d.letters {
		names[name] = true
	}
	for name := range d.peers {
		names[name] = true
	}
	var all []office
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if service == "" || service == name {
			all = append(all, office{service: name, queue: d.letters[name], peer: d.peers[name], token: d.token})
		}
	}
	return all
}

// office is where operators reach one service's letters: in this process, or else behind its peer.
type office struct {
	service string
	queue   *deadletter.Queue // nil when the service runs elsewhere
	peer    *Peer
	token   string
}

func (o office) ask(ctx context.Context, method, path string, query url.Values, operator string, answer any) error {
	err := o.peer.ask(ctx, question{method, path, query, o.token, operator}, answer)
	if p, ok := problem.As(err); ok && p.Code == "no-such-letter" {
		return errors.Join(deadletter.ErrNotFound, err)
	}
	return err
}

func (o office) list(ctx context.Context, q deadletter.Query) ([]Letter, error) {
	if o.queue == nil {
		query := url.Values{
			"service": {o.service}, "originalTopic": {q.Topic}, "key": {q.Key}, "cause": {q.Cause}, "state": {string(q.State)},
			"limit": {strconv.Itoa(q.Limit)},
		}
		if q.After != "" {
			query.Set("after", o.service+"/"+q.After)
		}
		var answer page.Page[Letter]
		err := o.ask(ctx, http.MethodGet, "/api/dlq", query, "", &answer)
		return answer.Items, err
	}
	letters, err := o.queue.List(ctx, q)
	if err != nil {
		return nil, err
	}
	items := make([]Letter, len(letters))
	for i := range letters {
		items[i] = shown(o.service, letters[i])
	}
	return items, nil
}

func (o office) get(ctx context.Context, id string) (Letter, error) {
	if o.queue == nil {
		var l Letter
		err := o.ask(ctx, http.MethodGet, "/api/dlq/"+url.PathEscape(id), url.Values{"service": {o.service}}, "", &l)
		return l, err
	}
	l, err := o.queue.Get(ctx, id)
	return shown(o.service, l), err
}

func (o office) causes(ctx context.Context) ([]CauseCount, error) {
	if o.queue == nil {
		var answer page.Page[CauseCount]
		err := o.ask(ctx, http.MethodGet, "/api/dlq/causes", url.Values{"service": {o.service}}, "", &answer)
		return answer.Items, err
	}
	groups, err := o.queue.Groups(ctx)
	items := make([]CauseCount, len(groups))
	for i, g := range groups {
		items[i] = CauseCount{o.service, g.Topic, g.Cause, g.State, g.Count, g.First, g.Last}
	}
	return items, err
}

func (o office) audit(ctx context.Context, limit int) ([]AuditEntry, error) {
	if o.queue == nil {
		var answer page.Page[AuditEntry]
		err := o.ask(ctx, http.MethodGet, "/api/dlq/audit", url.Values{"service": {o.service}, "limit": {strconv.Itoa(limit)}}, "", &answer)
		return answer.Items, err
	}
	entries, err := o.queue.Audit(ctx, limit)
	items := make([]AuditEntry, len(entries))
	for i, e := range entries {
		items[i] = AuditEntry(e)
	}
	return items, err
}

func (o office) replay(ctx context.Context, operator, id string) error {
	if o.queue == nil {
		return o.ask(ctx, http.MethodPost, "/api/dlq/reprocess/single", url.Values{"messageId": {id}}, operator, &struct{}{})
	}
	return o.queue.Replay(ctx, operator, id)
}

func (o office) replayBatch(ctx context.Context, operator, topic string, n int) (int, error) {
	if o.queue == nil {
		query := url.Values{"service": {o.service}, "originalTopic": {topic}, "batchSize": {strconv.Itoa(n)}}
		var answer replayedAnswer
		err := o.ask(ctx, http.MethodPost, "/api/dlq/reprocess/batch", query, operator, &answer)
		return answer.Replayed, err
	}
	return o.queue.ReplayBatch(ctx, operator, topic, n)
}

func (o office) discard(ctx context.Context, operator, id string) error {
	if o.queue == nil {
		return o.ask(ctx, http.MethodPost, "/api/dlq/"+url.PathEscape(id)+"/discard", nil, operator, &struct{}{})
	}
	return o.queue.Discard(ctx, operator, id)
}

func (o office) replayOutbox(ctx context.Context, operator, topic, key string) (int, error) {
	var answer replayedAnswer
	err := o.ask(ctx, http.MethodPost, "/api/outbox/replay", url.Values{"service": {o.service}, "topic": {topic}, "key": {key}}, operator, &answer)
	return answer.Replayed, err
}
