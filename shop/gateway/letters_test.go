package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/deadletter"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

// park gives a service n dead letters of one key: the first is dead, the others wait behind it.
func (r *rig) park(service, key, cause string, n int) []string {
	r.t.Helper()
	s := r.letters[service]
	now := time.Now()
	var ids []string
	if err := s.Run(r.t.Context(), func(ctx context.Context, tx *txn.Tx) error {
		for i := range n {
			l := deadletter.Letter{
				Group: service, Partition: "order-events/0", Position: fmt.Sprint(i), State: deadletter.StateWaiting,
				FirstAt: now, LastAt: now, NextAt: now,
				Event: event.Envelope{
					ID: event.NewID(now), Type: "OrderPaid", Version: 1, Topic: "order-events", AggregateType: "order", AggregateID: key,
					OccurredAt: now.UTC(), Producer: "order", Data: []byte("{}"),
				},
			}
			if i == 0 {
				l.State, l.Attempts, l.Cause = deadletter.StateDead, 10, cause
			}
			ids = append(ids, l.ID())
			if err := s.Letters().Park(ctx, tx, l); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return ids
}

func (r *rig) list(query string) page.Page[Letter] {
	r.t.Helper()
	w := r.operate("GET /api/dlq?" + query)
	if w.Code != http.StatusOK {
		r.t.Fatalf("list %s: %d %s", query, w.Code, w.Body)
	}
	return decoded[page.Page[Letter]](r.t, w)
}

func TestLettersArePaged(t *testing.T) {
	r := newRig(t)
	want := append(r.park("order", "1", "boom", 3), r.park("payment", "2", "bang", 2)...)
	for size := 1; size <= 6; size++ {
		var got []string
		after := ""
		for range 10 {
			p := r.list(fmt.Sprintf("limit=%d&after=%s", size, after))
			for _, l := range p.Items {
				got = append(got, l.MessageID)
			}
			if after = p.Next; after == "" {
				break
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("pages of %d give\n%v, want\n%v", size, got, want)
		}
	}
	if p := r.list("service=payment&state=DEAD"); len(p.Items) != 1 || p.Items[0].Service != "payment" || p.Items[0].Cause != "bang" || p.Items[0].Attempts != 10 {
		t.Errorf("filtered: %+v", p.Items)
	}
	if p := r.list("service=nobody"); p.Items == nil || len(p.Items) != 0 {
		t.Errorf("of no service: %+v", p)
	}
	wantProblem(t, r.operate("GET /api/dlq?limit=0"), http.StatusBadRequest, "bad-page")
}

func TestShowLetterAndCauses(t *testing.T) {
	r := newRig(t)
	id := r.park("payment", "2", "bang", 2)[0]
	l := decoded[Letter](t, r.operate("GET /api/dlq/"+id))
	if l.MessageID != id || l.Service != "payment" || l.State != deadletter.StateDead || l.Topic != "order-events" || l.Key != "2" || l.NextAt != nil {
		t.Errorf("letter is %+v", l)
	}
	wantProblem(t, r.operate("GET /api/dlq/payment:nothing"), http.StatusNotFound, "no-such-letter")
	causes := decoded[page.Page[CauseCount]](t, r.operate("GET /api/dlq/causes")).Items
	dead := int64(0)
	for _, c := range causes {
		if c.Cause == "bang" && c.State == deadletter.StateDead && c.Service == "payment" {
			dead += c.Count
		}
	}
	if dead != 1 {
		t.Errorf("causes are %+v", causes)
	}
}

func TestReplayOne(t *testing.T) {
	r := newRig(t)
	ids := r.park("order", "1", "boom", 2)
	wantProblem(t, r.operate("POST /api/dlq/reprocess/single?messageId="+ids[1]), http.StatusConflict, "letter-waits")
	w := r.operate("POST /api/dlq/reprocess/single?messageId=" + ids[0])
	if w.Code != http.StatusAccepted {
		t.Fatalf("replay: %d %s", w.Code, w.Body)
	}
	if l := decoded[Letter](t, r.operate("GET /api/dlq/"+ids[0])); l.State != deadletter.StateRetrying || l.NextAt == nil {
		t.Errorf("the replayed letter is %+v", l)
	}
	wantProblem(t, r.operate("POST /api/dlq/reprocess/single?messageId=order:none"), http.StatusNotFound, "no-such-letter")
	audit := decoded[page.Page[AuditEntry]](t, r.operate("GET /api/dlq/audit")).Items
	if len(audit) != 1 || audit[0].Operator != "eve" || audit[0].Action != "replay" || audit[0].Letter != ids[0] || audit[0].At.IsZero() {
		t.Errorf("audit is %+v", audit)
	}
}

func TestReplayBatchIsBounded(t *testing.T) {
	r := newRig(t)
	for i := range 4 {
		r.park("order", fmt.Sprint("o", i), "boom", 1)
		r.park("payment", fmt.Sprint("p", i), "boom", 1)
	}
	type answer struct{ Replayed int }
	if a := decoded[answer](t, r.operate("POST /api/dlq/reprocess/batch?batchSize=5&originalTopic=order-events")); a.Replayed != 5 {
		t.Errorf("replayed %d, want 5", a.Replayed)
	}
	if n := len(r.list("state=DEAD").Items); n != 3 {
		t.Errorf("%d are dead still, want 3", n)
	}
	if a := decoded[answer](t, r.operate("POST /api/dlq/reprocess/batch?originalTopic=other-events")); a.Replayed != 0 {
		t.Errorf("replayed %d of another topic", a.Replayed)
	}
	if a := decoded[answer](t, r.operate("POST /api/dlq/reprocess/batch")); a.Replayed != 3 {
		t.Errorf("replayed %d, want the rest", a.Replayed)
	}
	for _, size := range []string{"0", "1001", "-1", "many"} {
		wantProblem(t, r.operate("POST /api/dlq/reprocess/batch?batchSize="+size), http.StatusBadRequest, "bad-batch-size")
	}
}

func TestDiscard(t *testing.T) {
	r := newRig(t)
	ids := r.park("payment", "2", "bang", 2)
	if w := r.operate("POST /api/dlq/" + ids[0] + "/discard"); w.Code != http.StatusOK {
		t.Fatalf("discard: %d %s", w.Code, w.Body)
	}
	wantProblem(t, r.operate("GET /api/dlq/"+ids[0]), http.StatusNotFound, "no-such-letter")
	if l := decoded[Letter](t, r.operate("GET /api/dlq/"+ids[1])); l.State != deadletter.StateRetrying {
		t.Errorf("the next one is %s", l.State)
	}
	wantProblem(t, r.operate("POST /api/dlq/"+ids[0]+"/discard"), http.StatusNotFound, "no-such-letter")
}

// replays is an outbox that counts the replays it is asked for.
type replays struct {
	relay.Parking
	asked []string
}

func (p *replays) Replay(_ context.Context, topic, key string) (int, error) {
	p.asked = append(p.asked, topic+"/"+key)
	return 7, nil
}

func TestReplayOutbox(t *testing.T) {
	parked := &replays{}
	r := newRig(t, func(c *Config) { c.Outboxes["order"] = parked })
	w := r.operate("POST /api/outbox/replay?service=order&topic=order-events&key=1")
	if a := decoded[struct{ Replayed int }](t, w); w.Code != http.StatusAccepted || a.Replayed != 7 || fmt.Sprint(parked.asked) != "[order-events/1]" {
		t.Errorf("replay: %d %s, asked %v", w.Code, w.Body, parked.asked)
	}
	for _, query := range []string{"", "service=order", "service=nobody&topic=order-events", "topic=order-events"} {
		wantProblem(t, r.operate("POST /api/outbox/replay?"+query), http.StatusBadRequest, "bad-outbox")
	}
}
