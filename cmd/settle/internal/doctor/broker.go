package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/driver/settlekafka"
	"github.com/settledev/settle/event"
)

// brokerTimeout bounds the look at a broker.
const brokerTimeout = 20 * time.Second

// Broker looks at a broker: whether it answers, takes who we are, and, if it is Kafka, keeps what it takes.
func Broker(ctx context.Context, name, target string, c app.Carrier) []Finding {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	b, err := app.OpenBroker(ctx, target, c)
	var topics []Finding
	if err == nil {
		if k, ok := b.(*settlekafka.Broker); ok {
			topics = kafka(ctx, name, k, c)
		}
		err = b.Close()
	}
	if err != nil {
		do := app.Fault(err)
		if do == "" {
			do = "start the server, or mend the address"
		}
		return []Finding{{Fail, name, err.Error(), do}}
	}
	return append([]Finding{{OK, name, app.Redact(target) + " answers", ""}}, topics...)
}

// topicsMax bounds the topics that are looked at.
const topicsMax = 1000

// Topics looks at the topics of the events that an outbox keeps, of which a broker would refuse those whose name
// is not usable. Missing topics are made by the relay.
func Topics(ctx context.Context, d app.Database) []Finding {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	l := &look{d: d}
	var err error
	if l.db, err = d.Raw(); err != nil {
		return []Finding{{Fail, d.Name, err.Error(), "mend the URL"}}
	}
	defer l.db.Close()
	rows, err := l.db.QueryContext(ctx, fmt.Sprintf("SELECT DISTINCT topic FROM settle_outbox LIMIT %d", topicsMax))
	if err != nil {
		l.failed("topics", err)
		return l.all
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var topic string
		if err := rows.Scan(&topic); err != nil {
			l.failed("topics", err)
			return l.all
		}
		n++
		if err := event.CheckName(topic); err != nil {
			l.add(Warn, "correct whoever writes it: such events are parked", "topic %.140q of an event in the outbox: %v", topic, err)
		}
	}
	if err := rows.Err(); err != nil {
		l.failed("topics", err)
		return l.all
	}
	l.ok("%d topics in the outbox; the relay makes those that the broker lacks, where the broker lets it", n)
	return l.all
}
