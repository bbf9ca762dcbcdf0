package dialects_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// step runs one statement. A change wants the number of rows that the program asks for: any, one, none,
// or not one (a repeated insert, which is two rows on MySQL). A query wants its rows.
type step struct {
	name string
	args []any
	want any
}

type affected int64

const (
	anyRows affected = -1
	notOne  affected = -2
)

func do(name string, want any, args ...any) step { return step{name, args, want} }

// steps are a story through every statement of the shop, whose every answer is the same on every database.
func steps() []step {
	return slices.Concat(orderSteps(), stockSteps(), moneySteps(), catalogSteps(), deliverySteps())
}

func orderSteps() []step {
	return []step{
		do("order.insert_order", affected(1), "o1", "c1", "", "GBP", 1000, 1, 1, "PENDING"),
		do("order.insert_order", notOne, "o1", "c1", "", "GBP", 1000, 1, 1, "PENDING"),
		do("order.insert_order", affected(1), "o2", "c1", "R-1", "GBP", 2000, 2, 2, "PENDING"),
		do("order.insert_order", notOne, "o3", "c2", "R-1", "GBP", 3000, 3, 3, "PENDING"),
		do("order.insert_order", affected(1), "o4", "c1", "R-1 ", "GBP", 4000, 2, 4, "PENDING"), // A name is its bytes.
		do("order.insert_order", affected(1), "o5", "C1", " ", "GBP", 5000, 5, 5, "PENDING"),
		do("order.select_by_reference", "o2|GBP|2000|PENDING", "R-1"),
		do("order.select_by_reference", "o4|GBP|4000|PENDING", "R-1 "),
		do("order.select_by_reference", "", "r-1"),
		do("order.select_by_reference", "o5|GBP|5000|PENDING", " "),
		do("order.insert_lines", affected(1), "o1", `[{"productId":"é\u0000"}]`),
		do("order.insert_lines", affected(1), "o2", `[]`),
		do("order.select_facts", "c1||GBP|1000|1||||||0|0|1", "o1"),
		do("order.select_facts", "", "none"),
		do("order.update_facts", affected(1), "COMPLETED", "COMMITTED", "CAPTURED", "CREATED", "", "", 6, 0, 9, "o1", 1),
		do("order.update_facts", affected(0), "COMPLETED", "COMMITTED", "CAPTURED", "CREATED", "", "", 6, 0, 9, "o1", 1),
		do("order.update_facts", affected(1), "COMPLETED", "COMMITTED", "CAPTURED", "CREATED", "", "", 6, 0, 9, "o1", 2),
		do("order.count_contradiction", affected(1), "o1"),
		do("order.select_returnable", `c1|GBP|1000|0|COMPLETED|3|[{"productId":"é\u0000"}]`, "o1"),
		do("order.add_returned", affected(1), 400, 10, "o1", 3),
		do("order.add_returned", affected(0), 400, 10, "o1", 3),
		do("order.insert_return", affected(1), "r1", "o1", "c1", "", "GBP", 400, 10, 10, `[{"quantity":1}]`),
		do("order.insert_return", affected(1), "r2", "", "c1", "X", "GBP", 7, 11, 11, `[]`),
		do("order.insert_return", notOne, "r3", "", "c1", "X", "GBP", 8, 12, 12, `[]`),
		do("order.select_returned_lines", `[{"quantity":1}]`, "o1"),
		do("order.select_return_by_reference", "r2|GBP|7|0|0", "X"),
		do("order.select_return", `o1|c1||GBP|400|0|0|[{"quantity":1}]`, "r1"),
		do("order.update_return", affected(1), 1, 0, 13, "r1", 0, 0),
		do("order.update_return", affected(0), 1, 0, 13, "r1", 0, 0),
		do("order.view_order", `o1|c1||GBP|1000|400|1|10|COMMITTED|CAPTURED|CREATED|||6|0|1|[{"productId":"é\u0000"}]`, "o1"),
		do("order.view_returns", "r1|o1|c1||GBP|400|10|1|0", "o1", 10),
		do("order.list_orders", "o4|c1|R-1 |GBP|4000|0|2|4||||||0|0|0|\no5|C1| |GBP|5000|0|5|5||||||0|0|0|", "o2", 10),
		do("order.list_returns", "r2||c1|X|GBP|7|11|0|0", "r1", 10),
		do("order.list_customer_orders", "o4|c1|R-1 |GBP|4000|0|2|4||||||0|0|0|\no2|c1|R-1|GBP|2000|0|2|2||||||0|0|0|", "c1", 9, "", 2),
		do("order.list_customer_orders", "o2|c1|R-1|GBP|2000|0|2|2||||||0|0|0|", "c1", 2, "o4", 1),
		do("order.list_customer_orders", "o1|c1||GBP|1000|400|1|10|COMMITTED|CAPTURED|CREATED|||6|0|1|", "c1", 2, "o2", 9),
	}
}

