package event_test

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settledev/settle/event"
)

func TestNewIDIncreases(t *testing.T) {
	now := time.Now()
	for name, clock := range map[string]func(n int) time.Time{
		"running":       func(n int) time.Time { return now.Add(time.Duration(n) * time.Millisecond) },
		"standing":      func(int) time.Time { return now },
		"going back":    func(n int) time.Time { return now.Add(-time.Duration(n) * time.Second) },
		"jumping about": func(n int) time.Time { return now.Add(time.Duration(n%7-3) * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			last := event.NewID(clock(0))
			for n := range 10_000 { // More than the counter within a millisecond holds.
				id := event.NewID(clock(n))
				if id.Compare(last) <= 0 {
					t.Fatalf("identity %d is %s, not above %s", n, id, last)
				}
				last = id
			}
		})
	}
}

func TestNewIDConcurrently(t *testing.T) {
	const goroutines, each = 8, 2000
	all := make([][]event.ID, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range each {
				all[g] = append(all[g], event.NewID(time.Now()))
			}
		})
	}
	wg.Wait()
	seen := map[event.ID]bool{}
	for _, ids := range all {
		if !slices.IsSortedFunc(ids, event.ID.Compare) {
			t.Error("identities of one goroutine must increase")
		}
		for _, id := range ids {
			if seen[id] {
				t.Fatalf("identity %s was given twice", id)
			}
			seen[id] = true
		}
	}
}

func TestIDFormat(t *testing.T) {
	id := event.NewID(time.Now().Add(48 * time.Hour)) // Ahead of the clock of the other tests: its time is its own.
	s := id.String()
	if len(s) != 36 || s[14] != '7' || !strings.ContainsRune("89ab", rune(s[19])) {
		t.Errorf("%s is no UUID of version 7", s)
	}
	derived := event.DerivedID(event.ID{}, "name").String()
	if derived[14] != '5' || !strings.ContainsRune("89ab", rune(derived[19])) {
		t.Errorf("%s is no UUID of version 5", derived)
	}
	if id.IsZero() || !(event.ID{}).IsZero() {
		t.Error("only the zero identity is zero")
	}
}

// TestDerivedIDKnown compares with the UUIDv5 of RFC 9562, appendix A.4.
func TestDerivedIDKnown(t *testing.T) {
	dns := mustID(t, "6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	if got, want := event.DerivedID(dns, "www.example.com").String(), "2ed6657d-e927-568b-95e1-2665a8aea6a2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestIDText(t *testing.T) {
	type holder struct {
		ID event.ID `json:"id"`
	}
	want := holder{event.NewID(time.Now())}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got holder
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%s became %v: %v", b, got, err)
	}
	if upper, err := event.ParseID(strings.ToUpper(want.ID.String())); err != nil || upper != want.ID {
		t.Errorf("upper case must be read: %v, %v", upper, err)
	}
	for _, s := range []string{"", "x", strings.Repeat("-", 36), "019aa5f01c2d7abc8def0123456789ab", want.ID.String() + "0", "{" + want.ID.String() + "}", strings.Replace(want.ID.String(), "-", "_", 1), "g19aa5f0-1c2d-7abc-8def-0123456789ab"} {
		if id, err := event.ParseID(s); err == nil || !id.IsZero() {
			t.Errorf("%q must be refused: %v, %v", s, id, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("019aa5f0-1c2d-7abc-8def-0123456789ab")
	f.Add("019AA5F0-1C2D-7ABC-8DEF-0123456789AB")
	f.Add("")
	f.Add(strings.Repeat("-", 36))
	f.Fuzz(func(t *testing.T, s string) {
		id, err := event.ParseID(s)
		if err != nil {
			if !id.IsZero() {
				t.Fatalf("%q was refused and read as %s", s, id)
			}
			return
		}
		if got := id.String(); got != strings.ToLower(s) {
			t.Fatalf("%q was read as %s", s, got)
		}
	})
}
