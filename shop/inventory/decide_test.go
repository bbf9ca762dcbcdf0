package inventory

import (
	"slices"
	"testing"

	"github.com/settledev/settle/shop/contract"
)

// TestDecide is the whole table: every state, told everything.
func TestDecide(t *testing.T) {
	type next struct {
		state  State
		effect Effect
	}
	var (
		nothing  = Effect{}
		reserved = Effect{Take: true, Reserved: true}
		failed   = Effect{Failed: true}
		released = Effect{Released: true}
		givesOut = Effect{GiveBack: true, Released: true}
		sold     = Effect{Committed: true}
	)
	// Columns: InputReserve, InputShort, InputRelease, InputShipped.
	table := map[State][4]next{
		StateNone:      {{StateReserved, reserved}, {StateFailed, failed}, {StateReleased, released}, {StateNone, nothing}},
		StateReserved:  {{StateReserved, nothing}, {StateReserved, nothing}, {StateReleased, givesOut}, {StateCommitted, sold}},
		StateFailed:    {{StateFailed, nothing}, {StateFailed, nothing}, {StateFailed, released}, {StateFailed, nothing}},
		StateReleased:  {{StateReleased, nothing}, {StateReleased, nothing}, {StateReleased, released}, {StateReleased, nothing}},
		StateCommitted: {{StateCommitted, nothing}, {StateCommitted, nothing}, {StateCommitted, nothing}, {StateCommitted, nothing}},
	}
	for state, row := range table {
		for in, want := range row {
			if s, e := Decide(state, Input(in)); s != want.state || e != want.effect {
				t.Errorf("%q told %d: %q %+v, want %q %+v", state, in, s, e, want.state, want.effect)
			}
		}
	}
}

func TestSum(t *testing.T) {
	line := func(id string, n int64) contract.Line { return contract.Line{ProductID: id, Quantity: n} }
	for name, c := range map[string]struct {
		lines []contract.Line
		want  []units
		json  string
	}{
		"nothing":      {nil, nil, "[]"},
		"services":     {[]contract.Line{line("POST", 1), line("M", 2), line("1234", 3), line("", 4)}, nil, "[]"},
		"sorted":       {[]contract.Line{line("85123A", 6), line("22423", 2)}, []units{{"22423", 2}, {"85123A", 6}}, `[["22423",2],["85123A",6]]`},
		"summed":       {[]contract.Line{line("22423", 1), line("POST", 1), line("85123A", 6), line("22423", 2)}, []units{{"22423", 3}, {"85123A", 6}}, `[["22423",3],["85123A",6]]`},
		"case matters": {[]contract.Line{line("85123a", 1), line("85123A", 2)}, []units{{"85123A", 2}, {"85123a", 1}}, `[["85123A",2],["85123a",1]]`},
		"quoted":       {[]contract.Line{line("12345\"", 1)}, []units{{`12345"`, 1}}, `[["12345\"",1]]`},
	} {
		got := sum(c.lines)
		text, err := encode(got)
		if err != nil || !slices.Equal(got, c.want) || text != c.json {
			t.Errorf("%s: %v %s %v, want %v %s", name, got, text, err, c.want, c.json)
		}
	}
}