func stockSteps() []step {
	return []step{
		do("inventory.seed_stock", anyRows, `[["10001",5],["10002",7],["10002 ",1],["Ä1",3],["a1",2]]`),
		do("inventory.seed_stock", anyRows, `[["10001",50],["A1",4]]`),
		do("inventory.lock_stock", "10001|5\n10002|7", `[["10001",3],["10002",7],["none",1]]`),
		do("inventory.take_stock", affected(2), `[["10001",3],["10002",7]]`),
		do("inventory.take_stock", affected(1), `[["10001",2],["10002",1]]`),
		do("inventory.give_stock", anyRows, `[["10001",1],["new",4]]`),
		do("inventory.give_stock", anyRows, `[]`),
		do("inventory.select_free", "10001|1\n10002|0\n10002 |1\nÄ1|3", `["10001","10002","10002 ","Ä1","none","10001"]`),
		do("inventory.insert_reservation", affected(1), "o1", "RESERVED", `[["10001",2],["Ä1",1]]`, 1),
		do("inventory.insert_reservation", notOne, "o1", "RELEASED", `[]`, 2),
		do("inventory.insert_reservation", affected(1), "o2", "RESERVED", `[["10001",4]]`, 3),
		do("inventory.insert_reservation", affected(1), "o3", "RESERVED", `[["10001",8]]`, 3),
		do("inventory.select_reservation", `RESERVED|[["10001",2],["Ä1",1]]`, "o1"),
		do("inventory.select_reservation", "", "none"),
		do("inventory.update_reservation", affected(1), "COMMITTED", "o1", "RESERVED"),
		do("inventory.update_reservation", affected(0), "COMMITTED", "o1", "RESERVED"),
		do("inventory.short_reservation", affected(1), "FAILED", `["10001"]`, "o3", "RESERVED"),
		do("inventory.short_reservation", affected(0), "FAILED", `["10001"]`, "o3", "RESERVED"),
		do("inventory.insert_return", affected(1), "r1", `[["10001",1]]`, 4),
		do("inventory.insert_return", notOne, "r1", `[["10001",1]]`, 4),
		do("inventory.list_stock", "10001|5|1|4|2|1\n10002|7|0|0|0|0\n10002 |1|1|0|0|0\nA1|4|4|0|0|0\na1|2|2|0|0|0", "", 5),
		do("inventory.list_stock", "new|0|4|0|0|0\nÄ1|3|3|0|1|0", "a1", 5),
		do("inventory.list_movements", `o2|RESERVED|[]`+"\n"+`o3|FAILED|["10001"]`, "o1", 5),
	}
}

func moneySteps() []step {
	return []step{
		do("payment.insert_payment", affected(1), "o1", "REQUESTED", 765, "GBP", 1),
		do("payment.insert_payment", notOne, "o1", "VOIDED", 0, "GBP", 1),
		do("payment.select_payment", "REQUESTED|765|GBP", "o1"),
		do("payment.select_open", "1", "o1"),
		do("payment.update_payment", affected(1), "DECLINED", "NO_FUNDS", "o1", "REQUESTED"),
		do("payment.update_payment", affected(0), "DECLINED", "NO_FUNDS", "o1", "REQUESTED"),
		do("payment.select_open", "", "o1"),
		do("payment.list_payments", "o1|DECLINED|765|GBP|NO_FUNDS", "", 5),
		do("payment.insert_refund", affected(1), "r1", "o1", 5, "GBP", 2),
		do("payment.insert_refund", notOne, "r1", "o1", 5, "GBP", 2),
		do("payment.update_refund", affected(1), "REFUNDED", "", "r1"),
		do("payment.update_refund", affected(0), "REFUNDED", "", "r1"),
		do("payment.list_refunds", "r1|o1|REFUNDED|5|GBP|", "", 5),
		do("payment.insert_webhook", affected(1), "w1", 3),
		do("payment.insert_webhook", notOne, "w1", 3),
		do("payment.insert_webhook", affected(1), "W1", 3),
		do("shipping.insert_shipment", affected(1), "o1", "PLANNED", 1),
		do("shipping.insert_shipment", notOne, "o1", "CREATED", 1),
		do("shipping.select_shipment", "PLANNED", "o1"),
		do("shipping.update_shipment", affected(1), "CREATED", 2, "o1", "PLANNED"),
		do("shipping.update_shipment", affected(0), "CREATED", 2, "o1", "PLANNED"),
	}
}

