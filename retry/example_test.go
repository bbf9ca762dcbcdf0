package retry_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/settledev/settle/retry"
)

// A handler's error is its outcome.
func Example() {
	declined, busy := errors.New("card is declined"), errors.New("rate limit")
	for _, err := range []error{
		errors.New("connection refused"),
		retry.Permanent(declined),
		retry.After(30*time.Second, busy),
	} {
		if wait, ok := retry.IsAfter(err); ok {
			fmt.Println("again in", wait, "whatever the policy says:", err)
		} else if retry.IsPermanent(err) {
			fmt.Println("never again:", err)
		} else {
			fmt.Println("again, by the policy:", err)
		}
	}
	// Output:
	// again, by the policy: connection refused
	// never again: card is declined
	// again in 30s whatever the policy says: rate limit (again in 30s)
}

func ExamplePolicy_Wait() {
	p, err := retry.Policy{NoJitter: true}.WithDefaults()
	if err != nil {
		fmt.Println(err)
	}
	for attempt := range 8 {
		fmt.Print(p.Wait(attempt+1), " ")
	}
	// Output: 1s 2s 4s 8s 16s 32s 1m0s 1m0s
}
