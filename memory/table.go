package memory

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/settledev/settle/txn"
)

// row is immutable once it is committed.
type row[K comparable, V any] struct {
	key   K
	value V
	seq   int64
	gone  bool // in a layer: the row is to be deleted
}

// table is a map in a fixed order, with the changes of the one who has the turn in a layer above it.
// Methods called see... look through the layer and are the writer's; the others want Store.mu.
type table[K comparable, V any] struct {
	order  func(a, b V) int // nil: in the order of insertion, which decides between equals too
	rows   map[K]*row[K, V]
	sorted []*row[K, V]
	layer  map[K]*row[K, V]
	seq    int64
}

func newTable[K comparable, V any](order func(a, b V) int) *table[K, V] {
	return &table[K, V]{order: order, rows: map[K]*row[K, V]{}, layer: map[K]*row[K, V]{}}
}

func (t *table[K, V]) compare(a, b *row[K, V]) int {
	if t.order != nil {
		if c := t.order(a.value, b.value); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.seq, b.seq)
}

func (t *table[K, V]) get(k K) (v V, ok bool) {
	if r := t.rows[k]; r != nil {
		return r.value, true
	}
	return v, false
}

func (t *table[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, r := range t.sorted {
			if !yield(r.key, r.value) {
				return
			}
		}
	}
}

func (t *table[K, V]) seeRow(k K) *row[K, V] {
	if r := t.layer[k]; r != nil {
		if r.gone {
			return nil
		}
		return r
	}
	return t.rows[k]
}

func (t *table[K, V]) see(k K) (v V, ok bool) {
	if r := t.seeRow(k); r != nil {
		return r.value, true
	}
	return v, false
}

// seeAll yields the rows as they were when it began: the loop may change them.
func (t *table[K, V]) seeAll() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		layer := maps.Clone(t.layer)
		changed := slices.SortedFunc(maps.Values(layer), t.compare)
		next := 0
		for _, r := range t.sorted {
			if layer[r.key] != nil {
				continue
			}
			for ; next < len(changed) && t.compare(changed[next], r) < 0; next++ {
				if c := changed[next]; !c.gone && !yield(c.key, c.value) {
					return
				}
			}
			if !yield(r.key, r.value) {
				return
			}
		}
		for _, c := range changed[next:] {
			if !c.gone && !yield(c.key, c.value) {
				return
			}
		}
	}
}

func (t *table[K, V]) put(s *Store, k K, v V) {
	r := &row[K, V]{key: k, value: v}
	if old := t.seeRow(k); old != nil {
		r.seq = old.seq
	} else {
		t.seq++
		r.seq = t.seq
	}
	t.change(s, r)
}

func (t *table[K, V]) drop(s *Store, k K) bool {
	old := t.seeRow(k)
	if old == nil {
		return false
	}
	t.change(s, &row[K, V]{key: k, value: old.value, seq: old.seq, gone: true})
	return true
}

func (t *table[K, V]) change(s *Store, r *row[K, V]) {
	if len(t.layer) == 0 {
		s.dirty = append(s.dirty, t)
	}
	t.layer[r.key] = r
}

func (t *table[K, V]) commit() {
	if len(t.layer) > 64 {
		t.commitMany()
		return
	}
	for k, r := range t.layer {
		if old := t.rows[k]; old != nil {
			i, _ := slices.BinarySearchFunc(t.sorted, old, t.compare)
			t.sorted = slices.Delete(t.sorted, i, i+1)
			delete(t.rows, k)
		}
		if !r.gone {
			i, _ := slices.BinarySearchFunc(t.sorted, r, t.compare)
			t.sorted = slices.Insert(t.sorted, i, r)
			t.rows[k] = r
		}
	}
	clear(t.layer)
}

// commitMany sorts once instead of moving the rest of the table for each row.
func (t *table[K, V]) commitMany() {
	t.sorted = slices.DeleteFunc(t.sorted, func(r *row[K, V]) bool { return t.layer[r.key] != nil })
	for k, r := range t.layer {
		delete(t.rows, k)
		if !r.gone {
			t.rows[k] = r
			t.sorted = append(t.sorted, r)
		}
	}
	slices.SortFunc(t.sorted, t.compare)
	clear(t.layer)
}

func (t *table[K, V]) discard() { clear(t.layer) }

// Table is business state in RAM that is rolled back with its transaction: what a database's table is
// to a service in production. It belongs to the store of the first transaction that touches it. Values
// are kept as they are given: what they point to must not be changed afterwards.
//
// Its methods panic when their transaction is over or is another store's, as that is a mistake in the
// program.
type Table[K comparable, V any] struct {
	store atomic.Pointer[Store]
	t     *table[K, V]
}

// NewTable returns an empty table.
func NewTable[K comparable, V any]() *Table[K, V] {
	return &Table[K, V]{t: newTable[K, V](nil)}
}

// Get returns the value of a key as the transaction sees it.
func (t *Table[K, V]) Get(tx *txn.Tx, k K) (v V, ok bool) {
	t.bind(tx)
	return t.t.see(k)
}

// Put stores a value. A key keeps its place in the order of [Table.All].
func (t *Table[K, V]) Put(tx *txn.Tx, k K, v V) { t.t.put(t.bind(tx), k, v) }

// Delete deletes a key and reports whether it was there.
func (t *Table[K, V]) Delete(tx *txn.Tx, k K) bool { return t.t.drop(t.bind(tx), k) }

// All yields the rows that the transaction sees, in the order in which their keys were first put. The
// loop may change the table; it goes on over the rows as they were.
func (t *Table[K, V]) All(tx *txn.Tx) iter.Seq2[K, V] {
	t.bind(tx)
	return t.t.seeAll()
}

// Committed returns a copy of what is committed: for tests, and for readers beside the transactions.
func (t *Table[K, V]) Committed() map[K]V {
	m := map[K]V{}
	if s := t.store.Load(); s != nil {
		s.mu.RLock()
		defer s.mu.RUnlock()
		maps.Insert(m, t.t.all())
	}
	return m
}

func (t *Table[K, V]) bind(tx *txn.Tx) *Store {
	s, ok := tx.Port().(*Store)
	if !ok {
		panic("memory: table used in a transaction that is not of a memory.Store")
	}
	if err := s.within(tx); err != nil {
		panic("memory: table used outside of its transaction: " + err.Error())
	}
	if !t.store.CompareAndSwap(nil, s) && t.store.Load() != s {
		panic("memory: table belongs to another store")
	}
	return s
}
