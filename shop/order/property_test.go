package order

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// statesMax bounds the search, so that a mistake in the model ends in a message and not in the night.
const statesMax = 5_000_000

// TestEveryInterleaving visits every state that an order and its participants can reach: every order of
// deliveries that keeps each topic's, with both deadlines, the gateway's answers and the customer's
// cancellation at any moment.
func TestEveryInterleaving(t *testing.T) {
	totalStates, totalEdges, ends := 0, 0, map[string]int{}
	for _, sc := range scenarios() {
		seen := map[world]bool{}
		edges := 0
		// Depth first with an explicit stack; a path is only rebuilt for a failure.
		start := newWorld(sc)
		stack := []world{start}
		seen[start] = true
		for len(stack) > 0 {
			w := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			actions := w.actions()
			if len(actions) == 0 || onlyCancel(actions) {
				var b broken
				if w.checkEnd(&b); len(b) > 0 {
					t.Fatalf("%+v: %v\n%+v", sc, errors.Join(b...), w)
				}
				ends[fmt.Sprint(w.facts.State(), " ", w.facts.Reason(), w.facts.Attention())]++
			}
			for _, a := range actions {
				next, free := w, sc.units // With one order a reservation is refused by the scenario only.
				var b broken
				next.do(sc, a, &free, &b)
				if len(b) > 0 {
					t.Fatalf("%+v: %v after %v\n%+v", sc, errors.Join(b...), a, next)
				}
				edges++
				if !seen[next] {
					seen[next] = true
					stack = append(stack, next)
				}
			}
			if len(seen) > statesMax {
				t.Fatalf("%+v: more than %d states", sc, statesMax)
			}
		}
		totalStates, totalEdges = totalStates+len(seen), totalEdges+edges
	}
	t.Logf("%d scenarios, %d states, %d transitions, every end by state and reason: %v", len(scenarios()), totalStates, totalEdges, ends)
	for _, end := range []string{
		"COMPLETED ", "CANCELED OUT_OF_STOCK", "CANCELED CARD_DECLINED", "CANCELED CUSTOMER", "CANCELED PAYMENT_TIMEOUT",
		"CANCELED SHIPMENT_FAILED", "PAID " + AttentionCaptureFailed,
	} {
		if ends[end] == 0 {
			t.Errorf("no path ends %s: the model does not reach what it should", end)
		}
	}
}

// onlyCancel reports whether only the customer could still act: that is an end, too.
func onlyCancel(actions []action) bool { return len(actions) == 1 && actions[0].kind == "cancel" }

func scenarios() (all []scenario) {
	for bits := range 1 << 6 {
		on := func(i int) bool { return bits&(1<<i) != 0 }
		sc := scenario{
			short: on(0), declined: on(1), captureRefused: on(2), impossible: on(3), delay: on(4), hint: on(5), cancels: 1, units: 1,
		}
		// What comes after a refusal is never reached.
		if sc.short && (sc.declined || sc.captureRefused || sc.impossible || sc.delay || sc.hint) ||
			sc.declined && (sc.captureRefused || sc.impossible || sc.delay) ||
			sc.impossible && sc.captureRefused {
			continue
		}
		all = append(all, sc)
	}
	return all
}

// TestRandomRuns runs several orders that compete for stock, with duplicated messages, calls that are made
// again after a crash, and deliveries that are rolled back, in random order. rapid prints the seed.
func TestRandomRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		initial := rapid.Int64Range(0, 6).Draw(t, "stock")
		free := initial
		n := rapid.IntRange(1, 4).Draw(t, "orders")
		scs, worlds := make([]scenario, n), make([]world, n)
		for i := range n {
			scs[i] = scenario{
				declined:       rapid.IntRange(0, 3).Draw(t, "declined") == 0,
				captureRefused: rapid.IntRange(0, 7).Draw(t, "capture refused") == 0,
				impossible:     rapid.IntRange(0, 7).Draw(t, "impossible") == 0,
				delay:          rapid.Bool().Draw(t, "delay"),
				hint:           rapid.Bool().Draw(t, "hint"),
				cancels:        rapid.Int8Range(0, 2).Draw(t, "cancels"),
				units:          rapid.Int64Range(1, 3).Draw(t, "units"),
			}
			worlds[i] = newWorld(scs[i])
		}
		faults := rapid.IntRange(0, 20).Draw(t, "faults")
		for {
			busy := busyOf(worlds)
			if len(busy) == 0 {
				break
			}
			i := rapid.SampledFrom(busy).Draw(t, "order")
			w, actions := &worlds[i], worlds[i].actions()
			a := rapid.SampledFrom(actions).Draw(t, "action")
			var b broken
			if faults > 0 && rapid.IntRange(0, 4).Draw(t, "fault") == 0 {
				faults--
				fault(scs[i], w, a, free, &b)
			} else {
				w.do(scs[i], a, &free, &b)
			}
			if len(b) > 0 {
				t.Fatalf("order %d, %v: %v\n%+v", i, a, errors.Join(b...), *w)
			}
			if free < 0 {
				t.Fatalf("stock is oversold: %d", free)
			}
		}
		held := int64(0)
		for i := range worlds {
			var b broken
			if worlds[i].checkEnd(&b); len(b) > 0 {
				t.Fatalf("order %d: %v\n%+v", i, errors.Join(b...), worlds[i])
			}
			if worlds[i].facts.shipped() {
				held += scs[i].units
			}
		}
		if free+held != initial {
			t.Fatalf("stock: %d initially, %d sold, %d free", initial, held, free)
		}
	})
}

func busyOf(worlds []world) (busy []int) {
	for i := range worlds {
		if len(worlds[i].actions()) > 0 {
			busy = append(busy, i)
		}
	}
	return busy
}

// fault repeats what may be repeated: a message is put on its topic again, a call is made again by a
// worker that lost its answer, a handler's transaction is rolled back after it has run.
func fault(sc scenario, w *world, a action, free int64, b *broken) {
	switch a.kind {
	case "deliver":
		q := w.queues[a.index]
		if len(q)%2 == 0 {
			w.queues[a.index] = q + q[:1]
			return
		}
		undone := *w
		undone.do(sc, a, &free, b)
	case "record":
		w.perform(sc, a.index)
	}
}
