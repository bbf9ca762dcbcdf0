package faults_test

import (
	"fmt"

	"github.com/settledev/settle/shop/faults"
)

// The same references are hit in every run with the same seed.
func ExampleHit() {
	for i := range 60 {
		if ref := fmt.Sprintf("order-%d", i); faults.Hit(7, 10, "decline", ref) {
			fmt.Println(ref)
		}
	}
	// Output:
	// order-18
	// order-24
	// order-40
	// order-45
}
