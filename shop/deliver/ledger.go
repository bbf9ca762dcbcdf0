package deliver

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/shop/page"
	"github.com/settledev/settle/txn"
)

// Ledger is a service's book of deliveries: a row and a prepared call for each event, so that each is
// handed over until the platform has it, without slowing what caused it.
type Ledger struct {
	kind  string
	sql   Statements
	calls *call.Def[Delivery, Receipt]
	log   *slog.Logger
}

// Statements are the SQL of a ledger's table, which belongs to the service.
type Statements struct {
	Insert string // event id, order id, time; it affects one row only if the event has none yet
	Finish string // state, event id
	List   string // after, limit: event id, order id, state
}

// Entry is a delivery as it stands.
type Entry struct {
	EventID string `json:"eventId"`
	OrderID string `json:"orderId"`
	State   string `json:"state"`
}

// NewLedger returns the book of deliveries of a kind. timeout bounds one call, inFlight the concurrent
// ones; zero means the defaults of package call.
func NewLedger(kind string, c *Client, s Statements, timeout time.Duration, inFlight int, log *slog.Logger) *Ledger {
	if log == nil {
		log = slog.Default()
	}
	l := &Ledger{kind: kind, sql: s, log: log}
	l.calls = call.Define("deliver-"+kind, call.Spec[Delivery, Receipt]{
		Do: c.Deliver, Record: l.record, Timeout: timeout, InFlight: inFlight,
	})
	return l
}

// Call returns the definition that the service performs.
func (l *Ledger) Call() *call.Def[Delivery, Receipt] { return l.calls }

// Send stores the delivery of an event about an order, in the hop that handles it.
func (l *Ledger) Send(ctx context.Context, tx *txn.Tx, e event.Envelope, orderID string) error {
	id := e.ID.String()
	n, err := tx.Exec(ctx, l.sql.Insert, id, orderID, tx.Now().UnixMilli())
	if err != nil || n != 1 {
		return err // The event's delivery is there already.
	}
	return call.Prepare(ctx, tx, l.calls, id, Delivery{EventID: id, Kind: l.kind, Reference: orderID, Data: json.RawMessage(e.Data)})
}

func (l *Ledger) record(ctx context.Context, tx *txn.Tx, o call.Outcome[Delivery, Receipt]) error {
	state := "SENT"
	if o.Err != nil {
		l.log.Error("platform refused a delivery for good", "event_id", o.Key, "err", o.Err)
		state = "REFUSED"
	}
	_, err := tx.Exec(ctx, l.sql.Finish, state, o.Key) // The key is the event's id, also when the request is lost.
	return err
}

// List serves the ledger as pages.
func (l *Ledger) List(db page.Reader) http.Handler {
	return page.List(db, l.sql.List, func(rows txn.Rows) (e Entry, err error) {
		return e, rows.Scan(&e.EventID, &e.OrderID, &e.State)
	}, func(e Entry) string { return e.EventID })
}
