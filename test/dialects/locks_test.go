package dialects_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// waits is how long a statement is watched before it counts as waiting for a lock.
const waits = 50 * time.Millisecond

// result is what became of a statement that ran beside another transaction.
type result struct {
	rows int64
	text string
	err  error
}

// beside runs a statement and returns where its result will be, after making sure that it waits.
func beside(t *testing.T, run func() result) <-chan result {
	t.Helper()
	done := make(chan result, 1)
	go func() { done <- run() }()
	select {
	case r := <-done:
		t.Errorf("did not wait for the other transaction: %+v", r)
		done <- r
	case <-time.After(waits):
	}
	return done
}

// arbiters are the inserts of which one wins, each with the query that then locks the row.
var arbiters = []struct {
	insert step
	lock   step
}{
	{do("order.insert_order", nil, "x1", "c1", "R-9", "GBP", 1000, 1, 1, "PENDING"), do("order.select_by_reference", "x1|GBP|1000|PENDING", "R-9")},
	{do("order.insert_return", nil, "x1", "", "c1", "R-9", "GBP", 7, 1, 1, "[]"), do("order.select_return", "|c1|R-9|GBP|7|0|0|[]", "x1")},
	{do("inventory.insert_reservation", nil, "x1", "RESERVED", "[]", 1), do("inventory.select_reservation", "RESERVED|[]", "x1")},
	{do("payment.insert_payment", nil, "x1", "REQUESTED", 1, "GBP", 1), do("payment.select_payment", "REQUESTED|1|GBP", "x1")},
	{do("shipping.insert_shipment", nil, "x1", "PLANNED", 1), do("shipping.select_shipment", "PLANNED", "x1")},
	{do("inventory.insert_return", nil, "x1", "[]", 1), step{}},
	{do("payment.insert_refund", nil, "x1", "", 1, "GBP", 1), step{}},
	{do("payment.insert_webhook", nil, "x1", 1), step{}},
	{do("notify.insert_message", nil, "x1", "o1", 1), step{}},
	{do("platform.insert_delivery", nil, "x1", "o1", 1), step{}},
}

// TestOneInsertWins proves that of two transactions that insert the same row the second waits for the first:
// it finds the row of one that committed, and is the first where the other was rolled back.
func TestOneInsertWins(t *testing.T) {
	each(t, true, func(t *testing.T, db *database) {
		a, b, texts := db.connect(t), db.connect(t), load(t, db.dialect)
		for _, arbiter := range arbiters {
			t.Run(arbiter.insert.name, func(t *testing.T) {
				insert := func(s session) result {
					n, err := s.exec(t.Context(), texts[arbiter.insert.name], arbiter.insert.args...)
					return result{rows: n, err: err}
				}
				for _, how := range []string{"ROLLBACK", "COMMIT"} {
					a.control(t, "BEGIN")
					b.control(t, "BEGIN")
					if r := insert(a); r.err != nil || r.rows != 1 {
						t.Fatalf("first: %+v", r)
					}
					second := beside(t, func() result { return insert(b) })
					a.control(t, how)
					r := <-second
					if won := r.rows == 1; r.err != nil || won != (how == "ROLLBACK") {
						t.Errorf("second, after the first's %s: %+v", how, r)
					}
					if how == "COMMIT" && arbiter.lock.name != "" {
						got, err := b.query(t.Context(), texts[arbiter.lock.name], arbiter.lock.args...)
						if err != nil || got != arbiter.lock.want {
							t.Errorf("the loser finds %q, %v, want %q", got, err, arbiter.lock.want)
						}
					}
					b.control(t, "ROLLBACK")
				}
			})
		}
	})
}

