package call_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/settledev/settle/call"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

// A call in three beats: prepare in the hop, perform by a worker, record in the next hop.
func Example() {
	store, paid := memory.New(), memory.NewTable[string, bool]()
	recorded := make(chan struct{})
	authorize := call.Define("authorize", call.Spec[int, string]{
		Do: func(_ context.Context, key string, pence int) (string, error) {
			fmt.Println("gateway is asked for", pence, "pence under", key)
			return "AUTHORIZED", nil
		},
		Record: func(_ context.Context, tx *txn.Tx, o call.Outcome[int, string]) error {
			paid.Put(tx, o.Key, o.Err == nil && o.Response == "AUTHORIZED")
			tx.AfterCommit(func() { close(recorded) })
			return nil
		},
	})
	worker, err := call.NewWorker(store, store.Calls(), authorize, call.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- worker.Run(ctx) }()

	err = store.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		return call.Prepare(ctx, tx, authorize, "pay:order-42#authorize", 1250)
	})
	fmt.Println("prepared:", err)
	<-recorded
	stop()
	fmt.Println("stopped:", <-done)
	fmt.Println("paid:", paid.Committed()["pay:order-42#authorize"])
	// Unordered output:
	// prepared: <nil>
	// gateway is asked for 1250 pence under pay:order-42#authorize
	// stopped: <nil>
	// paid: true
}
