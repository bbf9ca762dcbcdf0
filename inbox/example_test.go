package inbox_test

import (
	"context"
	"fmt"
	"time"

	"github.com/settledev/settle/event"
	"github.com/settledev/settle/inbox"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

// The memory that an event was handled commits with its effect, so a delivery again has none.
func Example() {
	store, balance := memory.New(), memory.NewTable[string, int]()
	deposit := func(id event.ID) error {
		return store.Run(context.Background(), func(ctx context.Context, tx *txn.Tx) error {
			fresh, err := inbox.Remember(ctx, tx, "account", id)
			if err != nil || !fresh[0] {
				return err
			}
			old, _ := balance.Get(tx, "ann")
			balance.Put(tx, "ann", old+100)
			return nil
		})
	}
	id := event.NewID(time.Now())
	fmt.Println(deposit(id), deposit(id), deposit(id))
	fmt.Println("balance:", balance.Committed()["ann"])
	// Output:
	// <nil> <nil> <nil>
	// balance: 100
}
