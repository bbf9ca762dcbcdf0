package binary

import (
	"encoding/hex"
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
	"github.com/settledev/settle/sqlstore"
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

// subscribed are the topics that each service reads, as a group of its own name.
func subscribed() map[string][]string {
	return map[string][]string{
		"order":     {contract.OrderTopic, contract.InventoryTopic, contract.PaymentTopic, contract.ShippingTopic},
		"inventory": {contract.OrderTopic, contract.InventoryTopic, contract.ShippingTopic},
		"payment":   {contract.OrderTopic, contract.PaymentTopic, contract.ShippingTopic},
		"shipping":  {contract.OrderTopic, contract.ShippingTopic},
		"notify":    {contract.OrderTopic},
		"platform":  {contract.OrderTopic},
		"gateway": {
			contract.OrderTopic, contract.InventoryTopic, contract.PaymentTopic, contract.ShippingTopic, contract.CatalogTopic,
		},
	}
}

// Books opens a service's database, to read it while the shop may run. The reader closes it.
type Books func(t *testing.T, service string) *sqlstore.Store

// Files are the books of a shop whose databases are the files of a directory.
func Files(dir string) Books {
	return func(t *testing.T, service string) *sqlstore.Store {
		t.Helper()
		store, err := settlesqlite.OpenReader(t.Context(), filepath.Join(dir, service+".db"), settlesqlite.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
}

// Outbox reads a service's whole outbox, in order. The shop may run.
func Outbox(t *testing.T, dir, service string) []event.Envelope {
	t.Helper()
	return Files(dir).Outbox(t, service)
}

// CheckEvents is [Books.Check] of files.
func CheckEvents(t *testing.T, dir string) (events, orders int) {
	t.Helper()
	return Files(dir).Check(t)
}

// Outbox reads a service's whole outbox, in order.
func (b Books) Outbox(t *testing.T, service string) []event.Envelope {
	t.Helper()
	store := b(t, service)
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

// Feed reads every event that the gateway has handled, in the order it did.
func (b Books) Feed(t *testing.T) []Shown {
	t.Helper()
	store := b(t, "gateway")
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

// Check holds what every service emitted against what the gateway handled: each event once, in the
// order of its lane, and the order service's own events in an order that the rule of an order allows. It
// returns how many events and orders there are.
func (b Books) Check(t *testing.T) (events, orders int) {
	t.Helper()
	emitted := map[lane][]event.ID{}
	types := map[event.ID]string{}
	own := map[string][]string{} // the order service's events by order
	for _, service := range producers() {
		for _, e := range b.Outbox(t, service) {
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
	for _, s := range b.Feed(t) {
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

// CheckInboxes wants every group to have handled, of the events that were emitted on its topics, all of a type
// or none, as it has a handler for a type or not, and nothing else. It is no check of a shop where an event was
// discarded.
func (b Books) CheckInboxes(t *testing.T) {
	t.Helper()
	emitted := map[string]map[string][]string{} // by topic and type
	for _, service := range producers() {
		for _, e := range b.Outbox(t, service) {
			if emitted[e.Topic] == nil {
				emitted[e.Topic] = map[string][]string{}
			}
			emitted[e.Topic][e.Type] = append(emitted[e.Topic][e.Type], hex.EncodeToString(e.ID[:]))
		}
	}
	for group, topics := range subscribed() {
		handled := b.inbox(t, group)
		known := 0
		for _, topic := range topics {
			for name, ids := range emitted[topic] {
				missing := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return handled[id] })
				known += len(ids) - len(missing)
				if len(missing) > 0 && len(missing) < len(ids) {
					t.Errorf("%s has handled %s, but %d of %d not: %v", group, name, len(missing), len(ids), missing)
				}
			}
		}
		if known == 0 || len(handled) != known {
			t.Errorf("%s has handled %d events, %d of them emitted for it", group, len(handled), known)
		}
	}
}

// inbox reads the ids of the events that a group has handled.
func (b Books) inbox(t *testing.T, group string) map[string]bool {
	t.Helper()
	store := b(t, group)
	defer store.Close()
	column := "lower(hex(event_id))"
	if store.Dialect() == "postgres" {
		column = "replace(event_id::text, '-', '')"
	}
	rows, err := store.Query(t.Context(), "SELECT "+column+
		" FROM settle_inbox WHERE group_id IN (SELECT id FROM settle_inbox_group WHERE name = '"+group+"')")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	handled := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		handled[id] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return handled
}
