package memory_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

var errRollback = errors.New("rolled back on purpose")

// TestTableAgainstModel compares a table with a plain map and a list over random transactions.
func TestTableAgainstModel(t *testing.T) {
	const seed = 20261121
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	s := memory.New()
	table := memory.NewTable[int, int]()
	model, order := map[int]int{}, []int{}
	for range 2000 {
		m, o := maps.Clone(model), slices.Clone(order)
		commit := r.IntN(3) > 0
		size := r.IntN(12)
		if r.IntN(20) == 0 {
			size = 200 // Past the bound at which a commit sorts anew.
		}
		err := s.Run(t.Context(), func(_ context.Context, tx *txn.Tx) error {
			for range size {
				k := r.IntN(120)
				switch r.IntN(3) {
				case 0:
					_, had := m[k]
					if table.Delete(tx, k) != had {
						t.Fatalf("delete %d: want %t", k, had)
					}
					if had {
						delete(m, k)
						o = slices.DeleteFunc(o, func(x int) bool { return x == k })
					}
				default:
					v := r.Int()
					if _, had := m[k]; !had {
						o = append(o, k)
					}
					m[k] = v
					table.Put(tx, k, v)
				}
				if got, ok := table.Get(tx, k); got != m[k] || ok != has(m, k) {
					t.Fatalf("get %d: %d %t, want %d", k, got, ok, m[k])
				}
			}
			var keys []int
			for k, v := range table.All(tx) {
				keys = append(keys, k)
				if v != m[k] {
					t.Fatalf("all: %d is %d, want %d", k, v, m[k])
				}
			}
			if !slices.Equal(keys, o) {
				t.Fatalf("all: order %v, want %v", keys, o)
			}
			if !commit {
				return errRollback
			}
			return nil
		})
		if commit != (err == nil) {
			t.Fatal(err)
		}
		if commit {
			model, order = m, o
		}
		if got := table.Committed(); !maps.Equal(got, model) {
			t.Fatalf("committed %v, want %v", got, model)
		}
	}
}

func has(m map[int]int, k int) bool { _, ok := m[k]; return ok }

func TestTableMayChangeWhileItIsRead(t *testing.T) {
	s := memory.New()
	table := memory.NewTable[string, int]()
	err := s.Run(t.Context(), func(_ context.Context, tx *txn.Tx) error {
		table.Put(tx, "a", 1)
		table.Put(tx, "b", 2)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	err = s.Run(t.Context(), func(_ context.Context, tx *txn.Tx) error {
		for k := range table.All(tx) {
			seen = append(seen, k)
			table.Delete(tx, "a")
			table.Delete(tx, "b")
			table.Put(tx, "c", 3)
		}
		return nil
	})
	if err != nil || !slices.Equal(seen, []string{"a", "b"}) {
		t.Fatalf("a loop goes on over the rows as they were: %v, %v", seen, err)
	}
	if got := table.Committed(); !maps.Equal(got, map[string]int{"c": 3}) {
		t.Fatalf("committed %v", got)
	}
}

func TestTablePanicsOutside(t *testing.T) {
	s, other := memory.New(), memory.New()
	table := memory.NewTable[string, int]()
	var kept *txn.Tx
	_ = s.Run(t.Context(), func(_ context.Context, tx *txn.Tx) error {
		kept = tx
		table.Put(tx, "a", 1)
		return nil
	})
	err := other.Run(t.Context(), func(_ context.Context, tx *txn.Tx) error {
		table.Put(tx, "a", 2)
		return nil
	})
	if _, ok := errors.AsType[*txn.PanicError](err); !ok {
		t.Errorf("a table of another store: got %v, want a panic", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a transaction that is over: want a panic")
		}
		if got := table.Committed(); got["a"] != 1 {
			t.Errorf("committed %v", got)
		}
	}()
	table.Put(kept, "a", 3)
}