// TestLocks proves that a row that is read to be changed is locked, and read as the other transaction left it.
func TestLocks(t *testing.T) {
	each(t, true, func(t *testing.T, db *database) {
		a, b, texts := db.connect(t), db.connect(t), load(t, db.dialect)
		for _, st := range []step{
			do("order.insert_order", nil, "o1", "c1", "", "GBP", 1000, 1, 1, "PENDING"),
			do("order.insert_lines", nil, "o1", "[]"),
			do("order.insert_return", nil, "r1", "o1", "c1", "", "GBP", 7, 1, 1, "[]"),
			do("inventory.seed_stock", nil, `[["1",5],["2",5]]`),
			do("inventory.insert_reservation", nil, "o1", "RESERVED", "[]", 1),
			do("payment.insert_payment", nil, "o1", "REQUESTED", 1, "GBP", 1),
			do("shipping.insert_shipment", nil, "o1", "PLANNED", 1),
			do("catalog.insert_products", nil, `[{"id":"1","name":"n","search":"s","price":"1","currency":"GBP"}]`),
		} {
			if _, err := a.exec(t.Context(), texts[st.name], st.args...); err != nil {
				t.Fatalf("%s: %v", st.name, err)
			}
		}
		for _, c := range []struct{ lock, change step }{
			{do("order.select_facts", "c1||GBP|1000|1|RESERVED|||||0|0|2", "o1"), do("order.update_facts", nil, "PENDING", "RESERVED", "", "", "", "", 0, 0, 2, "o1", 1)},
			{do("order.select_returnable", "c1|GBP|1000|10|PENDING|3|[]", "o1"), do("order.add_returned", nil, 10, 3, "o1", 2)},
			{do("order.select_return", "o1|c1||GBP|7|1|0|[]", "r1"), do("order.update_return", nil, 1, 0, 2, "r1", 0, 0)},
			{do("inventory.select_reservation", "RELEASED|[]", "o1"), do("inventory.update_reservation", nil, "RELEASED", "o1", "RESERVED")},
			{do("inventory.lock_stock", "1|3", `[["1",2]]`), do("inventory.take_stock", nil, `[["1",2]]`)},
			{do("payment.select_payment", "VOIDING|1|GBP", "o1"), do("payment.update_payment", nil, "VOIDING", "", "o1", "REQUESTED")},
			{do("shipping.select_shipment", "CREATED", "o1"), do("shipping.update_shipment", nil, "CREATED", 2, "o1", "PLANNED")},
			{do("catalog.lock_product", "GBP", "1"), do("catalog.update_price", nil, "2", "1")},
		} {
			t.Run(c.lock.name, func(t *testing.T) {
				lock := func(s session) result {
					text, err := s.query(t.Context(), texts[c.lock.name], c.lock.args...)
					return result{text: text, err: err}
				}
				a.control(t, "BEGIN")
				b.control(t, "BEGIN")
				if r := lock(a); r.err != nil || r.text == "" {
					t.Fatalf("first: %+v", r)
				}
				second := beside(t, func() result { return lock(b) })
				if n, err := a.exec(t.Context(), texts[c.change.name], c.change.args...); err != nil || n != 1 {
					t.Errorf("change: %d rows, %v", n, err)
				}
				a.control(t, "COMMIT")
				if r := <-second; r.err != nil || r.text != c.lock.want {
					t.Errorf("second: %+v, want %v", r, c.lock.want)
				}
				b.control(t, "COMMIT")
			})
		}
	})
}

// TestHotRows proves that hops that meet at the same products neither deadlock nor sell more than there is.
func TestHotRows(t *testing.T) {
	const sessions, rounds, stock = 8, 15, 80
	each(t, true, func(t *testing.T, db *database) {
		texts := load(t, db.dialect)
		first := db.connect(t)
		for _, st := range []step{
			do("inventory.seed_stock", nil, fmt.Sprintf(`[["1",%[1]d],["2",%[1]d],["3",%[1]d]]`, stock)),
			do("catalog.insert_products", nil, `[{"id":"1","name":"n","search":"s","price":"1","currency":"GBP"}]`),
		} {
			if _, err := first.exec(t.Context(), texts[st.name], st.args...); err != nil {
				t.Fatalf("%s: %v", st.name, err)
			}
		}
		lines := []string{`[["1",1],["2",1],["3",1]]`, `[["2",1],["3",1]]`, `[["1",1],["3",1]]`}
		var wg sync.WaitGroup
		var mu sync.Mutex
		sold := 0
		for i := range sessions {
			s := db.connect(t)
			wg.Go(func() {
				exec := func(name string, args ...any) int64 {
					n, err := s.exec(t.Context(), texts[name], args...)
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
					return n
				}
				for round := range rounds {
					s.control(t, "BEGIN")
					want := lines[(i+round)%len(lines)]
					if free, err := s.query(t.Context(), texts["inventory.lock_stock"], want); err != nil {
						t.Errorf("lock: %v", err)
					} else if enough(free) {
						if exec("inventory.take_stock", want) > 0 {
							mu.Lock()
							sold++
							mu.Unlock()
						}
					}
					s.control(t, "COMMIT")
					s.control(t, "BEGIN")
					if _, err := s.query(t.Context(), texts["catalog.lock_product"], "1"); err != nil {
						t.Errorf("lock: %v", err)
					}
					if exec("catalog.insert_like", "1", fmt.Sprintf("u%d", (i+round)%20)) == 1 {
						exec("catalog.add_likes", 1, "1")
					}
					s.control(t, "COMMIT")
				}
			})
		}
		wg.Wait()
		free, err := first.query(t.Context(), texts["inventory.select_free"], `["3"]`)
		if want := fmt.Sprintf("3|%d", stock-sold); err != nil || sold != stock || free != want {
			t.Errorf("free %q, %v after %d of %d orders were sold", free, err, sold, stock)
		}
		shown, err := first.query(t.Context(), texts["catalog.select_product"], "1")
		if err != nil || shown != "1|n|1|GBP|20|0" {
			t.Errorf("product %q, %v, want 20 likes", shown, err)
		}
	})
}

// enough reports whether every line of a stock has a unit.
func enough(free string) bool {
	for line := range strings.Lines(free) {
		if strings.HasSuffix(strings.TrimSpace(line), "|0") {
			return false
		}
	}
	return true
}
