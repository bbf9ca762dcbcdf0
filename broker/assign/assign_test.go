package assign

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
)

// holdings drains what is on offer and returns the live claims by partition.
type holdings map[*Member][]*Claim

func (h holdings) drain(t *testing.T) map[string]*Member {
	t.Helper()
	owners := map[string]*Member{}
	for m, claims := range h {
		claims = slices.DeleteFunc(claims, func(c *Claim) bool { return !c.Live() })
		for c := m.take(); c != nil; c = m.take() {
			claims = append(claims, c)
		}
		h[m] = claims
		for _, c := range claims {
			if other := owners[c.Name]; other != nil {
				t.Fatalf("partition %s has two live claims", c.Name)
			}
			owners[c.Name] = m
		}
	}
	return owners
}

func TestEveryPartitionHasOneOwnerAndSharesAreEqual(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	names := make([]string, 12)
	for i := range names {
		names[i] = fmt.Sprintf("topic/%d", i)
	}
	var table Table
	h := holdings{}
	var members []*Member
	for range 2000 {
		switch action := random.IntN(4); {
		case action == 0 && len(members) < 15:
			m := table.Join("group", names)
			members, h[m] = append(members, m), nil
		case action == 1 && len(members) > 0:
			i := random.IntN(len(members))
			members[i].Close()
			delete(h, members[i])
			members = slices.Delete(members, i, i+1)
		case action == 2 && len(members) > 0:
			if claims := h[members[random.IntN(len(members))]]; len(claims) > 0 {
				claims[random.IntN(len(claims))].Release()
			}
		case action == 3 && random.IntN(10) == 0:
			table.Revoke("group")
		}
		owners := h.drain(t)
		if len(members) == 0 {
			continue
		}
		if len(owners) != len(names) {
			t.Fatalf("%d of %d partitions have an owner among %d members", len(owners), len(names), len(members))
		}
		for _, m := range members {
			share := len(h[m])
			if share < len(names)/len(members) || share > (len(names)+len(members)-1)/len(members) {
				t.Fatalf("a member has %d of %d partitions among %d members", share, len(names), len(members))
			}
		}
	}
}

func TestMembersOfDifferentTopicsGetTheirOwn(t *testing.T) {
	var table Table
	a, b := table.Join("group", []string{"a/0", "both/0"}), table.Join("group", []string{"b/0", "both/0"})
	owners := holdings{a: nil, b: nil}.drain(t)
	if owners["a/0"] != a || owners["b/0"] != b || owners["both/0"] == nil || len(owners) != 3 {
		t.Fatalf("owners %v", owners)
	}
	if c := table.Join("other", []string{"a/0"}).take(); c == nil {
		t.Fatal("another group got nothing")
	}
}

func TestNextWaitsForAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table Table
		first := table.Join("group", []string{"a"})
		if _, err := first.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		second := table.Join("group", []string{"a"})
		got := make(chan error, 1)
		next := func() {
			_, err := second.Next(t.Context())
			got <- err
		}
		go next()
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatalf("a second member got the only partition (%v)", err)
		default:
		}
		first.Close()
		first.Close()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		go next()
		synctest.Wait()
		table.Close()
		if err := <-got; !errors.Is(err, ErrClosed) {
			t.Fatalf("next of a closed table: %v", err)
		}
	})
}

func TestPartitionIsFixedForEver(t *testing.T) {
	for key, want := range map[string]int{"": 5, "order-1": 13, "käse": 13} {
		if got := Partition(key, 16); got != want {
			t.Errorf("Partition(%q, 16) = %d, want %d: keys would move, and lose their order", key, got, want)
		}
	}
}
