package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/settledev/settle"
	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlepgx"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// selectOutbox has the columns that a relay reads, in one scan.
const selectOutbox = `SELECT id, created_at, event_id, type, version, topic, aggregate_type, aggregate_id,
	occurred_at, trace_parent, correlation_id, causation_id, idempotency_key, producer, data FROM settle_outbox`

// drainOn carries backlogs to a null sink and, with a broker, to that.
func drainOn(ctx context.Context, o on) (_ []Result, err error) {
	small, large, err := o.backlogs(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, small.Close(), large.Close()) }()
	var null, raw, long []float64
	for range drains { // In turn.
		for _, step := range []struct {
			to      *[]float64
			measure func() (float64, error)
		}{
			{&null, func() (float64, error) { return again(ctx, small, nullSink{}, backlogSmall) }},
			{&raw, func() (float64, error) { return selectRate(ctx, small) }},
			{&long, func() (float64, error) { return again(ctx, large, nullSink{}, backlogLarge) }},
		} {
			rate, err := step.measure()
			if err != nil {
				return nil, err
			}
			*step.to = append(*step.to, rate)
		}
	}
	one := result("relay/postgres/null", "events/s", mean(null), mean(raw), "a SELECT of the same rows", "ratio >= 0.7", mean(null)/mean(raw) >= 0.7)
	one.Detail = o.server + ", " + spread(null) + ", SELECT " + spread(raw)
	share := mean(long) / mean(null)
	two := result(fmt.Sprintf("relay/postgres/%d-rows", backlogLarge), "events/s", mean(long), mean(null),
		fmt.Sprintf("a backlog of %d rows", backlogSmall), "ratio 0.9 to 1.1", share >= 0.9 && share <= 1.1)
	two.Detail = spread(long)
	all := []Result{one, two}
	if o.Broker != "" {
		r, err := o.drainBroker(ctx, small)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// backlogs fills two databases. They are vacuumed, so that no reader has to mark rows.
func (o on) backlogs(ctx context.Context) (small, large *sqlstore.Store, err error) {
	if small, err = o.backlog(ctx, "small", backlogSmall); err != nil {
		return nil, nil, err
	}
	if large, err = o.backlog(ctx, "large", backlogLarge); err != nil {
		return nil, nil, errors.Join(err, small.Close())
	}
	return small, large, nil
}

func (o on) backlog(ctx context.Context, name string, n int) (*sqlstore.Store, error) {
	s, err := o.open(ctx, name)
	if err != nil {
		return nil, err
	}
	err = fill(ctx, s, n)
	if err == nil {
		var rows txn.Rows
		if rows, err = s.Query(ctx, "VACUUM ANALYZE settle_outbox"); err == nil {
			err = errors.Join(rows.Err(), rows.Close())
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// again carries all events from the first on.
func again(ctx context.Context, s *sqlstore.Store, to broker.Publisher, n int) (float64, error) {
	if err := rewind(ctx, s); err != nil {
		return 0, err
	}
	return carry(ctx, s, to, n)
}

// selectRate reads all rows by one statement, into envelopes as the relay does.
func selectRate(ctx context.Context, s *sqlstore.Store) (_ float64, err error) {
	began, n := time.Now(), 0
	rows, err := s.Query(ctx, selectOutbox)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e event.Envelope
		var id, created, occurred int64
		var eventID, cause []byte
		if err := rows.Scan(&id, &created, &eventID, &e.Type, &e.Version, &e.Topic, &e.AggregateType, &e.AggregateID, &occurred,
			&e.TraceParent, &e.CorrelationID, &cause, &e.IdempotencyKey, &e.Producer, &e.Data); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds(), rows.Err()
}

// drainBroker carries the small backlog to the broker, beside messages without an outbox.
func (o on) drainBroker(ctx context.Context, s *sqlstore.Store) (_ Result, err error) {
	b, err := o.carrier(ctx, "relay")
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	to, ok := b.(broker.Publisher)
	if !ok {
		return Result{}, fmt.Errorf("broker %s takes no messages", o.scheme())
	}
	if _, err := publishDirect(ctx, to, 5000); err != nil { // The topic is made.
		return Result{}, err
	}
	var ours, direct []float64
	for range drains {
		rate, err := again(ctx, s, to, backlogSmall)
		if err != nil {
			return Result{}, err
		}
		ours = append(ours, rate)
		if rate, err = publishDirect(ctx, to, backlogSmall); err != nil {
			return Result{}, err
		}
		direct = append(direct, rate)
	}
	r := result("relay/postgres/"+o.scheme(), "events/s", mean(ours), mean(direct), "publishing prepared messages in batches", "", true)
	r.Detail = spread(ours) + ", direct " + spread(direct)
	return r, nil
}

// tailed is a store whose outbox is heard of from the write-ahead log.
type tailed struct {
	*sqlstore.Store

	wal *settlepgx.WAL
}

// Outbox implements [relay.Provider].
func (t tailed) Outbox() relay.Source { return t.wal }

// hopsOn measures the time from commit to handler through the broker, by windows and by the write-ahead log, beside
// a producer that publishes by itself.
func hopsOn(ctx context.Context, o on) ([]Result, error) {
	if o.Broker == "" {
		return nil, errors.New("hop on a server needs --broker URL")
	}
	if _, err := o.hopDirect(ctx, "warm"); err != nil { // A broker on a virtual machine compiles itself first.
		return nil, err
	}
	const runs = 3
	p50s, p99s := map[string][]float64{}, map[string][]float64{}
	for run := range runs { // In turn.
		for _, mode := range []string{"window", "wal", "direct"} {
			name := fmt.Sprintf("%s_%d", mode, run)
			var took []time.Duration
			var err error
			if mode == "direct" {
				took, err = o.hopDirect(ctx, name)
			} else {
				took, err = o.hop(ctx, mode, name)
			}
			if err != nil {
				return nil, err
			}
			p50s[mode], p99s[mode] = append(p50s[mode], percentile(took, 0.5)), append(p99s[mode], percentile(took, 0.99))
		}
	}
	// The middle one of the runs: a mean would be that of a neighbour's burst.
	middle := func(all []float64) float64 { return slices.Sorted(slices.Values(all))[runs/2] }
	const of = "the same without outbox and inbox: a producer that publishes after its commit"
	var all []Result
	for mode, limits := range map[string][2]float64{"window": {3, 12}, "wal": {3, 6}} {
		for i, values := range []map[string][]float64{p50s, p99s} {
			ours, percent := middle(values[mode]), [2]string{"p50", "p99"}[i]
			r := result("hop/postgres-"+o.scheme()+"/"+mode+"/"+percent, "ms", ours, middle(values["direct"]), of,
				fmt.Sprintf("%s <= %g ms", percent, limits[i]), ours <= limits[i])
			r.Detail = fmt.Sprintf("%s, runs %.1f, without %.1f", o.server, values[mode], values["direct"])
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Result) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// pipe is two stores and the broker between them.
type pipe struct {
	from, to *sqlstore.Store
	b        broker.Broker
}

func (o on) pipe(ctx context.Context, name string) (p pipe, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.from, err = o.open(ctx, "from_"+name); err != nil {
		return p, err
	}
	if p.to, err = o.open(ctx, "to_"+name); err != nil {
		return p, err
	}
	p.b, err = o.carrier(ctx, name)
	return p, err
}

func (p pipe) close() (err error) {
	if p.b != nil {
		err = p.b.Close()
	}
	for _, s := range []*sqlstore.Store{p.from, p.to} {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	return err
}

func (o on) hop(ctx context.Context, mode, name string) (took []time.Duration, err error) {
	p, err := o.pipe(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var producer settle.Store = p.from
	if mode == "wal" {
		target, err := o.target("from_" + name)
		if err != nil {
			return nil, err
		}
		slot := "settle_bench_" + o.id + "_" + name
		wal, err := settlepgx.NewWAL(p.from, target, settlepgx.WALConfig{Slot: slot})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, o.dropSlot(slot)) }()
		producer = tailed{p.from, wal}
	}
	took, _, err = through(ctx, producer, p.to, p.b, businessOn)
	return took, err
}

// dropSlot ends what would keep the server's log for ever.
func (o on) dropSlot(slot string) error {
	var n int
	return o.looker.QueryRow(context.Background(),
		"SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name = $1", []any{slot}, &n)
}
