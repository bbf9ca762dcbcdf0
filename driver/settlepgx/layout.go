package settlepgx

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
)

// Layout says how rows of a table become events. Make one with [DebeziumLayout]; the zero Layout is settle's
// own outbox.
type Layout struct {
	// Table is the table that is read.
	Table string
	// foreign says that the table is not settle's: it has no windows to fall back to.
	foreign bool
	read    func(r *row, shard int) (outbox.Record, bool, error)
}

func (l Layout) reader(shard int) func(r *row) (outbox.Record, bool, error) {
	return func(r *row) (outbox.Record, bool, error) {
		if r.table.name != l.Table {
			return outbox.Record{}, false, nil // The publication has more tables than ours.
		}
		return l.read(r, shard)
	}
}

// columns reads a row column by column. The first error stays.
type columns struct {
	r   *row
	err error
}

func (c *columns) value(name string) value {
	v, ok := c.r.column(name)
	if !ok && c.err == nil {
		c.err = fmt.Errorf("table %s has no column %s", c.r.table.name, name)
	}
	return v
}

func (c *columns) text(name string) string { return string(c.value(name).data) }

func (c *columns) integer(name string) int64 {
	v := c.value(name)
	n, err := v.integer()
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("column %s: %w", name, err)
	}
	return n
}

func (c *columns) id(name string) (id event.ID) {
	v := c.value(name)
	var err error
	switch {
	case v.kind == 'n':
		return id
	case v.kind == 'b' && len(v.data) == len(id):
		copy(id[:], v.data)
	default:
		id, err = event.ParseID(string(v.data))
	}
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("column %s: %w", name, err)
	}
	return id
}

// bytes reads bytea, text and json alike; they are the message's own no longer.
func (c *columns) bytes(name string) []byte {
	v := c.value(name)
	if v.kind != 't' && v.kind != 'b' {
		return nil
	}
	return append([]byte(nil), v.data...)
}

// settleLayout is settle_outbox.
func settleLayout() Layout {
	return Layout{Table: "settle_outbox", read: func(r *row, shard int) (outbox.Record, bool, error) {
		c := columns{r: r}
		if c.integer("shard") != int64(shard) {
			return outbox.Record{}, false, c.err
		}
		return outbox.Record{
			CreatedAt: time.Unix(0, c.integer("created_at")).UTC(),
			Event: event.Envelope{
				ID: c.id("event_id"), Type: c.text("type"), Version: int(c.integer("version")), Topic: c.text("topic"),
				AggregateType: c.text("aggregate_type"), AggregateID: c.text("aggregate_id"),
				OccurredAt: time.Unix(0, c.integer("occurred_at")).UTC(), TraceParent: c.text("trace_parent"),
				CorrelationID: c.text("correlation_id"), CausationID: c.id("causation_id"),
				IdempotencyKey: c.text("idempotency_key"), Producer: c.text("producer"), Data: c.bytes("data"),
			},
		}, true, c.err
	}}
}

// DebeziumLayout is the default layout of Debezium's outbox event router: columns id, aggregatetype,
// aggregateid, type and payload. The topic is the aggregate's type with suffix (such as "-events") behind it;
// producer names whoever writes the table. Nothing else is in such a row: the version is 1, and an event
// happened when it was read. Rows that were inserted before the slot was made are not seen: name Debezium's
// own slot in the configuration, and the relay goes on where it was.
func DebeziumLayout(table, suffix, producer string) (Layout, error) {
	if err := event.CheckName(producer); err != nil {
		return Layout{}, fmt.Errorf("settlepgx: producer: %w", err)
	}
	if table == "" {
		return Layout{}, errors.New("settlepgx: the layout needs a table")
	}
	return Layout{Table: table, foreign: true, read: func(r *row, _ int) (outbox.Record, bool, error) {
		c := columns{r: r}
		now := time.Now().UTC().Truncate(time.Microsecond)
		kind := c.text("aggregatetype")
		e := event.Envelope{
			ID: c.id("id"), Type: c.text("type"), Version: 1, Topic: kind + suffix, AggregateType: kind,
			AggregateID: c.text("aggregateid"), OccurredAt: now, Producer: producer, Data: c.payload("payload"),
		}
		e.CorrelationID = e.ID.String()
		if c.err == nil && len(e.Data) > 0 && !json.Valid(e.Data) {
			c.err = fmt.Errorf("column payload is no JSON: %w", errWire)
		}
		return outbox.Record{CreatedAt: now, Event: e}, true, c.err
	}}, nil
}

// payload reads a column of type jsonb too, whose binary form begins with its version.
func (c *columns) payload(name string) []byte {
	b := c.bytes(name)
	if v := c.value(name); v.kind == 'b' && len(b) > 0 && b[0] == 1 {
		return b[1:]
	}
	return b
}
