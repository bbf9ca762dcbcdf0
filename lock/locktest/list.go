package locktest

import (
	"slices"
	"strings"
	"testing"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/lock"
)

func lister(t *testing.T, h Harness, s Store) lock.Lister {
	t.Helper()
	return storetest.Need[lock.Lister](t, s.Leases(), h.Lacks, "List")
}

func list(t *testing.T, l lock.Lister, after string, limit int) []lock.Listed {
	t.Helper()
	all, err := l.List(t.Context(), after, limit)
	must(t, "list", err)
	return all
}

// listShowsEveryLease looks from beside at a lease that runs, one that was released, one that ran out and one that
// runs anew.
func listShowsEveryLease(t *testing.T, h Harness) {
	s := h.Open(t)
	l := lister(t, h, h.Peer(t, s))
	storetest.Equal(t, "a store without leases must list none", len(list(t, l, "", lock.ListMax)), 0)
	lapsed := acquire(t, s, "lapsed", "one", short)
	lapse(t, s, acquire(t, s, "anew", "one", short))
	anew := acquire(t, s, "anew", "two", ttl)
	released := acquire(t, s, "released", "one", ttl)
	must(t, "release", s.Leases().Release(t.Context(), released))
	released.Owner = ""
	held := acquire(t, s, "held", "one", ttl)
	must(t, "release of a lease that never was", s.Leases().Release(t.Context(), lock.Lease{Name: "never", Owner: "one", Fence: 1}))

	all := slices.DeleteFunc(list(t, l, "", lock.ListMax), func(e lock.Listed) bool { return e.Name == "clock" }) // See lapse.
	want := []lock.Listed{{Lease: anew, Held: true}, {Lease: held, Held: true}, {Lease: lapsed}, {Lease: released}}
	storetest.Equal(t, "a list must have every name that ever was held and no other", names(all), names(want))
	for i, e := range all {
		storetest.SameTime(t, "the end of "+e.Name, e.Expires, want[i].Expires)
		e.Expires = want[i].Expires
		storetest.Equal(t, "a list must tell the state of each lease", e, want[i])
	}
}

func names(all []lock.Listed) (out []string) {
	for _, e := range all {
		out = append(out, e.Name)
	}
	return out
}

func listInOrder(t *testing.T, h Harness) {
	s := h.Open(t)
	l := lister(t, h, s)
	want := append(alike(), "b", "B", "~", "\U0001f512", "\uffee") // The last two are the other way round in UTF-16.
	for _, name := range want {
		acquire(t, s, name, "one", ttl)
	}
	slices.Sort(want)
	storetest.Equal(t, "names must come in the order of their bytes", names(list(t, l, "", len(want))), want)
	var paged []string
	for page := list(t, l, "", 3); len(page) > 0; page = list(t, l, paged[len(paged)-1], 3) {
		if len(page) > 3 {
			t.Fatalf("a page of 3 must not be longer: got %d", len(page))
		}
		paged = append(paged, names(page)...)
	}
	storetest.Equal(t, "pages must have every name once", paged, want)
	storetest.Equal(t, "a page may begin after a name that is not there", names(list(t, l, "ba", 1)), []string{"strasse"})
}

func listLimits(t *testing.T, h Harness) {
	s := h.Open(t)
	l := lister(t, h, s)
	for _, limit := range []int{-1, 0, lock.ListMax + 1} {
		_, err := l.List(t.Context(), "", limit)
		wantErr(t, "a limit out of bounds", err, lock.ErrLimit)
	}
	for _, after := range []string{"a\x00b", "a\xff", strings.Repeat("n", lock.NameBytesMax+1)} {
		_, err := l.List(t.Context(), after, 1)
		wantErr(t, "what cannot be a name", err, lock.ErrLimit)
	}
	if _, err := l.List(cancelled(t), "", 1); err == nil {
		t.Fatal("a cancelled list must fail")
	}
}