func catalogSteps() []step {
	const products = `[{"id":"1","name":"CAFÉ","search":"1 café","price":"0.335","currency":"GBP"},` +
		`{"id":"2","name":"100%","search":"2 100% a_b! \\","price":"1","currency":"GBP"}]`
	return []step{
		do("catalog.insert_products", anyRows, products),
		do("catalog.insert_products", anyRows, strings.ReplaceAll(products, "0.335", "9")),
		do("catalog.select_products", "1|CAFÉ|0.335|GBP\n2|100%|1|GBP", `["2","1","3","1"]`),
		do("catalog.lock_product", "GBP", "1"),
		do("catalog.lock_product", "", "3"),
		do("catalog.update_price", anyRows, "2.50", "1"),
		do("catalog.add_view", affected(1), "1"),
		do("catalog.add_view", affected(0), "3"),
		do("catalog.insert_like", affected(1), "1", "u"),
		do("catalog.insert_like", notOne, "1", "u"),
		do("catalog.insert_like", affected(1), "1", "u "),
		do("catalog.add_likes", affected(1), 2, "1"),
		do("catalog.delete_like", affected(1), "1", "u"),
		do("catalog.delete_like", affected(0), "1", "u"),
		do("catalog.add_likes", affected(1), -1, "1"),
		do("catalog.select_product", "1|CAFÉ|2.50|GBP|1|1", "1"),
		do("catalog.list_products", "1|CAFÉ|2.50|GBP|1|1\n2|100%|1|GBP|0|0", "", "%%", 5),
		do("catalog.list_products", "1|CAFÉ|2.50|GBP|1|1", "", "%café%", 5),
		do("catalog.list_products", "2|100%|1|GBP|0|0", "", "%100!%%a!_b!!% \\%", 5),
		do("catalog.list_products", "", "", "%a!__b%", 5),
		do("catalog.list_products", "2|100%|1|GBP|0|0", "1", "%%", 5),
	}
}

func deliverySteps() (all []step) {
	for _, s := range []struct{ prefix, list string }{{"notify", "notify.list_messages"}, {"platform", "platform.list_deliveries"}} {
		kind := map[string]string{"notify": "message", "platform": "delivery"}[s.prefix]
		all = append(all,
			do(s.prefix+".insert_"+kind, affected(1), "e1", "o1", 1),
			do(s.prefix+".insert_"+kind, notOne, "e1", "o1", 1),
			do(s.prefix+".finish_"+kind, anyRows, "SENT", "e1"),
			do(s.list, "e1|o1|SENT", "", 5),
		)
	}
	return all
}

// sorted returns a text's lines in order.
func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestSameMeaning proves that every statement answers the same on every database.
func TestSameMeaning(t *testing.T) {
	each(t, false, func(t *testing.T, db *database) {
		s, texts := db.connect(t), load(t, db.dialect)
		left := maps.Clone(texts)
		for _, st := range steps() {
			text, ok := texts[st.name]
			if !ok {
				t.Fatalf("there is no %s", st.name)
			}
			delete(left, st.name)
			switch want := st.want.(type) {
			case string:
				got, err := s.query(t.Context(), text, st.args...)
				if !strings.Contains(text, "ORDER BY") {
					got, want = sorted(got), sorted(want)
				}
				if err != nil || got != want {
					t.Errorf("%s %v: %v\ngot  %q\nwant %q", st.name, st.args, err, got, want)
				}
			case affected:
				got, err := s.exec(t.Context(), text, st.args...)
				right := want == anyRows || want == notOne && got != 1 || int64(want) == got
				if err != nil || !right {
					t.Errorf("%s %v: %d rows, %v, want %d", st.name, st.args, got, err, want)
				}
			}
		}
		if len(left) > 0 {
			t.Errorf("no step runs %v", slices.Sorted(maps.Keys(left)))
		}
	})
}

// TestSameRefusals proves that every database refuses what its tables forbid, and that no insert hides it.
func TestSameRefusals(t *testing.T) {
	each(t, false, func(t *testing.T, db *database) {
		s, texts := db.connect(t), load(t, db.dialect)
		for _, st := range []step{
			do("order.insert_order", nil, "o1", "c1", "", "GBP", 0, 1, 1, "PENDING"),
			do("order.insert_order", nil, "o1", "c1", "", "GBP", 1, 1, 1, "NONSENSE"),
			do("order.insert_lines", nil, "none", "[]"),
			do("order.insert_return", nil, "r1", "none", "c1", "", "GBP", 1, 1, 1, "[]"),
			do("inventory.insert_reservation", nil, "o1", "", "[]", 1),
			do("inventory.seed_stock", nil, `[["1",-1]]`),
			do("inventory.give_stock", nil, `[["1",-1]]`),
			do("payment.insert_payment", nil, "o1", "NONSENSE", 1, "GBP", 1),
			do("shipping.insert_shipment", nil, "o1", "NONSENSE", 1),
			do("catalog.insert_like", nil, "none", "u"),
			do("catalog.insert_products", nil, `[{"id":"1"}]`),
		} {
			if n, err := s.exec(t.Context(), texts[st.name], st.args...); err == nil {
				t.Errorf("%s %v: %d rows", st.name, st.args, n)
			}
		}
	})
}
