package contract_test

import (
	"testing"

	"github.com/settledev/settle/shop/contract"
)

func TestIsName(t *testing.T) {
	for s, want := range map[string]bool{"": true, "85123A ": true, "é\n": true, "a\x00": false, "a\xff": false} {
		if contract.IsName(s) != want {
			t.Errorf("%q", s)
		}
	}
}
