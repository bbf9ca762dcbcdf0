package contract_test

import (
	"testing"

	"github.com/settledev/settle/shop/contract"
)

func TestStocked(t *testing.T) {
	for code, want := range map[string]bool{
		"22423": true, "85123A": true, "123456789": true, "15056BL": true,
		"": false, "POST": false, "M": false, "1234": false, "1234A": false, "A12345": false, "C2": false,
		"DCGS0003": false, "gift_0001_20": false, " 22423": false, "٢٢٤٢٣": false,
	} {
		if got := contract.Stocked(code); got != want {
			t.Errorf("Stocked(%q) = %t", code, got)
		}
	}
}
