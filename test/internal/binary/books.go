package binary

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/replay"
)

// ReadReport reads the reconciliation that a replay wrote.
func ReadReport(t *testing.T, path string) replay.Report {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r replay.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return r
}

// producers are the services that emit events.
func producers() []string {
	return []string{"order", "inventory", "payment", "shipping", "catalog"}
}

// Outbox reads a service's whole outbox, in order. The shop may run.
func Outbox(t *testing.T, dir, service string) []event.Envelope {
	t.Helper()
	store, err := settlesqlite.OpenReader(t.Context(), filepath.Join(dir, service+".db"), settlesqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	lister, ok := store.Outbox().(relay.Lister)
	if !ok {
		t.Fatalf("outbox %T cannot be listed", store.Outbox())
	}
	var all []event.Envelope
	for after := (outbox.Position{}); ; {
		entries, err := lister.List(t.Context(), "", after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Record.Event)
			after = e.Record.Position
		}
		if len(entries) == 0 {
			return all
		}
	}
}

// Shown is an event as the gateway's feed keeps it.
type Shown struct {
	ID       event.ID
	Type     string
	Topic    string
	Key      string
	Producer string
	Data     json.RawMessage
}

// Feed reads every event that the gateway has handled, in the order it did. The shop may run.
func Feed(t *testing.T, dir string) []Shown {
	t.Helper()
	store, err := settlesqlite.OpenReader(t.Context(), filepath.Join(dir, "gateway.db"), settlesqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var all []Shown
	for position := int64(0); ; {
		frames, err := store.Feed().After(t.Context(), "", position, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			var s Shown
			if err := json.Unmarshal(f.Data, &s); err != nil {
				t.Fatalf("frame %d: %v", f.Position, err)
			}
			all, position = append(all, s), f.Position
		}
		if len(frames) == 0 {
			return all
		}
	}
}

// lane is where order is guaranteed: one producer, topic and key.
type lane struct{ producer, topic, key string }

// CheckEvents holds what every service emitted against what the gateway handled: each event once, in the
// order of its lane, and the order service's own events in an order that the rule of an order allows. It
// returns how many events and orders there are.
func CheckEvents(t *testing.T, dir string) (events, orders int) {
	t.Helper()
	emitted := map[lane][]event.ID{}
	types := map[event.ID]string{}
	own := map[string][]string{} // the order service's events by order
	for _, service := range producers() {
		for _, e := range Outbox(t, dir, service) {
			if other, ok := types[e.ID]; ok {
				t.Errorf("event %s was emitted twice: as %s and as %s", e.ID, other, e.Type)
			}
			types[e.ID] = e.Type
			l := lane{e.Producer, e.Topic, e.AggregateID}
			emitted[l] = append(emitted[l], e.ID)
			if service == "order" {
				own[e.AggregateID] = append(own[e.AggregateID], e.Type)
			}
		}
	}
	handled := map[lane][]event.ID{}
	for _, s := range Feed(t, dir) {
		if types[s.ID] != s.Type {
			t.Errorf("the gateway handled %s %s, emitted was %q", s.ID, s.Type, types[s.ID])
		}
		l := lane{s.Producer, s.Topic, s.Key}
		handled[l] = append(handled[l], s.ID)
	}
	for l, ids := range emitted {
		if !slices.Equal(ids, handled[l]) {
			t.Errorf("%v: emitted %v, handled %v", l, ids, handled[l])
		}
	}
	if len(handled) > len(emitted) {
		t.Errorf("%d lanes handled, %d emitted", len(handled), len(emitted))
	}
	for key, names := range own {
		if problem := Illegal(names); problem != "" {
			t.Errorf("order %s: %s: %v", key, problem, names)
		}
		if names[0] == contract.OrderCreated.Name() {
			orders++
		}
	}
	return len(types), orders
}
