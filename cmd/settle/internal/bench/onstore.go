package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/sqlstore"
	"github.com/settledev/settle/txn"
)

// tableOn is table for PostgreSQL, with keys for 64 clients.
const tableOn = `CREATE TABLE sale (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n integer NOT NULL, note text NOT NULL);
CREATE TABLE account (id text PRIMARY KEY, n integer NOT NULL) WITH (fillfactor = 50);
INSERT INTO account SELECT 'key-' || n, 0 FROM generate_series(0, 9999) n;`

const (
	insertSaleOn = `INSERT INTO sale (n, note) VALUES ($1, $2)`
	businessOn   = `UPDATE account SET n = n + 1 WHERE id = $1`
)

// The backlogs of the relay's benchmark, and how often it is read.
const (
	backlogSmall = 100_000
	backlogLarge = 2_000_000
	drains       = 3
)

// publishOn compares the server's CPU of a transaction with and without an event, and measures inserts of 20.
func publishOn(ctx context.Context, o on) ([]Result, error) {
	s, err := o.open(ctx, "publish")
	if err != nil {
		return nil, err
	}
	var all []Result
	for _, clients := range []int{16, clientsMax} {
		for _, updates := range []int{linesPerOrder, 2} {
			r, err := o.pair(ctx, s, clients, updates)
			if err != nil {
				return nil, errors.Join(err, s.Close())
			}
			all = append(all, r)
		}
	}
	r, err := twenties(ctx, s)
	return append(all, r), errors.Join(err, s.Close())
}

// pair lets transactions with an event and without take turns; the spread is that of the turns' ratios.
func (o on) pair(ctx context.Context, s *sqlstore.Store, clients, updates int) (Result, error) {
	const rounds, each = 6, 4000
	var used [2][]float64
	for round := range rounds + 1 { // The first one warms.
		for i, add := range []bool{false, true} {
			before, err := o.cpu()
			if err != nil {
				return Result{}, err
			}
			if err := transactionsOn(ctx, s, clients, each, updates, add); err != nil {
				return Result{}, err
			}
			after, err := o.cpu()
			if err != nil {
				return Result{}, err
			}
			if round > 0 {
				used[i] = append(used[i], per(after-before, each))
			}
		}
	}
	var ratios []float64
	for i := range rounds {
		ratios = append(ratios, used[1][i]/used[0][i])
	}
	without, with := mean(used[0]), mean(used[1])
	r := result(fmt.Sprintf("publish/postgres/%d-clients/%d-updates", clients, updates), "us server CPU per tx", with, without,
		fmt.Sprintf("the same transaction, an insert and %d updates, without the event", updates), "ratio <= 1.25", with/without <= 1.25)
	r.Detail = fmt.Sprintf("%s, ratios of the turns %.2f to %.2f", o.server, slices.Min(ratios), slices.Max(ratios))
	return r, nil
}

func mean(all []float64) (sum float64) {
	for _, v := range all {
		sum += v
	}
	return sum / float64(len(all))
}

// transactionsOn runs n transactions, a round trip for each statement. Neighbours in time have no row in common.
func transactionsOn(ctx context.Context, s *sqlstore.Store, clients, n, updates int, add bool) error {
	t := happened()
	return parallel(clients, n, func(i int) error {
		return s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
			tx.Bind("bench", nil)
			if _, err := tx.Exec(ctx, insertSaleOn, i, text); err != nil {
				return err
			}
			for l := range updates {
				if _, err := tx.Exec(ctx, businessOn, fmt.Sprintf("key-%d", (i*updates+l)%10_000)); err != nil {
					return err
				}
			}
			if !add {
				return nil
			}
			return outbox.Add(ctx, tx, t.New(thing{key(i), i, text}))
		})
	})
}

func parallel(clients, n int, fn func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for c := range clients {
		wg.Go(func() {
			for i := c; i < n && errs[c] == nil; i += clients {
				errs[c] = fn(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// twenties inserts 20 events in each transaction.
func twenties(ctx context.Context, s *sqlstore.Store) (Result, error) {
	const n, each, clients = 10_000, 20, 8
	t := happened()
	var rates []float64
	for range 4 {
		began := time.Now()
		err := parallel(clients, n, func(i int) error {
			return s.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
				tx.Bind("bench", nil)
				drafts := make([]event.Draft, each)
				for l := range drafts {
					drafts[l] = t.New(thing{key(i + l), i, text})
				}
				return outbox.Add(ctx, tx, drafts...)
			})
		})
		if err != nil {
			return Result{}, err
		}
		rates = append(rates, n*each/time.Since(began).Seconds())
	}
	r := result("publish/postgres/20-events", "events/s", mean(rates), 0, "", ">= 100,000 events/s", mean(rates) >= 100_000)
	r.Detail = spread(rates)
	return r, nil
}

func spread(rates []float64) string {
	return fmt.Sprintf("%.0f to %.0f in %d runs", slices.Min(rates), slices.Max(rates), len(rates))
}

// consumeOn handles a topic that lies ready in memory, with an inbox and without; handlers queue their statement.
func consumeOn(ctx context.Context, o on) ([]Result, error) {
	const n, rounds = 60_000, 3
	var rates, used [2][]float64
	for round := range rounds { // In turn.
		for i, mode := range []consumer.Mode{consumer.ExactlyOnce, consumer.AtLeastOnce} {
			s, err := o.open(ctx, fmt.Sprintf("consume_%d_%d", round, i))
			if err != nil {
				return nil, err
			}
			before, err := o.cpu()
			if err != nil {
				return nil, errors.Join(err, s.Close())
			}
			rate, err := handleAll(ctx, s, mode, n, func(_ context.Context, tx *txn.Tx, e event.Envelope) error {
				tx.Queue(businessOn, e.AggregateID)
				return nil
			})
			after, cerr := o.cpu()
			if err = errors.Join(err, cerr); err == nil {
				err = counted(ctx, s, n)
			}
			if err = errors.Join(err, s.Close()); err != nil {
				return nil, err
			}
			rates[i], used[i] = append(rates[i], rate), append(used[i], per(after-before, n))
		}
	}
	with, without := mean(rates[0]), mean(rates[1])
	r := result("inbox/postgres", "messages/s", with, without, "the same pipelined handler without an inbox",
		">= 25,000 messages/s and ratio >= 0.6", with >= 25_000 && with/without >= 0.6)
	r.Detail = strings.Join([]string{
		o.server, spread(rates[0]), "without " + spread(rates[1]),
		fmt.Sprintf("server CPU %.1f us a message, without %.1f", mean(used[0]), mean(used[1])),
	}, ", ")
	return []Result{r}, nil
}

// counted refuses a rate of handlers whose effects are not in the database.
func counted(ctx context.Context, s *sqlstore.Store, n int) error {
	var sum, remembered int64
	if err := s.QueryRow(ctx, "SELECT (SELECT sum(n) FROM account), (SELECT count(*) FROM settle_inbox)", nil, &sum, &remembered); err != nil {
		return err
	}
	if sum != int64(n) {
		return fmt.Errorf("%d messages handled, but %d updates and %d inbox rows are in the database", n, sum, remembered)
	}
	return nil
}
