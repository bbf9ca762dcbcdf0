package dialects_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/settledev/settle/internal/statement"
)

// whole are the statements that read tables from end to end: what operators reconcile the books with.
var whole = map[string]bool{"inventory.list_stock": true}

// sorts are those that may sort what they found: the returns of one order, the products of one, and those
// that match a search.
var sorts = map[string]bool{"order.view_returns": true, "inventory.lock_stock": true, "catalog.list_products": true}

// fill gives every table enough rows that reading all of them is not the cheapest way.
func fill(t *testing.T, s session, texts map[string]string) {
	t.Helper()
	exec := func(name string, args ...any) {
		if _, err := s.exec(t.Context(), texts[name], args...); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	s.control(t, "BEGIN")
	for i := range 300 {
		id := fmt.Sprintf("id-%04d", i)
		exec("order.insert_order", id, fmt.Sprint("c", i%50), "ref-"+id, "GBP", 1000, i, i, "PENDING")
		exec("order.insert_lines", id, "[]")
		exec("order.insert_return", id, id, "c", "ref-"+id, "GBP", 1, i, i, "[]")
		exec("inventory.seed_stock", fmt.Sprintf(`[[%q,5]]`, id))
		exec("inventory.insert_reservation", id, "RESERVED", "[]", i)
		exec("inventory.insert_return", id, "[]", i)
		exec("payment.insert_payment", id, "REQUESTED", 1, "GBP", i)
		exec("payment.insert_refund", id, id, 1, "GBP", i)
		exec("payment.insert_webhook", id, i)
		exec("shipping.insert_shipment", id, "PLANNED", i)
		exec("notify.insert_message", id, id, i)
		exec("platform.insert_delivery", id, id, i)
		exec("catalog.insert_products", fmt.Sprintf(`[{"id":%q,"name":"n","search":"s","price":"1","currency":"GBP"}]`, id))
		exec("catalog.insert_like", id, "u")
	}
	s.control(t, "COMMIT")
}

// TestPlans proves that no statement but those for operators reads a table from end to end, and that a page
// comes out of an index in order.
func TestPlans(t *testing.T) {
	each(t, true, func(t *testing.T, db *database) {
		s, texts := db.connect(t), load(t, db.dialect)
		fill(t, s, texts)
		explain := explainPostgres
		if db.dialect == statement.MySQL {
			explain = explainMySQL
		}
		seen := map[string]bool{}
		for _, st := range steps() {
			if seen[st.name] || whole[st.name] {
				continue
			}
			seen[st.name] = true
			explain(t, s, st, texts[st.name])
		}
	})
}

func explainPostgres(t *testing.T, s session, st step, text string) {
	t.Helper()
	for _, control := range []string{"SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan", "PREPARE p AS " + text} {
		if _, err := s.exec(t.Context(), control); err != nil {
			t.Fatalf("%s: %v", st.name, err)
		}
	}
	none := strings.TrimSuffix(strings.Repeat("NULL, ", len(st.args)), ", ")
	plan, err := s.query(t.Context(), "EXPLAIN EXECUTE p("+none+")")
	if err != nil || strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "Sort") && !sorts[st.name] {
		t.Errorf("%s: %v\n%s", st.name, err, plan)
	}
	if _, err := s.exec(t.Context(), "DEALLOCATE p"); err != nil {
		t.Fatal(err)
	}
}

func explainMySQL(t *testing.T, s session, st step, text string) {
	t.Helper()
	plan, err := s.query(t.Context(), "EXPLAIN "+text, st.args...)
	if err != nil {
		t.Errorf("%s: %v", st.name, err)
	}
	for line := range strings.Lines(plan) {
		// id, select type, table, type, possible keys, key, key length, ref, rows, extra
		columns := strings.Split(strings.TrimSpace(line), "|")
		table, how := columns[2], columns[3]
		ours := table != "" && table != "l" && table != "t" && !strings.HasPrefix(table, "<") // l and t are JSON.
		inserted := columns[1] == "INSERT"
		if ours && !inserted && (how == "ALL" || how == "index") || strings.Contains(line, "filesort") && !sorts[st.name] {
			t.Errorf("%s: %s", st.name, plan)
			return
		}
	}
}
